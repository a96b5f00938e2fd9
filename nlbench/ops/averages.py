"""Averages of weights, and the ramp of ELR+. Liu et al., NeurIPS 2020, arXiv:2007.00151.

As in the authors' code, shengliu66/ELR, ELR_plus.
"""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def frozen_copies(networks: Iterable[nn.Module]) -> nn.ModuleList:
    """Return a copy of each network, whose weights take no gradient."""
    return nn.ModuleList(copy.deepcopy(network).requires_grad_(False) for network in networks)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Set the weights of `average` to decay * average + (1 - decay) * weights, in place.

    Only parameters are averaged. The copy keeps batch statistics of its own.

    Args:
        average: a copy of `network`.
    """
    old: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(old, new, 1 - decay)


def exponential_ramp(step: int, length: int) -> float:
    """Return exp(-5 * (1 - step / length)^2), which rises from exp(-5) to 1 at step `length`.

    It stays 1 after that, and is 1 throughout if `length` is 0.
    """
    return math.exp(-5 * (1 - min(step, length) / length) ** 2) if length else 1.0
