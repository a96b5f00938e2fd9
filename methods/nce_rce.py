"""NCE + RCE, the active-passive loss (APL). Ma et al., ICML 2020, arXiv:2006.13554.

The loss is alpha * NCE + beta * RCE. Normalised cross entropy, log p_y / sum_k log p_k in (0, 1),
is the active part: it pulls the label up. Reverse cross entropy, -A (1 - p_y), is the passive part:
it pushes the other classes down. The clamps are those of the authors' code,
HanxunH/Active-Passive-Losses: the label at 1e-4, so that A = ln(1e-4), and p to [1e-7, 1] in RCE
only. Left out is the gradient norm clip of 5, which belongs to their recipe.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Task

# A. It is not a hyperparameter, because it only acts as a factor of beta.
LOG_ZERO = math.log(1e-4)


class NCERCE(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        alpha: float = 1.0,  # authors' code, CIFAR-10; CIFAR-100: 10
        beta: float = 1.0,  # authors' code, CIFAR-10; CIFAR-100: 0.1
    ):
        super().__init__(task)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        self.alpha, self.beta = alpha, beta

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p, own = logits.log_softmax(1), batch.labels[:, None]
        nce = log_p.gather(1, own).squeeze(1) / log_p.sum(1)

        # Summing the other classes keeps the digits that 1 - p_y loses when p_y is near 1.
        others = logits.softmax(1).clamp(1e-7, 1.0).scatter(1, own, 0.0).sum(1)
        return (self.alpha * nce - self.beta * LOG_ZERO * others).mean()
