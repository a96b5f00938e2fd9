"""Adaptive label refinement (ALR). Zhang et al., Neurocomputing 2025, arXiv:2502.00386.

Trains with cross entropy during a warm-up. After it, each example has a soft label t, a running
average of its given label and the network's predictions, and the loss is CE(t, p) + lam_e * H(p).
The entropy term H hardens the prediction. The formula is in nlbench.ops.alr_loss.

No code is public, and the constants of the paper were not accessible to us, so every default below
is our choice. The choices follow two methods with the same structure: Self-Adaptive Training
(SAT, arXiv:2002.10319) and SELC (arXiv:2205.01156), which is this method with lam_e = 0. Both also
update t at each visit of an example, that is once per epoch, before the loss uses it. One warm-up
length serves all noise levels, because a method does not know the noise level.
"""

import math

import torch
from torch import Tensor

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task


class ALR(Method):
    capturable = True

    targets: Tensor

    def __init__(
        self,
        task: Task,
        # Our default, not from the paper. SAT and SELC use it on CIFAR.
        alpha: float = 0.9,
        # Our default, not from the paper, which prints no weight. A summary calls the term small.
        lam_e: float = 0.1,
        # Our default, not from the paper. SELC, CIFAR-10: 40 of 200 epochs.
        warmup_share: float = 0.2,
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
        self.begins = {"label refinement": self.warmup}
        self.add_memory("targets", task.labels)
        self.refining = False

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.refining = epoch >= self.warmup

    # `refining` is saved as extra state, not as a buffer: reading a buffer that lies on a GPU
    # would make every step wait for the device.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.refining)

    def set_extra_state(self, state: Tensor) -> None:
        self.refining = bool(state)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        alpha, lam_e = self._weights()
        return ops.alr_loss(
            logits,
            batch.index,
            self.targets,
            alpha=alpha,
            lam_e=lam_e,
            rounding=self.memory_rounding,
        )

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        alpha, lam_e = self._weights()
        return ops.alr_step(
            logits,
            batch.index,
            self.targets,
            alpha=alpha,
            lam_e=lam_e,
            rounding=self.memory_rounding,
        )

    def _weights(self) -> tuple[float, float]:
        """Return (alpha, lam_e) for this epoch.

        The weights of the warm-up keep the targets at the given labels, bit for bit, which makes
        the loss the cross entropy.
        """
        return (self.alpha, self.lam_e) if self.refining else (1.0, 0.0)
