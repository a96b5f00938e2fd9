"""Asymmetric generalised cross entropy (AGCE). Zhou et al., ICML 2021, arXiv:2106.03110.

The loss is ((a + 1)^q - (a + p_y)^q) / q. Its gradient is that of cross entropy times
p_y (a + p_y)^(q - 1). At a = 0 it would be GCE.

Equation and constants are those of the authors' code, hitcszx/ALFs, which has no clamp here. Left
out is their clip of the gradient's norm at 5, which belongs to their recipe.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Task


class AGCE(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        a: float = 0.6,  # authors' code, CIFAR-10 and CIFAR-100; MNIST: 4
        q: float = 0.6,  # authors' code, CIFAR-10 and CIFAR-100; MNIST: 0.2
    ):
        super().__init__(task)
        for name, value in (("a", a), ("q", q)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        self.a, self.q = a, q

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).gather(1, batch.labels[:, None])
        return (((self.a + 1) ** self.q - (self.a + p) ** self.q) / self.q).mean()
