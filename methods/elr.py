"""Early-learning regularisation (ELR). Liu et al., NeurIPS 2020, arXiv:2007.00151.

The loss is CE + lam * log(1 - <t, p>), where t is a running average of the network's own
predictions for the example. As in the authors' code, shengliu66/ELR: the clamp, the start of t at
zero, and the order (t takes in the prediction of this batch before the loss uses it). The formula
is in nlbench.ops.elr_loss.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench import ops
from nlbench.method import Batch, Method, Task


class ELR(Method):
    capturable = True

    targets: Tensor

    def __init__(
        self,
        task: Task,
        beta: float = 0.7,  # authors, CIFAR-10; CIFAR-100: 0.9
        lam: float = 3.0,  # authors, CIFAR-10; CIFAR-100: 7
    ):
        super().__init__(task)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}")
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam must be finite and >= 0, got {lam}")

        self.beta, self.lam = beta, lam
        self.add_memory("targets")

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return ops.elr_loss(
            logits,
            batch.labels,
            batch.index,
            self.targets,
            beta=self.beta,
            lam=self.lam,
            rounding=self.memory_rounding,
        )

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return ops.elr_step(
            logits,
            batch.labels,
            batch.index,
            self.targets,
            beta=self.beta,
            lam=self.lam,
            rounding=self.memory_rounding,
        )

    def gradient_parts(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return the gradients of cross entropy and regulariser, as in Figure 2 of the paper."""
        t = ops.widened(self.targets[batch.index])
        # Without a label, cross entropy has no gradient. The targets hold this batch already, and
        # are not updated again.
        _, of_mean = ops.elr_step_soft(logits, torch.zeros_like(t), t, lam=self.lam)
        one_hot = F.one_hot(batch.labels, t.shape[1])
        return {"ce": logits.softmax(1) - one_hot, "regulariser": len(batch) * of_mean}
