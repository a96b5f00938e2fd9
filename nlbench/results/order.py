"""In which order a table shows its rows: `--sort`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlbench.errors import SuiteError, did_you_mean
from nlbench.results.analysis import analyse
from nlbench.results.cells import Cell, Results, SuiteRow
from nlbench.results.metrics import METRICS
from nlbench.results.one_condition import heading_of, mean_passes
from nlbench.results.view import METHOD, MINUS, NETS, PASSES, RANK, SORT_COLUMNS, TIES, View

# Columns whose values are the same under every condition.
_OF_ROWS = (METHOD, NETS)


@dataclass(frozen=True)
class _Place:
    """What decides where one row stands.

    Attributes:
        value: that of the column; None where the row has none.
        ranked: whether every planned run of the row is in the value.
    """

    value: float | str | tuple[int, int] | None
    ranked: bool = True


def ordered(
    results: Results, condition: int | None, reference: str | None, view: View
) -> tuple[Results, list[str]]:
    """Return the results with their rows in the order of `view.sort`, and a note about it.

    Rows with equal values keep the order of the suite. A row with a run that is missing, failed,
    diverged or damaged comes after the others, because the mean of the remaining runs is not the
    mean of the row. Rows without a value are last, in either direction.

    Args:
        condition: that of the table; None for a table with a column for each condition.
        reference: the row that the column `minus` takes differences to.

    Raises: SuiteError for a column that the table cannot be sorted by.
    """
    if view.sort is None:
        return results, []
    condition, column = _resolved(results, condition, view)
    ascending = view.ascending
    if ascending is None:
        ascending = _is_best_lowest(column)

    if column in (TIES, RANK):
        places = _places_by_tests(results, condition, column)
    else:
        places = {}
        for row in results.rows:
            places[row.name] = _place(results, condition, row, column, reference)
    ranked = _sorted(places, True, ascending)
    unranked = _sorted(places, False, ascending)
    unranked += [name for name, place in places.items() if place.value is None]

    note = f"Sorted by {_in_words(results, condition, column, reference)}, "
    if column == TIES and any(isinstance(place.value, int) for place in places.values()):
        note += f"the {'best' if ascending else 'worst'} possible rank first."
    else:
        note += f"{_direction(column, ascending)} first."
    if unranked:
        note += (
            " Placed after complete rows, because runs are missing, failed or damaged, or have no "
            "such value: "
            f"{', '.join(unranked)}."
        )
    return results.in_order([*ranked, *unranked]), [note]


def is_complete(cell: Cell) -> bool:
    """Return whether every planned run of a cell is done and has a value."""
    return len(cell.values) == cell.planned


# ---- Which column -------------------------------------------------------------------------------


def _resolved(results: Results, condition: int | None, view: View) -> tuple[int, str]:
    """Return the condition and the column that `view.sort` names."""
    name = view.sort or ""
    if name in _OF_ROWS:
        return condition or 0, name
    if name in SORT_COLUMNS:
        if condition is not None:
            return condition, name
        if len(results.conditions) == 1:
            return 0, name
        raise SuiteError(_ambiguous(results, name))

    # A condition orders the rows by the metric that the table shows.
    titles = [title.casefold() for title in results.conditions]
    if name.casefold() in titles:
        return titles.index(name.casefold()), view.metric or "last"
    hint = did_you_mean(name, [*SORT_COLUMNS, *results.conditions])
    raise SuiteError(
        f"--sort {name}: {results.suite} has no such column. There are: "
        f"{', '.join(SORT_COLUMNS)}; and the datasets and noises {_quoted(results)}.{hint}"
    )


def _ambiguous(results: Results, name: str) -> str:
    return (
        f"--sort {name}: {results.suite} has {len(results.conditions)} datasets and noises, and "
        f"{name} orders the rows differently under each. Sort by one of them, {_quoted(results)}; "
        "or print a table for each with --group-by dataset,noise, too"
    )


def _quoted(results: Results) -> str:
    return ", ".join(f'"{title}"' for title in results.conditions)


# ---- Values -------------------------------------------------------------------------------------


def _places_by_tests(results: Results, condition: int, column: str) -> dict[str, _Place]:
    """Return where the letters or ranks of the headline place each row.

    Where there are more groups than letters, the best possible rank decides in their place.
    """
    analysis = analyse(results, condition)
    places = {}
    for row in results.rows:
        found = analysis.of(row.name)
        value: float | str | tuple[int, int] | None = found.letters or found.rank_low
        if column == RANK:
            low, high = found.rank_low, found.rank_high
            value = None if low is None or high is None else (low, high)
        complete = is_complete(results.cell(row.name, condition, "last"))
        places[row.name] = _Place(value, complete)
    return places


def _place(
    results: Results, condition: int, row: SuiteRow, column: str, reference: str | None
) -> _Place:
    if column == METHOD:
        return _Place(row.label.casefold())
    if column == NETS:
        return _Place(row.networks)
    if column == PASSES:
        return _Place(mean_passes(results, row.name, condition))
    if column == MINUS:
        return _place_of_difference(results, condition, row, reference)
    cell = results.cell(row.name, condition, column)
    return _Place(cell.mean, is_complete(cell))


def _place_of_difference(
    results: Results, condition: int, row: SuiteRow, reference: str | None
) -> _Place:
    if reference is None:
        names = ", ".join(other.name for other in results.rows)
        raise SuiteError(
            "--sort minus: the suite has no row `ce` to take differences to; choose one with "
            f"--against: {names}"
        )
    own = results.cell(row.name, condition, "last")
    other = results.cell(reference, condition, "last")
    found = results.difference(row.name, reference, condition)
    value = None if found is None else found.mean
    return _Place(value, is_complete(own) and is_complete(other))


def _sorted(places: dict[str, _Place], ranked: bool, ascending: bool) -> list[str]:
    """Return the names of the rows with a value that are ranked, or of those that are not."""
    chosen = []
    for name, place in places.items():
        if place.value is not None and place.ranked is ranked:
            chosen.append((name, place.value))
    # Rows with equal values keep their order, also where the highest is first.
    chosen.sort(key=_value_of, reverse=not ascending)
    return [name for name, _ in chosen]


def _value_of(item: tuple[str, Any]) -> Any:
    return item[1]


# ---- Words --------------------------------------------------------------------------------------


def _is_best_lowest(column: str) -> bool:
    """Return whether the lowest value is the first where nobody chose a direction."""
    if column in METRICS:
        return METRICS[column].lower_is_better is True
    return column != MINUS


def _direction(column: str, ascending: bool) -> str:
    if column in (METHOD, TIES):
        return "A" if ascending else "Z"
    return "lowest" if ascending else "highest"


def _in_words(results: Results, condition: int, column: str, reference: str | None) -> str:
    words = "name" if column == METHOD else heading_of(column, reference)
    if len(results.conditions) == 1 or column in _OF_ROWS:
        return words
    return f"{words} on {results.conditions[condition]}"
