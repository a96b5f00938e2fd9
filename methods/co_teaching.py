"""Co-teaching. Han et al., NeurIPS 2018, arXiv:1804.06872.

Two networks look at the same batch. Each picks the fraction 1 - f(e) of the examples on which its
own cross entropy is smallest, and the other network takes its step on that pick. The fraction left
out is f(e) = tau * min(e / T_k, 1), with epochs e counted from 0 and tau = rate_factor * the noise
rate, which the method is told. The exponent c of the authors' code, bhanML/Co-teaching, is 1, its
default there.

Differences from that code:
- The loss is the mean over the picked examples. There it is divided by their number once more,
  which Adam hides and SGD would not.
- SGD with the protocol's schedule replaces Adam.
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


class CoTeaching(Method):
    told = ("noise_rate",)
    num_networks = 2

    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 and CIFAR-100: T_k = 10 of 200 epochs.
        ramp_share: float = 10 / 200,
        # Authors' code. tau as a multiple of the noise rate that the method is told.
        rate_factor: float = 1.0,
    ):
        super().__init__(task)
        if not 0 < ramp_share <= 1:
            raise ValueError(f"ramp_share must be in (0, 1], got {ramp_share}")
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")

        self.ramp, self.rate_factor = task.scaled(ramp_share, of=1), rate_factor
        # In epoch 0 nothing is left out.
        self.begins = {"the selection of small losses": 1}
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Set the fraction of each batch that this epoch keeps."""
        self.keep = 1 - self.rate_factor * self.task.noise_rate * min(epoch / self.ramp, 1)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Let each network train on the other's pick; return the (B, C) logits of network 0."""
        logits = [network(batch.images) for network in run.networks]
        losses = [F.cross_entropy(z, batch.labels, reduction="none") for z in logits]
        first, second = (self.smallest(own) for own in losses)

        run.backward_step(losses[0][second].mean(), "network0")
        run.backward_step(losses[1][first].mean(), "network1")
        return logits[0]

    def smallest(self, losses: Tensor) -> Tensor:
        """Return the positions of the smallest of `losses` (B,), as many as this epoch keeps.

        Of equal losses the one that is earlier in the batch comes first.
        """
        # Without 1e-9, 1 - 0.8 would keep 1 of 10 and not 2: in floating point it is below 0.2.
        count = max(1, math.floor(self.keep * len(losses) + 1e-9))
        return torch.argsort(losses.detach(), stable=True)[:count]

    def predict(self, run: Run, images: Tensor) -> Tensor:
        return run.networks[0](images)
