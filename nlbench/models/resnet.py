"""Residual networks in their CIFAR form. He et al., CVPR 2016, arXiv:1512.03385.

They have a 3x3 stem with stride 1 and no max-pool; `torchvision/resnet34` has the ImageNet stem.
Weights start from torch's defaults, as in the public code of ELR, DivideMix and CIFAR-N.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut: 1x1 with batch norm where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        # In place where no backward pass needs the old values: the same bits, with less memory
        # traffic.
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out: Tensor = self.bn2(self.conv2(inner))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def _resnet(
    depths: list[int], widths: list[int], num_classes: int, in_shape: tuple[int, ...]
) -> nn.Module:
    """Build a network of one stage per entry of `depths` (blocks) and `widths` (channels)."""
    channels = widths[0]
    # The ImageNet stem (7x7 with stride 2, then a max-pool) would cost about 8 points on 32x32
    # images.
    layers: list[nn.Module] = [
        nn.Conv2d(in_shape[0], channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_Block(channels, width, stride))
            channels = width

    # On 32x32 images the average over all positions is the pool of the papers: 4x4, or 8x8 for
    # three stages.
    classifier = nn.Linear(channels, num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


# ---- The models ----------------------------------------------------------------------------------


def resnet8(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-8, narrow CIFAR form: 16-32-64 channels, 0.08M parameters."""
    return _resnet([1, 1, 1], [16, 32, 64], num_classes, in_shape)


def resnet18(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-18, CIFAR form: 3x3 stem, no max-pool, 11.2M parameters."""
    return _resnet([2, 2, 2, 2], [64, 128, 256, 512], num_classes, in_shape)


def resnet34(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-34, CIFAR form: 3x3 stem, no max-pool, 21.3M parameters; used by ELR and CIFAR-N."""
    return _resnet([3, 4, 6, 3], [64, 128, 256, 512], num_classes, in_shape)
