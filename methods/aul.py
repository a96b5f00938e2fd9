"""Asymmetric unhinged loss (AUL). Zhou et al., ICML 2021, arXiv:2106.03110.

The loss is ((a - p_y)^q - (a - 1)^q) / q. Its gradient is that of cross entropy times
p_y (a - p_y)^(q - 1).

Equation and constants are those of the authors' code, hitcszx/ALFs, whose class is called AUELoss
and has no clamp. Left out is their clip of the gradient's norm at 5, which belongs to their recipe.
At the default constants the factor reaches 20, where that of cross entropy is 1.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Task


class AUL(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        a: float = 5.5,  # authors' code, CIFAR-10 and CIFAR-100; MNIST: 3
        q: float = 3.0,  # authors' code, CIFAR-10 and CIFAR-100; MNIST: 0.1
    ):
        super().__init__(task)
        if not 1 < a < math.inf:
            raise ValueError(f"a must be finite and above 1, got {a}")
        if not 0 < q < math.inf:
            raise ValueError(f"q must be finite and above 0, got {q}")
        self.a, self.q = a, q

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).gather(1, batch.labels[:, None])
        return (((self.a - p) ** self.q - (self.a - 1) ** self.q) / self.q).mean()
