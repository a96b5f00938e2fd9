"""Average ranks over datasets, with Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """The ranks of rows, averaged over datasets.

    Attributes:
        mean: by row, the best first; 1 is the best rank.
        ranks: by row, the rank in each dataset. Ties share their average rank.
        friedman_p: the p-value of Friedman's test that all rows rank alike, after Iman and
            Davenport; None with fewer than three rows or two datasets.
        critical_difference: average ranks that differ by this or more differ beyond chance.
        groups: rows next to each other whose average ranks differ by less; each as long as
            possible, and none within another.
    """

    mean: dict[str, float]
    ranks: dict[str, list[float]]
    friedman_p: float | None
    critical_difference: float | None
    groups: list[list[str]]


def average_ranks(values: Mapping[str, Sequence[float]], level: float = 0.95) -> Ranks:
    """Rank the rows in each dataset, and average the ranks. Higher values are better.

    The critical difference is q sqrt(k (k + 1) / (6 N)) for k rows and N datasets, where q is the
    studentized range for k means and infinite degrees of freedom, divided by sqrt(2).
    Sources: Friedman, JASA 32(200), 1937; Iman and Davenport, Communications in Statistics 9(6),
    1980; Nemenyi 1963; Demsar, Journal of Machine Learning Research 7, 2006.

    Args:
        values: by row, one value for each dataset, in one order of datasets.
    """
    import numpy as np
    from scipy import stats

    names = list(values)
    table = np.array([values[name] for name in names], dtype=float)
    rows, count = table.shape
    ranks = stats.rankdata(-table, axis=0)
    means = {name: float(ranks[i].mean()) for i, name in enumerate(names)}
    means = dict(sorted(means.items(), key=lambda item: item[1]))

    p = None
    if rows > 2 and count > 1:
        p = _friedman_p(table)
    critical = None
    if rows > 1 and count > 1:
        q = float(stats.studentized_range.ppf(level, rows, np.inf)) / math.sqrt(2)
        critical = q * math.sqrt(rows * (rows + 1) / (6 * count))
    by_row = {name: [float(rank) for rank in ranks[names.index(name)]] for name in means}
    return Ranks(means, by_row, p, critical, _groups(means, critical))


def _friedman_p(table: object) -> float:
    """Return the p-value of Friedman's statistic as Iman and Davenport's F; values (rows, sets)."""
    import numpy as np
    from scipy import special, stats

    values = np.asarray(table)
    rows, count = values.shape
    # Ties in every dataset leave nothing to test.
    if np.all(values == values[0]):
        return 1.0
    chi2 = float(stats.friedmanchisquare(*values).statistic)
    # All datasets rank the rows alike.
    rest = count * (rows - 1) - chi2
    if rest <= 1e-9:
        return 0.0
    f = (count - 1) * chi2 / rest
    return float(special.fdtrc(rows - 1, (rows - 1) * (count - 1), f))


def _groups(means: Mapping[str, float], critical: float | None) -> list[list[str]]:
    """Return the longest runs of rows whose average ranks differ by less than `critical`."""
    if critical is None:
        return []
    names = list(means)
    groups: list[list[str]] = []
    end_before = 0
    for start, first in enumerate(names):
        end = start
        while end < len(names) and means[names[end]] - means[first] < critical:
            end += 1
        # A run that ends where the one before it ends lies within that one.
        if end > end_before:
            groups.append(names[start:end])
            end_before = end
    return groups
