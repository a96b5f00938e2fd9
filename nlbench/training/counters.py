"""What is counted of the logits that training steps return, besides memorisation and losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nlbench.contract import returned
from nlbench.method import Batch, Method
from nlbench.results.record import Metrics
from nlbench.results.summary import CHANGES, COMPARED
from nlbench.training import evaluate
from nlbench.training.evaluate import Memorisation
from nlbench.training.examples import Counter, GivenLosses


class PredictionChanges:
    """Counts the examples whose predicted class has changed since the epoch before.

    An example is compared if both epochs have seen it in a step that returned logits. Where a
    method goes through the examples once for each of its networks, the last pass counts.

    Args:
        labels: (N,) int64, the given labels, whose number and device alone are used.
    """

    def __init__(self, labels: Tensor):
        # The predicted classes in this epoch and in the one before, -1 for an example not seen.
        # Written on the device, so that a step does not wait for it.
        self._now = torch.full_like(labels, -1)
        self._before = torch.full_like(labels, -1)

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Keep the classes that logits (B, C) predict for a batch."""
        self._now.index_copy_(0, batch.index, logits.argmax(1))

    def take(self) -> Metrics:
        """Return how many examples have changed, and of how many, and begin the next epoch.

        Both are None if no example was compared, as in the first epoch.
        """
        compared = (self._now >= 0) & (self._before >= 0)
        changed = compared & (self._now != self._before)
        number, changes = int(compared.sum()), int(changed.sum())

        self._before.copy_(self._now)
        self._now.fill_(-1)
        if not number:
            return {CHANGES: None, COMPARED: None}
        return {CHANGES: changes, COMPARED: number}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of it."""
        return {"now": self._now, "before": self._before}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._now.copy_(state["now"])
        self._before.copy_(state["before"])


class GradientEntries:
    """Takes the mean of the gradient's entry at the true class, apart for each part of a loss.

    Args:
        method: its `gradient_parts` names the parts.
        labels, clean_labels: (N,) int64, as `Memorisation` takes them.
    """

    def __init__(self, method: Method, labels: Tensor, clean_labels: Tensor):
        self._method, self._labels, self._clean = method, labels, clean_labels
        # By part: sum and number of the entries of correctly and of wrongly labelled examples.
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, logits: Tensor, batch: Batch) -> None:
        """Add the entries of a batch, after its step."""
        parts = self._method.gradient_parts(logits, batch)
        clean = self._clean[batch.index]
        right, known = self._labels[batch.index] == clean, clean >= 0
        groups = torch.stack([known & right, known & ~right]).double()  # (2, B)

        for name, part in returned.gradient_parts(parts, *logits.shape).items():
            # A method may compute them on the CPU.
            part = part.to(clean.device, torch.float64)
            entries = part.gather(1, clean.clamp(min=0)[:, None]).squeeze(1)
            # A sum with its own order, so that a GPU gives the same bits again.
            sums = torch.stack([(groups * entries).sum(1), groups.sum(1)], 1)
            if name in self._sums:
                # In place, because a captured step goes on using this memory.
                self._sums[name] += sums
            else:
                self._sums[name] = sums

    def take(self) -> Metrics:
        """Return the means since the last call; None for a mean of no example.

        gradient_PART_clean, gradient_PART_wrong   of correctly, of wrongly labelled examples
        """
        metrics: Metrics = {}
        for name, sums in self._sums.items():
            for group, (total, number) in zip(("clean", "wrong"), sums.tolist(), strict=True):
                metrics[f"gradient_{name}_{group}"] = total / number if number else None
            sums.zero_()
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of it."""
        return self._sums

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._sums = {name: sums.to(self._labels.device) for name, sums in state.items()}


@dataclass
class Counters:
    """All that is counted in the steps of a run.

    Attributes:
        memorisation: None where no true label is known.
        gradients: None where they are not recorded.
    """

    losses: GivenLosses
    changes: PredictionChanges
    memorisation: Memorisation | None = None
    gradients: GradientEntries | None = None

    @classmethod
    def of(
        cls, method: Method, labels: Tensor, clean_labels: Tensor | None, record_gradients: bool
    ) -> Counters:
        """Make the counters of a run.

        Args:
            labels, clean_labels: (N,) int64, as `Memorisation` takes them; None if no true label is
                known.
            record_gradients: as in `RunOptions`.
        """
        made = cls(GivenLosses(labels), PredictionChanges(labels))
        if clean_labels is not None:
            made.memorisation = Memorisation(labels, clean_labels)
            if record_gradients:
                made.gradients = GradientEntries(method, labels, clean_labels)
        return made

    def by_name(self) -> dict[str, Counter]:
        """Return the counters that look at the steps."""
        found: dict[str, Counter] = {"losses": self.losses, "changes": self.changes}
        if self.memorisation is not None:
            found["memorisation"] = self.memorisation
        if self.gradients is not None:
            found["gradients"] = self.gradients
        return found

    def active(self) -> list[Counter]:
        """Return the counters, for the steps of an epoch."""
        return list(self.by_name().values())

    def take(self) -> Metrics:
        """Return the metrics of the epoch that has ended, and begin the next one."""
        metrics = {**evaluate.shares("online", self.memorisation), **self.changes.take()}
        return metrics if self.gradients is None else {**metrics, **self.gradients.take()}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return what a checkpoint holds of them."""
        return {name: counter.state_dict() for name, counter in self.by_name().items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore what `state_dict` returned."""
        for name, counter in self.by_name().items():
            if name in state:
                counter.load_state_dict(state[name])
