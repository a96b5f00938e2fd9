"""Compare."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlbench.conformance.watch import Watch


@dataclass
class Training:
    """How a training went.

    Attributes:
        problem: empty for one that ended well; else what happened, where, and the likely fix.
        rows: of the history, without what a clock says; `predictions`: fingerprints of all logits that were scored.
        states: epoch -> what a checkpoint holds as it ended.
        resumed: the epochs it went on at.
    """

    watch: Watch
    problem: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    states: dict[int, dict[str, str]] = field(default_factory=dict)
    losses: list[tuple[int, int, float]] = field(default_factory=list)
    begun: dict[int, dict[str, str]] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    resumed: list[int] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def difference(one: Training, other: Training, ignore: tuple[str, ...] = ()) -> str:
    """What differed first, in words; empty where all is the same bit for bit."""
    for (epoch, step, a), (_, _, b) in zip(one.losses, other.losses, strict=False):
        if a != b and not (np.isnan(a) and np.isnan(b)):
            values = f"{a:.6g} and {b:.6g}" if f"{a:.6g}" != f"{b:.6g}" else f"{a!r} and {b!r}"
            return f"first difference: the loss of epoch {epoch}, step {step}: {values}"
    if len(one.losses) != len(other.losses):
        return f"first difference: {len(one.losses)} and {len(other.losses)} calls of backward_step"
    for row, other_row in zip(one.rows, other.rows, strict=False):
        epoch = row["epoch"]
        a, b = row["loss"], other_row["loss"]
        if a != b:
            return f"first difference: the mean loss of epoch {epoch}: {a!r} and {b!r}"
        if names := unlike(one.states.get(epoch, {}), other.states.get(epoch, {})):
            return f"first difference: the state after epoch {epoch}: {some(names)}"
        if names := [k for k in row if not k.startswith(("online_", *ignore)) and row[k] != other_row.get(k)]:
            return f"first difference: {some(names)} of epoch {epoch}"
    for name, predicted in one.predictions.items():
        if not name.startswith(ignore) and (wrong := int((predicted != other.predictions[name]).sum())):
            return f"first difference: {wrong} of {len(predicted)} predicted classes on the {name} examples"
    return ""


def unlike(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [path for path in {**one, **other} if one.get(path) != other.get(path)]


def some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
