"""What the values of one condition show beyond chance: ties, ranks, differences, and their limits.

`analyse` looks at one metric of one condition. docs/statistics.md explains every number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from nlbench.errors import SuiteError, did_you_mean
from nlbench.results import statistics, wording
from nlbench.results.cells import Results, SuiteRow
from nlbench.results.metrics import METRICS, check_metric
from nlbench.results.statistics import best, letters, pairs, power
from nlbench.results.statistics.basic import Interval
from nlbench.results.statistics.pairs import Pair

__all__ = [
    "LEVEL",
    "Analysis",
    "Interval",
    "Pair",
    "RowAnalysis",
    "analyse",
    "baseline_of",
    "without_test",
]

Adjust = Literal["auto", "tukey", "holm"]
LEVEL = pairs.LEVEL


@dataclass(frozen=True)
class RowAnalysis:
    """One row of a suite under one condition. Numbers are as in the records, None where undefined.

    Attributes:
        planned: how many seeds the plan has.
        n: how many of them have a value.
        diverged: how many diverged. A row with one is not ranked: the mean of the other seeds is
            not the mean of the row.
        failed: how many ended with an error.
        std: the sample standard deviation over seeds.
        letters: the tie groups. Rows that share a letter cannot be told apart; "" where not ranked,
            and where the table needs more letters than there are.
        tied: the other ranked rows that it cannot be told apart from, the best first; None where
            not ranked.
        rank_low: the best rank that the row may have, all rows together; 1 is the best.
        rank_high: the worst one.
        minus_baseline: the row minus the baseline, paired where they share two seeds. `low` and
            `high` are for this difference alone, `p` is Holm's over the rows. A row that is not
            ranked has the mean, too: over the `n` seeds that have a value, which says nothing about
            those that diverged. Where a seed of either row diverged there is no interval and no p.
        minus_baseline_welch: the same, as if the seeds of the rows had nothing in common.
        minus_best: the row minus the best of the others, by Hsu, all rows together.
        alone: whether the row has one seed where others have more. It has no spread of its own,
            and is not ranked.
    """

    row: str
    label: str
    n: int
    planned: int
    diverged: int
    failed: int
    mean: float | None
    std: float | None
    values: dict[int, float]
    letters: str = ""
    tied: tuple[str, ...] | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    minus_baseline: Interval | None = None
    minus_baseline_welch: Interval | None = None
    minus_best: Interval | None = None
    alone: bool = False

    @property
    def ranked(self) -> bool:
        """Whether the row is compared with the others.

        It has a value then, no seed diverged, and it has two seeds where others have.
        """
        return self.n > 0 and not self.diverged and not self.alone

    @property
    def ties(self) -> str:
        """What the column `ties` says: the letters, else the number of tied rows, else "-"."""
        if self.tied is None:
            return "-"
        count = len(self.tied)
        return self.letters or f"{count} row{'s' * (count != 1)}"


@dataclass(frozen=True)
class Analysis:
    """The comparison of all rows of a suite by one metric under one condition.

    Attributes:
        rows: the best mean first; rows without a value last, in the order of the suite.
        pairs: all pairs of ranked rows that have a test or at least a difference.
        adjust: how the pairs are adjusted, "tukey" or "holm".
        level: 1 minus the probability of any false difference that the tests are made for.
        baseline: the row that differences are taken to.
        smallest_difference: the true difference that the table finds with probability 0.8.
        seeds: the fewest seeds that a ranked row has.
        design: the table as the computations of power see it; None where there is no spread.
        test_error: the standard error of the best row's value over the test examples, which has
            nothing to do with seeds; None where the metric is no share of the test examples.
        num_test: how many test examples there are.
        sentence: the comparison in words.
        test: how pairs are compared, one of the notes; "" where no pair has a test.
        notes: what a reader of the numbers must know.
    """

    metric: str
    condition: str
    rows: list[RowAnalysis]
    pairs: list[Pair]
    adjust: Literal["tukey", "holm"]
    level: float
    baseline: str | None
    smallest_difference: float | None
    seeds: int
    design: power.Design | None
    test_error: float | None
    num_test: int | None
    sentence: str
    test: str = ""
    notes: list[str] = field(default_factory=list)

    def of(self, row: str) -> RowAnalysis:
        """Return the analysis of one row. Raises KeyError for an unknown one."""
        return {found.row: found for found in self.rows}[row]

    def seeds_for(self, difference: float) -> int | None:
        """Return how many seeds would find this difference with probability 0.8.

        None where the table has no spread to compute with, or where more than 10,000 are needed.
        """
        if self.design is None or self.design.std == 0:
            return None
        return power.seeds_needed(difference, self.design)


def analyse(
    results: Results,
    condition: int,
    metric: str = "last",
    *,
    against: str | None = None,
    adjust: Adjust = "auto",
    level: float = LEVEL,
) -> Analysis:
    """Compare all rows of a suite under one condition, also those that a table does not show.

    Args:
        against: the row that differences are taken to; by default `ce` where there is one.
        adjust: "tukey" takes one spread for the whole table, "holm" one for each pair. "auto" is
            Tukey's unless Bartlett's test finds that the spreads of the rows differ.

    Raises: SuiteError for an unknown metric or row.
    """
    check_metric(metric)
    baseline = baseline_of(results, against)
    rows = [_row(results, row, condition, metric) for row in results.all_rows]
    lower = bool(METRICS[metric].lower_is_better)
    rows.sort(key=lambda row: _order(row, lower))
    several = any(row.ranked and row.n > 1 for row in rows)
    rows = [replace(row, alone=several and row.n == 1) for row in rows]
    rounding = results.rounding(condition, metric)

    # In the analysis below higher is better. Differences are turned back before they are returned.
    sign = -1 if lower else 1
    values = {}
    for row in rows:
        if row.ranked:
            values[row.row] = {seed: sign * value for seed, value in row.values.items()}
    mixed = _mixed(results, condition, list(values))
    notes = [mixed] if mixed else []
    if mixed:
        values = {}
    used, why = pairs.adjustment(values, adjust)
    compared = pairs.compare(values, used, level, rounding)

    better = [_winner_first(pair) for pair in compared if pair.differ(level)]
    rows = _with_ties(rows, values, better, tested=any(pair.p is not None for pair in compared))
    rows = _with_best(rows, values, _bounds(values, used, level, rounding), sign)
    rows = _with_baseline(rows, baseline, level, rounding)

    seeds = min((len(by_seed) for by_seed in values.values()), default=0)
    design = _design(values, used, level, rounding)
    smallest = None if design is None else power.smallest_difference(design, seeds)
    num_test, test_error = _test_error(results, condition, metric, rows)
    analysis = Analysis(
        metric=metric,
        condition=results.conditions[condition],
        rows=rows,
        pairs=[_turned(pair, sign) for pair in compared],
        adjust=used,
        level=level,
        baseline=baseline,
        smallest_difference=smallest,
        seeds=seeds,
        design=design,
        test_error=test_error,
        num_test=num_test,
        sentence="",
        notes=notes,
    )
    return wording.with_words(analysis, better, why)


def baseline_of(results: Results, against: str | None) -> str | None:
    """Return the row that differences are taken to: `against`, else `ce`, else None.

    Raises: SuiteError for a row that the suite does not have.
    """
    names = [row.name for row in results.all_rows]
    if against is None:
        return "ce" if "ce" in names else None
    if against not in names:
        raise SuiteError(
            f"--against {against}: no such row. There are: {', '.join(names)}."
            f"{did_you_mean(against, names)}"
        )
    return against


# ---- Rows ---------------------------------------------------------------------------------------


def _row(results: Results, row: SuiteRow, condition: int, metric: str) -> RowAnalysis:
    cell = results.cell(row.name, condition, metric)
    statuses = [record.status for record in results.records_of(row.name, condition)]
    return RowAnalysis(
        row=row.name,
        label=row.label,
        n=len(cell.values),
        planned=cell.planned,
        diverged=statuses.count("diverged"),
        failed=statuses.count("failed"),
        mean=cell.mean,
        std=cell.std,
        values=dict(cell.values),
    )


def _order(row: RowAnalysis, lower: bool) -> tuple[bool, float]:
    if row.mean is None:
        return True, 0.0
    return False, row.mean if lower else -row.mean


def _mixed(results: Results, condition: int, rows: Sequence[str]) -> str:
    """Say why the rows must not be compared: other data, or another version of a protocol."""
    data: dict[str, list[str]] = {}
    versions: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for record in results.records_of(row, condition):
            spec = record.spec
            data.setdefault(str(spec.get("fingerprint")), []).append(row)
            protocol: Mapping[str, object] = spec.get("protocol", {})
            name, version = str(protocol.get("name")), str(protocol.get("version"))
            versions.setdefault(name, {}).setdefault(version, []).append(row)

    title = results.conditions[condition]
    if len(data) > 1:
        return f"{title}: rows are not compared, because their runs read different data."
    for name, found in versions.items():
        if len(found) > 1:
            listed = [f"{v} ({', '.join(dict.fromkeys(r))})" for v, r in sorted(found.items())]
            return (
                f"{title}: rows are not compared, because their runs have different versions of "
                f"protocol {name}: {'; '.join(listed)}."
            )
    return ""


# ---- Pairs --------------------------------------------------------------------------------------


def _winner_first(pair: Pair) -> tuple[str, str]:
    return (pair.a, pair.b) if pair.mean > 0 else (pair.b, pair.a)


def _turned(pair: Pair, sign: int) -> Pair:
    """Return a pair of values that were multiplied by `sign`, in the values of the records."""
    if sign > 0 or pair.low is None or pair.high is None:
        return Pair(pair.a, pair.b, sign * pair.mean, pair.low, pair.high, pair.p)
    return Pair(pair.a, pair.b, -pair.mean, -pair.high, -pair.low, pair.p)


def _with_ties(
    rows: Sequence[RowAnalysis],
    values: Mapping[str, pairs.BySeed],
    better: Sequence[tuple[str, str]],
    tested: bool,
) -> list[RowAnalysis]:
    """Return the rows with letters and ranks, where anything was tested."""
    if not tested:
        return list(rows)
    ranked = list(values)
    differing = {frozenset(pair) for pair in better}
    groups = letters.letters(ranked, differing)
    ranks = letters.rank_intervals(ranked, better)
    found = []
    for row in rows:
        if row.row in ranks:
            low, high = ranks[row.row]
            others = (name for name in ranked if name != row.row)
            row = _changed(
                row,
                letters=groups.get(row.row, ""),
                tied=tuple(name for name in others if frozenset((name, row.row)) not in differing),
                rank_low=low,
                rank_high=high,
            )
        found.append(row)
    return found


def _bounds(
    values: Mapping[str, pairs.BySeed],
    used: Literal["tukey", "holm"],
    level: float,
    rounding: float,
) -> best.Bounds:
    """Return the bounds that Hsu's intervals are made from, by the test that pairs have."""
    bounds = best.tukey_bounds(values, level, rounding) if used == "tukey" else None
    return best.paired_bounds(values, level, rounding) if bounds is None else bounds


