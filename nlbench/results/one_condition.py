"""The table of one condition: a column for each metric."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nlbench.errors import SuiteError
from nlbench.results import formats, notes, statistics, ties, wording
from nlbench.results.analysis import analyse
from nlbench.results.block import Block
from nlbench.results.cells import Results
from nlbench.results.metrics import DETAILS, METRICS, Metric
from nlbench.results.view import (
    DEFAULT_COLUMNS,
    LEFT_OUT_FIRST,
    MINUS,
    NETS,
    PASSES,
    RANK,
    TIES,
    View,
)


def block(results: Results, condition: int, name: str, reference: str | None, view: View) -> Block:
    """Return the table of one condition, as wide as a terminal where nobody chose its columns.

    Args:
        name: the condition's title.
    """
    require_reference(results, reference, view.columns)
    analysis = analyse(results, condition, against=reference)
    letters = ties.columns(results, analysis)
    every = _all_columns(results, condition, reference, letters)
    if view.columns:
        shown = list(view.columns)
    elif view.details:
        shown = every
    else:
        shown = [column for column in DEFAULT_COLUMNS if column in every] or ["last"]

    # Beside another metric alone, letters and ranks would look like those of that metric.
    metrics = [column for column in shown if column in METRICS]
    of_headline = not metrics or "last" in metrics
    cells = {}
    for column in shown:
        if column in (TIES, RANK):
            heading = column if of_headline else f"{column}, last epoch"
            cells[column] = [heading, *letters.get(column, ["-"] * len(results.rows))]
        else:
            cells[column] = column_of(results, condition, column, reference)
    names = ["method", *(row.label for row in results.rows)]
    # A page is as wide as its reader makes it.
    if not view.columns and not view.details and view.fmt != "html":
        _fit(names, cells, max(formats.WIDTH, view.width or 0))

    below = ties.notes(analysis, with_letters=not {TIES, RANK}.isdisjoint(cells))
    if below and not of_headline:
        below.insert(0, "ties, rank and the words are of the last epoch's test accuracy.")
    disagreement = []
    if {MINUS, TIES} <= set(cells) and reference is not None:
        disagreement = ties.disagreement(results, condition, reference, analysis)
    below += _notes_of_columns(results, condition, reference, list(cells), disagreement)
    missing = [heading_of(column, reference) for column in every if column not in cells]
    if missing and not view.columns:
        below.append(f"`nlbench table --details` also shows: {', '.join(missing)}.")
    headings, *lines = (list(line) for line in zip(names, *cells.values(), strict=True))
    return Block(f"{name}; test accuracy", headings, lines, below)


def require_reference(results: Results, reference: str | None, columns: Collection[str]) -> None:
    """Raise SuiteError where one of the columns takes differences to a row that there is not."""
    if MINUS in columns and reference is None:
        rows = ", ".join(row.name for row in results.rows)
        raise SuiteError(
            "--columns minus: the suite has no row `ce` to take differences to; "
            f"choose one with --against: {rows}"
        )


def _all_columns(
    results: Results, condition: int, reference: str | None, letters: Collection[str]
) -> list[str]:
    """Return the names of all columns that the table of one condition can have, in their order."""
    columns = [metric.name for metric in _metrics_with_values(results, condition)]
    if reference is not None:
        columns.append(MINUS)
    return [*columns, *letters, NETS, PASSES]


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


def heading_of(column: str, reference: str | None) -> str:
    """Return the heading of a column of COLUMNS."""
    if column == MINUS:
        return f"last, minus {reference}"
    return METRICS[column].heading if column in METRICS else column


def column_of(results: Results, condition: int, column: str, reference: str | None) -> list[str]:
    """Return one column of the table of one condition, with its heading."""
    differences = {}
    if column == MINUS and reference is not None:
        differences = results.differences(reference, condition)

    cells = [heading_of(column, reference)]
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


def mean_passes(results: Results, row: str, condition: int) -> float | None:
    """Return the mean number of forward passes for each training example and epoch."""
    # Only a run that was trained to its end has counted them.
    passes = []
    for record in results.records_of(row, condition):
        if record.status == "done" and "forward_passes" in record.method:
            passes.append(record.method["forward_passes"])
    return statistics.mean(passes)


def _passes(results: Results, row: str, condition: int) -> str:
    mean = mean_passes(results, row, condition)
    return "-" if mean is None else f"{mean:.3g}"


def _notes_of_columns(
    results: Results,
    condition: int,
    reference: str | None,
    columns: Collection[str],
    disagreement: Sequence[str],
) -> list[str]:
    found = notes.of_condition(results, condition)
    found += notes.of_columns(columns)
    if not {"labelwave", "labelwave-epoch"}.isdisjoint(columns):
        found += notes.without_labelwave(results, condition)
    if "last10" in columns:
        found += notes.fewer_than_ten_epochs(results, condition)
    if MINUS in columns:
        found.append(about_minus(results, [condition], reference))
    found += disagreement
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])


def about_minus(results: Results, conditions: Sequence[int], reference: str | None) -> str:
    """Explain the columns of differences of these conditions, and say how many tests each has."""
    if reference is None:
        return ""
    tests, diverged, same = [], [], []
    for condition in conditions:
        differences = results.differences(reference, condition)
        tests.append(sum(found.p is not None for found in differences.values()))
        for row, found in differences.items():
            if found.n > 1 and found.p is None and not found.diverged:
                same.append(row)
        for row in [reference, *(row.name for row in results.rows)]:
            records = results.records_of(row, condition)
            if any(record.status == "diverged" for record in records):
                diverged.append(row)

    text = f"last, minus {reference}: difference to {reference} seed by seed (mean±std)"
    most = max(tests, default=0)
    if not most:
        text += "; a p-value needs two seeds that both rows have."
    elif most == 1:
        text += ", with the p-value of a paired t test."
    else:
        number = f"{most}" if min(tests) == most else f"up to {most}"
        text += f", with the Holm-corrected p-value of a paired t test, one of {number} tests."
    if diverged:
        rows = wording.names(notes.once(diverged))
        text += f" Seeds of {rows} diverged (!1 is one of them): such a row has no p-value."
    if same:
        text += (
            f" {wording.names(notes.once(same))}: the same difference in each seed, so its spread "
            "is unknown and there is no p-value."
        )
    return text
