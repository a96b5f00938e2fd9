"""The statistics of tables and reports, on plain numbers."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# ---- Means and tests ----------------------------------------------------------------------------


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of no values."""
    return statistics.fmean(values) if values else None


def sample_std(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (ddof 1), None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def _student_p(t: float, df: float) -> float:
    """Return the two-sided p-value of Student's t with `df` degrees of freedom."""
    # Imported here because it takes longer than all the rest of a table, and it is needed only
    # where a row has two seeds. scipy.special does without the rest of scipy.stats.
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(t)))


def paired_p(mean: float, std: float, n: int) -> float:
    """Return the two-sided p-value of the paired t test.

    Args:
        mean: the mean of the differences.
        std: their sample standard deviation.
        n: how many there are, at least two.
    """
    # All differences are equal, so t would be infinite or, without a difference, undefined.
    if std == 0:
        return 1.0 if mean == 0 else 0.0
    return _student_p(mean / (std / math.sqrt(n)), n - 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values of several comparisons after Holm's correction, in their order.

    Source: Holm, Scandinavian Journal of Statistics 6(2), 1979.
    """
    adjusted = [0.0] * len(ps)

    # The smallest p-value is multiplied by the number of comparisons, the next by one less. An
    # adjusted value is never below a smaller one's.
    by_size = sorted(range(len(ps)), key=lambda i: ps[i])
    highest = 0.0
    for rank, i in enumerate(by_size):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Welch:
    """The difference of two means, and Welch's t test of it.

    Attributes:
        difference: the first mean minus the second.
        se: its standard error; None where there is no test, and so are `df` and `p`.
        df: the degrees of freedom after Welch and Satterthwaite.
        p: the two-sided p-value.
    """

    difference: float
    se: float | None = None
    df: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Sample:
    """Mean, sample standard deviation and size of a sample; what is unknown is None."""

    mean: float
    std: float | None
    n: int | None


def welch(first: Sample, second: Sample) -> Welch:
    """Compare two means. There is a test where both samples have a std and at least two values."""
    difference = first.mean - second.mean
    # Without a spread there is nothing to test against.
    if first.std is None or first.n is None or second.std is None or second.n is None:
        return Welch(difference)
    if min(first.n, second.n) < 2 or first.std == second.std == 0:
        return Welch(difference)

    # The squared standard error of each mean.
    a = first.std**2 / first.n
    b = second.std**2 / second.n
    se = math.sqrt(a + b)
    df = (a + b) ** 2 / (a**2 / (first.n - 1) + b**2 / (second.n - 1))
    return Welch(difference, se, df, _student_p(difference / se, df))


# ---- The order of methods -----------------------------------------------------------------------


def sign(value: float) -> int:
    """Return 1, 0 or -1."""
    return (value > 0) - (value < 0)


def pair_signs(values: Sequence[float]) -> list[int]:
    """Return the sign of the difference of each pair, in the order of itertools.combinations."""
    return [sign(a - b) for a, b in itertools.combinations(values, 2)]


def tau_b(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Kendall's tau-b, which counts ties; None where all of `x` or all of `y` tie.

    1 is the same order, 0 no order in common, -1 the reverse. `x` and `y` are paired.
    Source: Kendall, Biometrika 33(3), 1945.
    """
    a, b = pair_signs(x), pair_signs(y)
    untied = sum(map(abs, a)) * sum(map(abs, b))
    if not untied:
        return None
    return sum(i * j for i, j in zip(a, b, strict=True)) / math.sqrt(untied)


def bootstrap_interval(
    statistic: Callable[[random.Random], float | None], draws: int
) -> tuple[float, float] | None:
    """Return the middle 95% of a statistic over bootstrap draws, the same ones in every call.

    Source: Efron, Annals of Statistics 7(1), 1979.

    Args:
        statistic: draws its sample with the generator that it is given; None where it is undefined.
    """
    generator = random.Random(0)
    found = []
    for _ in range(draws):
        value = statistic(generator)
        if value is not None:
            found.append(value)
    if len(found) < 2:
        return None
    # The first and the last of 40 parts of 2.5% each are left out.
    cuts = statistics.quantiles(found, n=40, method="inclusive")
    return cuts[0], cuts[-1]
