"""The network for MNIST of the Forward paper (Patrini et al., CVPR 2017, arXiv:1609.03683)."""

from math import prod

from torch import nn

WIDTH, DROPOUT = 128, 0.2


def mnist_mlp(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """Two dense layers of 128 with ReLU and dropout 0.2, of the Forward paper: 0.12M parameters.

    As in the authors' code, giorgiop/loss-correction, models.py. It draws weights from a truncated
    normal of variance 2 / inputs (He), and here the normal is whole. Biases begin at 0.
    """
    layers = [
        nn.Linear(prod(in_shape), WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.Linear(WIDTH, num_classes),
    ]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)

    first, second, last = layers
    return nn.Sequential(
        nn.Flatten(),
        *(first, nn.ReLU(inplace=True), nn.Dropout(DROPOUT)),
        *(second, nn.ReLU(inplace=True), nn.Dropout(DROPOUT)),
        last,
    )
