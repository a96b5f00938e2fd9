"""Mean absolute error of the predicted probabilities. Ghosh et al., AAAI 2017, arXiv:1712.09482.

The paper sums |p_k - Y_k| over the classes, which is 2 - 2 p_y. Here it is half of that, 1 - p_y,
as in the later benchmark code HanxunH/Active-Passive-Losses. The gradient p_y (p - Y) is then at
most that of cross entropy, so that one learning rate can serve both, and the loss equals `gce` at q
= 1. The paper's form is this one at twice the learning rate.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method


class MAE(Method):
    capturable = True

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = -F.cross_entropy(logits, batch.labels, reduction="none")
        # This is 1 - p_y. expm1 keeps the digits that the difference loses when p_y is near 1.
        return -torch.expm1(log_p).mean()
