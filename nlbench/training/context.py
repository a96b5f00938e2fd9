"""Context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nlbench import registry
from nlbench.results.store import Store

OnEpoch = Callable[[int, int, dict[str, Any]], None]  # epoch from 0, epochs, its row of the history


@dataclass(frozen=True)
class Context:
    """Where a run runs; nothing of it changes a result."""

    store: Store
    device: torch.device
    methods: dict[str, registry.MethodFile]
    checkpoint_seconds: float = 10.0  # a checkpoint at the first end of an epoch after so long
    on_epoch: OnEpoch = lambda epoch, epochs, row: None
    on_fit: OnEpoch = lambda epoch, epochs, row: None
    on_resume: Callable[[int, int], None] = lambda epoch, epochs: None  # epoch it goes on at, from 0
    wait: bool = True  # for a helper network that another process trains; else FitHeld is raised
    cuda_graphs: bool | None = None  # of the default training step, on a GPU; None: where the model is one of ours
    jobs: int = 1  # runs that are trained at once on the device, for the record


class FitHeld(Exception):
    """Another process trains a helper network that this run needs: the run can be tried again later."""
