"""The table as CSV, for programs: one line for each row, condition and metric."""

from __future__ import annotations

import csv
import io

from nlbench.results.cells import Results, SuiteRow
from nlbench.results.formats import csv_name
from nlbench.results.metrics import MEASURES, Reported
from nlbench.results.order import ordered
from nlbench.results.view import View
from nlbench.results.with_published import nearest_published

_COLUMNS = (
    "suite",
    "condition",
    "row",
    "method",
    "told",
    "metric",
    "mean",
    "std",
    "n",
    "planned",
    "failed",
    "networks",
    "reference",
    "difference",
    "difference_std",
    "p_unadjusted",
    "marks",
    "difference_marks",
    "damaged",
)
_PUBLISHED_COLUMNS = (
    "published",
    "published_std",
    "published_n",
    "published_from",
    "minus_published",
    "se",
    "df",
    "p_welch",
    "why_not_or_marks",
    "also_published",
)
# The metric of lines for published numbers whose source does not say which epoch they are of.
_UNSTATED = "unstated"


def render(
    results: Results,
    reference: str | None,
    view: View,
) -> str:
    """Return the CSV text. Numbers are fractions in [0, 1], unrounded; p-values are not corrected.

    Args:
        reference: the row that differences are taken to.
        view: its metric or columns choose the lines. With `published` each line has the nearest
            published number, and there are lines of the metric `unstated` for numbers whose source
            names no rule.
    """
    published = view.published
    columns: tuple[str, ...] = _COLUMNS
    if published:
        columns += _PUBLISHED_COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)

    # Lines of a metric that no run has would be empty.
    metrics = [name for name in view.chosen_metrics() if results.has(name)]
    for condition in range(len(results.conditions)):
        shown, _ = ordered(results, condition, reference, view)
        for name in metrics:
            for row in shown.rows:
                line = _first_columns(results, row, condition, name)
                line += _measured(results, row, condition, name, reference)
                if published:
                    line += _published(results, row, condition, MEASURES.get(name))
                writer.writerow(line)

        # Numbers whose source names no rule belong beside no measured metric, so they have lines of
        # their own.
        if not published or view.metric is not None or view.columns:
            continue
        for row in shown.rows:
            numbers = _published(results, row, condition, Reported("top1", ""))
            if any(numbers):
                line = _first_columns(results, row, condition, _UNSTATED)
                line += [""] * (len(_COLUMNS) - len(line))
                writer.writerow(line + numbers)
    return text.getvalue()


def _first_columns(results: Results, row: SuiteRow, condition: int, metric: str) -> list[object]:
    told = " ".join(row.told)
    names = [results.suite, results.conditions[condition], row.name, row.method, told]
    return [*map(csv_name, names), metric]


def _measured(
    results: Results, row: SuiteRow, condition: int, metric: str, reference: str | None
) -> list[object]:
    cell = results.cell(row.name, condition, metric)
    # Nothing is rounded, and p is not corrected: a program can choose its own comparisons.
    values = [cell.mean, cell.std, len(cell.values), cell.planned, cell.failed, row.networks]

    delta = None
    if reference is not None and row.name != reference:
        delta = results.difference(row.name, reference, condition, metric)
    if delta is None:
        return [*values, "", "", "", "", cell.marks, "", cell.damaged]
    differences = [csv_name(reference or ""), delta.mean, delta.std, delta.p]
    return [*values, *differences, cell.marks, delta.marks, cell.damaged]


def _published(
    results: Results, row: SuiteRow, condition: int, reported: Reported | None
) -> list[object]:
    """Return the columns of the nearest published number, empty where there is none."""
    if reported is None:
        return [""] * len(_PUBLISHED_COLUMNS)
    cell = nearest_published(results, row, condition, reported)
    if not cell.nearest:
        return [""] * len(_PUBLISHED_COLUMNS)

    # A line has room for one number. The others are named in the last column.
    first = cell.nearest[0]
    record, test = first.record, first.test
    tested: list[object] = ["", "", "", ""]
    remark = "; ".join(first.reasons)
    if test is not None:
        se = None if test.se is None else test.se / 100
        tested = [test.difference / 100, se, test.df, test.p]
        remark = cell.marks

    # Rounded to what the source prints: dividing by 100 adds digits.
    mean = round(record.mean / 100, 9)
    std = None if record.std is None else round(record.std / 100, 9)
    others = [f"{other.record.text()} {other.record.table}" for other in cell.nearest[1:]]
    source = f"{record.table}: {record.source}"
    return [mean, std, record.seeds, source, *tested, remark, "; ".join(others)]
