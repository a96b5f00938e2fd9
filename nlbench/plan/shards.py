"""Divide the runs of a suite among the tasks of a job array. Nothing coordinates them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nlbench.plan.spec import RunSpec


class Placed(Protocol):
    """A run as far as it is divided by it: a `RunSpec`, or what a plan in a store says of one."""

    @property
    def key(self) -> str: ...
    @property
    def row(self) -> str: ...
    @property
    def condition(self) -> Hashable: ...
    @property
    def seed(self) -> int: ...


R = TypeVar("R", bound=Placed)


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a suite's runs.

    Attributes:
        number: from 1 to `count`.
        leftovers: also train, after its own runs, those of other shards that nobody has begun.
    """

    number: int
    count: int
    leftovers: bool = True

    def __str__(self) -> str:
        return f"shard {self.number}/{self.count}"


def divide(specs: Sequence[R], count: int) -> list[list[R]]:
    """Return the runs of each shard, in the order of the plan. Each run is in one of them.

    The result depends on the order of `specs` alone: not on what is done already, nor on the
    machine. It depends on no key either, so that machines whose runs have other keys (`precision:
    auto`) divide a suite alike.

    All shards have equally many runs, plus or minus one. A run of one method may cost ten times as
    much as one of another, and so may a run on another dataset. Therefore the runs of each row, and
    those of each condition, are spread as evenly as that allows.
    """
    # Two rows may be the same run under two names. It is trained once.
    distinct = {spec.key: spec for spec in specs}
    rows = list(dict.fromkeys(spec.row for spec in distinct.values()))
    conditions = list(dict.fromkeys(spec.condition for spec in distinct.values()))
    row_places = {row: place for place, row in enumerate(rows)}
    condition_places = {condition: place for place, condition in enumerate(conditions)}

    def place_of(key: str) -> tuple[int, int]:
        spec = distinct[key]
        return row_places[spec.row], condition_places[spec.condition]

    # Of each trait, how many runs of it each shard has been given.
    given: dict[Hashable, list[int]] = defaultdict(lambda: [0] * count)
    chosen: dict[str, int] = {}
    free: list[int] = []
    # sorted() keeps the plan's order of seeds within a row and condition.
    for key in sorted(distinct, key=lambda key: _turn(*place_of(key))):
        row, condition = place_of(key)
        counts = [given[trait] for trait in _traits(row, condition, distinct[key].seed)]
        # As when cards are dealt, each shard gets one run before any of them gets another.
        free = free or list(range(count))
        number = _least(free, *counts)
        free.remove(number)
        for of_shards in counts:
            of_shards[number] += 1
        chosen[key] = number

    divided: list[list[R]] = [[] for _ in range(count)]
    for key, spec in distinct.items():
        divided[chosen[key]].append(spec)
    return divided


def _turn(row: int, condition: int) -> tuple[int, int]:
    """Return when the runs of a row and condition are dealt: row by row, every other row backwards.

    The last shard of a round has no choice. In one direction that would always be the same
    condition.
    """
    return row, -condition if row % 2 else condition


def _traits(row: int, condition: int, seed: int) -> tuple[Hashable, ...]:
    """Return what is counted of the runs that a shard has been given, the most important first."""
    return (
        ("row and condition", row, condition),
        ("condition", condition),
        ("row", row),
        ("condition and seed", condition, seed),
    )


def _least(
    free: Sequence[int],
    both: Sequence[int],
    condition: Sequence[int],
    row: Sequence[int],
    together: Sequence[int],
) -> int:
    """Return the shard that has the least of a run's traits, of several the first.

    Args:
        free: the shards to choose from.
        both, condition, row, together: the numbers of runs with each of `_traits`, by shard.
    """
    # Rows of one condition and seed may share a helper network. Where nothing else decides they
    # come together, so that none has to wait for another shard.
    return min(free, key=lambda i: (both[i], condition[i], row[i], -together[i]))


def others(shards: Sequence[Sequence[RunSpec]], number: int) -> list[RunSpec]:
    """Return the runs of all shards but `number`, in the order in which that one looks at them.

    Each shard begins with the one after it, and at the end of that one's list: what its owner would
    train last is the least likely to be begun meanwhile.
    """
    found: list[RunSpec] = []
    for step in range(1, len(shards)):
        found += reversed(shards[(number - 1 + step) % len(shards)])
    return found
