"""`nlbench agreement`: how far two sides agree on the order of methods.

A side is a suite or a source of published numbers. Their agreement is Kendall's tau-b between the
means over seeds of the methods that both have. Needs no torch.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from nlbench.errors import SuiteError, place_of_condition
from nlbench.results import cells, formats, notes, statistics, wording
from nlbench.results.cells import Cell, Results
from nlbench.results.metrics import MEASURES, METRICS, Metric, check_metric
from nlbench.results.published import comparable, records
from nlbench.results.published.comparable import MeasuredSetting
from nlbench.results.published.records import Published
from nlbench.results.statistics import pair_signs, pairs, sign, tau_b

DRAWS = 1000

# An order may be chance where the paired t test has this p-value or a higher one.
LEAST_P = 1 - pairs.LEVEL

# Methods that a source must have. Any two methods are in one order or the other.
LEAST = 3


class NoOrder(SuiteError):
    """Two conditions have no rows in common whose order can be compared."""


@dataclass(frozen=True)
class Side:
    """The common methods on one side.

    Attributes:
        cells: by the name of the row, in one order on both sides. All have the same seeds.
            Published numbers have one value, at seed 0.
        notes: what a reader must know about this side.
        diverged: the rows of which a seed diverged. The other seeds are no fair sample.
        rounding: the standard deviation of the rounding error of one value; 0 where unknown.
    """

    title: str
    cells: dict[str, Cell]
    notes: Sequence[str] = ()
    diverged: Collection[str] = ()
    rounding: float = 0.0

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

    @functools.cached_property
    def _tested(self) -> dict[tuple[str, str], tuple[int, float]]:
        """The order and the p-value of each pair of rows that can be tested.

        The order is 1 if the first row is the higher one, and -1 if it is the lower one.
        """
        found = {}
        for first, second in itertools.combinations(self.cells, 2):
            if first in self.diverged or second in self.diverged:
                continue
            delta = cells.difference(self.cells[first], self.cells[second], self.rounding)
            if delta is not None and delta.p is not None:
                found[first, second] = (sign(delta.mean), delta.p)
        return found

    def orders(self, *, corrected: bool) -> dict[tuple[str, str], int]:
        """Return the pairs of rows whose order is beyond chance, each with its order.

        The order is 1 if the first row is the higher one, and -1 if it is the lower one.

        Args:
            corrected: whether the p-values have Holm's correction over all pairs that can be
                tested.
        """
        ps = [p for _, p in self._tested.values()]
        if corrected:
            ps = statistics.holm(ps)
        clear = {}
        for (pair, (order, _)), p in zip(self._tested.items(), ps, strict=True):
            if p < LEAST_P:
                clear[pair] = order
        return clear


# ---- What the command prints --------------------------------------------------------------------


def between(a: Results, b: Results, *, metric: str = "last", conditions: Sequence[str] = ()) -> str:
    """Compare two suites; return Markdown with a block for each condition that both have.

    Args:
        metric: a name of METRICS.
        conditions: one title of both suites, or one of `a` and one of `b`; all common ones if
            empty. Those of them that cannot be compared are named below the blocks.

    Raises: SuiteError for an unknown metric or condition, for a condition that is compared with
        itself, and where fewer than two methods can be compared.
    """
    check_metric(metric)
    blocks = []
    refused: dict[str, NoOrder] = {}
    for i, j in _pairs(a, b, conditions):
        try:
            left, right = sides(a, i, b, j, metric)
        except NoOrder as error:
            refused[a.conditions[i]] = error
        else:
            blocks.append(_render(left, right, METRICS[metric]))
    return _together(blocks, refused)


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
    refused: dict[str, NoOrder] = {}
    for place in places:
        try:
            found = _sides_of_sources(a, place, metric)
        except NoOrder as error:
            refused[a.conditions[place]] = error
            continue
        for left, right in found:
            blocks.append(_render(left, right, METRICS[metric]))

    if not blocks and not refused:
        raise _no_source(a, places, metric)
    return _together(blocks, refused)


def _together(blocks: Sequence[str], refused: Mapping[str, NoOrder]) -> str:
    """Return the blocks, and the names of the conditions that have none.

    Raises: NoOrder where there is no block.
    """
    if not blocks:
        raise NoOrder("\n".join(map(str, refused.values())))
    if not refused:
        return "\n".join(blocks)
    named = (
        f"Not compared, because no order of rows can be: {'; '.join(refused)}. "
        "`--condition` with one of these says why.\n"
    )
    return "\n".join([*blocks, named])


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

    common = common_conditions(a, b)
    if not common:
        raise SuiteError(
            f"no condition is in both suites: {a.suite} has {'; '.join(a.conditions)}; "
            f"{b.suite} has {'; '.join(b.conditions)}. Choose one of each: --condition, twice"
        )
    return common


def common_conditions(a: Results, b: Results) -> list[tuple[int, int]]:
    """Return the places of the conditions that both suites have, in `a` and in `b`."""
    common = []
    for place, title in enumerate(a.conditions):
        if title in b.conditions:
            common.append((place, b.conditions.index(title)))
    return common


# ---- Two suites ---------------------------------------------------------------------------------


# By the name of a value in a row's specification: the value in A and in B, as "0.7 and 0.5".
_Differing = dict[str, str]


def sides(
    a: Results,
    i: int,
    b: Results,
    j: int,
    metric: str,
    only: Collection[str] | None = None,
) -> tuple[Side, Side]:
    """Return condition `i` of `a` and `j` of `b` with the rows that both have.

    These rows have the same method, and finished runs. Where neither suite is of the track `tuned`
    they have the same parameters, too.

    Args:
        only: the rows that may be compared; all of them by default.

    Raises: SuiteError where a condition is compared with itself; NoOrder where there are fewer
        than two rows, or no seed has all.
    """
    if a is b and i == j:
        raise SuiteError(
            f"{a.suite}: {a.conditions[i]} cannot be compared with itself; give two conditions, "
            "or another suite"
        )
    rows: list[str] = []
    # The names of the other rows, by the reason why they are left out.
    left_out: dict[str, list[str]] = {}
    # What differs between the sides in each row that is compared.
    differing: dict[str, _Differing] = {}
    tuned = "tuned" in (a.track, b.track)
    for row in notes.once(row.name for row in [*a.rows, *b.rows]):
        if only is not None and row not in only:
            continue
        missing = _missing(a, i, b, j, row, metric)
        if missing:
            left_out.setdefault(missing, []).append(row)
            continue
        ours, theirs = _spec(a, row, i), _spec(b, row, j)
        params = _differing(_method_and_params(ours), _method_and_params(theirs))
        # Tries may choose other parameters for a row. Its method must be the same.
        if params and (not tuned or "method" in params):
            left_out.setdefault(f"not the same on both sides: {_listed(params)}", []).append(row)
            continue
        rows.append(row)
        differing[row] = {**params, **_differing(_protocol(ours), _protocol(theirs))}

    below = _of_values(a, b, differing)
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
        raise NoOrder("\n".join([message, *below]))

    one, other = _names(a, i, b, j)
    left, right = _side(a, i, metric, rows, one), _side(b, j, metric, rows, other)
    return left, replace(right, notes=[*right.notes, *below])


def _missing(a: Results, i: int, b: Results, j: int, row: str, metric: str) -> str:
    """Return why a row has no value on a side, with the condition of that side; else empty."""
    unfinished: list[str] = []
    unmeasured: list[str] = []
    for results, condition in ((a, i), (b, j)):
        if results.cell(row, condition, metric).values:
            continue
        where = f"{results.suite}, {results.conditions[condition]}"
        # Every finished run has `last`. Other metrics are not measured in every run.
        if results.cell(row, condition, "last").values:
            unmeasured.append(where)
        else:
            unfinished.append(where)

    reasons = []
    if unfinished:
        reasons.append(f"no finished run in {' and '.join(unfinished)}")
    if unmeasured:
        reasons.append(f"no {METRICS[metric].heading} in {' and '.join(unmeasured)}")
    return "; ".join(reasons)


def _names(a: Results, i: int, b: Results, j: int) -> tuple[str, str]:
    """Return what tells the sides apart in a note that names the condition; else empty names."""
    if a.conditions[i] != b.conditions[j]:
        return "", ""
    if a.suite != b.suite:
        return a.suite, b.suite
    # The same suite in two folders.
    return "A", "B"


# ---- Values that differ --------------------------------------------------------------------------


def _spec(results: Results, row: str, condition: int) -> dict[str, Any]:
    return results.records_of(row, condition)[0].spec


def _method_and_params(spec: Mapping[str, Any]) -> dict[str, Any]:
    params = spec.get("params")
    return {"method": spec["method"], **(params if isinstance(params, dict) else {})}


def _protocol(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the protocol without its name, which the title of a side has."""
    return {key: value for key, value in spec.get("protocol", {}).items() if key != "name"}


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> _Differing:
    found = {}
    for key in notes.once([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            found[key] = f"{ours.get(key)} and {theirs.get(key)}"
    return found


def _listed(differing: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {values}" for key, values in differing.items())


def _of_values(a: Results, b: Results, differing: Mapping[str, _Differing]) -> list[str]:
    """Say which side is tuned, and which values of the rows are not the same on both sides."""
    tuned = [name for name, results in (("A", a), ("B", b)) if results.track == "tuned"]
    # Two protocols of different names differ in most values, and the titles have their names.
    if not differing or (not tuned and a.protocol != b.protocol):
        return []

    # What differs in all rows by the same values is named once.
    of_all = dict(set.intersection(*(set(found.items()) for found in differing.values())))
    parts = []
    for row, found in differing.items():
        own = {key: values for key, values in found.items() if key not in of_all}
        if own:
            parts.append(f"{row} {_listed(own)}")
    if of_all:
        parts.append(f"all rows {_listed(dict(sorted(of_all.items())))}")

    sentences = []
    if tuned:
        sentences.append(f"Tries chose values for each row of {' and '.join(tuned)}.")
    if parts:
        sentences.append(f"These values differ, in A and in B: {'; '.join(parts)}.")
    elif tuned:
        sentences.append("No value differs between A and B.")
    return [" ".join(sentences)] if sentences else []


# ---- The seeds of a side -------------------------------------------------------------------------


def _side(
    results: Results, condition: int, metric: str, rows: Sequence[str], name: str = ""
) -> Side:
    """Return the rows over the seeds that all of them have.

    Args:
        name: what notes on single rows call this side beside its condition.

    Raises: NoOrder where there is no such seed.
    """
    found = {row: results.cell(row, condition, metric) for row in rows}
    common = set.intersection(*(set(cell.values) for cell in found.values()))
    title = f"{results.suite}, {results.conditions[condition]}"
    if not common:
        seeds = []
        for row, cell in found.items():
            seeds.append(f"{row} has {_numbers(cell.values)}")
        raise NoOrder(
            f"{title}: no seed has a finished run of every row ({'; '.join(seeds)}); "
            "`nlbench run` trains the rest"
        )

    kept = {}
    for row, cell in found.items():
        values = {seed: cell.values[seed] for seed in sorted(common)}
        # "(n/m)" means that n seeds of this row are done. A row that has further seeds, which
        # other rows lack, would be printed with a wrong n.
        planned = cell.planned if len(cell.values) == len(common) else len(common)
        kept[row] = replace(cell, values=values, planned=planned)

    diverged = []
    for row in rows:
        if any(run.status == "diverged" for run in results.records_of(row, condition)):
            diverged.append(row)
    title += (
        f"; {METRICS[metric].heading}, protocol {results.protocol}, track {results.track}; "
        f"{_seeds(common)}{_why_few(found, common)}"
    )
    compared = results.under([condition]).select(set(rows))
    return Side(
        title,
        kept,
        notes.of_marks(compared, name),
        diverged,
        results.rounding(condition, metric),
    )


def _why_few(found: Mapping[str, Cell], common: Collection[int]) -> str:
    """Say which rows lack a seed that others have; empty where all have the same seeds."""
    known = {seed for cell in found.values() for seed in cell.values}
    lacking: dict[str, list[str]] = {}
    for row, cell in found.items():
        seeds = known - set(cell.values)
        if seeds:
            lacking.setdefault(_seeds(seeds), []).append(row)
    if not lacking:
        return ""

    parts = []
    for seeds_in_words, rows in lacking.items():
        verb = "have" if len(rows) > 1 else "has"
        parts.append(f"{wording.names(rows)} {verb} no value for {seeds_in_words}")
    return f" alone, because {'; '.join(parts)}"


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {_numbers(seeds)}"


def _numbers(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


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


def _render(a: Side, b: Side, metric: Metric) -> str:
    rows = list(a.cells)
    x, y = a.means(a.seeds), b.means(b.seeds)
    around = interval(a, b)
    ranks = _ranks(x, metric), _ranks(y, metric)
    lines = []
    for row, rank_a, rank_b in zip(rows, *ranks, strict=True):
        lines.append([row, a.cells[row].text(), rank_a, b.cells[row].text(), rank_b])

    first = "the lowest, because lower is better" if metric.lower_is_better else "the highest"
    below = [f"A: {a.title}.", f"B: {b.title}.", f"rank: 1 is {first}; ties share a rank."]
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

    A side with one seed stays as it is. None where both have one seed, and where tau-b is
    undefined: of the means, or in all draws but one.
    """
    if not _can_be_drawn(a, b) or tau_b(a.means(a.seeds), b.means(b.seeds)) is None:
        return None

    # The same seeds for all methods of a side, so that what runs of one seed share stays shared.
    def drawn(side: Side, generator: random.Random) -> list[float]:
        return side.means(generator.choices(side.seeds, k=len(side.seeds)))

    def tau(generator: random.Random) -> float | None:
        return tau_b(drawn(a, generator), drawn(b, generator))

    return statistics.bootstrap_interval(tau, DRAWS)


def _can_be_drawn(a: Side, b: Side) -> bool:
    return max(len(a.seeds), len(b.seeds)) > 1


def why_too_narrow(a: Side, b: Side, names: tuple[str, str]) -> str:
    """Return why the interval of two sides with these names is too narrow; empty if it is not."""
    # How many seeds each side has that has more than one.
    several = {}
    for name, side in zip(names, (a, b), strict=True):
        if len(side.seeds) > 1:
            several[name] = len(side.seeds)

    reasons = []
    if len(several) == 1:
        reasons.append(f"it is drawn from the seeds of {', '.join(several)} alone")
    few = min(several.values())
    if few < 5:
        reasons.append(f"{few} seeds are few")
    return " and ".join(reasons)


def _ranks(values: Sequence[float], metric: Metric) -> list[str]:
    direction = -1 if metric.lower_is_better else 1
    ranks = []
    for value in values:
        before = sum(direction * other > direction * value for other in values)
        ranks.append(str(1 + before))
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

    clear, reverse = _clear_pairs(a, b, corrected=False)
    text += (
        " Pairs whose order may be chance on a side (paired t test over seeds, unadjusted p of "
        f"{LEAST_P:g} or more): {len(products) - clear}."
    )
    diverged = notes.once([*a.diverged, *b.diverged])
    if diverged:
        text += (
            f" All pairs with {' or '.join(diverged)} are among them, because a seed diverged and "
            "the others are no fair sample."
        )
    if not clear:
        return text
    text += f" Of the other {clear}, {_same_and_reversed(clear, reverse)}"

    clear, reverse = _clear_pairs(a, b, corrected=True)
    text += (
        f" With Holm's correction over the pairs of a side, the order of {clear or 'none'} of them "
        "is beyond chance on both sides"
    )
    if not clear:
        return text + "."
    return f"{text}: {_same_and_reversed(clear, reverse)}"


def _clear_pairs(a: Side, b: Side, *, corrected: bool) -> tuple[int, list[str]]:
    """Return how many pairs have an order beyond chance on both sides, and the reversed ones.

    Args:
        corrected: as in `Side.orders`.
    """
    on_a, on_b = a.orders(corrected=corrected), b.orders(corrected=corrected)
    both = [pair for pair in on_a if pair in on_b]
    return len(both), [" and ".join(pair) for pair in both if on_a[pair] != on_b[pair]]


def _same_and_reversed(count: int, reverse: Sequence[str]) -> str:
    """Say how many of `count` pairs have the same order on both sides, and name the others."""
    same = count - len(reverse)
    are = {0: "none is", 1: "1 is"}.get(same, f"{same} are")
    text = f"{are} in the same order"
    return text + (f", reversed: {', '.join(reverse)}." if reverse else ".")


def _of_interval(a: Side, b: Side, around: tuple[float, float] | None) -> str:
    """Describe how the interval was found, and whether it is too narrow."""
    if not _can_be_drawn(a, b):
        return "No interval: it is drawn from the seeds, and no side has two."
    if around is None:
        return "No interval: tau-b is undefined."
    text = f"interval: bootstrap over the seeds, {DRAWS:,} draws"
    reason = why_too_narrow(a, b, ("A", "B"))
    if reason:
        text += f"; it is too narrow, because {reason}"
    return text + "."
