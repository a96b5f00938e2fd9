"""Notice labels that have nothing to do with the images, or that number the classes differently."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlbench.errors import DataError

# Labels whose agreement with the truth is that far above chance are taken as related to it: a
# kappa of 0.05 is between unrelated labels (0) and symmetric noise of 80% (0.11 for ten classes).
_LEAST_KAPPA = 0.05

# The same for few images, whose agreement varies more.
_FEW_KAPPA = 0.15

# From that many standard deviations above chance on, labels are related beyond doubt.
_BEYOND_DOUBT = 4.0

# Classes count as renumbered where more than this share of each moved one has one other label.
_MOST = 0.6


@dataclass(frozen=True)
class Agreement:
    """How far labels agree with the true ones.

    Attributes:
        right: the share of equal labels.
        by_chance: the share that the same labels would have on average in any order.
        spread: the standard deviation of that share over all orders.
    """

    right: float
    by_chance: float
    spread: float

    @property
    def kappa(self) -> float:
        """Cohen's kappa: 1 for equal labels, 0 for unrelated ones."""
        return (self.right - self.by_chance) / (1 - self.by_chance)

    @property
    def unrelated(self) -> bool:
        """Whether the labels agree with the truth no more than in a random order.

        Their kappa is below the smaller one of two limits. One is four standard deviations of
        chance, since many images show even a weak relation. The other is 0.05, or one deviation
        where few images spread further, but at most 0.15, since few images of heavy noise agree by
        little: of 12 images of three classes, 7 must be wrong. Labels that agree less than chance
        by four deviations are related, too.
        """
        if self.by_chance >= 1 or self.spread == 0:
            return False
        deviation = self.spread / (1 - self.by_chance)
        limit = min(_BEYOND_DOUBT * deviation, max(_LEAST_KAPPA, min(deviation, _FEW_KAPPA)))
        return -_BEYOND_DOUBT * deviation < self.kappa < limit


def agreement(clean: np.ndarray, given: np.ndarray, num_classes: int) -> Agreement:
    """Measure how far given labels (N,) agree with the true ones, beside what chance would do."""
    N = len(clean)
    true_counts = np.bincount(clean, minlength=num_classes).astype(np.float64)
    given_counts = np.bincount(given, minlength=num_classes).astype(np.float64)
    products = true_counts * given_counts

    # Mean and variance of the number of equal labels over all orders of the given ones.
    mean = products.sum() / N
    pairs = (true_counts * (true_counts - 1) * given_counts * (given_counts - 1)).sum()
    pairs += products.sum() ** 2 - (products**2).sum()
    variance = pairs / (N * max(N - 1, 1)) + mean - mean**2
    right = float((clean == given).mean())
    return Agreement(right, mean / N, math.sqrt(max(variance, 0.0)) / N)


def renumbered(clean: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Return (C,) the label that most examples of each class have, if that is another numbering.

    It is one where the classes go to different labels, and those that move go there for the most
    part. A class without examples stays. Returns None otherwise.
    """
    pairs = np.bincount(clean * num_classes + given, minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes)
    totals = counts.sum(1)
    target = np.where(totals > 0, counts.argmax(1), np.arange(num_classes))

    moved = target != np.arange(num_classes)
    largest = counts.max(1)
    clear = largest > _MOST * totals
    # Two classes of one image each are no evidence.
    if moved.sum() < 2 or len(set(target.tolist())) < num_classes or totals[moved].sum() < 6:
        return None
    return target if clear[moved].all() else None


def unrelated(clean: np.ndarray, given: np.ndarray, num_classes: int) -> str:
    """Return in words that labels have nothing to do with the true ones, or number them otherwise.

    Returns: the beginning of a sentence, such as "66.67% of its labels are wrong, as many as ...";
        "" for labels that are related.
    """
    if not len(clean):
        return ""
    found = agreement(clean, given, num_classes)
    wrong = f"{100 * (1 - found.right):.2f}% of its labels are wrong"

    target = renumbered(clean, given, num_classes)
    if target is not None:
        moved = np.flatnonzero(target != np.arange(num_classes))
        examples = ", ".join(f"{c} has {target[c]}" for c in moved[:3])
        return (
            f"{wrong}, and most images of one class have the same other label (class {examples}), "
            f"as if the classes were in another order"
        )
    if found.unrelated:
        chance = f"{100 * (1 - found.by_chance):.2f}%"
        return f"{wrong}, as many as if they were of other images ({chance})"
    return ""


def require_related(
    clean: np.ndarray, given: np.ndarray, num_classes: int, where: str | Path
) -> None:
    """Raise DataError for labels that have nothing to do with the images, or number them otherwise.

    Args:
        where: names the file in errors.
    """
    found = unrelated(clean, given, num_classes)
    if found:
        raise DataError(
            f"{where}: {found}. Are its rows in the order of the training images, and its classes "
            f"in that of the dataset (see docs/noise.md)? A column 'index' or 'path' puts rows in "
            f"order. If the labels are meant to be so, as those of an adversary are, add "
            f"`unrelated: true` to this noise in the suite"
        )
