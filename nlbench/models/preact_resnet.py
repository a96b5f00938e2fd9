"""Pre-activation ResNet as in codes for noisy labels. He et al., ECCV 2016, arXiv:1603.05027.

DivideMix and ELR+ use it. It differs from the paper's design in three places, which are kept
because published numbers were measured with them. A comment marks each of them.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class _PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, with a shortcut around them."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(x), inplace=True)
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(x)), inplace=True))
        # Unlike in the paper, the shortcut carries the normalised and activated input, even where
        # it is the identity.
        inner += self.shortcut(x)
        return inner


def preact_resnet18(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """PreActResNet-18, CIFAR form, 11.2M parameters; the CIFAR network of DivideMix and ELR+."""
    channels = 64
    # Unlike in the paper, batch norm and ReLU follow the stem.
    layers: list[nn.Module] = [
        nn.Conv2d(in_shape[0], channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    for width in (64, 128, 256, 512):
        stride = 1 if width == channels else 2
        layers += [_PreActBlock(channels, width, stride), _PreActBlock(width, width, 1)]
        channels = width
    # Unlike in the paper, nothing normalises or activates after the last block.
    classifier = nn.Linear(channels, num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
