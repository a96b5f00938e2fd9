"""The tables of a suite with several conditions: a column for each condition."""

from __future__ import annotations

from nlbench.results import formats, notes, ties
from nlbench.results.analysis import analyse
from nlbench.results.block import Block, Lines
from nlbench.results.cells import Results
from nlbench.results.metrics import METRICS, Metric
from nlbench.results.view import View


def blocks(results: Results, reference: str | None, view: View) -> list[Block]:
    """Return the table of one metric, and that of the differences of the headline."""
    shown = METRICS[view.metric or "last"]
    headings, lines = _by_condition(results, shown)
    if view.fmt == "md" and view.width is not None:
        *_, last = formats.parts_that_fit(headings, lines, view.width)
        # The numbers of networks alone are not worth a table.
        if len(last) == 2 and len(headings) > 2:
            headings, lines = headings[:-1], [line[:-1] for line in lines]
    below = _notes(results, shown)
    found = [Block(shown.meaning, headings, lines, below, split=True, unit=shown.unit)]

    # Differences are taken of the headline, the last epoch, and of no other metric.
    if view.metric is None and reference is not None and len(results.rows) > 1:
        headings, lines = _differences_by_condition(results, reference)
        below = ["p: paired t test over seeds, Holm-corrected within each column."]
        subject = f"last epoch, minus {reference}, paired over seeds"
        found.append(Block(subject, headings, lines, below, split=True))
    return found


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
    found = []
    for condition, title in enumerate(results.conditions):
        analysis = analyse(results, condition, shown.name)
        if sum(row.n > 0 for row in analysis.rows) > 1:
            found.append(ties.in_words(analysis, title))
    found += notes.never_measured(results, shown)
    for condition in range(len(results.conditions)):
        found += notes.of_condition(results, condition)
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])
