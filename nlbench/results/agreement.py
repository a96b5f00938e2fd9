"""`nlbench agreement`: how far two sides agree on the order of methods.

A side is a suite or a source of published numbers. Their agreement is Kendall's tau-b between the
means over seeds of the methods that both have. Needs no torch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from nlbench.errors import SuiteError, place_of_condition
from nlbench.results import cells, formats, notes, statistics
from nlbench.results.cells import Cell, Results
from nlbench.results.metrics import MEASURES, METRICS, check_metric
from nlbench.results.published import comparable, records
from nlbench.results.published.comparable import MeasuredSetting
from nlbench.results.published.records import Published
from nlbench.results.statistics import pair_signs, sign, tau_b

DRAWS = 1000

# The level of the paired t tests that decide whether an order may be chance.
LEVEL = 0.05

# Methods that a source must have. Any two methods are in one order or the other.
LEAST = 3


@dataclass(frozen=True)
class Side:
    """The common methods on one side.

    Attributes:
        cells: by the name of the row, in one order on both sides. All have the same seeds.
            Published numbers have one value, at seed 0.
        notes: what a reader must know about this side.
    """

    title: str
    cells: dict[str, Cell]
    notes: Sequence[str] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds that all cells have."""
        first = next(iter(self.cells.values()))
        return list(first.values)

    def means(self, seeds: Sequence[int]) -> list[float]:
        """Return the mean of each row over `seeds`, which may repeat."""
        means = []
        for cell in self.cells.values():
            means.append(fmean([cell.values[seed] for seed in seeds]))
        return means

    def order(self, first: str, second: str) -> int:
        """Return 1 if `first` is better than `second`, -1 if it is worse.

        Returns 0 where that may be chance, or cannot be tested.
        """
        found = cells.difference(self.cells[first], self.cells[second])
        if found is None or found.p is None or found.p >= LEVEL:
            return 0
        return sign(found.mean)


# ---- What the command prints --------------------------------------------------------------------


def between(a: Results, b: Results, *, metric: str = "last", conditions: Sequence[str] = ()) -> str:
    """Compare two suites; return Markdown with a block for each condition that both have.

    Args:
        metric: a name of METRICS.
        conditions: one title of both suites, or one of `a` and one of `b`; all common ones if
            empty.

    Raises: SuiteError for an unknown metric or condition, and where fewer than two methods can be
        compared.
    """
    check_metric(metric)
    blocks = []
    for i, j in _pairs(a, b, conditions):
        left, right = sides(a, i, b, j, metric)
        blocks.append(_render(left, right))
    return "\n".join(blocks)


def with_published(a: Results, *, metric: str = "last", conditions: Sequence[str] = ()) -> str:
    """Compare a suite with published numbers of the same rule for choosing the epoch.

    Returns Markdown with a block for each condition and each network of a source.

    Raises: SuiteError as `between`, and where no source has enough of the methods.
    """
    check_metric(metric)
    if metric not in MEASURES:
        raise SuiteError(
            f"--metric {metric}: no source reports it. Sources report: {', '.join(MEASURES)}"
        )
    if len(conditions) > 1:
        raise SuiteError(
            f"--condition: give at most one with published numbers, got it {len(conditions)} times"
        )

    places: Sequence[int] = range(len(a.conditions))
    if conditions:
        places = [_place(a, conditions[0])]
    blocks = []
    for place in places:
        for left, right in _sides_of_sources(a, place, metric):
            blocks.append(_render(left, right))

    if not blocks:
        raise _no_source(a, places, metric)
    return "\n".join(blocks)


def _no_source(a: Results, places: Sequence[int], metric: str) -> SuiteError:
    # The sources may report another epoch than the one that was asked for.
    others = []
    for other in MEASURES:
        if other != metric and any(_sides_of_sources(a, place, other) for place in places):
            others.append(other)

    hint = "`nlbench published` lists what there is"
    if others:
        hint = f"There is one for --metric {', '.join(others)}"
    return SuiteError(
        f"{a.suite}, {METRICS[metric].heading}: no source has published numbers of {LEAST} methods "
        f"that have finished runs here, on the same data and by the same rule of selection. {hint}"
    )


