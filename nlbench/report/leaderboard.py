"""The leaderboard of a suite: for each condition a line for each row, with everything about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nlbench.results import analysis, statistics
from nlbench.results.cells import Cell, Results, SuiteRow
from nlbench.results.formats import p_value
from nlbench.results.metrics import METRICS

if TYPE_CHECKING:
    from nlbench.results.analysis import Interval, RowAnalysis

# Columns that are no metrics, by name, with heading and meaning.
TIES, RANK, MINUS, BEST_MINUS = "ties", "rank", "minus", "minus-best"
NETS, PASSES, SECONDS = "nets", "passes", "seconds"

# What is shown before a reader chooses anything else.
_FIRST = ("last", TIES, RANK, MINUS, "best", "memorised", NETS)

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
    """

    text: str
    spread: str = ""
    rest: str = ""
    order: float | str | None = None
    linked: bool = False


@dataclass(frozen=True)
class Line:
    """One row under one condition, with a cell for each column by its name.

    Attributes:
        place: of the row among those of the suite.
        best: whether it ties with the best row.
    """

    row: SuiteRow
    place: int
    cells: dict[str, Entry]
    best: bool


@dataclass(frozen=True)
class Group:
    """The lines of one condition, best first.

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
    places = _places(results)
    for condition, title in enumerate(results.conditions):
        found = analysis.analyse(results, condition, "last", against=reference)
        dataset, noise = places[condition]
        group = Group(condition, title, dataset, noise, found.sentence, list(found.notes))
        rows = {row.name: (place, row) for place, row in enumerate(results.rows)}
        # The first row is the best, and letters are given in order.
        best = set(found.rows[0].letters) if found.rows else set()
        for row_analysis in found.rows:
            place, row = rows[row_analysis.row]
            cells = _cells(results, condition, row_analysis, row, columns)
            if row.name == found.baseline:
                cells[MINUS] = Entry("reference")
            group.lines.append(Line(row, place, cells, bool(best & set(row_analysis.letters))))
        groups.append(group)
    return Leaderboard(columns, groups, reference, _choices(columns))


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
    ]


def _statistics(reference: str | None) -> list[Column]:
    """Return the columns about the differences of the last epoch."""
    ties = "rows of one condition that share a letter cannot be told apart"
    rank = "the interval of the row's rank: which ranks its seeds leave possible"
    columns = [
        Column(TIES, "ties", ties, True, words=True, low_first=True),
        Column(RANK, "rank", rank, True, low_first=True),
    ]
    if reference is not None:
        meaning = (
            f"last epoch minus {reference}, in percentage points, with its interval and the "
            "adjusted p-value"
        )
        columns.append(Column(MINUS, f"minus {reference}", meaning, True))
    best = "last epoch minus the best of the other rows, in percentage points, with its interval"
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
    row_analysis: RowAnalysis,
    row: SuiteRow,
    columns: Sequence[Column],
) -> dict[str, Entry]:
    cells = {}
    for column in columns:
        if column.name in METRICS:
            cell = results.cell(row.name, condition, column.name)
            cells[column.name] = _of_metric(cell, column.name)
    cells[TIES] = Entry(row_analysis.letters or "-", order=row_analysis.letters or None)
    cells[RANK] = _rank(row_analysis)
    cells[MINUS] = _interval(row_analysis.minus_baseline)
    cells[BEST_MINUS] = _interval(row_analysis.minus_best)
    cells[NETS] = Entry(str(row.networks), order=row.networks)

    records = [r for r in results.records_of(row.name, condition) if r.status == "done"]
    passes = [r.method["forward_passes"] for r in records if "forward_passes" in r.method]
    cells[PASSES] = _number(statistics.mean(passes), "{:.3g}")
    seconds = [r.timing["train"] for r in records if "train" in r.timing]
    cells[SECONDS] = _number(statistics.mean(seconds), "{:,.1f}")
    return cells


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
    return Entry(text, spread, rest, round(cell.mean, 8), linked)


def _rank(row_analysis: RowAnalysis) -> Entry:
    low, high = row_analysis.rank_low, row_analysis.rank_high
    if low is None or high is None:
        return Entry("-")
    text = str(low) if low == high else f"{low}\N{EN DASH}{high}"
    return Entry(text, order=low + high / 1000)


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
