"""Backward correction (Backward-T). Patrini et al., CVPR 2017, arXiv:1609.03683.

Cross entropy weighted by row y of the inverse of T, which is an unbiased estimate of the loss on
clean labels. Some of these weights are below 0 and some above 1, so a negative training loss is
expected. T is estimated as in `forward`. With `T: true` the measured T is used instead; tables mark
that. The buffer `T` holds T as it was before the mixing described below.

Clipping and recipe are those of the authors' code, giorgiop/loss-correction, with one difference.
The authors invert any T. Here the weights are bounded: where a row of the inverse has a sum of
absolute weights above `max_weight` (infinite if T is singular), T is first mixed with the identity,
by the smallest share in steps of 1% that suffices, and a warning says so.
"""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from nlbench.method import Batch, Method, Run, Task
from nlbench.ops.transition import estimate_T

# Keras's epsilon, as in the authors' code. It alone bounds the loss from below. A clipped
# probability passes no gradient.
CLIP = 1e-7


class Backward(Method):
    capturable = True

    T: Tensor
    inverse: Tensor

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
        # Our choice. Symmetric noise of 80% on ten classes has 15.
        max_weight: float = 100.0,
    ):
        super().__init__(task)
        if not 0 < warmup_share < math.inf:
            raise ValueError(f"warmup_share must be finite and above 0, got {warmup_share}")
        if anchor not in ("auto", "percentile", "argmax"):
            raise ValueError(f"anchor must be 'auto', 'percentile' or 'argmax', got {anchor!r}")
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}")
        if not 1 < max_weight < math.inf:
            raise ValueError(f"max_weight must be finite and above 1, got {max_weight}")

        self.told = ("T",) if T else ()
        self.warmup = max(1, round(warmup_share * task.epochs))
        self.anchor, self.percentile, self.max_weight = anchor, percentile, max_weight
        self.register_buffer("T", torch.eye(task.num_classes, dtype=torch.float64))
        self.register_buffer("inverse", torch.eye(task.num_classes, dtype=torch.float64))

    def prepare(self, run: Run) -> None:
        """Take the measured T, or estimate it with a helper network, and invert it."""
        if self.told:
            T = run.task.T
        else:
            network = run.fit("warm-up", "ce", self.warmup)
            probs = run.predict_train(network).double().softmax(1)
            T = estimate_T(probs, anchor=self.anchor, percentile=self.percentile)

        self.T.copy_(T)
        self.inverse.copy_(bounded_inverse(T.cpu(), self.max_weight))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        log_p = logits.softmax(1).clamp(CLIP, 1 - CLIP).log()
        weights = self.inverse[batch.labels].to(log_p.dtype)  # (B, C), row y of each example
        return -(weights * log_p).sum(1).mean()


def bounded_inverse(T: Tensor, max_weight: float) -> Tensor:
    """Invert T (C, C), after mixing it with the identity where its inverse exceeds `max_weight`.

    The bound applies to the largest sum of absolute values in a row of the inverse. That is the
    condition number of T in the infinity norm, since the rows of T sum to 1.

    Returns: (C, C), the inverse of the first mixture, in steps of 1%, that is within the bound.
    """
    eye = torch.eye(len(T), dtype=T.dtype)
    weights = []
    for percent in range(101):
        mixed = T + percent / 100 * (eye - T)
        inverse, singular = torch.linalg.inv_ex(mixed)
        weights.append(math.inf if singular else float(inverse.abs().sum(1).max()))
        if weights[-1] <= max_weight:
            break

    if percent:
        warnings.warn(
            f"backward: the inverse of T has weights that sum to {weights[0]:.3g}, above "
            f"max_weight {max_weight:g}; {percent}% of the identity was mixed into T",
            stacklevel=2,
        )
    return inverse
