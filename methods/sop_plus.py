"""SOP+. Liu, Zhu, Qu & You, ICML 2022, arXiv:2202.14026.

Adds two terms to `sop`: KL(p || p_strong) without gradient to p, which makes the prediction on a
strong view follow that on the weak view, and a term that keeps the mean prediction of a batch near
uniform. As in the authors' code, shengliu66/SOP, both views go through the network as one batch and
share its normalisation. The mean prediction is that of q, the prediction with the noise in it, so
the second term trains u too. On data that are not images both views are alike, and the first term
is 0. The formulas are in nlbench.ops.over_parameterisation.

u and v are trained by plain SGD at a constant rate. The strong view is that of the authors:
AutoAugment, then crop and flip, then a cutout. On CIFAR-100 they normalise it by CIFAR-10's
constants, and here it has those of the weak view. Their own recipe for the network is left out,
because all methods share the protocol's.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.over_parameterisation import class_balance, consistency, sop_loss

STD = 1e-8  # authors' code


class SOPPlus(Method):
    def __init__(
        self,
        task: Task,
        # As in `sop`. CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 1, asymmetric noise
        # 0.1.
        lr_u: float = 10.0,
        # As in `sop`. CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 10, asymmetric noise
        # 100.
        lr_v: float = 10.0,
        lam_consistency: float = 0.9,  # authors, CIFAR-100, their only one
        lam_balance: float = 0.1,  # the same
    ):
        super().__init__(task)
        given = {
            "lr_u": lr_u,
            "lr_v": lr_v,
            "lam_consistency": lam_consistency,
            "lam_balance": lam_balance,
        }
        for name, value in given.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")

        self.lr_u, self.lr_v = lr_u, lr_v
        self.lam_consistency, self.lam_balance = lam_consistency, lam_balance
        self.u = nn.Parameter(STD * torch.randn(task.num_train, 1))
        self.v = nn.Parameter(STD * torch.randn(task.num_train, task.num_classes))

    def prepare(self, run: Run) -> None:
        groups = [{"params": [self.u], "lr": self.lr_u}, {"params": [self.v], "lr": self.lr_v}]
        run.optimise(groups, torch.optim.SGD, "noise", lambda position: 1.0)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train on both views of the batch; return the (B, C) logits of the weak view."""
        images = torch.cat([batch.images, batch.strong(0)])
        logits, strong = run.networks[0](images).chunk(2)

        # The gradients are sparse, so that a step costs the batch's B entries and not all N.
        u = F.embedding(batch.index, self.u, sparse=True)
        v = F.embedding(batch.index, self.v, sparse=True)
        losses, q = sop_loss(logits, batch.labels, u, v)
        followed = self.lam_consistency * consistency(logits, strong)
        loss = losses + followed + self.lam_balance * class_balance(q)
        run.backward_step(loss.mean())
        return logits

    def own_labels(self) -> Tensor:
        """Return 1 - u^2, (N,): how far the label is no noise, as far as u has learnt it."""
        return 1 - self.u.detach().squeeze(1).square().clamp(0, 1)
