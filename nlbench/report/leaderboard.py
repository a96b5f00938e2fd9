"""The leaderboard of a suite: for each condition a line for each row, with everything about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nlbench import trust
from nlbench.results import analysis, statistics, ties
from nlbench.results.cells import Cell, Results, SuiteRow
from nlbench.results.formats import p_value
from nlbench.results.metrics import METRICS
from nlbench.results.order import is_complete
from nlbench.results.paper import best_group

if TYPE_CHECKING:
    from nlbench.results.analysis import Analysis, Interval, RowAnalysis

# Columns that are no metrics, by name, with heading and meaning.
TIES, RANK, MINUS, BEST_MINUS = "ties", "rank", "minus", "minus-best"
NETS, PASSES, SECONDS, TRUST = "nets", "passes", "seconds", "trust"

# What is shown before a reader chooses anything else.
_FIRST = ("last", TIES, RANK, MINUS, "best", "memorised", NETS, TRUST)

# The columns beside the last epoch: statistics are those of this metric.
_WITH_LAST = (TIES, RANK, MINUS, BEST_MINUS)


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard.

    Attributes:
        first: whether it is shown before a reader chooses.
        words: whether its cells are words, which are aligned to the left.
        low_first: whether the smallest value is the first one when a reader sorts.
    """

    name: str
    heading: str
    meaning: str
    first: bool = False
    words: bool = False
    low_first: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell of a leaderboard.

    Attributes:
        text: its number or letters, "-" where there is none.
        spread: what follows in smaller print, such as the standard deviation.
        rest: what is missing, and marks.
        order: by what the cell is sorted; None sorts last.
        linked: whether the cell leads to its runs.
        complete: whether every planned run is in the value. Others come after those that are.
    """

    text: str
    spread: str = ""
    rest: str = ""
    order: float | str | None = None
    linked: bool = False
    complete: bool = True


@dataclass(frozen=True)
class Line:
    """One row under one condition, with a cell for each column by its name.

    Attributes:
        place: of the row among those of the suite.
        best: whether it is the best row, or one of the next ones that tie with it. See
            `best_group`.
    """

    row: SuiteRow
    place: int
    cells: dict[str, Entry]
    best: bool


@dataclass(frozen=True)
class Group:
    """The lines of one condition, best first.

    As in a table that is sorted, a row with a run that is missing, failed, diverged or damaged
    comes after the others, because the mean of the remaining runs is not the mean of the row.

    Attributes:
        place: of the condition among those of the suite.
        sentence: the comparison of the rows in words.
    """

    place: int
    title: str
    dataset: str
    noise: str
    sentence: str
    notes: list[str]
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard of a suite.

    Attributes:
        reference: the row that differences are taken to.
        choices: what a reader may show, as heading and names of columns.
    """

    columns: list[Column]
    groups: list[Group]
    reference: str | None
    choices: list[tuple[str, list[str]]]


def leaderboard(results: Results, reference: str | None) -> Leaderboard:
    """Return the leaderboard of a suite's results."""
    columns = _columns(results, reference)
    groups = []
    trusted = trust.trusts()
    places = _places(results)
    for condition, title in enumerate(results.conditions):
        found = analysis.analyse(results, condition, "last", against=reference)
        dataset, noise = places[condition]
        tested = list(found.notes)
        if reference is not None:
            tested += ties.disagreement(results, condition, reference, found)
        group = Group(condition, title, dataset, noise, _sentence(found), tested)
        rows = {row.name: (place, row) for place, row in enumerate(results.rows)}
        best = best_group(results, condition, found)
        for row_analysis in found.rows:
            place, row = rows[row_analysis.row]
            cells = _cells(results, condition, found, row, columns)
            cells[TRUST] = _trust(trusted.get(row.method))
            if row.name == found.baseline:
                cells[MINUS] = Entry("reference")
            group.lines.append(Line(row, place, cells, row.name in best))
        # Sorting keeps the order of the means, and rows without one are incomplete.
        group.lines.sort(key=_is_incomplete)
        groups.append(group)
    return Leaderboard(columns, groups, reference, _choices(columns))


