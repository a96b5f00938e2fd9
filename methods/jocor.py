"""Joint training with co-regularisation (JoCoR). Wei et al., CVPR 2020, arXiv:2003.02752.

Two networks share one loss per example,

    (1 - lam) * (CE_1 + CE_2) + lam * (KL(p_1 || p_2) + KL(p_2 || p_1)),

and both KL terms send a gradient through both networks. The fraction 1 - f(e) of the batch with the
smallest of these losses trains both. f(e) = tau * min(e / T_k, 1), with epochs e counted from 0 and
tau = rate_factor * the measured noise rate, which the method is told. The authors' code,
hongxin001/JoCoR, halves the nominal rate of asymmetric noise. On CIFAR-10, where half of the
classes keep their labels, that is the measured rate.

Differences from that code:
- One Adam over both networks is replaced by the protocol's SGD, with an optimiser for each network;
  both are stepped on the one loss. With lam = 0.9 only a tenth of the cross entropy's gradient is
  left. Adam undoes that scale, SGD does not, and nothing here makes up for it.
- The ramp ends at epoch T_k, which scales with the length of the training. There it ends at T_k -
  1, and training begins at epoch 1.
- A batch never keeps fewer than one example.
- Network 0 predicts. This is our choice: that code scores each network by itself, and one network
  comes nearest to it. The record has the mean accuracy of both as `single_mean`.
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
        # The author's advice, hongxin001/JoCoR#3, for CIFAR-10 with symmetric 0.2 and 0.5 and
        # asymmetric 0.4. Symmetric 0.8: 0.65; CIFAR-100: 0.85; elsewhere 0.5 to 0.9. The default in
        # the code is 0.1.
        lam: float = 0.9,
        # Authors' code, CIFAR-10 and CIFAR-100: T_k = 10 of 200 epochs.
        ramp_share: float = 10 / 200,
        # tau as a multiple of the noise rate that the method is told. Authors: 0.5 for CIFAR-100's
        # blocks of classes.
        rate_factor: float = 1.0,
    ):
        super().__init__(task)
        if not 0 <= lam < 1:
            raise ValueError(f"lam must be in [0, 1), got {lam}")
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")

        self.lam, self.rate_factor = lam, rate_factor
        self.ramp = task.scaled(ramp_share, of=1)
        # In epoch 0 nothing is left out.
        self.begins = {"the selection of small losses": 1}
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Set the fraction of each batch that this epoch keeps."""
        self.keep = 1 - self.rate_factor * self.task.noise_rate * min(epoch / self.ramp, 1)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train both networks on the smallest losses; return the (B, C) logits of network 0."""
        one, two = (network(batch.images) for network in run.networks)
        losses = self.joint_loss(one, two, batch.labels)

        # Without 1e-9, 1 - 0.8 would keep 1 of 10 and not 2: in floating point it is below 0.2.
        count = max(1, math.floor(self.keep * len(losses) + 1e-9))
        # Of equal losses the one that is earlier in the batch comes first.
        chosen = torch.argsort(losses.detach(), stable=True)[:count]
        run.backward_step(losses[chosen].mean(), "network0", "network1")
        return one

    def joint_loss(self, one: Tensor, two: Tensor, labels: Tensor) -> Tensor:
        """Return the (B,) per-example losses from the (B, C) logits of the two networks."""
        log_p, log_q = one.log_softmax(1), two.log_softmax(1)
        ce_p = F.nll_loss(log_p, labels, reduction="none")
        ce_q = F.nll_loss(log_q, labels, reduction="none")
        both_kl = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)
        return (1 - self.lam) * (ce_p + ce_q) + self.lam * both_kl

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)
