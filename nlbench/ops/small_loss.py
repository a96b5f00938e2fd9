"""The selection of small losses: in a batch, and in each class.

Han et al., NeurIPS 2018, arXiv:1804.06872; by class as in ProMix and UNICON.
"""

import math

import torch
from torch import Tensor


def smallest(losses: Tensor, keep: float) -> Tensor:
    """Return the positions of the smallest of `losses` (B,): the fraction `keep`, but at least one.

    The number is rounded down. Of equal losses the one that is earlier in the batch comes first.
    """
    # Without 1e-9, 1 - 0.8 would keep 1 of 10 and not 2: in floating point it is below 0.2.
    count = max(1, math.floor(keep * len(losses) + 1e-9))
    return torch.argsort(losses.detach(), stable=True)[:count]


def smallest_per_class(values: Tensor, labels: Tensor, count: int, num_classes: int) -> Tensor:
    """Return which examples have one of the `count` smallest values of their class, (N,) bool.

    Of a smaller class that is all. Of equal values the one that is earlier comes first.

    Args:
        values: (N,).
        labels: (N,) int64, the classes.
    """
    # By class, and within a class by value.
    order = values.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]

    sizes = labels.bincount(minlength=num_classes)
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(labels), device=labels.device) - starts[labels[order]]
    chosen = torch.empty_like(labels, dtype=torch.bool)
    chosen[order] = rank < count
    return chosen
