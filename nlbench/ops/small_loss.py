"""The selection of small losses. Han et al., NeurIPS 2018, arXiv:1804.06872."""

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
