"""Estimating the transition matrix T[i, j] = P(noisy = j | clean = i)."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Anchor = Literal["auto", "percentile", "argmax"]


def estimate_T(probs: Tensor, *, anchor: Anchor = "auto", percentile: float = 97.0) -> Tensor:
    """T from what a network trained on the noisy labels predicts, by one anchor example per class.

    Row i is the whole prediction of class i's anchor, divided by its sum. The anchor is the example with the largest
    probs[:, i] ("argmax"), or the largest below the percentile of that column ("percentile"), which is safer against
    outliers where a class has many examples. "auto" is percentile up to 20 classes and argmax above: Patrini et al.,
    CVPR 2017, arXiv:1609.03683, do so for CIFAR-10 and CIFAR-100. Their code zeroes the dropped entries in the
    predictions themselves, so an anchor may carry false zeros into T; here each column is a copy.

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
    for column in p.T.copy():
        if drop:
            column[column >= np.percentile(column, percentile, method="higher")] = -1.0
        anchors.append(column.argmax())
    T = p[anchors]
    return torch.from_numpy(T / T.sum(1, keepdims=True)).to(probs.device)
