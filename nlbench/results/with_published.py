"""Measured cells with the published numbers that come nearest to them."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from nlbench.results import notes, statistics
from nlbench.results.cells import Cell, Results, SuiteRow
from nlbench.results.formats import p_value
from nlbench.results.metrics import MEASURES, METRICS, Reported
from nlbench.results.published import comparable, records
from nlbench.results.published.comparable import MeasuredSetting
from nlbench.results.published.records import Published
from nlbench.results.statistics import Sample, Welch

COPY = "†"

# What sources report although no measured column follows the same rule.
_NOT_MEASURED = (
    Reported("top1", ""),
    Reported("top5", ""),
    Reported("top5", "best"),
    Reported("top1", "", "ilsvrc12"),
    Reported("top5", "", "ilsvrc12"),
    Reported("top1", "best", "ilsvrc12"),
    Reported("top5", "best", "ilsvrc12"),
)
# The name of those in place of a metric's.
_OTHER = ""


@dataclass(frozen=True)
class Compared:
    """One published number beside a measured cell.

    Attributes:
        test: measured minus published, in percentage points; None where no difference is taken.
        reasons: why none is taken; empty also where nothing was measured.
    """

    record: Published
    test: Welch | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedCell:
    """The published numbers beside one measured cell.

    Attributes:
        nearest: those with the most similar setting.
        further: how many more there are of this method and metric.
        marks: those of the measured cell, "!" where its mean leaves out runs that failed, and COPY.
    """

    nearest: tuple[Compared, ...] = ()
    further: int = 0
    marks: str = ""


# ---- One cell -----------------------------------------------------------------------------------


def nearest_published(
    results: Results, row: SuiteRow, condition: int, reported: Reported
) -> PublishedCell:
    """Return the published numbers of what is `reported`, compared with the measured cell."""
    setting = _setting(results, row, condition)
    if setting is None:
        return PublishedCell()
    known = setting.records(reported.test_set)
    rule = (reported.measure, reported.selection)
    same_rule = [record for record in known if (record.metric, record.selection) == rule]
    if not same_rule:
        return PublishedCell()

    cell = Cell(planned=0)
    for name, measure in MEASURES.items():
        if measure == reported:
            cell = results.cell(row.name, condition, name)

    nearest = comparable.nearest(same_rule, setting)
    compared = tuple(_compared(cell, record, setting) for record in nearest)
    marks = cell.marks
    own = results.records_of(row.name, condition)
    if any(record.noise.get("variant") for record in own):
        marks += COPY
    if cell.failed:
        marks += "!"
    return PublishedCell(compared, len(same_rule) - len(nearest), marks)


def _compared(cell: Cell, record: Published, setting: MeasuredSetting) -> Compared:
    if cell.mean is None:
        return Compared(record)
    known, unknown = setting.differences(record)
    if known or unknown:
        return Compared(record, reasons=(*known, *unknown))

    std = None if cell.std is None else 100 * cell.std
    measured = Sample(100 * cell.mean, std, len(cell.values))
    published = Sample(record.mean, record.sample_std, record.seeds)
    return Compared(record, statistics.welch(measured, published))


def _setting(results: Results, row: SuiteRow, condition: int) -> MeasuredSetting | None:
    """Describe how a cell was trained, from its records.

    For a cell without records, take those of another row under the same condition.
    """
    own = results.records_of(row.name, condition)
    found = own or results.records_under(condition)
    if not found:
        return None
    # A run that failed has no facts.
    facts = next((record.noise for record in found if record.noise), found[0].noise)
    setting = MeasuredSetting.of(found[0].spec, facts)
    return setting if own else replace(setting, method=row.method, params={})


def _not_measured(results: Results, row: SuiteRow, condition: int) -> PublishedCell:
    cells = [nearest_published(results, row, condition, other) for other in _NOT_MEASURED]
    compared = tuple(Compared(found.record) for cell in cells for found in cell.nearest)
    return PublishedCell(compared, sum(cell.further for cell in cells))


# ---- One table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """The published numbers of one condition.

    Attributes:
        cells: by metric, and by _OTHER: a cell for each row of the suite.
        shown: the metrics whose columns are shown.
        numbers: the number of each source in brackets.
        letters: the letters of the reasons why no difference is taken.
    """

    cells: dict[str, list[PublishedCell]]
    shown: list[str]
    numbers: dict[tuple[str, str], int]
    letters: notes.Keys

    def has_numbers(self, metric: str) -> bool:
        return any(cell.nearest for cell in self.cells.get(metric, ()))

    def source(self, record: Published) -> str:
        return f"[{self.numbers[record.table, record.source]}]"


def render(
    results: Results, condition: int, metric: str | None, details: bool
) -> tuple[list[str], list[list[str]], list[str]]:
    """Return headings, lines and notes of the table of one condition.

    Each measured column is followed by the numbers that were published for the same rule. Numbers
    of another rule are in a column of their own.
    """
    cells = {}
    for name, reported in MEASURES.items():
        cells[name] = [nearest_published(results, row, condition, reported) for row in results.rows]
    cells[_OTHER] = [_not_measured(results, row, condition) for row in results.rows]

    shown = _shown(results, cells, metric, details)
    listed = _listed(cells, shown)
    columns = _Columns(cells, shown, records.numbered(listed), notes.Keys(string.ascii_lowercase))

    headings = ["method"]
    content = [[row.label for row in results.rows]]
    for name in shown:
        headings.append(METRICS[name].heading)
        content.append([results.cell(row.name, condition, name).text() for row in results.rows])
        if columns.has_numbers(name):
            headings += ["published", "minus published"]
            content.append([_published(cell, columns) for cell in cells[name]])
            content.append([_minus(cell, columns) for cell in cells[name]])
    if columns.has_numbers(_OTHER):
        headings.append("published, by another or no stated rule")
        content.append([_published(cell, columns, _qualified) for cell in cells[_OTHER]])
    headings.append("nets")
    content.append([str(row.networks) for row in results.rows])

    below = [*notes.of_condition(results, condition), *_notes(columns, listed)]
    if "best" in shown:
        below.append(notes.BEST)
    below += [*results.plan_notes, *notes.of_marks(results)]
    return headings, [list(line) for line in zip(*content, strict=True)], notes.once(below)


def _shown(
    results: Results, cells: dict[str, list[PublishedCell]], metric: str | None, details: bool
) -> list[str]:
    if metric is not None:
        return [metric]
    shown = []
    for name in MEASURES:
        wanted = details or any(cell.nearest for cell in cells[name])
        if name == "last" or (wanted and results.has(name)):
            shown.append(name)
    return shown


def _listed(cells: dict[str, list[PublishedCell]], shown: Sequence[str]) -> list[Published]:
    """Return the records that the table shows, row by row."""
    listed = []
    for of_one_row in zip(*cells.values(), strict=True):
        for name, cell in zip(cells, of_one_row, strict=True):
            if name in shown or name == _OTHER:
                listed += [found.record for found in cell.nearest]
    return listed


# ---- Cells as text ------------------------------------------------------------------------------


def _published(
    cell: PublishedCell, columns: _Columns, text: Callable[[Published], str] = Published.text
) -> str:
    numbers = [f"{text(found.record)} {columns.source(found.record)}" for found in cell.nearest]
    return "; ".join(numbers) or "-"


def _qualified(record: Published) -> str:
    """Return a number of the last column, with measure and test set if they are unusual."""
    text = record.text()
    if record.metric == "top5":
        text += " top-5"
    if record.dataset == "ilsvrc12":
        text += " on ILSVRC12"
    return text


def _minus(cell: PublishedCell, columns: _Columns) -> str:
    parts = [_difference(found, cell.marks, columns.letters) for found in cell.nearest]
    if len(set(parts)) < 2:
        return "".join(parts[:1])
    with_sources = []
    for part, found in zip(parts, cell.nearest, strict=True):
        with_sources.append(f"{part} {columns.source(found.record)}")
    return "; ".join(with_sources)


def _difference(found: Compared, marks: str, letters: notes.Keys) -> str:
    if found.test is None:
        return ",".join(sorted(map(letters.of, found.reasons)))
    test = "not testable" if found.test.p is None else f"p {p_value(found.test.p)}"
    return f"{found.test.difference:+.2f}{marks} ({test})"


# ---- Notes --------------------------------------------------------------------------------------


def _notes(columns: _Columns, listed: Sequence[Published]) -> list[str]:
    if not listed:
        return ["No published numbers are known for these methods on this data."]
    found = [f"[{i}] {line}" for i, line in enumerate(records.sources(listed), 1)]
    found.append(
        "published: the number as its source prints it, for the same choice of the epoch as the "
        "column before it; of several numbers, those with the most similar setting. "
        "Hyperparameters of the method may differ."
    )

    cells = [cell for of_metric in columns.cells.values() for cell in of_metric]
    tested = [cell for cell in cells if any(found.test is not None for found in cell.nearest)]
    if tested:
        found.append(
            "minus published: measured minus published in percentage points, with the p-value of "
            "Welch's t test (two-sided, not corrected). not testable: a std or the number of runs "
            "is not known, or there is one run."
        )
    if columns.letters.texts:
        reasons = [f"({columns.letters.of(text)}) {text}" for text in columns.letters.texts]
        found.append(f"A letter gives a reason why there is no difference: {'; '.join(reasons)}.")
    if any(COPY in cell.marks for cell in tested):
        found.append(f"{COPY} measured on a copy of the images, not on the official pixels.")
    if any(record.table == records.CIFARN for record in _all(cells)):
        found += records.CIFARN_WARNINGS
    further = sum(cell.further for cell in cells) + len(_all(cells)) - len(listed)
    if further:
        found.append(
            f"Published numbers that are not shown, because their setting is less similar: "
            f"{further}; `nlbench published` lists them."
        )
    return found


def _all(cells: Iterable[PublishedCell]) -> list[Published]:
    return [found.record for cell in cells for found in cell.nearest]
