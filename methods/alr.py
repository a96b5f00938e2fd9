"""Adaptive label refinement (ALR). Zhang, Cheng, Lu, Zhou, Li & Zhang, Neurocomputing 2025, arXiv:2502.00386.

Cross entropy for a warm-up; then each example's soft label t is a running average of its given label and the network's
predictions, and the loss is CE(t, p) + lam_e * H(p), whose entropy term hardens the prediction. No code is public, and
the numbers of the paper's text were out of reach: every default below is our default, not from the paper. They come
from two relatives with the same skeleton, Self-Adaptive Training (arXiv:2002.10319) and SELC (arXiv:2205.01156; it is
lam_e = 0), as does updating t at each visit, once an epoch, before the loss uses it. One warm-up length serves all
noise levels: a length chosen per level would use what a method cannot know. The formula is in nlbench.ops.alr_loss.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task


class ALR(Method):
    targets: Tensor

    def __init__(
        self,
        task: Task,
        alpha: float = 0.9,  # our default, not from the paper; SAT and SELC, CIFAR
        lam_e: float = 0.1,  # our default, not from the paper, which prints no weight and is said to call it small
        warmup_share: float = 0.2,  # our default, not from the paper; SELC, CIFAR-10: 40 of 200 epochs
    ):
        super().__init__(task)
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be in [0, 1), got {alpha}")
        if not 0 <= lam_e < math.inf:
            raise ValueError(f"lam_e must be finite and >= 0, got {lam_e}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")
        self.alpha, self.lam_e = alpha, lam_e
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        one_hot = F.one_hot(task.labels, task.num_classes)
        self.register_buffer("targets", one_hot.to(torch.float32))
        self.refining = False

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.refining = epoch >= self.warmup

    def get_extra_state(self) -> Tensor:  # not a buffer: reading one on a GPU would stop the host at every step
        return torch.tensor(self.refining)

    def set_extra_state(self, state: Tensor) -> None:
        self.refining = bool(state)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        alpha, lam_e = self._weights()
        return ops.alr_loss(logits, batch.index, self.targets, alpha=alpha, lam_e=lam_e)

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        alpha, lam_e = self._weights()
        return ops.alr_step(logits, batch.index, self.targets, alpha=alpha, lam_e=lam_e)

    def _weights(self) -> tuple[float, float]:
        """In the warm-up the targets stay at the given labels, bit for bit, and the loss is the cross entropy."""
        return (self.alpha, self.lam_e) if self.refining else (1.0, 0.0)
