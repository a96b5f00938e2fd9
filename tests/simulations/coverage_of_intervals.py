"""Count how often the intervals of `nlbench.results.statistics` contain the truth.

    python tests/simulations/coverage_of_intervals.py --tables 10000

draws tables of five seeds from normal distributions whose true means are known, and prints for
each scenario the share of tables in which a statement about the table is right. docs/statistics.md
has the output. One scenario of 10,000 tables takes one to two minutes.
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from nlbench.results.statistics import basic, best, letters, pairs, power

ROWS, SEEDS = 6, 5
LEVEL = 0.95
DRAWS = 200


@dataclass(frozen=True)
class Scenario:
    """Tables of one kind: true means, spreads over seeds, and what seeds have in common.

    Attributes:
        means: of the rows; differences are in units of the spread.
        spreads: standard deviations of what a row does not share with the others.
        shared: the standard deviation of what all rows of a seed share.
        twins: whether the first two rows are almost the same method: 0.9 of the variance that they
            do not share with the others is common to both.
        missing: (row, seed) that have no value.
        tails: degrees of freedom of Student's t for the values; infinite is normal.
    """

    means: tuple[float, ...] = (0.0,) * ROWS
    spreads: tuple[float, ...] = (1.0,) * ROWS
    shared: float = 1.0
    twins: bool = False
    missing: tuple[tuple[int, int], ...] = ()
    tails: float = math.inf

    def draw(self, generator):
        """Return the values of one table: row -> seed -> value."""
        own = generator.standard_normal((ROWS, SEEDS))
        if math.isfinite(self.tails):
            own = generator.standard_t(self.tails, (ROWS, SEEDS))
        if self.twins:
            own[1] = math.sqrt(0.9) * own[0] + math.sqrt(0.1) * own[1]
        value = np.array(self.means)[:, None] + np.array(self.spreads)[:, None] * own
        value += self.shared * generator.standard_normal(SEEDS)
        table = {}
        for row in range(ROWS):
            kept = [seed for seed in range(SEEDS) if (row, seed) not in self.missing]
            table[f"r{row}"] = {seed: float(value[row, seed]) for seed in kept}
        return table


SCENARIOS = {
    "equal": Scenario(),
    "different means": Scenario(means=(0.0, 0.0, 1.0, 2.0, 2.0, 6.0)),
    "seeds share nothing": Scenario(shared=0.0),
    "spreads 1 to 3": Scenario(spreads=(1.0, 1.0, 1.0, 2.0, 2.0, 3.0)),
    "spreads 1 to 10": Scenario(spreads=(1.0, 1.0, 1.0, 1.0, 10.0, 10.0)),
    "one constant row": Scenario(spreads=(0.0, 1.0, 1.0, 1.0, 1.0, 1.0), shared=0.0),
    "two twins": Scenario(twins=True),
    "missing seeds": Scenario(missing=((0, 3), (0, 4), (1, 0), (2, 4))),
    "heavy tails": Scenario(tails=3.0),
}


@dataclass
class Counts:
    """How often each statement was right, and in how many tables it was made."""

    right: Counter = field(default_factory=Counter)
    made: Counter = field(default_factory=Counter)

    def add(self, name, is_right):
        self.made[name] += 1
        self.right[name] += bool(is_right)

    def share(self, name):
        return self.right[name] / self.made[name]


def simulate(scenario, tables, seed=0):
    """Return the counts of `tables` tables of a scenario."""
    generator = np.random.default_rng(seed)
    counts = Counts()
    for _ in range(tables):
        table = scenario.draw(generator)
        _count_one_difference(counts, scenario, table)
        _count_pairs(counts, scenario, table)
        if not scenario.missing:
            _count_bootstrap_ranks(counts, scenario, table, generator)
    return counts


def contains(interval, truth):
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def _count_one_difference(counts, scenario, table):
    """Count intervals of the difference of two rows, each on its own."""
    a, *_, b = table
    truth = scenario.means[0] - scenario.means[-1]
    counts.add("paired t interval", contains(pairs.between(table[a], table[b]), truth))
    unpaired = basic.welch_interval(list(table[a].values()), list(table[b].values()))
    counts.add("Welch's interval", contains(unpaired, truth))


def _count_pairs(counts, scenario, table):
    """Count statements about all rows, by Tukey, by Holm, and by the rule that chooses."""
    fitted = pairs.fit_table(table)
    p = pairs.spread_p(table, fitted)
    chosen = "Tukey" if p is None or p >= pairs.EQUAL_SPREADS else "Holm"
    counts.add("Tukey is chosen", chosen == "Tukey")
    for name, found in (("Tukey", pairs.tukey(table)), ("Holm", pairs.holm(table))):
        bounds = best.tukey_bounds(table) if name == "Tukey" else best.paired_bounds(table)
        facts = {
            "all pair intervals": _pairs_hold(found, scenario),
            "no false difference (letters)": not _false_differences(found, scenario),
            "all rank intervals": _ranks_hold(found, scenario, table),
            "all of Hsu's intervals": _hsu_holds(bounds, scenario, table),
        }
        for fact, is_right in facts.items():
            counts.add(f"{fact}, {name}", is_right)
            if name == chosen:
                counts.add(f"{fact}, chosen", is_right)


def _truth(scenario, a, b):
    return scenario.means[int(a[1:])] - scenario.means[int(b[1:])]


def _pairs_hold(found, scenario):
    return all(contains(pair, _truth(scenario, pair.a, pair.b)) for pair in found)


def _false_differences(found, scenario):
    """Return the pairs that are told apart, and are equal or in the other order in truth."""
    return [
        pair
        for pair in found
        if pair.differ() and pair.mean * _truth(scenario, pair.a, pair.b) <= 0
    ]


def _true_ranks(scenario, row):
    """Return the first and the last rank that a row shares with its equals."""
    mine = scenario.means[int(row[1:])]
    higher = sum(mean > mine for mean in scenario.means)
    return 1 + higher, sum(mean >= mine for mean in scenario.means)


def _ranks_hold(found, scenario, table):
    better = []
    for pair in found:
        if pair.differ():
            better.append((pair.a, pair.b) if pair.mean > 0 else (pair.b, pair.a))
    ranks = letters.rank_intervals(list(table), better)
    return all(_holds(ranks[row], _true_ranks(scenario, row)) for row in table)


def _holds(interval, truth):
    return interval[0] <= truth[0] and truth[1] <= interval[1]


def _hsu_holds(bounds, scenario, table):
    for row, found in best.with_the_best(list(table), bounds).items():
        mine = scenario.means[int(row[1:])]
        others = [mean for i, mean in enumerate(scenario.means) if i != int(row[1:])]
        if not found.low - 1e-12 <= mine - max(others) <= found.high + 1e-12:
            return False
    return True


def _count_bootstrap_ranks(counts, scenario, table, generator):
    """Count what nlbench does not use: the middle 95% of ranks over bootstrap draws of seeds."""
    values = np.array([list(by_seed.values()) for by_seed in table.values()])
    drawn = generator.integers(0, SEEDS, (DRAWS, SEEDS))
    means = values[:, drawn].mean(axis=2)
    ranks = 1 + (means[None, :, :] > means[:, None, :]).sum(axis=1)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="inverted_cdf")
    held = []
    for i, row in enumerate(table):
        held.append(_holds((low[i], high[i]), _true_ranks(scenario, row)))
    counts.add("rank of one row, bootstrap (not used)", held[0])
    counts.add("all ranks, bootstrap (not used)", all(held))


def simulate_power(tables, seed=0):
    """Return how often Tukey's and Holm's tests find the smallest difference that they can see."""
    generator = np.random.default_rng(seed)
    shares = {}
    for adjust, compare in (("tukey", pairs.tukey), ("holm", pairs.holm)):
        design = power.Design(std=1.0, rows=ROWS, adjust=adjust)
        smallest = power.smallest_difference(design, SEEDS)
        scenario = Scenario(means=(smallest, *(0.0,) * (ROWS - 1)))
        found = 0
        for _ in range(tables):
            first = compare(scenario.draw(generator))[0]
            found += first.differ() and first.mean > 0
        shares[adjust] = found / tables
    return shares


# Spreads of rows whose means are equal, for tables of other sizes.
DESIGNS = {
    "6 rows, spreads 1, 1, 1, 2, 2, 3": (1, 1, 1, 2, 2, 3),
    "6 rows, one of them spread 3": (1, 1, 1, 1, 1, 3),
    "10 rows, spreads 1 to 3": (1, 1, 1, 1, 1, 2, 2, 2, 3, 3),
    "10 rows, two of them spread 2": (1,) * 8 + (2,) * 2,
    "10 rows, one of them spread 4": (1,) * 9 + (4,),
}


def simulate_choice(spreads, seeds, tables, seed=0):
    """Return how often the choice between the two tests is right, as shares of tables.

    These are: Tukey's test is chosen; a table has a false difference by the chosen test, by Tukey's
    where it is chosen, by Tukey's always, and by Holm's always.
    """
    generator = np.random.default_rng(seed)
    counts = Counter()
    for _ in range(tables):
        value = np.array(spreads)[:, None] * generator.standard_normal((len(spreads), seeds))
        value += generator.standard_normal(seeds)
        table = {f"r{row}": dict(enumerate(map(float, one))) for row, one in enumerate(value)}
        p = pairs.spread_p(table, pairs.fit_table(table))
        is_tukey = p is None or p >= pairs.EQUAL_SPREADS
        by_tukey = any(pair.differ() for pair in pairs.tukey(table))
        by_holm = any(pair.differ() for pair in pairs.holm(table))
        counts["chosen"] += is_tukey
        counts["wrong"] += by_tukey if is_tukey else by_holm
        counts["wrong if chosen"] += is_tukey and by_tukey
        counts["tukey"] += by_tukey
        counts["holm"] += by_holm
    found = {name: counts[name] / tables for name in ("chosen", "wrong", "tukey", "holm")}
    found["wrong if chosen"] = counts["wrong if chosen"] / max(1, counts["chosen"])
    return found


def simulate_rounded(seeds, num_test, std, tables, seed=0, rows=10):
    """Return how often a table of equal rows has a false difference, by the chosen test.

    Values are rounded to multiples of 1 / num_test, as accuracies are.

    Args:
        std: of one row over its seeds, as a share; what all rows of a seed share spreads as much.
    """
    generator = np.random.default_rng(seed)
    rounding = 1 / (num_test * math.sqrt(12))
    wrong = 0
    for _ in range(tables):
        value = 0.8 + std * generator.standard_normal((rows, seeds))
        value += std * generator.standard_normal(seeds)
        value = np.round(value * num_test) / num_test
        table = {f"r{row}": dict(enumerate(map(float, one))) for row, one in enumerate(value)}
        used, _ = pairs.adjustment(table)
        wrong += any(pair.differ() for pair in pairs.compare(table, used, LEVEL, rounding))
    return wrong / tables


# Test examples, and the standard deviation over seeds.
ROUNDED = ((400, 0.01), (400, 0.003), (10_000, 0.002))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=10_000)
    parts = [*SCENARIOS, "power", "choice", "rounded"]
    parser.add_argument("--only", choices=parts, help="one alone")
    options = parser.parse_args()

    for name, scenario in SCENARIOS.items():
        if options.only not in (None, name):
            continue
        counts = simulate(scenario, options.tables)
        print(f"\n{name}: {options.tables:,} tables")
        for statement in counts.made:
            print(f"  {100 * counts.share(statement):6.2f}%  {statement}", flush=True)
    if options.only in (None, "power"):
        print("\nthe smallest difference that a table can see is found in")
        for adjust, share in simulate_power(options.tables).items():
            print(f"  {100 * share:6.2f}%  {adjust}")
    if options.only in (None, "choice"):
        print("\ntables with a false difference, of rows that are equal")
        for name, spreads in DESIGNS.items():
            for seeds in (3, 5, 10):
                found = simulate_choice(spreads, seeds, options.tables)
                shares = ", ".join(f"{what} {100 * share:.1f}%" for what, share in found.items())
                print(f"  {name}, {seeds} seeds: {shares}", flush=True)
    if options.only in (None, "rounded"):
        print("\ntables of 10 equal rows with a false difference, of values that are rounded")
        for num_test, std in ROUNDED:
            for seeds in (2, 3, 5):
                share = simulate_rounded(seeds, num_test, std, options.tables)
                what = f"{num_test:,} test examples, std {std:g}, {seeds} seeds"
                print(f"  {100 * share:6.2f}%  {what}", flush=True)


if __name__ == "__main__":
    main()
