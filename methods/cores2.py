"""CORES2, confidence-regularised sample sieve. Cheng, Zhu, Li, Gong, Sun & Liu, ICLR 2021, arXiv:2010.02347.

CE - beta(e) * sum_k pi_k (-log p_k), where pi is the share of each label among the kept examples: the second term
rewards confidence whatever the label says. From some epoch on, a batch's examples whose CE is above the mean of the
loss over all labels are left out, at each visit anew, and the mean runs over the others; pi is counted again after each
epoch. Floor, ramp and sieve are those of the authors' code, haochenglouis/cores.

Phase 2 of the paper (CORES2*, consistency training on what the sieve dropped) is left out. The authors train by SGD
without momentum or weight decay, in batches of 64, at a learning rate divided by 1 + beta(e); on the identical track
the protocol's optimiser and schedule are used as they are, and that recipe belongs to as-published. A batch of which
nothing is kept gives a loss of 0, and an epoch of which nothing is kept leaves pi as it was.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task

FLOOR = 1e-8  # authors' code; added to p inside the logarithm, it bounds what confidence can earn


class CORES2(Method):
    prior: Tensor
    kept: Tensor

    def __init__(
        self,
        task: Task,
        beta: float = 2.0,  # authors' code, at the end of the ramp, as all below
        warmup_share: float = 10 / 100,  # epochs with beta(e) = 0
        ramp_share: float = 30 / 100,  # then it rises in a line; the first of these epochs has 0, the last all of it
        sieve_share: float = 31 / 100,  # the sieve is used after epoch 30, counted from 0
    ):
        super().__init__(task)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta must be finite and >= 0, got {beta}")
        for name, share in (("warmup_share", warmup_share), ("sieve_share", sieve_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        self.beta, self.ramp = beta, task.scaled(ramp_share, of=1)
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.sieve = task.scaled(sieve_share, of=1) if sieve_share else 0
        counts = torch.bincount(task.labels, minlength=task.num_classes)
        self.register_buffer("prior", counts.double() / task.num_train)
        self.register_buffer("kept", torch.ones(task.num_train, dtype=torch.bool, device=task.labels.device))
        self.weight, self.sieving = 0.0, False

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.weight = self.beta * min(max(epoch - self.warmup, 0) / max(self.ramp - 1, 1), 1.0)
        self.sieving = epoch >= self.sieve

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        ce = F.cross_entropy(logits, batch.labels, reduction="none")
        of_each_label = -(logits.softmax(1) + FLOOR).log()  # (B, C)
        rows = ce - self.weight * (self.prior.to(logits.dtype) * of_each_label).sum(1)
        if not self.sieving:
            return rows.mean()
        kept = ce.detach() <= of_each_label.detach().mean(1)
        self.kept[batch.index] = kept
        return (kept * rows).sum() / kept.sum().clamp(min=1)

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        part = run.part()
        rows = slice(None) if part is None else part
        labels, kept = self.task.labels[rows], self.kept[rows]
        counts = torch.bincount(labels[kept], minlength=self.task.num_classes).double()
        self.prior.copy_(torch.where(counts.sum() > 0, counts / counts.sum(), self.prior))

    def get_extra_state(self) -> Tensor:  # not buffers: reading one on a GPU would stop the host at every step
        return torch.tensor([self.weight, self.sieving], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.weight, self.sieving = float(state[0]), bool(state[1])