def _with_best(
    rows: Sequence[RowAnalysis],
    values: Mapping[str, pairs.BySeed],
    bounds: best.Bounds,
    sign: int,
) -> list[RowAnalysis]:
    """Return the rows with Hsu's intervals."""
    if len(values) < 2:
        return list(rows)
    from_best = best.with_the_best(list(values), bounds)

    found = []
    for row in rows:
        one = from_best.get(row.row)
        if one is not None and (one.low is not None and one.high is not None):
            # Adding 0 turns a negative zero, which would be printed with its sign.
            low, high = sorted((sign * one.low + 0.0, sign * one.high + 0.0))
            interval = Interval(sign * one.mean, low, high, None, row.n, None, "hsu")
            row = _changed(row, minus_best=interval)
        found.append(row)
    return found


def _with_baseline(
    rows: Sequence[RowAnalysis], baseline: str | None, level: float, rounding: float
) -> list[RowAnalysis]:
    """Return the rows with their differences to the baseline, and Holm's p-values over the rows."""
    if baseline is None:
        return list(rows)
    of_baseline = next(row for row in rows if row.row == baseline)
    reference = of_baseline.values
    both: dict[str, tuple[Interval | None, Interval | None]] = {}
    for row in rows:
        if row.row == baseline:
            continue
        paired = pairs.seed_by_seed(row.values, reference, level, rounding)
        if paired is None or paired.n < 2:
            paired = pairs.between(row.values, reference, level, rounding)
        unpaired = statistics.welch_interval(
            list(row.values.values()), list(reference.values()), level, rounding
        )
        if row.diverged or of_baseline.diverged:
            paired, unpaired = without_test(paired), without_test(unpaired)
        both[row.row] = paired, unpaired

    adjusted: list[dict[str, float]] = []
    for place in (0, 1):
        raw = {}
        for name, intervals in both.items():
            one = intervals[place]
            if one is not None and one.p is not None:
                raw[name] = one.p
        adjusted.append(dict(zip(raw, statistics.holm(list(raw.values())), strict=True)))

    found = []
    for row in rows:
        paired, unpaired = both.get(row.row, (None, None))
        row = _changed(
            row,
            minus_baseline=_adjusted(paired, adjusted[0].get(row.row)),
            minus_baseline_welch=_adjusted(unpaired, adjusted[1].get(row.row)),
        )
        found.append(row)
    return found


