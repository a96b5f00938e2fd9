"""A multilayer perceptron, for features and for tables. Our own, from no paper."""

from math import prod

from torch import Tensor, nn


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes the last batch of an epoch also where it is a single example.

    One example has no variance, so it is normalised as in evaluation. Images have several pixels,
    so that the batch norm of a convolution never meets this.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


def mlp(
    num_classes: int,
    in_shape: tuple[int, ...],
    *,
    width: int = 256,
    depth: int = 2,
    dropout: float = 0.0,
    batch_norm: bool = True,
) -> nn.Module:
    """Hidden layers with batch norm and ReLU. Options: width 256, depth 2, dropout 0, batch_norm.

    Args:
        depth: number of hidden layers. 0 is a linear classifier with a bias, which `linear` lacks.
        dropout: probability that a hidden unit is set to zero in training.
    Raises: ValueError for options out of range.
    """
    if not (1 <= width <= 65_536 and 0 <= depth <= 100 and 0 <= dropout < 1):
        raise ValueError(
            "width must be in [1, 65536], depth in [0, 100] and dropout in [0, 1), got "
            f"{width}, {depth} and {dropout}"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    features = prod(in_shape)
    for _ in range(depth):
        # Batch norm subtracts the mean, so that a bias before it would do nothing.
        layers.append(nn.Linear(features, width, bias=not batch_norm))
        if batch_norm:
            layers.append(_BatchNorm(width))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        features = width
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
