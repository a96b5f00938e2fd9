"""Self-adaptive training (SAT). Huang, Zhang & Zhang, NeurIPS 2020, arXiv:2002.10319.

Trains by cross entropy with the given labels during a warm-up. After it, each example has a soft
label t, a running average of its given label and the network's predictions. As in the authors'
code, LayneH/self-adaptive-training, each visit of an example first takes the prediction into t. The
loss is then the mean over the batch of

    -w sum_k t_k log p_k,    w = max_k t_k, divided by its mean over the batch,

so that an example counts less while its label is in doubt. No gradient goes through t and w. The
formula without w is nlbench.ops.alr_loss with lam_e = 0, as in `selc`.

On the identical track only these constants are the authors'. Their warm-up of 60 epochs of 200 is a
share of the training here.
"""

import torch
from torch import Tensor

from nlbench import ops
from nlbench.method import Batch, Method, Run, Task


class SAT(Method):
    capturable = True
    # The weights are divided by their mean over the batch.
    couples_examples = True

    targets: Tensor

    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 and CIFAR-100.
        momentum: float = 0.9,
        # Authors' code, CIFAR-10 and CIFAR-100: 60 of 200 epochs.
        warmup_share: float = 60 / 200,
    ):
        super().__init__(task)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if not 0 <= warmup_share <= 1:
            raise ValueError(f"warmup_share must be in [0, 1], got {warmup_share}")

        self.momentum = momentum
        self.warmup = task.scaled(warmup_share, of=1) if warmup_share else 0
        self.begins = {"soft labels": self.warmup}
        self.add_memory("targets", task.labels)
        # The weight of the old soft label in this epoch. With 1 it stays one-hot, so that all
        # weights are 1 and the loss is the cross entropy.
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
        losses = ops.alr_loss(
            logits,
            batch.index,
            self.targets,
            alpha=self.keep,
            lam_e=0.0,
            reduction="none",
            rounding=self.memory_rounding,
        )
        return losses * self.weights(batch.index)

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        losses, dlogits = ops.alr_step(
            logits,
            batch.index,
            self.targets,
            alpha=self.keep,
            lam_e=0.0,
            rounding=self.memory_rounding,
        )
        weights = self.weights(batch.index)
        return losses * weights, dlogits * weights[:, None]

    def weights(self, index: Tensor) -> Tensor:
        """Return w of the examples at `index` (B,), (B,), from the soft labels as they are."""
        largest = ops.widened(self.targets[index].amax(1))
        return largest / largest.mean()
