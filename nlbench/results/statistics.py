"""Statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nlbench.results.published.records import Published


def paired_p(mean: float, std: float, n: int) -> float:
    from scipy.special import stdtr  # Student's t, without the rest of scipy.stats

    if std == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjustment (Scandinavian Journal of Statistics, 1979) of the p values of several comparisons."""
    adjusted = [0.0] * len(ps)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Welch:
    """A measured mean minus a published one, in points.

    Attributes:
        se: standard error of the difference; None where it cannot be tested, and so are df and p.
        df: degrees of freedom after Welch and Satterthwaite.
        p: two-sided.
    """

    difference: float
    se: float | None = None
    df: float | None = None
    p: float | None = None


def welch(mean: float, std: float | None, n: int, record: Published) -> Welch:
    """Of a measured mean and sample std over n seeds, in percent. Testable with both stds and two runs at least."""
    difference = mean - record.mean
    s2, n2 = record.sample_std, record.seeds
    if std is None or s2 is None or n2 is None or min(n, n2) < 2 or std == s2 == 0:
        return Welch(difference)
    a, b = std**2 / n, s2**2 / n2
    se, df = math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n2 - 1))
    from scipy.special import stdtr  # Student's t, without the rest of scipy.stats

    return Welch(difference, se, df, float(2 * stdtr(df, -abs(difference) / se)))