# ---- Conditions ---------------------------------------------------------------------------------


def _place(results: Results, name: str) -> int:
    return place_of_condition(name, results.conditions, results.suite)


def _pairs(a: Results, b: Results, given: Sequence[str]) -> list[tuple[int, int]]:
    """Return the conditions to compare, as their places in both suites."""
    if len(given) > 2:
        raise SuiteError(
            "--condition: give one of both suites, or one of A and then one of B; "
            f"got it {len(given)} times"
        )
    if given:
        return [(_place(a, given[0]), _place(b, given[-1]))]

    common = []
    for place, title in enumerate(a.conditions):
        if title in b.conditions:
            common.append((place, b.conditions.index(title)))
    if not common:
        raise SuiteError(
            f"no condition is in both suites: {a.suite} has {'; '.join(a.conditions)}; "
            f"{b.suite} has {'; '.join(b.conditions)}. Choose one of each: --condition, twice"
        )
    return common


# ---- Two suites ---------------------------------------------------------------------------------


def sides(a: Results, i: int, b: Results, j: int, metric: str) -> tuple[Side, Side]:
    """Return condition `i` of `a` and `j` of `b` with the rows that both have.

    These rows have the same method, and finished runs. Where neither suite is of the track `tuned`
    they have the same parameters, too.

    Raises: SuiteError where there are fewer than two of them, or no seed has all.
    """
    rows: list[str] = []
    # The names of the other rows, by the reason why they are left out.
    left_out: dict[str, list[str]] = {}
    # Tries choose other values for the same rows, and their order is what is compared.
    tuned = "tuned" in (a.track, b.track)
    chosen: list[str] = []
    for row in notes.once(row.name for row in [*a.rows, *b.rows]):
        missing = []
        for results, condition in ((a, i), (b, j)):
            if not results.cell(row, condition, metric).values:
                missing.append(results.suite)
        if missing:
            left_out.setdefault(f"no finished run in {' and '.join(missing)}", []).append(row)
            continue
        ours, theirs = _spec(a, row, i), _spec(b, row, j)
        differing = _differing(ours, theirs)
        if differing and not (tuned and ours["method"] == theirs["method"]):
            left_out.setdefault(f"not the same on both sides: {differing}", []).append(row)
            continue
        if differing:
            chosen.append(f"{row} {differing}")
        rows.append(row)

    below = []
    if chosen:
        below.append(f"Other values on both sides, because tries chose them: {'; '.join(chosen)}.")
    for reason, names in left_out.items():
        below.append(f"Left out: {', '.join(names)} ({reason}).")
    if len(rows) < 2:
        there = rows[0] if rows else "none"
        heading = METRICS[metric].heading
        same = "name and method" if tuned else "name, method and parameters"
        message = (
            f"{a.suite}, {a.conditions[i]} and {b.suite}, {b.conditions[j]}; {heading}: an order "
            f"needs two rows of the same {same} with finished runs on both sides, and there is "
            f"{there}; --condition chooses another noise"
        )
        raise SuiteError("\n".join([message, *below]))

    left, right = _side(a, i, metric, rows), _side(b, j, metric, rows)
    return left, replace(right, notes=[*right.notes, *below])


def _spec(results: Results, row: str, condition: int) -> dict[str, Any]:
    return results.records_of(row, condition)[0].spec


def _method_and_params(spec: Mapping[str, Any]) -> dict[str, Any]:
    params = spec.get("params")
    return {"method": spec["method"], **(params if isinstance(params, dict) else {})}


