"""Early-learning regularisation (ELR). Liu, Niles-Weed, Razavian & Fernandez-Granda, NeurIPS 2020, arXiv:2007.00151.

CE + lam * log(1 - <t, p>), where t is a running average of the network's own predictions for the example. Clamp, order
(the targets take in this batch before the loss uses them) and the start at zero are those of the authors' code,
shengliu66/ELR. The formula is in nlbench.ops.elr_loss.
"""

import math

import torch
from torch import Tensor

from nlbench import ops
from nlbench.method import Batch, Method, Task


class ELR(Method):
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
        self.register_buffer("targets", torch.zeros(task.num_train, task.num_classes))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return ops.elr_loss(logits, batch.labels, batch.index, self.targets, beta=self.beta, lam=self.lam)

    def loss_and_grad(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return ops.elr_step(logits, batch.labels, batch.index, self.targets, beta=self.beta, lam=self.lam)
