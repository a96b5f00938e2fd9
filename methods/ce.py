"""Cross entropy with the given labels, the baseline. Wei et al., ICLR 2022, arXiv:2110.12088.

As in the code of that paper, UCSC-REAL/cifar-10-100n. The log-softmax needs no clamp.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method


class CE(Method):
    capturable = True

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels)

    def gradient_parts(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Return the whole gradient, p - Y."""
        one_hot = F.one_hot(batch.labels, logits.shape[1])
        return {"ce": logits.softmax(1) - one_hot}
