"""Active negative loss: ANL-CE and ANL-FL. Ye et al., NeurIPS 2023.

Code: https://github.com/Virusdoll/Active-Negative-Loss. The loss is

    alpha * c_y / sum_k c_k + beta * (1 - s_y / sum_k s_k) + delta * sum of |w| over all weights w

where c_k = -(1 - p_k)^gamma log p_k is the focal loss of label k, and s_k is the largest value that
it takes for p_k >= 1e-7, minus its value at max(p_k, 1e-7). The factor (1 - p_k)^gamma has no
gradient. With gamma 0, the default, c_k is the cross entropy and the method is ANL-CE; with gamma
0.5 it is ANL-FL. Equation, clamp and constants are those of the authors' code.

There the third term takes the place of weight decay. On the identical track it is added to the
protocol's weight decay, since all methods share the optimiser. Left out are the clip of the
gradient's norm at 5, which belongs to their recipe, and ANL-CE-ER, which has an entropy term.
"""

import math

import torch
from torch import Tensor

from nlbench.method import Batch, Method, Run, Task

LOG_FLOOR = math.log(1e-7)  # authors' code


class ANL(Method):
    def __init__(
        self,
        task: Task,
        alpha: float = 5.0,  # authors' code, CIFAR-10; CIFAR-100: 10, WebVision: 20
        beta: float = 5.0,  # authors' code, CIFAR-10; CIFAR-100 and WebVision: 1
        delta: float = 5e-5,  # authors' code, CIFAR-10; CIFAR-100: 5e-7, WebVision: 5e-6
        gamma: float = 0.0,  # ANL-CE; authors' code for ANL-FL: 0.5
    ):
        super().__init__(task)
        given = {"alpha": alpha, "beta": beta, "delta": delta, "gamma": gamma}
        for name, value in given.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        self.alpha, self.beta, self.delta, self.gamma = alpha, beta, delta, gamma

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p, own = logits.log_softmax(1), batch.labels[:, None]
        active = self._focal(log_p)
        largest = -((1 - math.exp(LOG_FLOOR)) ** self.gamma) * LOG_FLOOR
        negative = largest - self._focal(log_p.clamp(min=LOG_FLOOR))

        share = active.gather(1, own).squeeze(1) / active.sum(1)
        # Summing the other classes keeps the digits that 1 - s_y / S loses when p_y is near 1.
        others = negative.scatter(1, own, 0.0).sum(1) / negative.sum(1)
        return (self.alpha * share + self.beta * others).mean()

    def _focal(self, log_p: Tensor) -> Tensor:
        return -((-torch.expm1(log_p.detach())) ** self.gamma) * log_p

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train on the batch and on the sum of the absolute weights; return the logits (B, C)."""
        network = run.networks[0]
        logits = run.forward(network, batch.images)
        size = sum(weight.abs().sum() for weight in network.parameters())
        run.backward_step(self.loss(logits, batch) + self.delta * size)
        return logits
