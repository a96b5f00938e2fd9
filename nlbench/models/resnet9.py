"""The residual network of the DAWNBench entries on CIFAR-10, which trains in seconds on a GPU.

David Page, "How to Train Your ResNet" (2018), code davidcpage/cifar10-fast. A 3x3 stem is followed
by three stages, each of a convolution and a 2x2 max-pool. The first and the last stage end in a
residual pair of convolutions. The largest value of each channel goes to the classifier. Nine layers
have weights. Left out are the factor of 1/8 on the logits and the additions of later entries
(whitened patches, frozen scales, label smoothing). Weights start from torch's defaults.
"""

from torch import Tensor, nn


def _conv(channels: int, width: int) -> list[nn.Module]:
    """Convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


class _Residual(nn.Module):
    """Two 3x3 convolutions with an identity shortcut; nothing follows the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(*_conv(width, width), *_conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


def _resnet9(width: int, num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    channels, height, breadth = in_shape
    # Three pools divide height and width by 8.
    if min(height, breadth) < 8:
        raise ValueError(f"needs images of at least 8x8, got {height}x{breadth}")

    return nn.Sequential(
        *_conv(channels, width),
        *_conv(width, 2 * width),
        nn.MaxPool2d(2),
        _Residual(2 * width),
        *_conv(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *_conv(4 * width, 8 * width),
        nn.MaxPool2d(2),
        _Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, num_classes),
    )


# ---- The models ----------------------------------------------------------------------------------


def resnet9(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-9 of DAWNBench: 64-128-256-512 channels, 6.6M parameters, 1/3 of resnet34's FLOPs."""
    return _resnet9(64, num_classes, in_shape)


def resnet9_slim(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """resnet9 with 8-16-32-64 channels, 0.10M parameters, 1/60 of its FLOPs, for CPUs."""
    return _resnet9(8, num_classes, in_shape)
