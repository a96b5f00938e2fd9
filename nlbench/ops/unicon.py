"""Parts of UNICON: the divergence that it splits by, its targets and its projection.

Karim et al., CVPR 2022, arXiv:2203.14542, as in the authors' code,
nazmul-karim170/UNICON-Noisy-Label.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbench.ops import mixmatch
from nlbench.ops.contrast import simclr_loss
from nlbench.ops.features import num_features

# Authors' code: what is added inside of logarithms, and the d below which a label is kept whole.
TINY, SURE = 1e-10, 0.5
PROJECTED = 128  # SimCLR, arXiv:2002.05709


def label_divergence(p: Tensor, labels: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of p (N, C) and the labels (N,) int64, in nats, (N,)."""
    one_hot = F.one_hot(labels, p.shape[1]).to(p.dtype)
    middle = (p + one_hot) / 2

    def divergence(q: Tensor) -> Tensor:
        return (q * ((q + TINY) / (middle + TINY)).log()).sum(1)

    return (divergence(p) + divergence(one_hot)) / 2


@torch.no_grad()
def targets(
    own: nn.Module,
    other: nn.Module,
    x: tuple[Tensor, Tensor],
    u: tuple[Tensor, Tensor],
    labels: Tensor,
    d: Tensor,
    temperature: float,
) -> Tensor:
    """Return the sharpened targets, (2B + 2U, C), of two views of both batches.

    Args:
        own, other: the network that learns, and the other one.
        x, u: two views of the labelled and of the unlabelled batch.
        labels: (B,) int64, of the labelled batch.
        d: (B, 1), the divergences of the labelled batch.
    """
    guess = mixmatch.mean_prediction(*map(own, u), *map(other, u))
    one_hot = F.one_hot(labels, guess.shape[1])
    w = torch.where(d < SURE, 1.0, 1 - d)
    refined = w * one_hot + (1 - w) * mixmatch.mean_prediction(*map(own, x))

    # Both views of an example have the same target.
    soft = torch.cat([refined, refined, guess, guess])
    return mixmatch.sharpen(soft, temperature)


def projection(network: nn.Module, num_classes: int) -> nn.Module:
    """Return a new projection of the network's features: two layers, with a ReLU between them.

    It has the network's device and dtype.

    Args:
        num_classes: the number of the network's outputs.
    """
    size = num_features(network, num_classes)
    layers = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, PROJECTED))
    return layers.to(next(network.parameters()))


def contrast_of(head: nn.Module, first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return SimCLR's loss, 0-d, of a projection of the features (B, F) of two views."""
    # Autocast would project in bfloat16.
    with torch.autocast(first.device.type, enabled=False):
        return simclr_loss(head(first), head(second), temperature)
