"""Average ranks over datasets, with Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ranks:
    """The ranks of rows, averaged over datasets.

    Attributes:
        mean: by row, the best first; 1 is the best rank.
        ranks: by row, the rank in each dataset. Ties share their average rank.
        friedman_p: the p-value of Friedman's test that all rows rank alike; None with fewer than
            three rows or two datasets.
        exact: whether that p-value is counted over all orders, and not Iman and Davenport's F.
        critical_difference: average ranks that differ by this or more differ beyond chance.
        groups: rows next to each other whose average ranks differ by less; each as long as
            possible, and none within another.
    """

    mean: dict[str, float]
    ranks: dict[str, list[float]]
    friedman_p: float | None
    critical_difference: float | None
    groups: list[list[str]]
    exact: bool = False


# With more datasets Iman and Davenport's F is good.
_MOST_COUNTED = 10
# With so many steps the exact probability takes a tenth of a second.
_MOST_STEPS = 300_000


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
    exact = False
    if rows > 2 and count > 1:
        p = _exact_p(ranks) if count <= _MOST_COUNTED else None
        exact = p is not None
        p = _friedman_p(table) if p is None else p
    critical = None
    if rows > 1 and count > 1:
        q = float(stats.studentized_range.ppf(level, rows, np.inf)) / math.sqrt(2)
        critical = q * math.sqrt(rows * (rows + 1) / (6 * count))
    by_row = {name: [float(rank) for rank in ranks[names.index(name)]] for name in means}
    return Ranks(means, by_row, p, critical, _groups(means, critical), exact)


def _exact_p(ranks: object) -> float | None:
    """Return how often random orders agree as much as these; None where they are too many to count.

    Friedman's statistic grows with the sum of the squared rank sums. If all rows rank alike, every
    order of the ranks of a dataset is as likely as any other. Rank sums are sorted, because the
    next dataset does not care which row has which.

    Args:
        ranks: (rows, datasets), those of ties averaged.
    """
    import numpy as np

    # Ranks of ties are halves. Whole numbers can be compared exactly.
    doubled = np.rint(2 * np.asarray(ranks)).astype(int).T.tolist()
    if math.factorial(len(doubled[0])) > _MOST_STEPS:
        return None
    sums = {tuple(sorted(doubled[0])): 1}
    steps = 0
    for dataset in doubled[1:]:
        orders = Counter(itertools.permutations(dataset))
        steps += len(orders) * len(sums)
        if steps > _MOST_STEPS:
            return None
        following: Counter[tuple[int, ...]] = Counter()
        for (found, ways), (order, times) in itertools.product(sums.items(), orders.items()):
            following[tuple(sorted(map(operator.add, found, order)))] += ways * times
        sums = dict(following)

    observed = sum(total**2 for total in map(sum, zip(*doubled, strict=True)))
    at_least = 0
    for found, ways in sums.items():
        if sum(total**2 for total in found) >= observed:
            at_least += ways
    return at_least / sum(sums.values())


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
    # All datasets rank the rows alike, which random orders do this often. With ties it is more.
    rest = count * (rows - 1) - chi2
    if rest <= 1e-9:
        return float(math.factorial(rows)) ** (1 - count)
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
