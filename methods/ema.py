"""Cross entropy that predicts by averaged weights. Liu et al., NeurIPS 2020, arXiv:2007.00151.

A control experiment for ELR+, which averages weights: what ELR+ gains over this method comes from
its other parts. The network trains exactly as in `ce`. After each step a copy takes in its weights,

    average <- d * average + (1 - d) * weights,   d = decay * exp(-5 * (1 - min(g + 1, E) / E)^2),

where g is the step, counted from 1 as in the authors' code. The copy predicts. The ramp is that of
ELR+ for CIFAR (shengliu66/ELR, ELR_plus).

Differences from that code:
- The copy starts as the network, there from random weights. Either start is soon forgotten, because
  d is near 0 at first.
- The authors average only the parameters and run their copies in training mode. Here the copy
  predicts in evaluation mode, where batch norm needs statistics. Its means and variances are
  therefore averaged with the same d, and its integer counters are copied.
- E scales with the length of the training, `decay` does not. With few steps, the average therefore
  reaches further back in the training than the authors' does.
"""

import copy
import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.averages import exponential_ramp


class EMA(Method):
    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 and CIFAR-100.
        decay: float = 0.997,
        # E. Authors' code, CIFAR-10: 40,000 steps of 200 epochs with 352 each; CIFAR-100: of 250.
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
        """Return d after `step`, counted from 0."""
        # g + 1, where g is counted from 1.
        return self.decay * exponential_ramp(step + 2, self.ramp)

    def training_step(self, run: Run, batch: Batch) -> Tensor | None:
        """Take the step of `ce`, then update the average; return the step's (B, C) logits."""
        logits = super().training_step(run, batch)

        d = self.decay_at(run.step)
        nets = (self.average, run.networks[0])
        old, new = (itertools.chain(net.parameters(), net.buffers()) for net in nets)
        with torch.no_grad():
            for kept, now in zip(old, new, strict=True):
                if kept.is_floating_point():
                    kept.lerp_(now, 1 - d)
                else:
                    kept.copy_(now)
        return logits

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return self.average(images)
