"""How far two suites, or a suite and what is published, agree on the order of methods. Without torch.

Kendall's tau-b between the methods' means over seeds (Kendall, Biometrika 33(3), 1945), which counts ties: 1 is the
same order, 0 none in common, -1 the reverse.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlbench.errors import SuiteError, did_you_mean
from nlbench.results import cells as cells_
from nlbench.results import formats, metrics
from nlbench.results.cells import Cell, Results
from nlbench.results.metrics import MEASURES, METRICS
from nlbench.results.published import comparable
from nlbench.results.published import records as numbers

DRAWS = 1000
LEVEL = 0.05  # of the paired t tests that say whether an order may be chance
LEAST = 3  # methods that a source must have: any two are in one order or the other


@dataclass(frozen=True)
class Side:
    """The common methods on one side.

    Attributes:
        cells: by row, in one order on both sides; each with the same seeds. Published numbers: one value, seed 0.
        notes: what a reader must know of this side.
    """

    title: str
    cells: dict[str, Cell]
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> list[int]:
        return list(next(iter(self.cells.values())).values)

    def means(self, seeds: Sequence[int]) -> list[float]:
        """The mean of each row over `seeds`, which may repeat."""
        return [statistics.fmean(cell.values[seed] for seed in seeds) for cell in self.cells.values()]

    def order(self, first: str, second: str) -> int:
        """1 where `first` is above beyond chance, -1 where below, 0 where it may be chance or cannot be tested."""
        found = cells_.difference(self.cells[first], self.cells[second])
        if found is None or found.p is None or found.p >= LEVEL:
            return 0
        return _sign(found.mean)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _signs(values: Sequence[float]) -> list[int]:
    return [_sign(a - b) for a, b in itertools.combinations(values, 2)]


def tau_b(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's tau-b; None where it is undefined: one side has no two values that differ."""
    a, b = _signs(x), _signs(y)
    untied = sum(map(abs, a)) * sum(map(abs, b))
    return sum(i * j for i, j in zip(a, b, strict=True)) / math.sqrt(untied) if untied else None


