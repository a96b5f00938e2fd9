"""The tables of a suite with several conditions: a column for each condition."""

from __future__ import annotations

from nlbench.results import formats, notes, ties, wording
from nlbench.results.analysis import analyse
from nlbench.results.block import Block, Lines
from nlbench.results.cells import Results
from nlbench.results.groups import Group, by_dataset
from nlbench.results.metrics import METRICS, Metric
from nlbench.results.order import ordered
from nlbench.results.view import View


def blocks(
    results: Results, reference: str | None, view: View, group: Group | None = None
) -> list[Block]:
    """Return the table of one metric, and that of the differences of the headline.

    Args:
        group: the conditions of these tables; None for all.
    """
    shown = METRICS[view.metric or "last"]
    about = "" if group is None else f"{group.name}; "
    spans: list[tuple[str, int]] = []
    if group is None:
        group = Group("", list(range(len(results.conditions))), list(results.conditions))
        if view.fmt == "html":
            group, spans = under_datasets(results, group)

    # A table of one column can be sorted by any metric.
    alone = group.conditions[0] if len(group.conditions) == 1 else None
    results, order = ordered(results, alone, reference, view)
    headings, lines = _by_condition(results, group, shown)
    if view.fmt == "md" and view.width is not None:
        *_, last = formats.parts_that_fit(headings, lines, view.width)
        # The numbers of networks alone are not worth a table.
        if len(last) == 2 and len(headings) > 2:
            headings, lines = headings[:-1], [line[:-1] for line in lines]
    found = [
        Block(
            about + shown.meaning,
            headings,
            lines,
            [*order, *_notes(results, group, shown)],
            split=True,
            unit=shown.unit,
            groups=[*spans, ("", 1)] if spans else [],
        )
    ]

    # Differences are taken of the headline, the last epoch, and of no other metric.
    if view.metric is None and reference is not None and len(results.rows) > 1:
        headings, lines = _differences_by_condition(results, group, reference)
        below = [_about_p(results, group, reference)]
        subject = f"{about}last epoch, minus {reference}, paired over seeds"
        found.append(Block(subject, headings, lines, below, split=True, groups=spans))
    return found


def under_datasets(results: Results, group: Group) -> tuple[Group, list[tuple[str, int]]]:
    """Return the group with the conditions of one dataset beside each other, and their headings.

    Returns the group as it is, and no headings, where it has one dataset.
    """
    conditions, headings = [], []
    spans = [("", 1)]
    for dataset in by_dataset(results):
        pairs = zip(dataset.conditions, dataset.headings, strict=True)
        inside = [pair for pair in pairs if pair[0] in group.conditions]
        if inside:
            spans.append((dataset.name, len(inside)))
            conditions += [condition for condition, _ in inside]
            headings += [heading for _, heading in inside]
    if len(spans) <= 2:
        return group, []
    return Group(group.name, conditions, headings), spans


def _by_condition(results: Results, group: Group, metric: Metric) -> tuple[list[str], Lines]:
    lines = []
    for row in results.rows:
        line = [row.label]
        for condition in group.conditions:
            line.append(results.cell(row.name, condition, metric.name).text())
        lines.append([*line, str(row.networks)])
    return ["method", *group.headings, "nets"], lines


def _differences_by_condition(
    results: Results, group: Group, reference: str
) -> tuple[list[str], Lines]:
    columns = []
    for condition in group.conditions:
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
    return ["method", *group.headings], lines


def _about_p(results: Results, group: Group, reference: str) -> str:
    tests, seeds = [], 0
    for condition in group.conditions:
        found = results.differences(reference, condition).values()
        tests.append(sum(difference.p is not None for difference in found))
        seeds = max([seeds, *(difference.n for difference in found)])
    most = max(tests)
    if seeds < 2:
        return "p: paired t test over seeds; it needs two seeds that both rows have."
    if most == 0:
        return "p: paired t test over seeds; it needs differences that are not all the same."
    if most == 1:
        return "p: paired t test over seeds."
    number = f"{most}" if min(tests) == most else f"up to {most}"
    return f"p: paired t test over seeds, Holm-corrected for the {number} tests of each column."


def _notes(results: Results, group: Group, shown: Metric) -> list[str]:
    found, analyses = [], []
    for condition in group.conditions:
        analysis = analyse(results, condition, shown.name)
        if sum(row.n > 0 for row in analysis.rows) > 1:
            found.append(ties.in_words(analysis, results.conditions[condition]))
            analyses.append(analysis)
    found += wording.of_several(analyses)
    found += notes.never_measured(results, shown)
    for condition in group.conditions:
        found += notes.of_condition(results, condition)
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])
