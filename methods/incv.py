"""Iterative noisy cross-validation, INCV. Chen et al., ICML 2019, arXiv:1905.05040.

Before the training, examples are selected in rounds. The candidates, at first all examples, are
halved at random. A helper network learns from one half and all examples selected so far, and in the
other half selects the examples whose label it predicts; then the halves change places. All helper
networks begin with the same weights. Kept are those with the highest accuracy on the labels of the
other half, in later rounds the last ones. After the very first half, the noise rate e is the
smallest one that explains the agreement of labels and predictions, (1-e)^2 + e^2 / (C-1). In each
half, min(2, e / (1-e)) times as many examples as were selected are dropped from the candidates,
those with the largest losses.

Then two networks learn from the selected examples by co-teaching: each takes its step on the small
losses of the other one. The kept fraction falls from 1 to 1 - e_S, the estimated rate of wrong
labels among the selected. After a warm-up each batch also gets some of the candidates that are
left, up to half of its size, while the number of kept examples stays.

Constants are those of the authors' code, chenpf1025/noisy_label_understanding_utilizing. It is told
the type of the noise: for `asym` nothing is dropped and e_S is another. `symmetric` is that choice,
and a default here. (Its `asym` is pair flip over all classes, not the map of other papers.)
Differences from that code:
- The protocol's optimiser and schedule replace Adam and its steps, also in the selection.
- e is (C-1)/C at most. There it can reach 1, and e / (1-e) is then a division by 0.
- Where nothing is to be dropped nothing is; there an index of -0 would drop everything.
- Losses for the small-loss selection are those of the step's forward pass; there they are computed
  again in evaluation mode. A batch keeps at least one example. Network 0 predicts.
- Where no example is selected, or none of an epoch's examples is, all of them are.
An epoch is a pass through the selected examples, so it has fewer steps than the protocol's.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.mixmatch import cycle, numpy_rng
from nlbench.ops.small_loss import smallest


class INCV(Method):
    num_networks = 2

    selected: Tensor
    candidates: Tensor
    rate: Tensor

    def __init__(
        self,
        task: Task,
        # All values are from the authors' code.
        rounds: int = 4,
        selection_share: float = 50 / 200,  # length of a training in the selection
        ramp_share: float = 10 / 200,
        # 80 of 200 epochs where the estimated rate is above 0.6, or with `symmetric: false`.
        warmup_share: float = 40 / 200,
        symmetric: bool = True,
    ):
        super().__init__(task)
        if rounds < 1:
            raise ValueError(f"rounds must be >= 1, got {rounds}")
        shares = (selection_share, ramp_share, warmup_share)
        names = ("selection_share", "ramp_share", "warmup_share")
        for name, share in zip(names, shares, strict=True):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")
        self.rounds, self.symmetric, N = rounds, symmetric, task.num_train
        self.length, self.ramp, self.warmup = (task.scaled(share, of=1) for share in shares)
        self.begins = {"the candidates": self.warmup + 1}
        self.register_buffer("selected", torch.zeros(N, dtype=torch.bool))
        self.register_buffer("candidates", torch.ones(N, dtype=torch.bool))
        self.register_buffer("rate", torch.tensor(0.0, dtype=torch.float64))

    def prepare(self, run: Run) -> None:
        """Select examples by cross-validation."""
        self.selected.zero_()
        self.candidates.fill_(True)
        best_rounds = self.rounds
        for i in range(self.rounds):
            left = self.candidates.nonzero().squeeze(1)
            if len(left) < 2:
                break
            shuffled = torch.randperm(len(left), generator=run.generator(f"round{i}"))
            left = left[shuffled.to(left.device)]
            halves = left[: len(left) // 2], left[len(left) // 2 :]

            found: list[Tensor] = []
            dropped: list[Tensor] = []
            for half, other in (halves, halves[::-1]):
                own = torch.cat([self.selected.nonzero().squeeze(1), half])
                keep: Literal["best-accuracy", "last"]
                keep = "best-accuracy" if i < best_rounds else "last"
                network = run.fit(
                    "incv", "ce", self.length, examples=own, held_out=other, keep=keep
                )
                logits, labels = run.predict_train(network, other), run.task.labels[other]
                agree = logits.argmax(1) == labels
                if i == 0 and not found:
                    agreement = float(agree.double().mean())
                    self.rate.fill_(noise_rate(agreement, run.task.num_classes))
                found.append(other[agree])
                losses = F.cross_entropy(logits, labels, reduction="none")
                dropped.append(other[self.largest(losses, int(agree.sum()))])

            self.selected[torch.cat(found)] = True
            gone = torch.cat(found + dropped) if self.symmetric else torch.cat(found)
            self.candidates[gone] = False
            best_rounds = rounds_with_the_best(float(self.rate), self.symmetric)
        if not self.selected.any():
            self.selected.fill_(True)
            self.candidates.zero_()

    def largest(self, losses: Tensor, num_selected: int) -> Tensor:
        """Return the positions of those of `losses` (n,) whose examples are dropped."""
        rate = float(self.rate)
        count = int(min(2.0, rate / (1 - rate)) * num_selected)
        return torch.argsort(losses, stable=True)[max(0, len(losses) - count) :]

    def batches(self, run: Run, epoch: int) -> Iterator[tuple[Batch, int]]:
        """Yield (batch, how many of its examples are kept)."""
        rate, size, order = float(self.rate), run.task.batch_size, run.order()
        k = run.task.num_classes - 1 if self.symmetric else 1
        wrong = rate**2 / (rate**2 + k * (1 - rate) ** 2)
        keep = 1 - wrong * min(1.0, epoch / self.ramp)

        own, left = order[self.selected[order]], order[self.candidates[order]]
        own = own if len(own) else order
        warmup = 2 * self.warmup if rate > 0.6 or not self.symmetric else self.warmup
        num_left = min(len(left) * size // len(own), size // 2) if epoch > warmup else 0
        parts = cycle(left, num_left, numpy_rng(run.generator("candidates"))) if num_left else None
        for index in own.split(size):
            count = max(1, round(keep * len(index)))
            if parts is not None:
                index = torch.cat([index, next(parts)])
            yield run.batch(index), count

    def training_step(self, run: Run, batch: Batch, count: int) -> Tensor:
        """Let each network train on the other's pick; return the (B, C) logits of network 0."""
        logits = [network(batch.images) for network in run.networks]
        losses = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        first, second = (smallest(own, count / len(batch)) for own in losses)
        run.backward_step(losses[0][second].mean(), "network0")
        run.backward_step(losses[1][first].mean(), "network1")
        return logits[0]

    def own_labels(self) -> Tensor:
        """Return 1 for selected examples, 1/2 for candidates and 0 for the dropped ones, (N,)."""
        return torch.where(self.selected, 1.0, 0.5 * self.candidates.double())

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)


def noise_rate(agreement: float, num_classes: int) -> float:
    """Return the smallest rate, in steps of 0.001, that explains this share of agreement."""
    highest = (num_classes - 1) / num_classes
    for step in range(1, math.floor(1000 * highest) + 1):
        rate = step / 1000
        if (1 - rate) ** 2 + rate**2 / (num_classes - 1) <= agreement:
            return rate
    return highest


def rounds_with_the_best(rate: float, symmetric: bool) -> int:
    """Return how many rounds keep the best weights, and not the last ones."""
    if not symmetric or rate > 0.6:
        return 1
    return 2 if rate > 0.3 else 4
