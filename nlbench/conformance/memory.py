"""Find memories of the training examples that a step addresses by another number than its index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench.conformance.snapshot import fingerprint, leaves
from nlbench.method import Batch, Method


class MemoryRows:
    """Compare the rows that a step changes with the examples of its batches.

    A memory is a tensor or an array of a method with one row for each training example.

    Attributes:
        strays: name of a memory -> for each step that changed rows of other examples, where that
            was and which rows.
    """

    def __init__(self) -> None:
        self.strays: dict[str, list[str]] = {}
        self._before: dict[str, Tensor] = {}

    def before(self, method: Method) -> None:
        """Keep copies of all memories."""
        self._before = _memories(method)

    def after(self, method: Method, item: Iterable[Any], now: str) -> None:
        """Note the rows that have changed since `before` and belong to no example of the item.

        Args:
            now: the place of the training.
        """
        batches = [part for part in item if isinstance(part, Batch)]
        if not batches:
            return
        index = torch.cat([batch.index.cpu() for batch in batches])

        for name, new in _memories(method).items():
            old = self._before.get(name)
            if old is None or old.shape != new.shape:
                continue
            changed = (old != new).flatten(1).any(1).nonzero().squeeze(1)
            others = changed[~torch.isin(changed, index)]
            # A step that changes more rows than it has examples means them all, as a decay does.
            if len(others) and len(changed) <= len(index):
                rows = ", ".join(map(str, others[:4].tolist()))
                self.strays.setdefault(name, []).append(f"{now}: rows {rows}")


def unsaved(method: Method) -> dict[str, str]:
    """Return the fingerprints of the memories that no checkpoint holds, by name."""
    saved: set[str] = set()
    for name, value in method.state_dict().items():
        saved |= dict(leaves(value, f"self.{name}")).keys()
    found = {}
    for name, memory in _memories(method).items():
        if name not in saved:
            found[name] = fingerprint(memory)
    return found


def _memories(method: Method) -> dict[str, Tensor]:
    """Return copies of a method's tensors and arrays with a row for each training example."""
    found = {}
    for name, leaf in leaves(method, "self"):
        value = torch.from_numpy(leaf) if _is_plain_array(leaf) else leaf
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or value.is_sparse:
            continue
        if value.dim() and len(value) == method.task.num_train:
            copied = value.detach().cpu().clone()
            # NaN differs from itself.
            found[name] = copied.nan_to_num() if copied.is_floating_point() else copied
            found[name] = found[name].reshape(len(value), -1)
    return found


def _is_plain_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub" and leaf.ndim > 0
