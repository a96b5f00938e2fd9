"""Co-teaching. Han, Yao, Yu, Niu, Xu, Hu, Tsang & Sugiyama, NeurIPS 2018, arXiv:1804.06872.

Each of two networks picks the fraction 1 - f(e) of the batch on which its own cross entropy is smallest, and the other
network takes its step on that pick. f(e) = tau * min(e / T_k, 1), with e counted from 0 and tau = rate_factor * the
noise rate, which the method is told. The exponent c of the authors' code, bhanML/Co-teaching, is 1 as in its default.
What differs from that code: the loss is the mean over the picked examples (there it is divided by their number once
more, which Adam hides and SGD would not); SGD with the protocol's schedule stands for Adam; the ramp's end is epoch T_k
(there T_k - 1, and training begins at epoch 1), which scales with the length of the training; and a batch never keeps
fewer than one example. Predictions are network 0's, which is our choice, as near as one prediction comes to that code,
which scores each network by itself; the record has the mean of both as `single_mean`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class CoTeaching(Method):
    told = ("noise_rate",)
    num_networks = 2

    def __init__(
        self,
        task: Task,
        ramp_share: float = 10 / 200,  # T_k = 10 of 200 epochs, authors' code, CIFAR-10 and CIFAR-100
        rate_factor: float = 1.0,  # tau as a multiple of the told rate; authors' code
    ):
        super().__init__(task)
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")
        self.ramp, self.rate_factor = task.scaled(ramp_share, of=1), rate_factor
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.keep = 1 - self.rate_factor * self.task.noise_rate * min(epoch / self.ramp, 1)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        logits = [network(batch.images) for network in run.networks]
        rows = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        first, second = (self.smallest(row) for row in rows)
        run.backward_step(rows[0][second].mean(), "network0")
        run.backward_step(rows[1][first].mean(), "network1")
        return logits[0]

    def smallest(self, rows: Tensor) -> Tensor:
        """Positions of the part of `rows` (B,) that is kept; of equal losses the earlier in the batch."""
        count = max(1, math.floor(self.keep * len(rows) + 1e-9))  # 1 - 0.8 is a little below 0.2: 2 of 10, not 1
        return torch.argsort(rows.detach(), stable=True)[:count]

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)