def _sentence(found: Analysis) -> str:
    """Return the comparison in words, or what to do before there can be one."""
    if any(row.n for row in found.rows):
        return found.sentence
    lost = sum(row.diverged + row.failed for row in found.rows)
    if lost:
        return (
            f"No run has ended with a result: {lost} failed or diverged. What is missing and why "
            "is listed below, with the command that trains it."
        )
    return "No run has ended yet. The command that trains what is missing is listed below."


def _is_incomplete(line: Line) -> tuple[bool, bool]:
    """Return whether a line has no value, and whether a run of it is not in its value."""
    last = line.cells["last"]
    return last.order is None, not last.complete


def _columns(results: Results, reference: str | None) -> list[Column]:
    columns = []
    for name, metric in METRICS.items():
        if name == "last" or results.has(name):
            meaning = metric.meaning if metric.is_share else f"{metric.meaning}, in {metric.unit}"
            low = bool(metric.lower_is_better)
            columns.append(Column(name, metric.heading, meaning, name in _FIRST, low_first=low))
            if name == "last":
                columns += _statistics(reference)
    meaning = "forward passes for each training example and epoch, without helper networks"
    return [
        *columns,
        Column(NETS, "nets", "number of networks that the method trains", True, low_first=True),
        Column(PASSES, "passes", meaning, low_first=True),
        Column(
            SECONDS,
            "seconds",
            "mean seconds of training; they depend on the machine",
            low_first=True,
        ),
        Column(TRUST, "trust", _meaning_of_trust(), True, words=True),
    ]


def _meaning_of_trust() -> str:
    """Return what the levels of trust mean, lowest first."""
    levels = []
    for level, words in trust.LEVELS.items():
        levels.append(level if level == words else f"{level} ({words})")
    return (
        f"how far the method's code can be trusted, lowest first: {', '.join(levels)}. What was "
        "compared is printed by nlbench show method NAME. A method that does not come with nlbench "
        "has no level"
    )


def _statistics(reference: str | None) -> list[Column]:
    """Return the columns about the differences of the last epoch."""
    ties = (
        "rows of one condition that share a letter cannot be told apart; of many rows it is the "
        "number of others that a row cannot be told apart from"
    )
    rank = "the interval of the row's rank: which ranks its seeds leave possible"
    columns = [
        Column(TIES, "ties", ties, True, words=True, low_first=True),
        Column(RANK, "rank", rank, True, low_first=True),
    ]
    if reference is not None:
        meaning = (
            f"last epoch minus {reference}, in percentage points. The interval is for this "
            f"difference alone; p is for all differences to {reference} together (Holm's "
            "correction). So p may be above 0.05 beside an interval without 0. (!1) says that one "
            "seed of the two rows diverged: the others are no fair sample, so there is neither"
        )
        columns.append(Column(MINUS, f"minus {reference}", meaning, True))
    best = (
        "last epoch minus the best of the other rows, in percentage points, with Hsu's interval, "
        "for all rows together. An interval that ends at 0 says that the row is not the best, one "
        "that begins at 0 that it is the best, and one with 0 inside leaves that open. These are "
        "fewer comparisons than all pairs, so that a row may share a letter with the best mean, "
        "and be bold, although its interval ends at 0"
    )
    return [*columns, Column(BEST_MINUS, "minus best", best)]


