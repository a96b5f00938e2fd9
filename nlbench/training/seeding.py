"""Seeding."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from nlbench import streams


class seeded:
    """Within it the global generators of torch, NumPy and Python come from the stream; afterwards they are as before.

    A method should draw from run.generator; scikit-learn, dropout and habit draw from these.
    """

    def __init__(self, seed: int, *names: str | int):
        self._value = streams.derive(seed, *names)
        self._fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self._fork.__enter__()
        self._before = np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.default_generator.manual_seed(self._value)  # torch.manual_seed is slow where there is no GPU
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(self._value)
        np.random.seed(self._value % 2**32)  # noqa: NPY002
        random.seed(self._value)

    def __exit__(self, *error: Any) -> None:
        np.random.set_state(self._before[0])  # noqa: NPY002
        random.setstate(self._before[1])
        self._fork.__exit__(*error)
