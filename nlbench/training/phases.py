"""Phases of a method that a training is too short to reach."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nlbench.method import Method

# Names of hyperparameters that count epochs or steps from the start of a training, such as
# `warmup`, `warm_up_epochs` and `start_epoch`.
_COUNTS = re.compile(r"warm_?up|burn_?in|epoch|(start|begin)_(step|iter)")
_STEPS = re.compile(r"step|iter")
_SHARES = re.compile(r"share|frac|ratio|rate|lr|decay")


def unreached(
    method: Method, params: Mapping[str, object], epochs: int, steps_per_epoch: int
) -> list[str]:
    """Say which phases of a method begin after the last epoch, a sentence each.

    A method that declares its phases in `begins` is believed. Of others, a hyperparameter that by
    its name counts epochs or steps, and is not below the training's, gives the hint.
    """
    found = []
    for phase, first in method.begins.items():
        if first >= epochs:
            found.append(
                f"{phase} would begin in epoch {first + 1}, and this training has "
                f"{_counted(epochs, 'epoch')}: it never begins"
            )
    if method.begins:
        return found

    for name, value in params.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if not _COUNTS.search(name) or _SHARES.search(name):
            continue
        unit, length = "epoch", epochs
        if _STEPS.search(name):
            unit, length = "step", epochs * steps_per_epoch
        if value >= length:
            found.append(
                f"{name} is {value}, and this training has {_counted(length, unit)}: what begins "
                f"after {name} never begins. task.scaled({value}, of=...) makes it a share of the "
                "training."
            )
    return found


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'s' * (number != 1)}"
