"""The distributions of the largest of several differences: Tukey's and Dunnett's.

scipy.stats has the first one. Importing it takes twice as long as all the rest of `nlbench table`,
and a table of 25 rows needs 300 of its values, 0.1 s each. The tests compare both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Nodes of the two integrals: over a normal variable, and over the standard deviation, which needs
# more of them where it has few degrees of freedom. Twice as many change no p-value by more than
# 1e-8 where `df` is at least rows - 1, as in every table.
_OF_Z = 112
_OF_S, _OF_S_FEW, _FEW = 32, 64, 4
# Between these, standard normal variables have all their probability but 1e-18.
_Z = 9.0
# Of the distribution of the standard deviation, less than this is left out at each end.
_TAIL = 1e-13


def _nodes(low: float, high: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of Gauss and Legendre on [low, high], each float64 (count,)."""
    import numpy as np

    x, weights = np.polynomial.legendre.leggauss(count)
    half = (high - low) / 2
    return low + half * (x + 1), half * weights


@functools.lru_cache(maxsize=64)
def _deviations(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values of s / sigma and their probabilities, each float64 (nodes,).

    s is a sample standard deviation with `df` degrees of freedom, so that df (s / sigma)^2 has
    the chi-squared distribution.
    """
    import numpy as np
    from scipy import special

    low = math.sqrt(special.chdtri(df, 1 - _TAIL) / df)
    high = math.sqrt(special.chdtri(df, _TAIL) / df)
    s, weights = _nodes(low, high, _OF_S if df >= _FEW else _OF_S_FEW)
    log_density = (
        math.log(2)
        + df / 2 * math.log(df / 2)
        - math.lgamma(df / 2)
        + (df - 1) * np.log(s)
        - df * s**2 / 2
    )
    return s, weights * np.exp(log_density)


@functools.cache
def _normal() -> tuple[np.ndarray, np.ndarray]:
    """Return values of a standard normal variable and their probabilities, each (_OF_Z,)."""
    import numpy as np

    z, weights = _nodes(-_Z, _Z, _OF_Z)
    return z, weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def tukey_p(q: Sequence[float], rows: int, df: float) -> list[float]:
    """Return the probability of a studentized range of `q` or more, for each q.

    It is 1 - integral f(s) [k integral phi(z) (Phi(z) - Phi(z - q s))^(k - 1) dz] ds.
    Source: Tukey 1953; Lund and Lund, Applied Statistics 32(2), 1983, algorithm AS 190.

    Args:
        q: differences of means divided by the standard error of one mean.
        rows: how many means there are, at least two.
        df: the degrees of freedom of the standard error.
    """
    import numpy as np
    from scipy import special

    s, of_s = _deviations(df)
    z, of_z = _normal()
    above = special.ndtr(z)

    found = []
    for one in q:
        # One line for each s, one column for each z.
        within = above[None, :] - special.ndtr(z[None, :] - one * s[:, None])
        below = rows * (within ** (rows - 1) @ of_z)
        found.append(float(np.clip(1 - of_s @ below, 0.0, 1.0)))
    return found


def dunnett_p(t: float, others: int, df: float) -> float:
    """Return the probability that the largest of `others` t values is `t` or more.

    Each is the difference of a mean to the same other mean, so they correlate with 1/2.
    Source: Dunnett, Journal of the American Statistical Association 50(272), 1955, one-sided.
    """
    from scipy import special

    s, of_s = _deviations(df)
    z, of_z = _normal()
    below = special.ndtr(math.sqrt(2) * t * s[:, None] + z[None, :]) ** others @ of_z
    return min(1.0, max(0.0, 1 - float(of_s @ below)))


def noncentral_t_p(critical: float, df: float, noncentrality: float) -> float:
    """Return the probability that |t| exceeds `critical` where t has a true difference in it.

    It is the integral f(s) [Phi(d - c s) + Phi(-d - c s)] ds, d being the noncentrality.
    """
    from scipy import special

    s, of_s = _deviations(df)
    above = special.ndtr(noncentrality - critical * s)
    below = special.ndtr(-noncentrality - critical * s)
    return min(1.0, float(of_s @ (above + below)))


@functools.lru_cache(maxsize=256)
def tukey_critical(rows: int, df: float, level: float) -> float:
    """Return the studentized range that is exceeded with probability 1 - level."""
    return _solve(lambda q: tukey_p([q], rows, df)[0], 1 - level)


@functools.lru_cache(maxsize=256)
def dunnett_critical(others: int, df: float, level: float) -> float:
    """Return the one-sided critical value of Dunnett's test with `others` comparisons."""
    return _solve(lambda t: dunnett_p(t, others, df), 1 - level)


def _solve(probability: Callable[[float], float], target: float) -> float:
    """Return where a falling function is `target`."""
    low, high = 0.0, 4.0
    while probability(high) > target:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if probability(middle) > target:
            low = middle
        else:
            high = middle
        if high - low < 1e-10 * high:
            break
    return (low + high) / 2
