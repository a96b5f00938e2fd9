"""Self-ensemble label correction (SELC). Lu & He, IJCAI 2022, arXiv:2205.01156.

Trains by cross entropy with the given labels during a warm-up. After it, each example has a soft
label t, a running average of its given label and the network's predictions, and the loss is
-sum_k t_k log p_k. As in the authors' code, MacLLL/SELC, each visit of an example first takes the
prediction into t, and the loss then uses the new t.

The formula is that of ALR without its entropy term, nlbench.ops.alr_loss with lam_e = 0. `alr`
and `sat` have the same soft labels, and differ in the entropy term and in weights.

The authors estimate when the network begins to fit wrong labels and set the warm-up by the kind of
noise. A method does not know the noise, so one warm-up serves all. Their SELC+, which trains anew
with mixup on the corrected labels, is left out.
"""

import torch
from torch import Tensor

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task


class SELC(Method):
    capturable = True

    targets: Tensor

    def __init__(
        self,
        task: Task,
        momentum: float = 0.9,  # authors' code, CIFAR; Clothing1M: 0.8
        # Authors' code, CIFAR-10 with 40 and 60% symmetric noise; with 20 and 80%, and with
        # asymmetric noise: 40 of 200 epochs. CIFAR-100: 30, with 40% symmetric and with asymmetric
        # noise 20, with 80% symmetric noise 40.
        warmup_share: float = 30 / 200,
    ):
        super().__init__(task)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.momentum = momentum
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"label correction": self.warmup}
        self.add_memory("targets", task.labels)
        # The weight of the old soft label in this epoch. With 1 it stays as it is, bit for bit.
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.keep = self.momentum if epoch >= self.warmup else 1.0

    # `keep` is saved as extra state, not as a buffer: reading a buffer that lies on a GPU would
    # make every step wait for the device.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.keep, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.keep = float(state)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return ops.alr_loss(
            logits,
            batch.index,
            self.targets,
            alpha=self.keep,
            lam_e=0.0,
            rounding=self.memory_rounding,
        )

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return ops.alr_step(
            logits,
            batch.index,
            self.targets,
            alpha=self.keep,
            lam_e=0.0,
            rounding=self.memory_rounding,
        )
