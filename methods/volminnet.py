"""VolMinNet, minimal volume of T. Li, Liu, Han, Niu & Sugiyama, ICML 2021, arXiv:2102.02400.

Trains T together with the network, by the loss -log (p T)_y + lam * log |det T|. Among the matrices
that explain the noisy labels, the second term prefers the one whose rows span the smallest simplex,
so no anchor points are needed. The network predicts by p, not by p T.

T is the identity plus sigmoid(W) off the diagonal, with each row divided by its sum. That is the
softmax of log sigmoid(W) with a diagonal of 0, so everything stays in logarithms. The authors'
code, xuefeng-li1/Provably-end-to-end-label-noise-learning-without-anchor-points, takes the log of a
product of softmax outputs instead, which is infinite where they are 0.

The network keeps the protocol's optimiser. T has the authors' optimiser, whose learning rate drops
at the same shares of the training as theirs. They choose the epoch by the noisy validation part;
here the last epoch counts, as for every method.
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
        # Every entry of W. Authors' code, CIFAR-10; CIFAR-100: -4.5.
        init: float = -2.0,
        # Authors' code, CIFAR-10; CIFAR-100: adam.
        T_optimiser: Literal["sgd", "adam"] = "sgd",
        T_lr: float = 0.01,  # authors' code, both datasets
        # Authors' code (main.py). Of sgd alone.
        T_momentum: float = 0.9,
        # Authors' code, both datasets. T_lr is multiplied by 0.1 here, and again at the second.
        first_drop_share: float = 30 / 80,
        second_drop_share: float = 60 / 80,  # authors' code, both datasets
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
        shares = {"first_drop_share": first_drop_share, "second_drop_share": second_drop_share}
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")

        self.lam, self.optimiser = lam, T_optimiser
        self.lr, self.momentum = T_lr, T_momentum
        self.drops = [task.scaled(share, of=1) for share in shares.values()]
        W = torch.full((task.num_classes, task.num_classes), init, dtype=torch.float64)
        self.W = nn.Parameter(W)

    @property
    def T(self) -> Tensor:
        """(C, C) float64, the transition matrix so far."""
        return self.log_T().detach().exp()

    def log_T(self) -> Tensor:
        """Return log T, (C, C) float64, through which W gets its gradient."""
        diagonal = torch.eye(len(self.W), dtype=torch.bool, device=self.W.device)
        return F.logsigmoid(self.W).masked_fill(diagonal, 0.0).log_softmax(1)

    def prepare(self, run: Run) -> None:
        """Register the optimiser of W."""

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
