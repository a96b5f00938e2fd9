"""Generalised label smoothing (GLS, NLS). Wei et al., ICML 2022, arXiv:2106.04149.

Cross entropy with the label (1 - r) Y + r / C, where Y is one-hot. r above 0 is label smoothing
(Szegedy et al., CVPR 2016), which trusts the label less; r = 0 is CE; r below 0 sharpens the label
past one-hot and pushes all other classes down.

For r < 0 the loss has no lower bound, so a negative training loss is expected. Even a prediction
that is certain of its label has the gradient r (Y - 1 / C). The logits grow until weight decay and
the schedule stop them, or the run diverges, as it does from fresh weights if r is far below 0.

This is the direct training of the authors' code, UCSC-REAL/negative-label-smoothing, with the
protocol's optimiser. Left out is its other recipe: 120 epochs of CE, then 100 epochs of GLS at a
learning rate of 1e-6 from the checkpoint that was best on test data.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task


class GLS(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        # Authors' code, direct training. Their candidates: 0.8, 0.6, 0.4, 0.2, 0, -0.2, ..., -1,
        # -2, -4, -6, -8.
        rate: float = 0.1,
    ):
        super().__init__(task)
        if not -math.inf < rate < 1:
            raise ValueError(f"rate must be finite and below 1, got {rate}")
        self.rate = rate

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.log_softmax(1)
        return (1 - self.rate) * F.nll_loss(log_p, batch.labels) - self.rate * log_p.mean()
