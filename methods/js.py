"""Jensen-Shannon loss (JS). Englesson & Azizpour, NeurIPS 2021, arXiv:2105.04522.

With M = pi Y + (1 - pi) p, where Y is the one-hot label, the loss is

    Z * (pi KL(Y || M) + (1 - pi) KL(p || M)),    Z = -1 / ((1 - pi) log(1 - pi)).

It lies between cross entropy (pi near 0) and 1 - p_y (pi near 1). Its gradient is that of cross
entropy times p_y log(1 + pi / ((1 - pi) p_y)) / -log(1 - pi), which is 0 at p_y = 0.

Equation and constants are those of the authors' code, ErikEnglesson/GJS. There M and p are floored
at 1e-7 before their logarithm. This form depends on p_y alone and needs no floor; the two differ
where a probability is below 1e-7 or so. `gjs` is the form with two views.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task


class JS(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 with 40% symmetric noise; CIFAR-100: 0.3. They choose it for each
        # noise and rate.
        pi: float = 0.7,
    ):
        super().__init__(task)
        if not 0 < pi < 1:
            raise ValueError(f"pi must be in (0, 1), got {pi}")
        self.pi = pi

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = -F.cross_entropy(logits, batch.labels, reduction="none")
        p, rest, log_rest = log_p.exp(), 1 - self.pi, math.log1p(-self.pi)

        # M_y = rest (p_y + pi / rest). For another class log(p_k / M_k) is -log_rest.
        log_m = (p + self.pi / rest).log() + log_rest
        kl_label = -log_m
        kl_p = p * (log_p - log_m) - (1 - p) * log_rest
        return -((self.pi * kl_label + rest * kl_p) / (rest * log_rest)).mean()
