"""Joint training with co-regularisation (JoCoR). Wei, Feng, Chen & An, CVPR 2020, arXiv:2003.02752.

Two networks, one loss per example, (1 - lam) * (CE_1 + CE_2) + lam * (KL(p_1 || p_2) + KL(p_2 || p_1)), with a gradient
through both networks in both KL terms. The fraction 1 - f(e) of the batch with the smallest of these losses trains
both. f(e) = tau * min(e / T_k, 1), with e counted from 0 and tau = rate_factor * the noise rate, which the method is
told, as measured. The authors' code, hongxin001/JoCoR, halves the nominal rate of asymmetric noise; on CIFAR-10, where
half of the classes keep their labels, that is the measured rate. What differs from that code: the one Adam over both
networks is the protocol's SGD, an optimiser for each network, both stepped on the one loss; the ramp's end is epoch T_k
(there T_k - 1, and training begins at epoch 1), which scales with the length of the training; and a batch never keeps
fewer than one example. Adam scales away that lam = 0.9 leaves a tenth of the cross entropy's gradient; SGD does not,
and that is left as the loss says. Predictions are network 0's, which is our choice, as near as one prediction comes to
that code, which scores each network by itself; the record has the mean of both as `single_mean`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task


class JoCoR(Method):
    told = ("noise_rate",)
    num_networks = 2

    def __init__(
        self,
        task: Task,
        # The author's advice, hongxin001/JoCoR#3, for CIFAR-10 with symmetric 0.2 and 0.5 and asymmetric 0.4; symmetric
        # 0.8: 0.65; CIFAR-100: 0.85; elsewhere 0.5 to 0.9. The default in the code is 0.1.
        lam: float = 0.9,
        ramp_share: float = 10 / 200,  # T_k = 10 of 200 epochs, authors' code, CIFAR-10 and CIFAR-100
        rate_factor: float = 1.0,  # tau as a multiple of the told rate; authors: 0.5 for CIFAR-100's blocks of classes
    ):
        super().__init__(task)
        if not 0 <= lam < 1:
            raise ValueError(f"lam must be in [0, 1), got {lam}")
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")
        self.lam, self.ramp, self.rate_factor = lam, task.scaled(ramp_share, of=1), rate_factor
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        self.keep = 1 - self.rate_factor * self.task.noise_rate * min(epoch / self.ramp, 1)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        one, two = (network(batch.images) for network in run.networks)
        rows = self.joint_loss(one, two, batch.labels)
        count = max(1, math.floor(self.keep * len(rows) + 1e-9))  # 1 - 0.8 is a little below 0.2: 2 of 10, not 1
        chosen = torch.argsort(rows.detach(), stable=True)[:count]  # of equal losses the earlier in the batch
        run.backward_step(rows[chosen].mean(), "network0", "network1")
        return one

    def joint_loss(self, one: Tensor, two: Tensor, labels: Tensor) -> Tensor:
        """(B,) rows from the logits of the two networks."""
        log_p, log_q = one.log_softmax(1), two.log_softmax(1)
        ce = F.nll_loss(log_p, labels, reduction="none") + F.nll_loss(log_q, labels, reduction="none")
        both_kl = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)
        return (1 - self.lam) * ce + self.lam * both_kl

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)
