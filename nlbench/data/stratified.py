"""Exact stratified parts: how many examples of each class, and which."""

from __future__ import annotations

from decimal import Decimal

import numpy as np


def allocate(counts: np.ndarray, total: int) -> np.ndarray:
    """Share `total` in proportion to `counts` (C,), in integers that add up to it exactly.

    Largest remainder, in whole numbers; of equal remainders the lower class is first. No share
    exceeds its count.

    Returns: (C,) int64.
    Raises: ValueError when `total` is not in [0, sum(counts)].
    """
    counts = np.asarray(counts, np.int64)
    available = int(counts.sum())
    if not 0 <= total <= available:
        raise ValueError(f"cannot take {total} of {available} examples")

    # Without examples the divisor is 1: all shares are 0, and nothing is divided by 0.
    shares, remainders = np.divmod(counts * total, max(available, 1))

    # In whole numbers and with a stable sort, all machines choose the same classes.
    largest = np.argsort(-remainders, kind="stable")[: total - int(shares.sum())]
    shares[largest] += 1
    return shares


def num_held_out(val_fraction: float, num_train: int) -> int:
    """Return how many training examples are held out. A half is rounded to the even number."""
    # In decimals, as a suite writes the fraction. As floats, 0.35 * 90 is 31.499999999999996.
    return round(Decimal(str(val_fraction)) * num_train)


def balanced(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` positions, as equal over the classes as possible, in random order, none twice.

    A class that has fewer than its share gives all it has, and the others share what is left. A
    remainder that does not divide goes to classes that are drawn.

    Args:
        labels: (N,) int64.
    Raises: ValueError when there are fewer than `size`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not 0 <= size <= len(labels):
        raise ValueError(f"cannot take {size} of {len(labels)} examples")

    # Classes that can still give have equal shares, so that each round raises all of them alike.
    shares = np.zeros(len(classes), np.int64)
    while left := size - int(shares.sum()):
        open_ = np.flatnonzero(shares < counts)
        if left < len(open_):
            shares[rng.permutation(open_)[:left]] += 1
        else:
            shares[open_] = np.minimum(shares[open_] + left // len(open_), counts[open_])

    # Begins with an empty array, because concatenate needs one where there is no class.
    taken = [np.empty(0, np.int64)]
    for label, share in zip(classes, shares, strict=True):
        taken.append(rng.permutation(np.flatnonzero(labels == label))[:share])
    return rng.permutation(np.concatenate(taken))


def split(labels: np.ndarray, sizes: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Part the positions 0..N-1 into disjoint stratified parts of exactly these sizes.

    Each class is shuffled once and dealt out in order, so that a part does not depend on the sizes
    of later ones.

    Args:
        labels: (N,) the classes to keep in proportion.
    Returns: one ascending int64 array of positions for each size.
    """
    classes, members = np.unique(labels, return_inverse=True)

    # Shuffled once; each part takes the next ones.
    queues = [rng.permutation(np.flatnonzero(members == c)) for c in range(len(classes))]

    parts = []
    for size in sizes:
        shares = allocate(np.array([len(queue) for queue in queues]), size)
        taken = [np.empty(0, np.int64)]
        for c, share in enumerate(shares):
            taken.append(queues[c][:share])
            queues[c] = queues[c][share:]
        parts.append(np.sort(np.concatenate(taken)))
    return parts
