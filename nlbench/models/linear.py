"""A linear classifier, for data on which theory says what gradient descent does."""

from math import prod

from torch import nn


def linear(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """Linear without bias, started at zero: the same weights for every seed.

    The zero start is our choice. The first step then goes along the gradient alone, and every later one is a function
    of the data; before it all classes tie and the argmax is class 0. Two such networks in one method start as one.
    """
    layer = nn.Linear(prod(in_shape), num_classes, bias=False)
    nn.init.zeros_(layer.weight)
    return nn.Sequential(nn.Flatten(), layer)
