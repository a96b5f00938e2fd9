"""What a number of seeds can show: the smallest difference, and the seeds for a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nlbench.results.statistics import basic, ranges
from nlbench.results.statistics.pairs import Adjust

# "Can see" means: with this probability the test finds the difference.
POWER = 0.8

# Nobody trains more seeds than this.
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Design:
    """A table whose pairs of rows are compared.

    Attributes:
        std: the standard deviation over seeds of one row's values, without what all rows of a seed
            share. That of a difference is sqrt(2) times as large.
        rows: how many rows there are.
        adjust: how the pairs are compared, as in `pairs`.
        level: 1 minus the probability of any false difference.
    """

    std: float
    rows: int
    adjust: Adjust
    level: float = 0.95

    def critical(self, seeds: int) -> tuple[float, float]:
        """Return the critical value of t and its degrees of freedom.

        Holm's first step is Bonferroni's test; a single difference is tested so.
        """
        if self.adjust == "tukey":
            df = (self.rows - 1) * (seeds - 1)
            return ranges.tukey_critical(self.rows, df, self.level) / math.sqrt(2), df
        couples = self.rows * (self.rows - 1) / 2
        return basic.student_critical(seeds - 1, 1 - (1 - self.level) / couples), seeds - 1


def probability_of_finding(difference: float, design: Design, seeds: int) -> float:
    """Return the power: how often such a table finds a true difference of one pair.

    It is the tail of the noncentral t distribution with noncentrality
    difference / (std sqrt(2 / seeds)), as R's power.t.test(strict = TRUE) computes it.
    """
    critical, df = design.critical(seeds)
    if design.std == 0:
        return 0.0 if difference == 0 else 1.0
    noncentrality = abs(difference) / (design.std * math.sqrt(2 / seeds))
    return ranges.noncentral_t_p(critical, df, noncentrality)


def smallest_difference(design: Design, seeds: int, power: float = POWER) -> float | None:
    """Return the true difference that the table finds with probability `power`.

    None with fewer than two seeds or rows. Without any spread every difference is found.
    """
    if seeds < 2 or design.rows < 2:
        return None
    if design.std == 0:
        return 0.0
    unit = design.std * math.sqrt(2 / seeds)
    low, high = 0.0, unit
    while probability_of_finding(high, design, seeds) < power:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if probability_of_finding(middle, design, seeds) < power:
            low = middle
        else:
            high = middle
    return high


def seeds_needed(difference: float, design: Design, power: float = POWER) -> int | None:
    """Return how many seeds find a true difference with probability `power`; None for too many.

    Raises: ValueError for a difference of 0 or of fewer than two rows.
    """
    if difference == 0 or design.rows < 2:
        raise ValueError("power needs a difference and two rows")
    low, high = 1, 2
    while probability_of_finding(difference, design, high) < power:
        if high > MOST_SEEDS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if probability_of_finding(difference, design, middle) < power:
            low = middle
        else:
            high = middle
    return high
