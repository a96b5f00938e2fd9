"""CORES2, confidence-regularised sample sieve. Cheng et al., ICLR 2021, arXiv:2010.02347.

The loss of an example is CE - beta(e) * sum_k pi_k (-log p_k), where pi_k is the share of label k
among the kept examples. The second term rewards confidence, whatever the label is. From a certain
epoch on a sieve decides, at each visit, whether an example is kept: it is left out if its CE is
above the mean of the losses -log p_k over all labels k. The batch's loss is the mean over the kept
examples. pi is counted again after each epoch. Floor, ramp and sieve are those of the authors'
code, haochenglouis/cores.

Left out is phase 2 of the paper (CORES2*, consistency training on the dropped examples). The
authors train with SGD without momentum and weight decay, in batches of 64, at a learning rate
divided by 1 + beta(e). On the identical track the protocol's optimiser and schedule are used
unchanged; the authors' recipe belongs to the as-published track. A batch of which nothing is kept
has loss 0, and an epoch of which nothing is kept leaves pi unchanged.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task

# Authors' code. Added to p inside the logarithm, it limits the reward for confidence.
FLOOR = 1e-8


class CORES2(Method):
    capturable = True

    prior: Tensor
    kept: Tensor

    # The sieve compares a loss with the mean loss of the batch.
    couples_examples = True

    def __init__(
        self,
        task: Task,
        # All defaults are from the authors' code. beta is the value at the end of the ramp.
        beta: float = 2.0,
        # The epochs with beta(e) = 0.
        warmup_share: float = 10 / 100,
        # Then beta(e) rises linearly: 0 in the first of these epochs, beta in the last.
        ramp_share: float = 30 / 100,
        # The sieve is used after epoch 30, counted from 0.
        sieve_share: float = 31 / 100,
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
        # In the first epoch of the ramp beta(e) is still 0.
        self.begins = {"the confidence term": self.warmup + 1, "the sieve": self.sieve}
        counts = torch.bincount(task.labels, minlength=task.num_classes)
        self.register_buffer("prior", counts.double() / task.num_train)
        kept = torch.ones(task.num_train, dtype=torch.bool, device=task.labels.device)
        self.register_buffer("kept", kept)
        self.weight, self.sieving = 0.0, False

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Set beta(e), and whether the sieve is in use."""
        self.weight = self.beta * min(max(epoch - self.warmup, 0) / max(self.ramp - 1, 1), 1.0)
        self.sieving = epoch >= self.sieve

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        ce = F.cross_entropy(logits, batch.labels, reduction="none")
        of_each_label = -(logits.softmax(1) + FLOOR).log()  # (B, C)
        losses = ce - self.weight * (self.prior.to(logits.dtype) * of_each_label).sum(1)
        if not self.sieving:
            return losses.mean()

        kept = ce.detach() <= of_each_label.detach().mean(1)
        self.kept[batch.index] = kept
        return (kept * losses).sum() / kept.sum().clamp(min=1)

    def on_epoch_end(self, run: Run, epoch: int) -> None:
        """Count the labels of the kept examples anew, among those that were in this epoch."""
        part = run.part()
        seen = slice(None) if part is None else part
        labels, kept = self.task.labels[seen], self.kept[seen]
        counts = torch.bincount(labels[kept], minlength=self.task.num_classes).double()
        self.prior.copy_(torch.where(counts.sum() > 0, counts / counts.sum(), self.prior))

    def own_labels(self) -> Tensor:
        """Return which examples the sieve has kept at their last visit, (N,) of 0 and 1."""
        return self.kept.double()

    # `weight` and `sieving` are saved as extra state, not as buffers: reading a buffer that lies
    # on a GPU would make every step wait for the device.
    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.weight, self.sieving], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.weight, self.sieving = float(state[0]), bool(state[1])
