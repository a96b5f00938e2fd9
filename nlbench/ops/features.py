"""The features of a network, which are the inputs of its last linear layer, and heads on them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def keeping_features(network: nn.Module) -> Iterator[list[Tensor]]:
    """Append the features, (B, F), of each forward pass of `network` to the list that is yielded.

    Of a network without a linear layer these are its outputs.
    """
    kept: list[Tensor] = []
    linear = last_linear(network)
    if linear is None:
        handle = network.register_forward_hook(lambda module, args, z: kept.append(z))
    else:
        handle = linear.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        yield kept
    finally:
        handle.remove()


def with_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, C) of `images` and their features (B, F), both of one dtype."""
    with keeping_features(network) as kept:
        logits: Tensor = network(images)
    return logits, kept[-1].flatten(1).to(logits.dtype)


def new_head(network: nn.Module, num_classes: int, *widths: int) -> nn.Sequential:
    """Return a new head: a perceptron from the network's features to these widths.

    It has the network's device and dtype.

    Args:
        num_classes: the number of the network's outputs.
    """
    size = num_features(network, num_classes)
    return perceptron(size, *widths).to(next(network.parameters()))


def num_features(network: nn.Module, num_classes: int) -> int:
    """Return how many features a network has; a network without a linear layer, `num_classes`."""
    linear = last_linear(network)
    return num_classes if linear is None else linear.in_features


def perceptron(*widths: int) -> nn.Sequential:
    """Return linear layers from each width to the next, with batch norm and ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        if layers:
            layers += [nn.BatchNorm1d(width), nn.ReLU()]
        layers.append(nn.Linear(width, following))
    return nn.Sequential(*layers)


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the network's last linear layer, its classifier, or None if it has none."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None
