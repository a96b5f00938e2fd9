"""Resume causes."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench.conformance.compare import Training, unlike
from nlbench.conformance.lab import Lab
from nlbench.conformance.snapshot import leaves
from nlbench.method import Method

OUT_OF_SIGHT = (
    "no attribute of the method, its class, its module or the networks differs as an epoch begins: look for state in a "
    "closure, a default argument or an optimiser of your own, and for draws in prepare(), which runs again on a resume"
)


def culprits(lab: Lab, parts: Training, how: dict[str, Any]) -> str:
    """What the continued method holds as an epoch begins that the uninterrupted one does not, and what to do."""
    whole = lab.train(fresh=True, **how)  # looks at class and module, too
    if whole.problem:
        whole = lab.train(**how)
    method = whole.watch.method
    saved = {path for name, value in method.state_dict().items() for path, _ in leaves(value, f"self.{name}")}
    pairs = zip(whole.losses, parts.losses, strict=False)
    first = next((epoch for (epoch, _, a), (_, _, b) in pairs if a != b), whole.watch.run.epoch)
    for epoch in range(1, min(first, max(parts.begun, default=0)) + 1):  # what differs later may be a consequence
        one, other = whole.begun[epoch], parts.begun[epoch]
        paths = sorted(unlike(one, other), key=lambda path: path in saved)
        by_root: dict[str, list[str]] = {}
        for path in paths:
            root = re.match(r"run\.networks\[\d+\]\.\w+|\w+(\.\w+)?|.*", path)
            by_root.setdefault(root[0] if root else path, []).append(path)
        if by_root:
            lines = [f"at the start of epoch {epoch} these differ:"]
            return "\n".join(lines + [_culprit(root, found, one, other, method) for root, found in by_root.items()])
    return ""


def _culprit(root: str, paths: list[str], one: dict[str, str], other: dict[str, str], method: Method) -> str:
    name = root.removeprefix("self.")
    value = getattr(method, name, None) if root.startswith("self.") else None
    short = [p for p in paths if len(one.get(p, "")) < 30 and len(other.get(p, "")) < 30]
    seen = (
        f" ({one.get(short[0], 'absent')}, after the resume {other.get(short[0], 'absent')})"
        if short[:1] == paths
        else ""
    )
    modules = any(isinstance(part, nn.Module) for part in (value if isinstance(value, list | tuple) else [])) or (
        isinstance(value, dict) and any(isinstance(part, nn.Module) for part in value.values())
    )
    if not root.startswith(("self.", "run.")):
        fix = (
            "is a class attribute or a global variable, which no checkpoint holds and other runs share: keep it in a "
            "buffer of self, or return it from get_extra_state()"
        )
    elif name in method._non_persistent_buffers_set:
        fix = "is a buffer with persistent=False, which no checkpoint holds: leave that out"
    elif not root.startswith("self."):
        fix = "is an attribute put on a network: keep it in the method"
    elif name in {**method._buffers, **method._parameters, **method._modules}:
        fix = "is registered, yet differs: prepare() or what it depends on changes it after it was restored"
    elif modules:
        kind = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
        fix = f"holds modules in a plain {type(value).__name__}: use {kind}, or assign each to self, in prepare()"
    elif isinstance(value, torch.optim.Optimizer):
        fix = "is an optimiser no checkpoint knows: register it with run.optimise(params, factory, name)"
    elif isinstance(value, torch.Generator | np.random.Generator | random.Random | np.random.RandomState):
        fix = "is a generator whose place no checkpoint holds: draw from run.generator(name)"
    elif isinstance(value, Tensor):
        fix = f'is a plain attribute: register it with self.register_buffer("{name}", ...) in the constructor'
    elif isinstance(value, np.ndarray):
        fix = f'is a NumPy array: make it a tensor, self.register_buffer("{name}", torch.zeros(...))'
    elif isinstance(value, bool | int | float):
        fix = f'is a plain number: self.register_buffer("{name}", torch.tensor({other.get(root)})) in the constructor'
    else:
        what = type(value).__name__
        fix = f"is a plain {what}: keep its tensors in buffers, or return it from get_extra_state()"
    return f"`{root}`{seen} {fix}"
