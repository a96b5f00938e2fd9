"""Cross entropy that predicts by averaged weights, a part of ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151.

A control: what ELR+ gains over this comes from its other parts, not from weight averaging. The network trains exactly
as `ce` does; a copy of it takes in its weights after each step,

    average <- d * average + (1 - d) * weights,  d = decay * exp(-5 * (1 - min(g + 1, E) / E)^2),  g the step,

ELR+'s ramp for CIFAR (shengliu66/ELR, ELR_plus), and is what predicts. Done differently from there: the copy starts as
the network, not at random weights of its own, of which d near 0 leaves nothing either way. The authors average the
parameters alone and run their copies in training mode; in evaluation mode that would leave batch norm the statistics of
no network, so its means and variances are averaged with the same d, and integer counts are copied. E scales with the
length of the training, `decay` does not: where steps are few, the average reaches further back than the authors'.
"""

import copy
import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class EMA(Method):
    def __init__(
        self,
        task: Task,
        decay: float = 0.997,  # authors' code, CIFAR-10 and CIFAR-100
        # E, 40,000 steps of 200 epochs with 352 each, authors' code, CIFAR-10; CIFAR-100: of 250 epochs
        ramp_share: float = 40_000 / (200 * 352),
    ):
        super().__init__(task)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        self.decay = decay
        self.ramp = max(1, round(ramp_share * task.epochs * task.steps_per_epoch))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels)

    def prepare(self, run: Run) -> None:
        self.average = copy.deepcopy(run.networks[0]).requires_grad_(False)

    def decay_at(self, step: int) -> float:
        left = 1 - min(step + 1, self.ramp) / self.ramp
        return self.decay * math.exp(-5 * left**2)

    def training_step(self, run: Run, batch: Batch) -> Tensor | None:
        logits = super().training_step(run, batch)
        d = self.decay_at(run.step)
        old, new = (itertools.chain(net.parameters(), net.buffers()) for net in (self.average, run.networks[0]))
        with torch.no_grad():
            for kept, now in zip(old, new, strict=True):
                if kept.is_floating_point():
                    kept.lerp_(now, 1 - d)
                else:
                    kept.copy_(now)
        return logits

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return self.average(images)
