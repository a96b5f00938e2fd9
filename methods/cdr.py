"""CDR, robust early-learning. Xia et al., ICLR 2021, https://github.com/xiaoboxia/CDR.

Cross entropy, of whose gradient g only a part is used. Over all weights w of convolutions and
linear layers together, those with the largest |g w| are critical: a share 1 - tau of them. Their
gradient is multiplied by 1 - tau, and the gradient of all other weights is set to 0. Biases and the
weights of normalisation keep theirs. Momentum and weight decay act on every weight, so weights that
are not critical shrink.

tau is the noise rate, which the method is told.

As in that code, the authors':
- The share is constant. The code also builds a ramp from 1 down to 1 - tau, over 20 epochs of 200,
  and overwrites it in its next line; `ramp_share: 0.1` gives the ramp.
- Weight decay is squared, as SGD has it, where the paper speaks of the absolute value. Its strength
  is the protocol's, as for every method (theirs: 1e-3).
- Weights with an equal |g w| at the limit are all critical.
The last epoch counts; theirs is the best on a noisy validation part.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.gradients import loss_with_gradients


class CDR(Method):
    told = ("noise_rate",)

    def __init__(
        self,
        task: Task,
        # Authors' code. tau as a multiple of the noise rate that the method is told.
        rate_factor: float = 1.0,
        # Authors' code, as it runs: none. Their ramp would take 20 of 200 epochs.
        ramp_share: float = 0.0,
    ):
        super().__init__(task)
        if not 0 <= rate_factor < math.inf:
            raise ValueError(f"rate_factor must be finite and >= 0, got {rate_factor}")
        if not 0 <= ramp_share <= 1:
            raise ValueError(f"ramp_share must be in [0, 1], got {ramp_share}")

        self.rate_factor = rate_factor
        self.ramp = task.scaled(ramp_share, of=1) if ramp_share else 0
        self.keep = 1.0

    def on_epoch_start(self, run: Run, epoch: int) -> None:
        """Set the share of the weights that are critical in this epoch."""
        # The ramp begins at 1 and ends in its last epoch.
        reached = min(epoch / (self.ramp - 1), 1.0) if self.ramp > 1 else 1.0
        self.keep = max(0.0, 1 - self.rate_factor * self.task.noise_rate * reached)

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train on the gradient of the critical weights; return the (B, C) logits."""
        network = run.networks[0]
        logits = network(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        weights = [w for w in network.parameters() if w.requires_grad]
        gradients = torch.autograd.grad(loss, weights)
        kept = critical_gradients(weights, gradients, self.keep)
        run.backward_step(loss_with_gradients(loss, weights, kept))
        return logits


def critical_gradients(
    weights: list[nn.Parameter], gradients: tuple[Tensor, ...], keep: float
) -> list[Tensor]:
    """Return the gradients, multiplied by `keep` where a weight is critical and by 0 elsewhere.

    Args:
        weights, gradients: of a network. Those without 2 or 4 dimensions are returned as they are.
        keep: share of the other weights that are critical, at least one of them.
    """
    chosen = [i for i, w in enumerate(weights) if w.dim() in (2, 4)]
    if not chosen:
        return list(gradients)

    sizes = torch.cat([(weights[i].detach() * gradients[i]).abs().flatten() for i in chosen])
    count = max(1, int(keep * len(sizes)))
    limit = sizes.kthvalue(len(sizes) - count + 1).values
    result = list(gradients)
    for i in chosen:
        critical = (weights[i].detach() * gradients[i]).abs() >= limit
        result[i] = torch.where(critical, keep * gradients[i], 0.0)
    return result
