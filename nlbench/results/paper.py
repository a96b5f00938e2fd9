"""The table that a paper prints: the best rows bold, and protocol, seeds and test in words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nlbench.results import notes, ties
from nlbench.results.analysis import Analysis, analyse
from nlbench.results.block import Block, Lines
from nlbench.results.cells import DAMAGED, MIXED, SIGN, STALE, UNKNOWN_CODE, Cell, Results
from nlbench.results.groups import Group
from nlbench.results.metrics import METRICS
from nlbench.results.one_condition import about_minus, column_of, heading_of, require_reference
from nlbench.results.order import is_complete, ordered
from nlbench.results.several_conditions import under_datasets
from nlbench.results.view import MINUS, NETS, RANK, TIES, View

# Notes that begin with one of these explain what stands in cells, so a caption needs them.
_MARKS = (STALE, UNKNOWN_CODE, MIXED, SIGN, DAMAGED, "!", "(n/m)")

# More protocols than these do not help a reader of a caption.
_MOST_PROTOCOLS = 3


def block(results: Results, reference: str | None, view: View, group: Group | None = None) -> Block:
    """Return one table of the conditions of a group, or of all where it is None.

    Its columns are the conditions with one metric, or with each metric of `view.columns`.
    """
    about = "" if group is None else f"{group.name}: "
    if group is None:
        group = Group("", list(range(len(results.conditions))), list(results.conditions))
    require_reference(results, reference, view.columns)
    columns = tuple(view.columns) or (view.metric or "last",)
    alone = group.conditions[0] if len(group.conditions) == 1 else None
    results, order = ordered(results, alone, reference, view)

    places, headings, spans = _layout(results, group, columns, reference, view)
    lines, bold, analyses = _cells(results, places, reference)
    if NETS not in columns and len({row.networks for row in results.rows}) > 1:
        headings.append("networks")
        lines = [[*line, str(row.networks)] for line, row in zip(lines, results.rows, strict=True)]
        spans += [("", 1)] if spans else []

    below = [*order, *notes.of_columns(columns)]
    if MINUS in columns:
        below.append(about_minus(results, group.conditions, reference))
    for condition in group.conditions:
        below += notes.of_condition(results, condition)
    of_marks = notes.of_marks(results)
    marks = [note for note in of_marks if note.startswith(_MARKS)]
    below += [*results.plan_notes, *(note for note in of_marks if note not in marks)]

    subject = _subject(columns)
    unit = METRICS[columns[0]].unit if columns[0] in METRICS else "%"
    sentences = [*_of_bold(results, analyses), _of_protocol(results), *marks]
    return Block(
        about + subject,
        headings,
        lines,
        notes.once(below),
        bold=bold,
        groups=spans,
        unit=unit,
        title=_title(results, about, subject, unit),
        text=" ".join(sentences),
    )


# ---- Columns and cells --------------------------------------------------------------------------


def _layout(
    results: Results,
    group: Group,
    columns: Sequence[str],
    reference: str | None,
    view: View,
) -> tuple[list[tuple[int, str]], list[str], list[tuple[str, int]]]:
    """Return condition and metric of each column, the headings, and headings above them."""
    names = [heading_of(column, reference) for column in columns]
    spans: list[tuple[str, int]] = []
    if len(group.conditions) == 1:
        headings = names
    elif len(columns) == 1:
        # Markdown has no headings above headings, so each column has its whole name there.
        if view.fmt != "md":
            group, spans = under_datasets(results, group)
        headings = group.headings
    elif view.fmt == "md":
        headings = [f"{title}: {name}" for title in group.headings for name in names]
    else:
        spans = [("", 1), *((title, len(names)) for title in group.headings)]
        headings = names * len(group.conditions)
    places = [(condition, column) for condition in group.conditions for column in columns]
    return places, ["method", *headings], spans


def _cells(
    results: Results, places: Sequence[tuple[int, str]], reference: str | None
) -> tuple[Lines, set[tuple[int, int]], list[tuple[int, Analysis]]]:
    """Return the lines, which cells are bold, and the analysis of each column of a metric."""
    lines = [[row.label] for row in results.rows]
    bold: set[tuple[int, int]] = set()
    analyses = []
    for number, (condition, column) in enumerate(places, 1):
        if column in (TIES, RANK):
            by_tests = ties.columns(results, analyse(results, condition))
            cells = by_tests.get(column, ["-"] * len(results.rows))
        else:
            _, *cells = column_of(results, condition, column, reference)
        for line, cell in zip(lines, cells, strict=True):
            line.append(cell)
        # Of a number that is neither better nor worse when it is higher, none is the best.
        if column not in METRICS or METRICS[column].lower_is_better is None:
            continue
        analysis = analyse(results, condition, column)
        analyses.append((condition, analysis))
        best = best_group(results, condition, analysis)
        bold |= {(line, number) for line, row in enumerate(results.rows) if row.name in best}
    return lines, bold, analyses


def best_group(results: Results, condition: int, analysis: Analysis) -> set[str]:
    """Return the best row of those shown, and the next ones before the first that is told apart.

    A row below that one may be tied with the best, too, if its seeds spread widely. It is left out:
    its mean is no better than that of a row which is certainly not the best. A row with a run that
    is missing or failed is left out, because its mean may be that of the runs that went well, and
    so is a row with a run that did not learn (§).
    """
    shown = {row.name for row in results.rows}
    candidates = []
    for row in analysis.rows:
        cell = results.cell(row.row, condition, analysis.metric)
        eligible = is_complete(cell) and SIGN not in cell.marks
        if row.tied is not None and eligible and row.row in shown:
            candidates.append(row)
    if not candidates:
        return set()
    best, *others = candidates
    tied = itertools.takewhile(lambda row: best.row in (row.tied or ()), others)
    return {best.row, *(row.row for row in tied)}


# ---- The caption --------------------------------------------------------------------------------


def _subject(columns: Sequence[str]) -> str:
    if len(columns) == 1 and columns[0] in METRICS:
        return METRICS[columns[0]].meaning
    return "test accuracy"


def _title(results: Results, about: str, subject: str, unit: str) -> str:
    seeds = "1 seed" if results.seeds == 1 else f"{results.seeds} seeds"
    text = f"{about}{subject} in {unit}, mean ± sample std over {seeds}."
    return text if about else text[:1].upper() + text[1:]


def _of_bold(results: Results, analyses: Sequence[tuple[int, Analysis]]) -> list[str]:
    """Say what bold means, by which tests, and where it has no meaning."""
    tests: dict[str, list[str]] = {"tukey": [], "holm": []}
    untested = []
    for condition, analysis in analyses:
        title = _column(results, condition, analysis, analyses)
        if any(row.tied is not None for row in analysis.rows):
            tests[analysis.adjust].append(title)
        else:
            untested.append(title)

    sentences = []
    used = {name: notes.once(titles) for name, titles in tests.items() if titles}
    if used:
        level = f"{100 * (1 - analyses[0][1].level):g}%"
        sentences.append(
            "Bold: the best mean of a column, and the next best ones before the first that can be "
            "told apart from it "
            f"({_tests_in_words(used)}; {level} for any false difference in a column)."
        )
        if not all(map(is_complete, _cells_of(results, analyses))):
            sentences.append("A mean of fewer runs than planned is never bold.")
        if any(SIGN in cell.marks for cell in _cells_of(results, analyses)):
            sentences.append(f"A row with {SIGN} is never bold.")
    if untested:
        sentences.append(
            f"Nothing is bold for {', '.join(notes.once(untested))}: its rows cannot be tested."
        )
    hidden = len(results.all_rows) - len(results.rows)
    if used and hidden:
        rows = "1 row that is" if hidden == 1 else f"{hidden} rows that are"
        sentences.append(f"The tests also cover {rows} not shown.")
    return sentences


def _column(
    results: Results,
    condition: int,
    analysis: Analysis,
    analyses: Sequence[tuple[int, Analysis]],
) -> str:
    """Return what tells a column from the others: its condition, its metric, or both."""
    title, heading = results.conditions[condition], METRICS[analysis.metric].heading
    if len({one.metric for _, one in analyses}) == 1:
        return title
    one_condition = len({one for one, _ in analyses}) == 1
    return heading if one_condition else f"{title}, {heading}"


def _cells_of(results: Results, analyses: Sequence[tuple[int, Analysis]]) -> list[Cell]:
    """Return the cells of the columns that were analysed."""
    return [
        results.cell(row.name, condition, analysis.metric)
        for condition, analysis in analyses
        for row in results.rows
    ]


def _tests_in_words(used: dict[str, list[str]]) -> str:
    words = {
        "tukey": "Tukey's test with seeds as blocks and equal spreads",
        "holm": "paired t tests with Holm's correction",
    }
    if len(used) == 1:
        return words[next(iter(used))]
    parts = [f"{words[name]} for {', '.join(titles)}" for name, titles in used.items()]
    return "; ".join(parts)


def _of_protocol(results: Results) -> str:
    """Name protocol, track and suite, and what the runs had in common."""
    facts = []
    for record in results.all_records():
        protocol = record.spec.get("protocol", {})
        if protocol:
            model, epochs = protocol.get("model", "unknown network"), protocol.get("epochs", "?")
            facts.append(f"{model}, {epochs} epochs, batch size {protocol.get('batch_size', '?')}")
    found = notes.once(facts)
    text = "; ".join(found[:_MOST_PROTOCOLS])
    if len(found) > _MOST_PROTOCOLS:
        text += f"; and {len(found) - _MOST_PROTOCOLS} more"
    brackets = f" ({text})" if text else ""
    return f"Protocol {results.protocol}{brackets}, track {results.track}, suite {results.suite}."
