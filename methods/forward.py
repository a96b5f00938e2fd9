"""Forward correction (Forward-T). Patrini et al., CVPR 2017, arXiv:1609.03683.

Cross entropy between the given label and p T, the predicted probabilities of the noisy labels. T is
estimated from a helper network that is trained by cross entropy (nlbench.ops.transition). With `T:
true` the measured T is used instead, which a method does not know in practice; tables mark that.
Clipping and recipe are those of the authors' code, giorgiop/loss-correction, without its mistake
that puts false zeros into T.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.transition import estimate_T

# Keras's epsilon, as in the authors' code, applied before the product with T. A clipped probability
# passes no gradient.
CLIP = 1e-7


class Forward(Method):
    capturable = True

    T: Tensor

    def __init__(
        self,
        task: Task,
        # True: use the measured T.
        T: bool = False,
        # Authors' code: the estimator trains as long as the main training.
        warmup_share: float = 1.0,
        # Authors' code: percentile; argmax for CIFAR-100.
        anchor: Literal["auto", "percentile", "argmax"] = "auto",
        percentile: float = 97.0,  # authors' code
    ):
        super().__init__(task)
        if not 0 < warmup_share < math.inf:
            raise ValueError(f"warmup_share must be finite and above 0, got {warmup_share}")
        if anchor not in ("auto", "percentile", "argmax"):
            raise ValueError(f"anchor must be 'auto', 'percentile' or 'argmax', got {anchor!r}")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")

        self.told = ("T",) if T else ()
        self.warmup = max(1, round(warmup_share * task.epochs))
        self.anchor, self.percentile = anchor, percentile
        self.register_buffer("T", torch.eye(task.num_classes, dtype=torch.float64))

    def prepare(self, run: Run) -> None:
        """Take the measured T, or estimate it with a helper network."""
        if self.told:
            self.T.copy_(run.task.T)
            return

        network = run.fit("warm-up", "ce", self.warmup)
        probs = run.predict_train(network).double().softmax(1)
        self.T.copy_(estimate_T(probs, anchor=self.anchor, percentile=self.percentile))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.softmax(1).clamp(CLIP, 1 - CLIP)
        columns = self.T.T[batch.labels].to(p.dtype)  # (B, C), T[:, y] of each example
        return -(p * columns).sum(1).log().mean()
