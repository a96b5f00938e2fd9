"""NCE + AGCE, an asymmetric loss. Zhou et al., ICML 2021, arXiv:2106.03110.

The loss is alpha * NCE + beta * AGCE. Normalised cross entropy, log p_y / sum_k log p_k, is that of
`nce-rce`, and AGCE, ((a + 1)^q - (a + p_y)^q) / q, is that of `agce`.

Equation and constants are those of the authors' code, hitcszx/ALFs, which has no clamp here. Left
out is their clip of the gradient's norm at 5, which belongs to their recipe. At the default
constants the gradient of the second term is that of cross entropy times up to 10.6, so that the
learning rate matters more than elsewhere.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Task


class NCEAGCE(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        alpha: float = 1.0,  # authors' code, CIFAR-10; CIFAR-100: 10
        beta: float = 4.0,  # authors' code, CIFAR-10; CIFAR-100: 0.1
        a: float = 6.0,  # authors' code, CIFAR-10; CIFAR-100: 1.8
        q: float = 1.5,  # authors' code, CIFAR-10; CIFAR-100: 3
    ):
        super().__init__(task)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {weight}")
        for name, value in (("a", a), ("q", q)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and above 0, got {value}")
        self.alpha, self.beta, self.a, self.q = alpha, beta, a, q

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(1)
        log_p_y = log_p.gather(1, batch.labels[:, None]).squeeze(1)
        nce = log_p_y / log_p.sum(1)
        agce = ((self.a + 1) ** self.q - (self.a + log_p_y.exp()) ** self.q) / self.q
        return (self.alpha * nce + self.beta * agce).mean()
