"""The 8-layer network of the papers on robust losses, for CIFAR-10.

Six 3x3 convolutions of 64, 64, 128, 128, 196 and 196 channels, with a 2x2 max-pool after every
second one, a dense 256 and the classifier. Batch norm and ReLU follow each but the last. SL, APL,
asymmetric losses, active negative losses and epsilon-softmax are published on it. Start of the
weights, and where batch norm stands, are those of cswjl/eps-softmax, models.py.
"""

from torch import nn

_WIDTHS = (64, 64, 128, 128, 196, 196)


def cnn8(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """Six convolutions of 64 to 196 channels and a dense 256: 1.6M parameters."""
    channels, height, width = in_shape
    # Three pools divide height and width by 8.
    if min(height, width) < 8:
        raise ValueError(f"needs images of at least 8x8, got {height}x{width}")

    layers: list[nn.Module] = []
    for place, wide in enumerate(_WIDTHS):
        layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide)]
        layers.append(nn.ReLU(inplace=True))
        if place % 2:
            layers.append(nn.MaxPool2d(2))
        channels = wide

    network = nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * (height // 8) * (width // 8), 256),
        nn.BatchNorm1d(256),
        nn.ReLU(inplace=True),
        nn.Linear(256, num_classes),
    )
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    return network
