"""Asymmetric exponential loss (AEL). Zhou et al., ICML 2021, arXiv:2106.03110.

The loss is exp(-p_y / a), which is at least exp(-1 / a). Its gradient is that of cross entropy
times (p_y / a) exp(-p_y / a).

Equation and constants are those of the authors' code, hitcszx/ALFs, whose class is called AExpLoss
and has no clamp. Left out is their clip of the gradient's norm at 5, which belongs to their recipe.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Task


class AEL(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        a: float = 2.5,  # authors' code, CIFAR-10 and CIFAR-100; MNIST: 3.5
    ):
        super().__init__(task)
        if not 0 < a < math.inf:
            raise ValueError(f"a must be finite and above 0, got {a}")
        self.a = a

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).gather(1, batch.labels[:, None])
        return (-p / self.a).exp().mean()
