"""Bootstrapping, soft and hard. Reed et al., ICLR 2015 workshop, arXiv:1412.6596.

The target is the given label with weight b and the network's own prediction with weight 1 - b: its probabilities
(soft) or its argmax (hard). No code of the authors is known to us. Probabilities are clipped as in two later authors'
codes (giorgiop/loss-correction, YisenWang/symmetric_cross_entropy_for_noisy_labels). The soft form differentiates
through the prediction in the target too, as the paper's minimum-entropy view and both codes do: without that it is
cross entropy at a smaller learning rate and nothing else.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Task

CLIP = 1e-7  # Keras's epsilon, in both codes; a clipped probability gets no gradient


class Bootstrap(Method):
    def __init__(
        self,
        task: Task,
        kind: Literal["soft", "hard"] = "hard",  # ours: soft at its usual b is next to cross entropy
        soft_b: float = 0.95,  # b of the soft form on every dataset, both codes
        hard_b: float = 0.8,  # b of the hard form on every dataset, symmetric_cross_entropy
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
        own = -(p * log_p).sum(1).mean() if self.kind == "soft" else F.nll_loss(log_p, logits.argmax(1))
        return self.b * given + (1 - self.b) * own
