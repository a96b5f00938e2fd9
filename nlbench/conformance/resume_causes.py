"""Find the value that makes a method go on differently after a resume, and the fix."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nlbench.conformance.lab import Lab
from nlbench.conformance.outcome import Outcome
from nlbench.conformance.snapshot import Snapshot, is_short, leaves, registered, unlike
from nlbench.conformance.trial import Trial
from nlbench.method import Method

OUT_OF_SIGHT = (
    "no attribute of the method, its class, its module or the networks differs as an epoch begins: "
    "look for state in a closure, a default argument or an optimiser of your own, and for draws in "
    "prepare(), which runs again on a resume"
)

_GENERATORS = torch.Generator | np.random.Generator | random.Random | np.random.RandomState


def causes(lab: Lab, resumed: Outcome, trial: Trial) -> str:
    """Describe what differs at the beginning of an epoch after a resume, and how to keep it.

    Args:
        resumed: the outcome of a trial that was stopped and continued.
        trial: the same trial without a stop.
    Returns: an empty string if nothing differs that can be seen.
    """
    # A file that is executed again shows what its class and module hold, too.
    whole = lab.attempt(dataclasses.replace(trial, fresh=True))
    if whole.problem:
        whole = lab.attempt(trial)

    # What differs after the first different loss may be a consequence.
    last = min(_first_different_epoch(whole, resumed), max(resumed.begun, default=0))
    for epoch in range(1, last + 1):
        described = _differences(whole, resumed, epoch)
        if described:
            return "\n".join([f"at the start of epoch {epoch} these differ:", *described])
    return ""


def _first_different_epoch(whole: Outcome, resumed: Outcome) -> int:
    for (epoch, _, a), (_, _, b) in zip(whole.losses, resumed.losses, strict=False):
        if a != b:
            return epoch
    return whole.watch.run.epoch


def _differences(whole: Outcome, resumed: Outcome, epoch: int) -> list[str]:
    """Describe each attribute that differs at the beginning of an epoch."""
    method = whole.watch.method
    saved: set[str] = set()
    for name, value in method.state_dict().items():
        saved |= dict(leaves(value, f"self.{name}")).keys()

    # Those that no checkpoint holds come first.
    one, other = whole.begun[epoch], resumed.begun[epoch]
    # One line for an attribute, however many of its values differ.
    by_root: dict[str, list[str]] = {}
    for path in sorted(unlike(one, other), key=lambda path: path in saved):
        by_root.setdefault(_root_of(path), []).append(path)

    return [_describe(root, paths, one, other, method) for root, paths in by_root.items()]


def _root_of(path: str) -> str:
    """Return the attribute that a path begins with: "self.memory" of "self.memory['n']"."""
    found = re.match(r"run\.networks\[\d+\]\.\w+|\w+(\.\w+)?|.*", path)
    return found[0] if found else path


def _describe(root: str, paths: list[str], one: Snapshot, other: Snapshot, method: Method) -> str:
    seen = ""
    # The values are shown if the attribute is a single short value.
    before, after = one.get(paths[0], "absent"), other.get(paths[0], "absent")
    if len(paths) == 1 and is_short(before) and is_short(after):
        seen = f" ({before}, after the resume {after})"

    if not root.startswith(("self.", "run.")):
        fix = (
            "is a class attribute or a global variable, which no checkpoint holds and other runs "
            "share: keep it in a buffer of self, or return it from get_extra_state()"
        )
    elif not root.startswith("self."):
        fix = "is an attribute put on a network: keep it in the method"
    else:
        fix = _fix_for_attribute(root.removeprefix("self."), other.get(root, ""), method)
    return f"`{root}`{seen} {fix}"


def _fix_for_attribute(name: str, resumed: str, method: Method) -> str:
    """Return why no checkpoint restores the attribute `name` of a method, and what to do.

    Args:
        resumed: its value after the resume, where it is short.
    """
    value = getattr(method, name, None)
    # Registered, and yet not restored.
    known = registered(method)
    if isinstance(known.get(name), Tensor) and name not in method.state_dict():
        return "is a buffer with persistent=False, which no checkpoint holds: leave that out"
    if name in known:
        return (
            "is registered, yet differs: prepare() or what it depends on changes it after it was "
            "restored"
        )

    # Not registered: what it is decides where it belongs.
    if _holds_modules(value):
        kind = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
        plain = type(value).__name__
        return f"holds modules in a plain {plain}: use {kind}, or assign each to self, in prepare()"
    if isinstance(value, torch.optim.Optimizer):
        return (
            "is an optimiser no checkpoint knows: register it with "
            "run.optimise(params, factory, name)"
        )
    if isinstance(value, _GENERATORS):
        return "is a generator whose place no checkpoint holds: draw from run.generator(name)"
    if isinstance(value, Tensor):
        return (
            f'is a plain attribute: register it with self.register_buffer("{name}", ...) in the '
            "constructor"
        )
    if isinstance(value, np.ndarray):
        return (
            f'is a NumPy array: make it a tensor, self.register_buffer("{name}", torch.zeros(...))'
        )
    if isinstance(value, bool | int | float):
        buffer = f'self.register_buffer("{name}", torch.tensor({resumed}))'
        return f"is a plain number: {buffer} in the constructor"

    what = type(value).__name__
    return f"is a plain {what}: keep its tensors in buffers, or return it from get_extra_state()"


def _holds_modules(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(isinstance(part, nn.Module) for part in value)
