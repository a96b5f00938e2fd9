"""Forward correction (Forward-T). Patrini et al., CVPR 2017, arXiv:1609.03683.

Cross entropy of the noisy label's probability p T, with T estimated from a network trained by cross entropy
(nlbench.ops.transition) or, with `T: true`, the measured one, which no method can know: tables mark it. Clipping and
recipe are those of the authors' code, giorgiop/loss-correction, without its slip that leaves false zeros in T.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.transition import estimate_T

CLIP = 1e-7  # Keras's epsilon, authors' code; before the product with T, and no gradient where it acts


class Forward(Method):
    T: Tensor

    def __init__(
        self,
        task: Task,
        T: bool = False,  # true: use the measured T
        warmup_share: float = 1.0,  # the estimator trains as long as the main training, authors' code
        anchor: Literal["auto", "percentile", "argmax"] = "auto",  # authors' code: percentile, CIFAR-100: argmax
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
