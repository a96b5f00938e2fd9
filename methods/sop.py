"""Sparse over-parameterisation (SOP). Liu, Zhu, Qu & You, ICML 2022, arXiv:2202.14026.

Learns the label noise along with the network. Each example has u (1 value) and v (C values). Their
squares are the probability that the noise adds at the given label and takes away from the other
classes. The network's prediction has to match the label only after this correction. u and v start
next to 0, where a square grows more slowly the less it is needed; this keeps the noise sparse. The
formula, and which term trains what, is in nlbench.ops.over_parameterisation.

u and v are trained by plain SGD at a constant rate, as in the authors' code, shengliu66/SOP, where
the schedule applies to the network alone. An entry of v grows by a factor of at most
1 + 4 lr_v / B per visit: at the defaults and batches of 128 it takes over 60 epochs to grow from
1e-8 to a size that matters. The rates are not scaled with the length of the training, since no
source says how. In a short training u therefore works, and v hardly does.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.over_parameterisation import sop_loss

STD = 1e-8  # authors' code


class SOP(Method):
    def __init__(
        self,
        task: Task,
        # CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 1, asymmetric noise 0.1.
        lr_u: float = 10.0,
        # CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 10, asymmetric noise 100.
        lr_v: float = 10.0,
    ):
        super().__init__(task)
        for name, lr in (("lr_u", lr_u), ("lr_v", lr_v)):
            if not 0 <= lr < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {lr}")

        self.lr_u, self.lr_v = lr_u, lr_v
        self.u = nn.Parameter(STD * torch.randn(task.num_train, 1))
        self.v = nn.Parameter(STD * torch.randn(task.num_train, task.num_classes))

    def prepare(self, run: Run) -> None:
        groups = [{"params": [self.u], "lr": self.lr_u}, {"params": [self.v], "lr": self.lr_v}]
        run.optimise(groups, torch.optim.SGD, "noise", lambda position: 1.0)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        # The gradients are sparse, so that a step costs the batch's B entries and not all N.
        u = F.embedding(batch.index, self.u, sparse=True)
        v = F.embedding(batch.index, self.v, sparse=True)
        losses, _ = sop_loss(logits, batch.labels, u, v)
        return losses

    def own_labels(self) -> Tensor:
        """Return 1 - u^2, (N,): how far the label is no noise, as far as u has learnt it."""
        return 1 - self.u.detach().squeeze(1).square().clamp(0, 1)
