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
