"""`nlbench table`: the records of a suite as Markdown, LaTeX or CSV.

Reads the plan and the records only. Needs no torch and no data.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nlbench import registry
from nlbench.errors import SuiteError, did_you_mean, look_up
from nlbench.results import csv_table, formats, notes, statistics, with_published
from nlbench.results.cells import Results
from nlbench.results.metrics import DETAILS, METRICS, Metric
from nlbench.results.view import (
    DEFAULT_COLUMNS,
    LEFT_OUT_FIRST,
    MINUS,
    NETS,
    PASSES,
    View,
    check_rows,
)

if TYPE_CHECKING:
    from nlbench.results.store import Store

Lines = list[list[str]]


def render(
    plan: Mapping[str, Any],
    store: Store,
    *,
    methods: Mapping[str, registry.MethodFile] | None = None,
    **options: Any,
) -> str:
    """Return the table of a plan.

    With one condition the table has a column for each metric; with several it has a column for each
    condition, and a second table the paired differences.

    Args:
        methods: the files that records are compared with, to mark stale ones; by default those that
            are shipped and installed.
        options: the fields of View.

    Raises: SuiteError for an unknown metric, column or row, and for options that exclude each
        other.
    """
    view = View(**options)
    if methods is None:
        methods = registry.method_files()

    results = Results(plan, store, methods)
    reference = choose_reference(results, view.against)
    results, left_out = _selected(results, reference, view)
    # A program can choose for itself, so the CSV file has all conditions and metrics.
    if view.fmt == "csv":
        return csv_table.render(results, reference, view.published, view.metric)

    blocks = []
    one_condition = view.metric is None and len(results.conditions) == 1
    if view.published:
        for condition, name in enumerate(results.conditions):
            headings, lines, below = with_published.render(
                results, condition, view.metric, view.details
            )
            subject = f"{name}; test accuracy beside published numbers"
            blocks.append(_Block(subject, headings, lines, below))

    # With one condition there is room for a column of each metric.
    elif view.details or view.columns or one_condition:
        for condition, name in enumerate(results.conditions):
            blocks.append(_of_one_condition(results, condition, name, reference, view))
    else:
        blocks += _of_all_conditions(results, reference, view)

    # One note about the rows is enough for the tables of a suite.
    blocks[-1].notes.extend(left_out)
    return "\n".join(_written(block, results, view) for block in blocks)


def render_suites(
    store: Store,
    suite: str | None,
    *,
    methods: Mapping[str, registry.MethodFile],
    **options: Any,
) -> str:
    """Return the tables of one suite of a store, or of all of them where `suite` is None.

    Args:
        options: the fields of View.
    Raises: StoreError for a store without results, SuiteError for an unknown suite.
    """
    view = View(**options)
    if suite is not None:
        # By its name first: a plan that is damaged must not be called unknown.
        plans = {suite: store.plan(suite) or look_up("suite of this store", suite, store.plans())}
    else:
        plans = store.plans()
        # The tries of a tuned suite are printed only when their name is given, or when nothing else
        # is there.
        plans = {name: plan for name, plan in plans.items() if not plan["tries"]} or plans
    plans = _with_rows(plans, view.only)

    blocks: list[str] = []
    for plan in plans.values():
        names = [row["row"] for row in plan["rows"]]
        only = [row for row in view.only if row in names]
        block = render(plan, store, methods=methods, **{**options, "only": only})
        if view.fmt == "csv" and blocks:
            # All tables share the header of the first one.
            block = block.partition("\n")[2]
        blocks.append(block)
        # A store may have more records than the memory has room for.
        store.forget_read()

    # The tables of several suites are one CSV, in which an empty line would be a line too many.
    separator = "" if view.fmt == "csv" else "\n"
    return separator.join(blocks)


def _with_rows(plans: dict[str, dict[str, Any]], only: Collection[str]) -> dict[str, Any]:
    """Return the plans that have one of these rows. Raises SuiteError for a row of no plan."""
    if not only:
        return plans
    rows = {name: [row["row"] for row in plan["rows"]] for name, plan in plans.items()}
    check_rows(only, notes.once(itertools.chain(*rows.values())))
    return {name: plan for name, plan in plans.items() if set(only) & set(rows[name])}


def _selected(results: Results, reference: str | None, view: View) -> tuple[Results, list[str]]:
    """Return the results of the rows to show, and a note about the others.

    The reference row is shown wherever differences to it are.
    """
    if not view.only:
        return results, []
    rows = [row.name for row in results.rows]
    check_rows(view.only, rows)
    differences = view.metric is None and not view.published and view.fmt != "csv"
    shown = set(view.only)
    if reference is not None and differences:
        shown.add(reference)

    count = len(rows) - len(shown)
    if not count:
        return results, []
    note = f"{count} of {len(rows)} rows are not shown."
    if differences:
        note = f"{count} of {len(rows)} rows are not shown; p-values are corrected for all of them."
    return results.select(shown), [note]


def choose_reference(results: Results, against: str | None) -> str | None:
    """Return the row that differences are taken to: `against`, else `ce`, else None.

    Raises: SuiteError for a row that the suite does not have.
    """
    names = [row.name for row in results.rows]
    if against is None:
        return "ce" if "ce" in names else None
    if against not in names:
        raise SuiteError(
            f"--against {against}: no such row. There are: {', '.join(names)}."
            f"{did_you_mean(against, names)}"
        )
    return against


# ---- Writing -------------------------------------------------------------------------------------


@dataclass
class _Block:
    """One table with the subject of its title, and the notes below it.

    Attributes:
        split: whether columns that do not fit the terminal go into further tables.
        unit: that of the numbers, as `Metric.unit`.
    """

    subject: str
    headings: list[str]
    lines: Lines
    notes: list[str]
    split: bool = False
    unit: str = "%"


def _written(block: _Block, results: Results, view: View) -> str:
    title = _title(results, block.subject, block.unit)
    if view.fmt == "latex":
        label = f"{results.suite} {block.subject}"
        return formats.latex(title, block.headings, block.lines, block.notes, label=label)
    if view.fmt == "html":
        return formats.html(title, block.headings, block.lines, block.notes)
    return formats.markdown(
        title, block.headings, block.lines, block.notes, width=view.width, split=block.split
    )


def _title(results: Results, subject: str, unit: str) -> str:
    seeds = f"{results.seeds} seeds"
    if results.seeds == 1:
        seeds = "1 seed"
    return (
        f"{results.suite}: {subject} in {unit}, mean±sample std over {seeds}; "
        f"protocol {results.protocol}, track {results.track}"
    )


# ---- Several conditions: a column for each ------------------------------------------------------


def _of_all_conditions(results: Results, reference: str | None, view: View) -> list[_Block]:
    shown = METRICS[view.metric or "last"]
    headings, lines = _by_condition(results, shown)
    if view.fmt == "md" and view.width is not None:
        *_, last = formats.parts_that_fit(headings, lines, view.width)
        # The numbers of networks alone are not worth a table.
        if len(last) == 2 and len(headings) > 2:
            headings, lines = headings[:-1], [line[:-1] for line in lines]
    below = _notes(results, shown)
    blocks = [_Block(shown.meaning, headings, lines, below, split=True, unit=shown.unit)]

    # Differences are taken of the headline, the last epoch, and of no other metric.
    if view.metric is None and reference is not None and len(results.rows) > 1:
        headings, lines = _differences_by_condition(results, reference)
        below = ["p: paired t test over seeds, Holm-corrected within each column."]
        subject = f"last epoch, minus {reference}, paired over seeds"
        blocks.append(_Block(subject, headings, lines, below, split=True))
    return blocks


def _by_condition(results: Results, metric: Metric) -> tuple[list[str], Lines]:
    lines = []
    for row in results.rows:
        line = [row.label]
        for condition in range(len(results.conditions)):
            line.append(results.cell(row.name, condition, metric.name).text())
        lines.append([*line, str(row.networks)])
    return ["method", *results.conditions, "nets"], lines


def _differences_by_condition(results: Results, reference: str) -> tuple[list[str], Lines]:
    columns = []
    for condition in range(len(results.conditions)):
        columns.append(results.differences(reference, condition))

    lines = []
    for row in results.rows:
        if row.name == reference:
            continue
        line = [row.label]
        for differences in columns:
            found = differences.get(row.name)
            line.append("-" if found is None else found.text())
        lines.append(line)
    return ["method", *results.conditions], lines


def _notes(results: Results, shown: Metric) -> list[str]:
    found = notes.never_measured(results, shown)
    for condition in range(len(results.conditions)):
        found += notes.of_condition(results, condition)
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])


# ---- One condition: a column for each metric ----------------------------------------------------


def _of_one_condition(
    results: Results, condition: int, name: str, reference: str | None, view: View
) -> _Block:
    every = _all_columns(results, condition, reference)
    if view.columns:
        if MINUS in view.columns and reference is None:
            rows = ", ".join(row.name for row in results.rows)
            raise SuiteError(
                "--columns minus: the suite has no row `ce` to take differences to; "
                f"choose one with --against: {rows}"
            )
        shown = list(view.columns)
    elif view.details:
        shown = every
    else:
        shown = [column for column in DEFAULT_COLUMNS if column in every] or ["last"]

    cells = {}
    for column in shown:
        cells[column] = _column(results, condition, column, reference)
    names = ["method", *(row.label for row in results.rows)]
    if not view.columns and not view.details:
        _fit(names, cells, max(formats.WIDTH, view.width or 0))

    below = _notes_of_columns(results, condition, reference, list(cells))
    missing = [_heading(column, reference) for column in every if column not in cells]
    if missing and not view.columns:
        below.append(f"`nlbench table --details` also shows: {', '.join(missing)}.")
    headings, *lines = (list(line) for line in zip(names, *cells.values(), strict=True))
    return _Block(f"{name}; test accuracy", headings, lines, below)


def _all_columns(results: Results, condition: int, reference: str | None) -> list[str]:
    """Return the names of all columns that the table of one condition can have, in their order."""
    columns = [metric.name for metric in _metrics_with_values(results, condition)]
    if reference is not None:
        columns.append(MINUS)
    return [*columns, NETS, PASSES]


def _metrics_with_values(results: Results, condition: int) -> list[Metric]:
    # Top-5 accuracy is for the datasets of image files, whose protocols crop.
    crops = any(
        record.spec.get("protocol", {}).get("crop") for record in results.records_under(condition)
    )
    found = []
    for metric in DETAILS:
        if results.has(metric.name) and (crops or metric.name != "top5"):
            found.append(metric)
    # Before the first run is done no metric has a value. Then the headline has the only column.
    return found or [METRICS["last"]]


def _fit(names: list[str], cells: dict[str, list[str]], width: int) -> None:
    """Remove the less important columns while the table is wider than a terminal."""
    for column in LEFT_OUT_FIRST:
        lines = zip(names, *cells.values(), strict=True)
        headings, *rest = (list(line) for line in lines)
        if formats.table_width(headings, rest) <= width:
            return
        cells.pop(column, None)


def _heading(column: str, reference: str | None) -> str:
    if column == MINUS:
        return f"last, minus {reference}"
    return METRICS[column].heading if column in METRICS else column


def _column(results: Results, condition: int, column: str, reference: str | None) -> list[str]:
    """Return one column of the table of one condition, with its heading."""
    differences = {}
    if column == MINUS and reference is not None:
        differences = results.differences(reference, condition)

    cells = [_heading(column, reference)]
    for row in results.rows:
        if column == MINUS:
            found = differences.get(row.name)
            cells.append("" if found is None else found.text())
        elif column == NETS:
            cells.append(str(row.networks))
        elif column == PASSES:
            cells.append(_passes(results, row.name, condition))
        else:
            cells.append(results.cell(row.name, condition, column).text())
    return cells


def _passes(results: Results, row: str, condition: int) -> str:
    # Only a run that was trained to its end has counted them.
    passes = []
    for record in results.records_of(row, condition):
        if record.status == "done" and "forward_passes" in record.method:
            passes.append(record.method["forward_passes"])

    mean = statistics.mean(passes)
    if mean is None:
        return "-"
    return f"{mean:.3g}"


def _notes_of_columns(
    results: Results, condition: int, reference: str | None, columns: Collection[str]
) -> list[str]:
    found = notes.of_condition(results, condition)
    found += notes.of_columns(columns)
    if MINUS in columns:
        found.append(
            f"last, minus {reference}: difference to {reference} seed by seed (mean±std), with "
            "the Holm-corrected p-value of a paired t test."
        )
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])
