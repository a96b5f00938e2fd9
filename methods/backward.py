"""Backward correction (Backward-T). Patrini et al., CVPR 2017, arXiv:1609.03683.

Cross entropy weighted by row y of the inverse of T, which is unbiased for the clean loss. Those weights go below 0 and
above 1, so a negative training loss is expected. T is estimated as in `forward`, or measured with `T: true`, which
tables mark. Clipping and recipe are those of the authors' code, giorgiop/loss-correction, with one difference: the
authors invert any T, here one whose condition number exceeds `max_condition` is first mixed with the identity, by the
smallest share in steps of 1% that suffices, with a warning. `T` is the matrix that was inverted.
"""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.transition import estimate_T

CLIP = 1e-7  # Keras's epsilon, authors' code; it alone bounds the loss from below; no gradient where it acts


class Backward(Method):
    T: Tensor
    inverse: Tensor

    def __init__(
        self,
        task: Task,
        T: bool = False,  # true: use the measured T
        warmup_share: float = 1.0,  # the estimator trains as long as the main training, authors' code
        anchor: Literal["auto", "percentile", "argmax"] = "auto",  # authors' code: percentile, CIFAR-100: argmax
        percentile: float = 97.0,  # authors' code
        max_condition: float = 100.0,  # ours: symmetric noise of 80% on ten classes has 9
    ):
        super().__init__(task)
        if not 0 < warmup_share < math.inf:
            raise ValueError(f"warmup_share must be finite and above 0, got {warmup_share}")
        if anchor not in ("auto", "percentile", "argmax"):
            raise ValueError(f"anchor must be 'auto', 'percentile' or 'argmax', got {anchor!r}")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")
        if not 1 < max_condition < math.inf:
            raise ValueError(f"max_condition must be finite and above 1, got {max_condition}")
        self.told = ("T",) if T else ()
        self.warmup = max(1, round(warmup_share * task.epochs))
        self.anchor, self.percentile, self.max_condition = anchor, percentile, max_condition
        self.register_buffer("T", torch.eye(task.num_classes, dtype=torch.float64))
        self.register_buffer("inverse", torch.eye(task.num_classes, dtype=torch.float64))

    def prepare(self, run: Run) -> None:
        if self.told:
            T = run.task.T
        else:
            network = run.fit("ce", lambda logits, batch: F.cross_entropy(logits, batch.labels), self.warmup)
            probs = run.predict_train(network).double().softmax(1)
            T = estimate_T(probs, anchor=self.anchor, percentile=self.percentile)
        self.T.copy_(well_conditioned(T.cpu(), self.max_condition))
        self.inverse.copy_(torch.linalg.inv(self.T.cpu()))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.softmax(1).clamp(CLIP, 1 - CLIP).log()
        rows = self.inverse[batch.labels].to(log_p.dtype)  # (B, C), row y of each example
        return -(rows * log_p).sum(1).mean()


def well_conditioned(T: Tensor, max_condition: float) -> Tensor:
    """T, or the first mixture of it with the identity whose condition number (2-norm) is at most `max_condition`."""
    eye = torch.eye(len(T), dtype=T.dtype)
    for percent in range(101):
        mixed = T + percent / 100 * (eye - T)
        if torch.linalg.cond(mixed) <= max_condition:  # infinite where it is singular
            break
    if percent:
        warnings.warn(
            f"backward: T has condition number {torch.linalg.cond(T):.3g}, above max_condition {max_condition:g}; "
            f"{percent}% of the identity was mixed in before inverting it",
            stacklevel=2,
        )
    return mixed