def _differing(spec: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in which values two rows of one name differ, as "q 0.7 and 0.5"; else empty."""
    ours, theirs = _method_and_params(spec), _method_and_params(other)
    parts = []
    for key in notes.once([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            parts.append(f"{key} {ours.get(key)} and {theirs.get(key)}")
    return ", ".join(parts)


def _side(results: Results, condition: int, metric: str, rows: Sequence[str]) -> Side:
    """Return the rows over the seeds that all of them have.

    Raises: SuiteError where there is no such seed.
    """
    found = {row: results.cell(row, condition, metric) for row in rows}
    common = set.intersection(*(set(cell.values) for cell in found.values()))
    title = f"{results.suite}, {results.conditions[condition]}"
    if not common:
        seeds = []
        for row, cell in found.items():
            seeds.append(f"{row} has {', '.join(map(str, sorted(cell.values)))}")
        raise SuiteError(
            f"{title}: no seed has a finished run of every row ({'; '.join(seeds)}); "
            "`nlbench run` trains the rest"
        )

    kept = {}
    for row, cell in found.items():
        values = {seed: cell.values[seed] for seed in sorted(common)}
        kept[row] = replace(cell, values=values)
    title += (
        f"; {METRICS[metric].heading}, protocol {results.protocol}, track {results.track}; "
        f"seeds {', '.join(map(str, sorted(common)))}"
    )
    return Side(title, kept, notes.of_marks(results.select(set(rows))))


# ---- A suite and the sources of published numbers -----------------------------------------------

# Table, source and network.
_Source = tuple[str, str, str]


def _sides_of_sources(results: Results, condition: int, metric: str) -> list[tuple[Side, Side]]:
    """Return a pair of sides for each source that has enough of the methods."""
    sides = []
    for (table, _, network), by_row in _numbers_by_source(results, condition, metric).items():
        # A source that does not say which form of a method it ran would give two rows the same
        # number, and a tie that does not exist.
        claimed = list(by_row.values())
        alone = {row: record for row, record in by_row.items() if claimed.count(record) == 1}
        if len(alone) < LEAST:
            continue

        published = {}
        for row, record in alone.items():
            published[row] = Cell(planned=1, values={0: record.mean / 100})

        below = []
        for line in records.sources(list(alone.values())):
            below.append(f"B is {line}")
        if table == records.CIFARN:
            below += records.CIFARN_WARNINGS

        selection = records.SELECTIONS[MEASURES[metric].selection]
        title = f"{table}, {selection}, network {network}; means as printed"
        measured = _side(results, condition, metric, list(alone))
        sides.append((measured, Side(title, published, below)))
    return sides


def _numbers_by_source(
    results: Results, condition: int, metric: str
) -> dict[_Source, dict[str, Published]]:
    """Return the nearest number of each measured row, for each source."""
    found: dict[_Source, dict[str, Published]] = {}
    for row in results.rows:
        if not results.cell(row.name, condition, metric).values:
            continue
        own = results.records_of(row.name, condition)[0]
        setting = MeasuredSetting.of(own.spec, own.noise)

        by_source: dict[_Source, list[Published]] = {}
        for record in setting.reported(MEASURES[metric]):
            # Another definition of the noise is another task. Other differences are allowed,
            # because only the order of the methods is compared.
            if comparable.definition(record) in ("", setting.definition):
                source = record.table, record.source, record.name("model")
                by_source.setdefault(source, []).append(record)

        for source, numbers in by_source.items():
            by_row = found.setdefault(source, {})
            by_row[row.name] = comparable.nearest(numbers, setting)[0]
    return found


# ---- One block ----------------------------------------------------------------------------------


def _render(a: Side, b: Side) -> str:
    rows = list(a.cells)
    x, y = a.means(a.seeds), b.means(b.seeds)
    around = interval(a, b)
    lines = []
    for row, rank_a, rank_b in zip(rows, _ranks(x), _ranks(y), strict=True):
        lines.append([row, a.cells[row].text(), rank_a, b.cells[row].text(), rank_b])

    below = [f"A: {a.title}.", f"B: {b.title}.", "rank: 1 is the highest; ties share a rank."]
    below += [_counts(a, b, x, y), _of_interval(a, b, around), *a.notes, *b.notes]
    headings = ["method", "A", "rank", "B", "rank"]
    return formats.markdown(in_words(a, b, around), headings, lines, notes.once(below))


def in_words(a: Side, b: Side, around: tuple[float, float] | None) -> str:
    """Return tau-b with the interval that `interval` found around it."""
    tau = tau_b(a.means(a.seeds), b.means(b.seeds))
    stated = "undefined, because all methods of one side tie" if tau is None else f"{tau:.2f}"
    if tau is not None and around is not None:
        stated += f" (95% interval {around[0]:.2f} to {around[1]:.2f})"
    return f"Kendall's tau-b over {len(a.cells)} methods: {stated}"


def interval(a: Side, b: Side) -> tuple[float, float] | None:
    """Return the middle 95% of tau-b over bootstrap draws of each side's seeds.

    A side with one seed stays as it is. None where both have one seed, or where tau-b is undefined
    in all draws but one.
    """
    if max(len(a.seeds), len(b.seeds)) < 2:
        return None

    # The same seeds for all methods of a side, so that what runs of one seed share stays shared.
    def drawn(side: Side, generator: random.Random) -> list[float]:
        return side.means(generator.choices(side.seeds, k=len(side.seeds)))

    def tau(generator: random.Random) -> float | None:
        return tau_b(drawn(a, generator), drawn(b, generator))

    return statistics.bootstrap_interval(tau, DRAWS)


def _ranks(values: Sequence[float]) -> list[str]:
    ranks = []
    for value in values:
        higher = sum(other > value for other in values)
        ranks.append(str(1 + higher))
    return ranks


def _counts(a: Side, b: Side, x: Sequence[float], y: Sequence[float]) -> str:
    """Count the pairs of methods in the same and in the opposite order, and those beyond chance."""
    products = [i * j for i, j in zip(pair_signs(x), pair_signs(y), strict=True)]
    text = (
        f"Of {len(products)} pairs of methods {products.count(1)} are in the same order, "
        f"{products.count(-1)} in the opposite order, {products.count(0)} tie on a side."
    )
    if min(len(a.seeds), len(b.seeds)) < 2:
        return (
            f"{text} It cannot be tested which of these orders may be chance: a side has one "
            "value for each method."
        )

    # Pairs whose order is beyond chance on both sides, and those of them that are reversed.
    clear = 0
    reverse = []
    for m, n in itertools.combinations(a.cells, 2):
        product = a.order(m, n) * b.order(m, n)
        if product:
            clear += 1
        if product < 0:
            reverse.append(f"{m} and {n}")
    text += (
        " Pairs whose order may be chance on a side (paired t test over seeds, unadjusted p of "
        f"{LEVEL} or more): {len(products) - clear}. Of the other {clear}, "
        f"{clear - len(reverse)} are in the same order"
    )
    if reverse:
        text += f", reversed: {', '.join(reverse)}"
    return text + "."


def _of_interval(a: Side, b: Side, around: tuple[float, float] | None) -> str:
    """Describe how the interval was found, and whether it is too narrow."""
    if around is None:
        return "No interval: it is drawn from the seeds, and no side has two."
    text = "interval: bootstrap over the seeds"
    # How many seeds each side has that has more than one.
    several = {}
    for name, side in (("A", a), ("B", b)):
        if len(side.seeds) > 1:
            several[name] = len(side.seeds)
    if len(several) == 1:
        text += f" of {', '.join(several)} alone, so it is too narrow"
    text += f", {DRAWS:,} draws"

    few = min(several.values())
    if few < 5:
        text += f"; with {few} seeds it is too narrow"
    return text + "."
