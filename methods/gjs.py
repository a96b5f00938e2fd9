"""Generalised Jensen-Shannon loss (GJS). Englesson & Azizpour, NeurIPS 2021, arXiv:2105.04522.

The network sees two strong views of each image and predicts p1 and p2. With
M = pi Y + (1 - pi) (p1 + p2) / 2, where Y is the one-hot label, the loss is

    Z * (pi KL(Y || M) + (1 - pi) / 2 * (KL(p1 || M) + KL(p2 || M))),

where Z = -1 / ((1 - pi) log(1 - pi)). It rewards equal predictions on both views, besides the
label. So compare it with methods that see two views, such as `sop-plus`. On data that are not
images both views are alike, and the loss is that of `js` with the same pi.

Equation, constant and the two separate passes are those of the authors' code, ErikEnglesson/GJS.
There M and p are floored at 1e-7 before their logarithm; here the logarithms need no floor. Their
strong view is RandAugment with one operation and a cutout, and here it is the protocol's. Online
counts are those of the first view.
"""

import math

from torch import Tensor

from nlbench.method import Batch, Method, Run, Task


class GJS(Method):
    def __init__(
        self,
        task: Task,
        # Authors' code, CIFAR-10 with 40% symmetric noise; 80%: 0.1, 40% asymmetric: 0.3.
        # CIFAR-100: 0.5, 0.1 and 0.1. They choose it for each noise and rate.
        pi: float = 0.9,
    ):
        super().__init__(task)
        if not 0 < pi < 1:
            raise ValueError(f"pi must be in (0, 1), got {pi}")
        self.pi = pi

    def training_step(self, run: Run, batch: Batch) -> Tensor:
        """Train on two strong views of the batch; return the (B, C) logits of the first one."""
        network = run.networks[0]
        logits = network(batch.strong(0))
        loss = self._divergence(logits, network(batch.strong(1)), batch.labels)
        run.backward_step(loss)
        return logits

    def _divergence(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch from the logits (B, C) of both views."""
        own, rest = labels[:, None], 1 - self.pi
        log_p1, log_p2 = first.log_softmax(1), second.log_softmax(1)
        log_m = log_p1.logaddexp(log_p2) + math.log(rest / 2)
        log_m_y = (log_m.gather(1, own).exp() + self.pi).log()
        log_m = log_m.scatter(1, own, log_m_y)

        kl_views = (log_p1.exp() * (log_p1 - log_m) + log_p2.exp() * (log_p2 - log_m)).sum(1)
        losses = -self.pi * log_m_y.squeeze(1) + rest / 2 * kl_views
        return -losses.mean() / (rest * math.log1p(-self.pi))
