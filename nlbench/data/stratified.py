"""Exact stratified parts: how many of each class, and which."""

import numpy as np


def allocate(counts: np.ndarray, total: int) -> np.ndarray:
    """Shares of `total` in proportion to `counts` (C,), integers that add up to it exactly.

    Largest remainder, in whole numbers; equal remainders go to the lower class. No share exceeds its count.

    Returns: (C,) int64.
    Raises: ValueError when `total` is not in [0, sum(counts)].
    """
    counts = np.asarray(counts, np.int64)
    available = int(counts.sum())
    if not 0 <= total <= available:
        raise ValueError(f"cannot take {total} of {available} examples")
    shares, remainders = np.divmod(counts * total, max(available, 1))
    largest = np.argsort(-remainders, kind="stable")[: total - int(shares.sum())]
    shares[largest] += 1
    return shares


def balanced(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` positions, as many of each class as can be, in random order, none twice.

    A class that has fewer than its share gives all it has, and the others share what is left; what does not divide is
    drawn.

    Args:
        labels: (N,) int64.
    Raises: ValueError when there are fewer than `size`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not 0 <= size <= len(labels):
        raise ValueError(f"cannot take {size} of {len(labels)} examples")
    shares = np.zeros(len(classes), np.int64)
    while left := size - int(shares.sum()):
        open_ = np.flatnonzero(shares < counts)  # these have equal shares
        if left < len(open_):
            shares[rng.permutation(open_)[:left]] += 1
        else:
            shares[open_] = np.minimum(shares[open_] + left // len(open_), counts[open_])
    members = (np.flatnonzero(labels == c) for c in classes)
    taken = [rng.permutation(own)[:share] for own, share in zip(members, shares, strict=True)]
    return rng.permutation(np.concatenate([*taken, np.empty(0, np.int64)]))


def split(labels: np.ndarray, sizes: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint stratified parts of the positions 0..N-1, of exactly these sizes.

    Each class is shuffled once and dealt out in order, so that a part does not depend on the sizes of later ones.

    Args:
        labels: (N,) the classes to keep in proportion.
    Returns: one ascending int64 array of positions for each size.
    """
    classes, members = np.unique(labels, return_inverse=True)
    queues = [rng.permutation(np.flatnonzero(members == c)) for c in range(len(classes))]
    parts = []
    for size in sizes:
        shares = allocate(np.array([len(queue) for queue in queues]), size)
        taken = [queue[:share] for queue, share in zip(queues, shares, strict=True)]
        queues = [queue[share:] for queue, share in zip(queues, shares, strict=True)]
        parts.append(np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64))
    return parts