def interval(a: Side, b: Side) -> tuple[float, float] | None:
    """The middle 95% of tau-b over bootstrap draws of each side's seeds (Efron, Annals of Statistics 7(1), 1979).

    A draw takes the same seeds for all methods of a side, so that what they share stays shared. A side with one seed
    stays as it is; None where both have one, or tau-b is undefined in every draw. Equal records, equal interval.
    """
    if max(len(a.seeds), len(b.seeds)) < 2:
        return None
    generator = random.Random(0)

    def drawn(side: Side) -> list[float]:
        return side.means(generator.choices(side.seeds, k=len(side.seeds)))

    found = [tau for _ in range(DRAWS) if (tau := tau_b(drawn(a), drawn(b))) is not None]
    if len(found) < 2:
        return None
    cuts = statistics.quantiles(found, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def between(a: Results, b: Results, *, metric: str = "last", conditions: Sequence[str] = ()) -> str:
    """Markdown: a block for each condition that both suites have.

    Args:
        metric: a name of tables.METRICS.
        conditions: titles: one of both suites, or a's and then b's; all that both have where empty.
    Raises: SuiteError for an unknown metric or condition, and where there are no two methods to compare.
    """
    metrics.check_metric(metric)
    return "\n".join(_render(*_sides(a, i, b, j, metric)) for i, j in _pairs(a, b, conditions))


def with_published(a: Results, *, metric: str = "last", conditions: Sequence[str] = ()) -> str:
    """Markdown: a block for each condition and each network of a source with numbers of the same rule of selection.

    Raises: SuiteError as `between`, and where no source has enough of the methods.
    """
    metrics.check_metric(metric)
    if metric not in MEASURES:
        raise SuiteError(f"--metric {metric}: no source reports it. Sources report: {', '.join(MEASURES)}")
    if len(conditions) > 1:
        raise SuiteError(f"--condition: once at most beside published numbers, got it {len(conditions)} times")
    places = [_place(a, title) for title in conditions] or range(len(a.conditions))
    blocks = [_render(*sides) for place in places for sides in _beside_sources(a, place, metric)]
    if not blocks:
        others = [m for m in MEASURES if m != metric and any(_beside_sources(a, p, m) for p in places)]
        hint = f"There is one for --metric {', '.join(others)}" if others else "`nlbench published` lists what there is"
        raise SuiteError(
            f"{a.plan['suite']}, {METRICS[metric].heading}: no source has published numbers of {LEAST} methods that "
            f"have finished runs here, on the same data and by the same rule of selection. {hint}"
        )
    return "\n".join(blocks)


def _place(results: Results, title: str) -> int:
    known = results.conditions
    if title not in known:
        raise SuiteError(
            f"--condition {title!r}: {results.plan['suite']} has no such condition. It has: {'; '.join(known)}."
            f"{did_you_mean(title, known)}"
        )
    return known.index(title)


def _pairs(a: Results, b: Results, given: Sequence[str]) -> list[tuple[int, int]]:
    if len(given) > 2:
        raise SuiteError(f"--condition: once for both suites, or twice, of A and of B; got it {len(given)} times")
    if given:
        return [(_place(a, given[0]), _place(b, given[-1]))]
    both = [title for title in a.conditions if title in b.conditions]
    if not both:
        raise SuiteError(
            f"no condition is in both suites: {a.plan['suite']} has {'; '.join(a.conditions)}; {b.plan['suite']} has "
            f"{'; '.join(b.conditions)}. Choose one of each: --condition, twice"
        )
    return [(a.conditions.index(title), b.conditions.index(title)) for title in both]


def _sides(a: Results, i: int, b: Results, j: int, metric: str) -> tuple[Side, Side]:
    """Of the rows of one name, method and parameters that have values on both sides; says which others there are."""
    rows: list[str] = []
    left_out: dict[str, list[str]] = {}  # by the reason
    for row in dict.fromkeys(r["row"] for r in [*a.rows, *b.rows]):
        lacking = [r.plan["suite"] for r, place in ((a, i), (b, j)) if not r.cell(row, place, metric).values]
        if lacking:
            left_out.setdefault(f"no finished run in {' and '.join(lacking)}", []).append(row)
        elif differing := _differing(_spec(a, row, i), _spec(b, row, j)):
            left_out.setdefault(f"{differing}, and so not the same on both sides", []).append(row)
        else:
            rows.append(row)
    notes = [f"Left out: {', '.join(names)} ({reason})." for reason, names in left_out.items()]
    if len(rows) < 2:
        what = f"{a.plan['suite']}, {a.conditions[i]} and {b.plan['suite']}, {b.conditions[j]}; "
        what += METRICS[metric].heading
        raise SuiteError(
            f"{what}: an order needs two rows of the same name, method and parameters with finished runs on both "
            "sides, and there is "
            + "\n".join([f"{rows[0] if rows else 'none'}; --condition chooses another noise", *notes])
        )
    left, right = _side(a, i, metric, rows), _side(b, j, metric, rows)
    return left, replace(right, notes=(*right.notes, *notes))


def _spec(results: Results, row: str, condition: int) -> dict[str, Any]:
    return next(record.spec for record in results.of(row, condition))


def _differing(spec: dict[str, Any], other: dict[str, Any]) -> str:
    """What tells two rows of one name apart, as "q 0.7 and 0.5"; empty where nothing does."""
    ours, theirs = ({"method": s["method"], **s["params"]} for s in (spec, other))
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} {ours.get(key)} and {theirs.get(key)}" for key in keys)


def _side(results: Results, condition: int, metric: str, rows: Sequence[str]) -> Side:
    """The rows over the seeds that all of them have. Raises SuiteError where there is none."""
    cells = {row: results.cell(row, condition, metric) for row in rows}
    seeds = sorted(set.intersection(*(set(cell.values) for cell in cells.values())))
    title = f"{results.plan['suite']}, {results.conditions[condition]}"
    if not seeds:
        there = "; ".join(f"{row} has {', '.join(map(str, sorted(cell.values)))}" for row, cell in cells.items())
        raise SuiteError(f"{title}: no seed has a finished run of every row ({there}); `nlbench run` trains the rest")
    kept = {row: replace(cell, values={seed: cell.values[seed] for seed in seeds}) for row, cell in cells.items()}
    of_what = f"{METRICS[metric].heading}, protocol {results.plan['protocol']}, track {results.plan['track']}"
    return Side(f"{title}; {of_what}; seeds {', '.join(map(str, seeds))}", kept, tuple(results.marks()))


