"""How a trial went, and the first difference between two trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlbench.conformance.snapshot import Snapshot, unlike
from nlbench.conformance.watch import Watch

# Metrics of an epoch that depend on the clock.
CLOCK = ("seconds", "images_per_second")

# The arrays of predictions.npz that trials are compared by -> what they hold. Of the method's own
# opinion, a record may have none.
KEPT = {
    "test": "predicted classes on the test examples",
    "train": "predicted classes on the train examples",
    "own_score": "scores that own_labels gives (own_score)",
    "own_label": "classes that own_labels suggests (own_label)",
}


@dataclass
class Outcome:
    """The outcome of a trial.

    Attributes:
        watch: what was observed; of a trial that was stopped and continued, in its last part.
        problem: what went wrong, where, and the likely fix; empty for a trial that ended well.
        history: the metrics of each epoch, without those of the clock. "predictions" holds
            fingerprints of all logits that were scored.
        states: epoch -> what a checkpoint holds at its end.
        losses: (epoch, step, loss) of each backward_step.
        begun: epoch -> everything that was held at its beginning.
        predictions: the arrays of predictions.npz that are named in KEPT.
        warnings: of the store, for example about a checkpoint that cannot be read.
        notes: of the records, for example about a setting of torch that was put back.
    """

    watch: Watch
    problem: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    states: dict[int, Snapshot] = field(default_factory=dict)
    losses: list[tuple[int, int, float]] = field(default_factory=list)
    begun: dict[int, Snapshot] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, watch: Watch) -> None:
        """Add what was observed of the trial's next part."""
        self.watch = watch
        self.losses += watch.losses
        self.states |= watch.ended
        # A part begins with an epoch that the part before has begun and not trained.
        for epoch, held in watch.begun.items():
            self.begun.setdefault(epoch, held)


def difference(one: Outcome, other: Outcome, ignore: tuple[str, ...] = ()) -> str:
    """Describe the first difference between two trials; empty if they are equal bit for bit.

    Args:
        ignore: beginnings of the names of metrics and predictions that may differ.
    """
    found = _losses_differ(one, other)
    found = found or _epochs_differ(one, other, ignore)
    found = found or _predictions_differ(one, other, ignore)
    return f"first difference: {found}" if found else ""


def _losses_differ(one: Outcome, other: Outcome) -> str:
    for (epoch, step, a), (_, _, b) in zip(one.losses, other.losses, strict=False):
        if a != b and not (math.isnan(a) and math.isnan(b)):
            values = f"{a:.6g} and {b:.6g}"
            # Six digits may not show the difference.
            if f"{a:.6g}" == f"{b:.6g}":
                values = f"{a!r} and {b!r}"
            return f"the loss of epoch {epoch}, step {step}: {values}"

    if len(one.losses) != len(other.losses):
        return f"{len(one.losses)} and {len(other.losses)} calls of backward_step"
    return ""


def _epochs_differ(one: Outcome, other: Outcome, ignore: tuple[str, ...]) -> str:
    # Online metrics count the clean labels, which a check permutes. All else that they depend on is
    # compared below.
    ignore = ("online_", *ignore)

    for metrics, others in zip(one.history, other.history, strict=False):
        epoch = metrics["epoch"]
        a, b = metrics["loss"], others["loss"]
        if a != b:
            return f"the mean loss of epoch {epoch}: {a!r} and {b!r}"

        paths = unlike(one.states.get(epoch, {}), other.states.get(epoch, {}))
        if paths:
            return f"the state after epoch {epoch}: {some(paths)}"

        names = []
        for name, value in metrics.items():
            if value != others.get(name) and not name.startswith(ignore):
                names.append(name)
        if names:
            return f"{some(names)} of epoch {epoch}"
    return ""


def _predictions_differ(one: Outcome, other: Outcome, ignore: tuple[str, ...]) -> str:
    for name, what in KEPT.items():
        if name.startswith(ignore):
            continue
        predicted, others = one.predictions.get(name), other.predictions.get(name)
        # The method may have no opinion, or the same one of all examples.
        if predicted is None and others is None:
            continue
        if predicted is None or others is None:
            return f"only one of them has {what}"

        # NaN stands for an example of which nothing is known.
        same = (predicted == others) | ((predicted != predicted) & (others != others))
        if not same.all():
            return f"{int((~same).sum())} of {len(predicted)} {what}"
    return ""


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and the number of the others, as a message lists them."""
    text = ", ".join(names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
