"""Estimating the transition matrix T[i, j] = P(noisy = j | clean = i)."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Anchor = Literal["auto", "percentile", "argmax"]


def estimate_T(probs: Tensor, *, anchor: Anchor = "auto", percentile: float = 97.0) -> Tensor:
    """Estimate T from the predictions of a network that was trained on the noisy labels.

    Each class has one anchor example. Row i of T is the whole prediction for the anchor of class i,
    divided by its sum. With "argmax" the anchor is the example with the largest probs[:, i]; with
    "percentile" it is the largest below the percentile of that column, which is safer against
    outliers where a class has many examples. "auto" is percentile up to 20 classes and argmax
    above. Patrini et al., CVPR 2017, arXiv:1609.03683, do so for CIFAR-10 and CIFAR-100.

    Args:
        probs: (N, C), rows sum to 1.
        percentile: in (0, 100], by NumPy's "higher" rule; examples at or above it are dropped.

    Returns: (C, C) float64 on the device of `probs`.
    Raises: ValueError for probabilities that are not finite.
    """
    p = probs.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(p).all():
        raise ValueError("probs must be finite: the network that predicted them has diverged")

    drop = anchor == "percentile" or (anchor == "auto" and p.shape[1] <= 20)
    anchors = []
    # The authors' code sets the dropped entries to zero in the predictions themselves, so an anchor
    # may carry false zeros into T. Here each column is a copy.
    for column in p.T.copy():
        # A dropped example cannot be the maximum: probabilities are not negative.
        if drop:
            column[column >= np.percentile(column, percentile, method="higher")] = -1.0
        anchors.append(column.argmax())

    T = p[anchors]
    return torch.from_numpy(T / T.sum(1, keepdims=True)).to(probs.device)
