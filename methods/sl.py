"""Symmetric cross entropy learning (SL, SCE). Wang et al., ICCV 2019, arXiv:1908.06112.

The loss is alpha * CE + beta * RCE. RCE, reverse cross entropy, swaps the roles of label and
prediction. With log 0 replaced by a constant A < 0 it is -A (1 - p_y).

The paper says A = -4. The authors' code clips the one-hot label at 1e-4 and takes the natural
logarithm, so its A is ln(1e-4) = -9.21; -4 is the base-10 logarithm. The default of `log_zero`
follows the code. The clamps are those of the PyTorch version that the authors link to,
HanxunH/SCELoss-Reproduce: none in CE, p to [1e-7, 1] in RCE.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task


class SL(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        alpha: float = 0.1,  # authors' code, CIFAR-10; CIFAR-100: 6.0, MNIST: 0.01
        beta: float = 1.0,  # authors' code, CIFAR-10 and MNIST; CIFAR-100: 0.1
        log_zero: float = -9.210340371976182,  # ln(1e-4), authors' code; their text: -4
    ):
        super().__init__(task)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        if not -math.inf < log_zero < 0:
            raise ValueError(f"log_zero must be finite and below 0, got {log_zero}")
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).clamp(1e-7, 1.0)
        # Summing the other classes keeps the digits that 1 - p_y loses when p_y is near 1.
        others = p.scatter(1, batch.labels[:, None], 0.0).sum(1)
        ce = F.cross_entropy(logits, batch.labels)
        return self.alpha * ce - self.beta * self.log_zero * others.mean()
