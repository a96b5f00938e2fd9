"""VolMinNet, minimal volume of T. Li, Liu, Han, Niu & Sugiyama, ICML 2021, arXiv:2102.02400.

Trains T together with the network: -log (p T)_y + lam * log |det T|. Among the matrices that explain the noisy labels,
the second term prefers the one whose rows span the smallest simplex, and no anchor points are needed. T is I with
sigmoid(W) off the diagonal, rows divided by their sum: the softmax of log sigmoid(W) with a diagonal of 0, so that all
stays in logarithms (the authors' code takes log of a product of softmax outputs, which is infinite where they are 0).
Predictions are p, not p T.

The network keeps the protocol's optimiser; T has the authors' own, and its drops, at the same shares of the training.
They choose the epoch by the noisy validation part; here the last one counts, as for every method.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class VolMinNet(Method):
    def __init__(
        self,
        task: Task,
        lam: float = 1e-4,  # authors' code, every dataset
        init: float = -2.0,  # of all of W, authors' code, CIFAR-10; CIFAR-100: -4.5
        T_optimiser: Literal["sgd", "adam"] = "sgd",  # authors' code, CIFAR-10; CIFAR-100: adam
        T_lr: float = 0.01,  # the same, both
        T_momentum: float = 0.9,  # authors' code (main.py), of sgd
        first_drop_share: float = 30 / 80,  # the same: T_lr times 0.1 here
        second_drop_share: float = 60 / 80,  # and here once more
    ):
        super().__init__(task)
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam must be finite and >= 0, got {lam}")
        if not -math.inf < init < math.inf:
            raise ValueError(f"init must be finite, got {init}")
        if T_optimiser not in ("sgd", "adam"):
            raise ValueError(f"T_optimiser must be 'sgd' or 'adam', got {T_optimiser!r}")
        if not 0 < T_lr < math.inf:
            raise ValueError(f"T_lr must be finite and above 0, got {T_lr}")
        if not 0 <= T_momentum < 1:
            raise ValueError(f"T_momentum must be in [0, 1), got {T_momentum}")
        for name, share in (("first_drop_share", first_drop_share), ("second_drop_share", second_drop_share)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")
        self.lam, self.optimiser, self.lr, self.momentum = lam, T_optimiser, T_lr, T_momentum
        self.drops = [task.scaled(share, of=1) for share in (first_drop_share, second_drop_share)]
        self.W = nn.Parameter(torch.full((task.num_classes, task.num_classes), init, dtype=torch.float64))

    @property
    def T(self) -> Tensor:
        return self.log_T().detach().exp()

    def log_T(self) -> Tensor:
        diagonal = torch.eye(len(self.W), dtype=torch.bool, device=self.W.device)
        return F.logsigmoid(self.W).masked_fill(diagonal, 0.0).log_softmax(1)

    def prepare(self, run: Run) -> None:
        def factory(params):
            if self.optimiser == "adam":
                return torch.optim.Adam(params, lr=self.lr)
            return torch.optim.SGD(params, lr=self.lr, momentum=self.momentum)

        def schedule(position: float) -> float:
            return 0.1 ** sum(position >= drop for drop in self.drops)

        run.optimise([self.W], factory, "T", schedule)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_T = self.log_T()
        columns = log_T.T[batch.labels].to(logits.dtype)  # (B, C), log T[:, y] of each example
        log_noisy = torch.logsumexp(logits.log_softmax(1) + columns, 1)
        log_volume = torch.linalg.slogdet(log_T.exp()).logabsdet
        return self.lam * log_volume.to(logits.dtype) - log_noisy.mean()
