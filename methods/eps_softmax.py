"""Epsilon-softmax, CE + MAE. Wang et al., NeurIPS 2024.

Code: https://github.com/cswjl/eps-softmax. The loss is

    alpha * -log max(p'_y, 1e-8) + beta * 2 (1 - p_y),

where p' is p with m added to its largest entry, divided by m + 1. Where y is the largest entry, the
first term is next to 0. Elsewhere p'_y is p_y / (m + 1), and the clamp lets no gradient pass if p_y
is below 1e-8 (m + 1), which is 1e-3 at the default m. So the first term acts on examples that are
wrong and not hopeless, and the clamp is a part of the method.

Equation, clamp and constants are those of the authors' code, whose MAE has the factor 2. Their
constants depend on the noise and, for CIFAR-100, on its rate; the defaults are one column of them.
Left out are the clip of the gradient's norm at 5, which belongs to their recipe, and the focal and
semi-supervised variants.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task

LOG_FLOOR = math.log(1e-8)  # authors' code


class EpsSoftmax(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 with symmetric noise; asymmetric 0.02, instance-dependent 0.045.
        # CIFAR-100, symmetric 20, 40, 60, 80%: 0.05, 0.03, 0.00125, 0.0075.
        alpha: float = 0.01,
        # The same; CIFAR-10, instance-dependent: 10. CIFAR-100: 1.
        beta: float = 5.0,
        # The same; CIFAR-10, asymmetric: 1e3. CIFAR-100: 1e4, asymmetric 1e2.
        m: float = 1e5,
    ):
        super().__init__(task)
        for name, value in (("alpha", alpha), ("beta", beta), ("m", m)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        self.alpha, self.beta, self.m = alpha, beta, m

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = -F.cross_entropy(logits, batch.labels, reduction="none")
        right = logits.argmax(1) == batch.labels

        # log1p keeps the digits that (p_y + m) / (m + 1) loses. Other examples get a p_y of 1
        # there, since the gradient could be NaN where p_y underflows to 0.
        of_right = torch.log1p(torch.where(right, log_p, 0.0).expm1() / (self.m + 1))
        of_wrong = (log_p - math.log1p(self.m)).clamp(min=LOG_FLOOR)
        ce = -torch.where(right, of_right, of_wrong)
        return (self.alpha * ce - 2 * self.beta * log_p.expm1()).mean()
