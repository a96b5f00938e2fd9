"""What a user can choose about a figure, and how it is checked against a suite's results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nlbench.errors import SuiteError, UserError, did_you_mean, place_of_condition
from nlbench.results.cells import Results
from nlbench.results.view import check_rows

# Millimetres: the widths of one and of two columns of a paper.
COLUMN, PAGE = 85.0, 175.0


class NothingToDraw(UserError):
    """The results lack what a figure shows. The message says what, and how to get it."""


@dataclass(frozen=True)
class Options:
    """The options of `nlbench plot`.

    Attributes:
        condition: the place of the condition to draw; None draws the first one that can be drawn,
            and all where a figure shows several.
        conditions: for `ranks`, one for each dataset; all by default. For `agreement`, that of the
            suite and that of `other`.
        other: for `agreement`, the suite to compare with; the same one by default.
        metric: the accuracy, a name of METRICS; for `epochs` a column of history.csv. None is the
            test accuracy after the last epoch, or after each.
        only: the rows to draw; all of them by default.
        highlight: rows that are drawn in colour, with the best one and the baseline; the others
            are grey then.
        against: the row that others are compared with; by default `ce`.
        cost: "seconds" or "passes", for the figure of that name.
        width: millimetres.
    """

    condition: int | None = None
    conditions: Sequence[int] = ()
    other: Results | None = None
    metric: str | None = None
    only: Collection[str] = ()
    highlight: Collection[str] = ()
    against: str | None = None
    cost: str = "seconds"
    width: float = COLUMN


def conditions_to_try(results: Results, options: Options) -> list[int]:
    """Return the places of the conditions that a figure may be about, the first choice first."""
    if options.condition is not None:
        return [options.condition]
    return list(range(len(results.conditions)))


def condition_of(results: Results, name: str) -> int:
    """Return the place of a condition, given by its title or a part of it.

    Raises: SuiteError for a name of none or of several.
    """
    return place_of_condition(name, results.conditions, results.suite)


def rows_of(results: Results, options: Options) -> list[str]:
    """Return the names of the rows to draw, in the order of the suite.

    Raises: SuiteError for an unknown row among the options.
    """
    names = [row.name for row in results.rows]
    check_rows(options.only, names)
    for option, given in (("highlight", options.highlight), ("against", [options.against])):
        for row in given:
            if row is not None and row not in names:
                hint = did_you_mean(row, names)
                raise SuiteError(
                    f"--{option} {row}: no such row. There are: {', '.join(names)}.{hint}"
                )
    return [name for name in names if not options.only or name in options.only]


def baseline_of(rows: Sequence[str], options: Options) -> str | None:
    """Return the row that others are compared with: as given, else `ce`, else none."""
    if options.against is not None:
        return options.against
    return "ce" if "ce" in rows else None
