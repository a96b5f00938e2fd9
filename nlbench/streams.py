"""Random streams: each draw of a run comes from a generator that (seed, name, ...) determines.

Noise, split, initial weights, order, augmentation and method have a stream each. So the draws of
one method cannot shift another's: for one seed every method sees the same split, labels, initial
weights, order and augmentation.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit integer for a stream, the same on every machine and in every version."""
    # Not hash(), which gives another number for a text in each process.
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of a stream, for example of (0, "order", epoch)."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