def without_test(interval: Interval | None) -> Interval | None:
    """Return a difference alone. The seeds that did not diverge are no fair sample of a row."""
    if interval is None:
        return None
    return replace(interval, low=None, high=None, p=None, p_alone=None)


def _adjusted(interval: Interval | None, p: float | None) -> Interval | None:
    return None if interval is None else replace(interval, p=p)


def _changed(row: RowAnalysis, **fields: object) -> RowAnalysis:
    return replace(row, **fields)  # type: ignore[arg-type]


# ---- Limits -------------------------------------------------------------------------------------


def _design(
    values: Mapping[str, pairs.BySeed],
    used: Literal["tukey", "holm"],
    level: float,
    rounding: float,
) -> power.Design | None:
    """Return the table as the computations of power see it; None without a spread."""
    if len(values) < 2:
        return None
    if used == "tukey":
        fitted = pairs.fit_table(values, rounding)
        if fitted is None or fitted.std == 0:
            return None
        return power.Design(fitted.std, len(values), "tukey", level)

    # Each pair has its own spread, so the table can see more in some pairs than in others.
    deviations = sorted(pairs.deviations(values, rounding))
    middle = deviations[len(deviations) // 2] if deviations else 0.0
    if middle == 0:
        return None
    return power.Design(middle / math.sqrt(2), len(values), "holm", level)


def _test_error(
    results: Results, condition: int, metric: str, rows: Sequence[RowAnalysis]
) -> tuple[int | None, float | None]:
    """Return the number of test examples, and the standard error over them of the best row."""
    reported = METRICS[metric].reported_as
    sizes = {record.noise.get("num_test") for record in results.records_under(condition)}
    sizes -= {None, 0}
    # Other test sets have other numbers of examples, which no record holds.
    if reported is None or reported.test_set or len(sizes) != 1:
        return None, None
    (size,) = sizes
    means = [row.mean for row in rows if row.mean is not None]
    if size is None or not means:
        return None, None
    return size, statistics.share_error(means[0], size)
