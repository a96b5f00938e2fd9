"""Random streams: every draw of a run comes from a generator derived from (seed, name, ...) and from nothing else.

A stream of its own for noise, split, init, order, augment and method means that one method's draws cannot shift
another's, so that for one seed every method sees the same split, labels, initial weights, order and augmentation.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit integer from the seed and the stream's name parts, the same on every machine and version."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of the stream `names` of `seed`, for example rng(0, "noise") or rng(0, "order", epoch)."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