def _choices(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    names = [column.name for column in columns]
    choices = [("main columns", [column.name for column in columns if column.first])]
    for column in columns:
        if column.name in METRICS:
            beside = [name for name in _WITH_LAST if name in names and column.name == "last"]
            choices.append((column.heading, [column.name, *beside]))
    return [*choices, ("all columns", names)]


def _places(results: Results) -> list[tuple[str, str]]:
    """Return the dataset and the noise of each condition, as its title has them."""
    found: list[tuple[str, str]] = []
    for condition, title in enumerate(results.conditions):
        records = results.records_under(condition)
        if not records:
            found.append((title.partition(" ")[0], title.partition(" ")[2] or "own labels"))
            continue
        spec = records[0].spec
        noise = spec.get("noise")
        kind = noise.get("kind") if isinstance(noise, dict) else spec.get("labels")
        # A title is the dataset's, followed by the kind of noise with its rate or the label set.
        before, word, after = title.partition(f" {kind}")
        if word:
            found.append((before, f"{word}{after}".strip()))
        else:
            found.append((title, str(kind or "own labels")))
    return found


# ---- Cells ---------------------------------------------------------------------------------------


def _cells(
    results: Results,
    condition: int,
    found: Analysis,
    row: SuiteRow,
    columns: Sequence[Column],
) -> dict[str, Entry]:
    row_analysis = found.of(row.name)
    cells = {}
    for column in columns:
        if column.name in METRICS:
            cell = results.cell(row.name, condition, column.name)
            cells[column.name] = _of_metric(cell, column.name)
    complete = cells["last"].complete
    place = row_analysis.letters or row_analysis.rank_low
    cells[TIES] = Entry(row_analysis.ties, order=place, complete=complete)
    cells[RANK] = replace(_rank(row_analysis), complete=complete)
    cells[MINUS] = _minus_baseline(results, condition, found, row_analysis)
    cells[BEST_MINUS] = replace(_interval(row_analysis.minus_best), complete=complete)
    cells[NETS] = Entry(str(row.networks), order=row.networks)

    records = [r for r in results.records_of(row.name, condition) if r.status == "done"]
    passes = [r.method["forward_passes"] for r in records if "forward_passes" in r.method]
    cells[PASSES] = _number(statistics.mean(passes), "{:.3g}")
    seconds = [r.timing["train"] for r in records if "train" in r.timing]
    cells[SECONDS] = _number(statistics.mean(seconds), "{:,.1f}")
    return cells


def _trust(known: trust.Trust | None) -> Entry:
    """Return the level of a method; the higher ones come first where a reader sorts."""
    if known is None:
        return Entry("-")
    return Entry(known.level, order=list(trust.LEVELS).index(known.level))


def _of_metric(cell: Cell, name: str) -> Entry:
    """Return a mean with its standard deviation, and the rest of what a table prints of a cell."""
    linked = name == "last" or bool(cell.values)
    # The marks of a cell are the same for every metric, so they stand beside the first one alone.
    if name != "last":
        cell = replace(cell, marks="")
    if cell.mean is None:
        return Entry(cell.text(), linked=linked)
    # Shares are in percent, and other metrics in their unit.
    text = f"{cell.scale * cell.mean:.2f}"
    spread = "" if cell.std is None else f"±{cell.scale * cell.std:.2f}"
    rest = cell.text().removeprefix(f"{text}{spread}")
    return Entry(text, spread, rest, round(cell.mean, 8), linked, is_complete(cell))


def _rank(row_analysis: RowAnalysis) -> Entry:
    low, high = row_analysis.rank_low, row_analysis.rank_high
    if low is None or high is None:
        return Entry("-")
    text = str(low) if low == high else f"{low}\N{EN DASH}{high}"
    return Entry(text, order=low + high / 1000)


def _minus_baseline(results: Results, condition: int, found: Analysis, row: RowAnalysis) -> Entry:
    """Return a row minus the baseline.

    Where a seed of either diverged, there is neither an interval nor a p-value: the other seeds are
    no fair sample. The number of such seeds stands there instead, as in a table.
    """
    if found.baseline is None:
        return Entry("-")
    entry = _interval(row.minus_baseline)
    both = [results.cell(name, condition, "last") for name in (row.row, found.baseline)]
    complete = all(is_complete(cell) for cell in both)
    diverged = row.diverged + found.of(found.baseline).diverged
    if entry.order is not None and diverged:
        entry = replace(entry, spread="", rest=f"(!{diverged})")
    return replace(entry, complete=complete)


def _interval(found: Interval | None) -> Entry:
    """Return a difference in percentage points."""
    if found is None or found.mean is None:
        return Entry("-")
    text = f"{100 * found.mean:+.2f}"
    spread = ""
    if found.low is not None and found.high is not None:
        spread = f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    rest = "" if found.p is None else f"p\N{NO-BREAK SPACE}{p_value(found.p)}"
    text, spread = (part.replace("-", "\N{MINUS SIGN}") for part in (text, spread))
    return Entry(text, spread, rest, round(found.mean, 8))


def _number(value: float | None, form: str) -> Entry:
    return Entry("-") if value is None else Entry(form.format(value), order=round(value, 6))
