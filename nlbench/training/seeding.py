"""Seeding of the global random generators."""

from __future__ import annotations

import random
from types import TracebackType

import numpy as np
import torch

from nlbench import streams


class seeded:
    """Seed the global generators of torch, NumPy and Python within a `with` block.

    Afterwards they are as before. nlbench draws from named streams, and a method should draw from
    `run.generator`. But dropout, scikit-learn and others draw from the global generators.

    Args:
        seed, names: the stream that the seed of the generators is derived from.
    """

    def __init__(self, seed: int, *names: str | int):
        self._value = streams.derive(seed, *names)
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        self._before = np.random.get_state(), random.getstate()  # noqa: NPY002

        # torch.manual_seed is slow without a GPU, so CPU and GPUs are seeded one by one.
        torch.default_generator.manual_seed(self._value)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(self._value)
        # NumPy takes seeds of 32 bits only.
        np.random.seed(self._value % 2**32)  # noqa: NPY002
        random.seed(self._value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        np.random.set_state(self._before[0])  # noqa: NPY002
        random.setstate(self._before[1])
        self._fork.__exit__(kind, error, trace)
