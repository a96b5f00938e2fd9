"""Bootstrapping, soft and hard. Reed et al., ICLR 2015 workshop, arXiv:1412.6596.

The target is the given label with weight b and the network's own prediction with weight 1 - b. The
prediction is the vector of probabilities (soft) or their argmax (hard).

No code of the authors is known to us. Probabilities are clipped as in the code of two later papers,
giorgiop/loss-correction and YisenWang/symmetric_cross_entropy_for_noisy_labels. As in both, the
soft form also differentiates through the prediction in the target. This follows the paper's view of
the loss as minimum-entropy regularisation. Without that gradient the soft form would only be cross
entropy at a smaller learning rate.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task

# Keras's epsilon, as in both codes. A clipped probability passes no gradient.
CLIP = 1e-7


class Bootstrap(Method):
    capturable = True

    def __init__(
        self,
        task: Task,
        # Our choice, because soft at its usual b is almost cross entropy.
        kind: Literal["soft", "hard"] = "hard",
        # The b of the soft form on every dataset, both codes.
        soft_b: float = 0.95,
        # The b of the hard form on every dataset, symmetric_cross_entropy.
        hard_b: float = 0.8,
    ):
        super().__init__(task)
        for name, value in (("soft_b", soft_b), ("hard_b", hard_b)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if kind not in ("soft", "hard"):
            raise ValueError(f"kind must be 'soft' or 'hard', got {kind!r}")

        self.kind = kind
        self.b = soft_b if kind == "soft" else hard_b

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).clamp(CLIP, 1 - CLIP)
        log_p = p.log()
        given = F.nll_loss(log_p, batch.labels)

        if self.kind == "soft":
            entropy = -(p * log_p).sum(1).mean()
            return self.b * given + (1 - self.b) * entropy

        own = F.nll_loss(log_p, logits.argmax(1))
        return self.b * given + (1 - self.b) * own
