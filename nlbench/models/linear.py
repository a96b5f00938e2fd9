"""A linear classifier, for data on which theory says what gradient descent does."""

from math import prod

from torch import nn


def linear(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """Linear without bias, started at zero: the same weights for every seed.

    Before the first step all classes tie, and the argmax is class 0. Two such networks in one
    method start with the same weights.
    """
    layer = nn.Linear(prod(in_shape), num_classes, bias=False)
    # Zero is our choice: all weights are then a function of the data and their order.
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)