def _beside_sources(results: Results, condition: int, metric: str) -> list[tuple[Side, Side]]:
    measure, selection, test_set = MEASURES[metric]
    found: dict[tuple[str, str, str], dict[str, numbers.Published]] = {}
    for row in (r["row"] for r in results.rows if results.cell(r["row"], condition, metric).values):
        own = results.of(row, condition)[0]
        setting = comparable.Setting.of(own.spec, own.noise)
        groups: dict[tuple[str, str, str], list[numbers.Published]] = {}
        for record in setting.records(test_set):
            same = (record.metric, record.selection) == (measure, selection)
            if same and comparable.definition(record) in ("", setting.definition):
                groups.setdefault((record.table, record.source, record.name("model")), []).append(record)
        for key, records in groups.items():
            found.setdefault(key, {})[row] = comparable.nearest(records, setting)[0]
    sides = []
    for (table, _, network), records_of in found.items():
        # A source that does not say which form of a method it ran would be two rows' number, and so a tie that is none.
        claimed = list(records_of.values())
        alone = {row: record for row, record in records_of.items() if claimed.count(record) == 1}
        if len(alone) >= LEAST:
            cells = {row: Cell(1, {0: record.mean / 100}) for row, record in alone.items()}
            notes = [f"B is {line}" for line in numbers.sources(list(alone.values()))]
            notes += numbers.CIFARN_WARNINGS if table == "CIFAR-N Table 2" else ()
            title = f"{table}, {numbers.SELECTIONS[selection]}, network {network}; means as printed"
            sides.append((_side(results, condition, metric, list(alone)), Side(title, cells, tuple(notes))))
    return sides


def _render(a: Side, b: Side) -> str:
    rows, x, y = list(a.cells), a.means(a.seeds), b.means(b.seeds)
    tau, around = tau_b(x, y), interval(a, b)
    stated = "undefined, for all methods of a side tie" if tau is None else f"{tau:.2f}"
    if tau is not None and around is not None:
        stated += f" (95% interval {around[0]:.2f} to {around[1]:.2f})"
    columns = [[a.cells[row].text() for row in rows], _ranks(x), [b.cells[row].text() for row in rows], _ranks(y)]
    lines = [list(line) for line in zip(rows, *columns, strict=True)]
    notes = [f"A: {a.title}.", f"B: {b.title}.", "rank: 1 is the highest; ties share one."]
    notes += [_counts(a, b, x, y), _of_interval(a, b, around), *a.notes, *b.notes]
    title = f"Kendall's tau-b over {len(rows)} methods: {stated}"
    return formats.markdown(title, ["method", "A", "rank", "B", "rank"], lines, list(dict.fromkeys(notes)))


def _ranks(values: Sequence[float]) -> list[str]:
    return [str(1 + sum(other > value for other in values)) for value in values]


def _counts(a: Side, b: Side, x: Sequence[float], y: Sequence[float]) -> str:
    products = [i * j for i, j in zip(_signs(x), _signs(y), strict=True)]
    text = (
        f"Of {len(products)} pairs of methods {products.count(1)} are in the same order, {products.count(-1)} in the "
        f"other, {products.count(0)} tie on a side."
    )
    if min(len(a.seeds), len(b.seeds)) < 2:
        return f"{text} Which of them are within noise cannot be tested: a side has one value a method."
    orders = {(m, n): (a.order(m, n), b.order(m, n)) for m, n in itertools.combinations(a.cells, 2)}
    clear = {pair: i * j for pair, (i, j) in orders.items() if i * j}
    reverse = [f"{m} and {n}" for (m, n), product in clear.items() if product < 0]
    text += (
        f" {len(products) - len(clear)} are within noise on a side (paired t test over seeds, unadjusted p {LEVEL} or "
        f"more); of the other {len(clear)}, {len(clear) - len(reverse)} are in the same order"
    )
    return f"{text}, reversed: {', '.join(reverse)}." if reverse else f"{text}."


def _of_interval(a: Side, b: Side, around: tuple[float, float] | None) -> str:
    if around is None:
        return "No interval: it is drawn from the seeds, and no side has two."
    several = [letter for letter, side in (("A", a), ("B", b)) if len(side.seeds) > 1]
    of_one = f" of {several[0]} alone, so that it is too narrow" if len(several) == 1 else ""
    few = min(len(side.seeds) for side in (a, b) if len(side.seeds) > 1)
    small = f"; {few} seeds are few, and it is too narrow" if few < 5 else ""
    return f"interval: bootstrap over the seeds{of_one}, {DRAWS:,} draws{small}."
