"""Pre-activation ResNet as codes for noisy labels use it (DivideMix, ELR+). He et al., ECCV 2016, arXiv:1603.05027.

It differs from the paper's design in three places, all kept because published numbers were measured with them: the stem
is followed by batch norm and ReLU; nothing normalises or activates after the last block; and the shortcut carries the
block's normalised, activated input, not its raw input, also where it is the identity.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class _PreActBlock(nn.Module):
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
        inner += self.shortcut(x)
        return inner


def preact_resnet18(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """PreActResNet-18, CIFAR form, 11.2M parameters; the CIFAR network of DivideMix and ELR+."""
    channels = 64
    layers: list[nn.Module] = [
        nn.Conv2d(in_shape[0], channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    ]
    for width in (64, 128, 256, 512):
        stride = 1 if width == channels else 2
        layers += [_PreActBlock(channels, width, stride), _PreActBlock(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
