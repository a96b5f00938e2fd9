"""SOP+. Liu, Zhu, Qu & You, ICML 2022, arXiv:2202.14026.

`sop` with two terms more: the prediction on a strong view follows that on the weak one, KL(p || p_strong) without
gradient to p, and the mean prediction of a batch is kept near uniform. As in the authors' code, shengliu66/SOP, both
views go through the network as one batch, which shares its normalisation, and the mean is that of the prediction with
the noise in it, so that this term reaches u too. On data that are no images both views are alike, and the first of the
two terms is 0. The formulas are in nlbench.ops.over_parameterisation. u and v have
plain SGD at a constant rate. Left out: the authors' own recipe for the network; the protocol's is everybody's.
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
        lr_u: float = 10.0,  # as in sop: CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 1, asymmetric noise 0.1
        lr_v: float = 10.0,  # as in sop: CIFAR-10, reproduction (noisypy); CIFAR-100, authors: 10, asymmetric noise 100
        lam_consistency: float = 0.9,  # authors, CIFAR-100, their only one
        lam_balance: float = 0.1,  # the same
    ):
        super().__init__(task)
        given = {"lr_u": lr_u, "lr_v": lr_v, "lam_consistency": lam_consistency, "lam_balance": lam_balance}
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
        logits, strong = run.networks[0](torch.cat([batch.images, batch.strong(0)])).chunk(2)
        # Sparse gradients: a step costs the batch's rows and not all N of them.
        u, v = (F.embedding(batch.index, rows, sparse=True) for rows in (self.u, self.v))
        rows, q = sop_loss(logits, batch.labels, u, v)
        loss = rows + self.lam_consistency * consistency(logits, strong) + self.lam_balance * class_balance(q)
        run.backward_step(loss.mean())
        return logits
