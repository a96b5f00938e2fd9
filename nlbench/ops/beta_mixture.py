"""A mixture of two beta distributions. Arazo et al., ICML 2019, arXiv:1904.11238.

Steps and constants are those of the authors' code, PaulAlbert31/LabelNoiseCorrection.
"""

import torch
from torch import Tensor

STEPS, EDGE, TINY, LOSS_MIN = 10, 1e-4, 1e-12, 1e-3


def scaled(losses: Tensor, bounds: Tensor) -> Tensor:
    """Return losses (n,), scaled by `bounds` (2,) and then clamped a little inside (0, 1)."""
    low, high = bounds
    return ((losses - low) / (high - low + 1e-6)).clamp(LOSS_MIN, 1 - LOSS_MIN)


def fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the mixture by EM, with moments in place of a maximum of the likelihood.

    Args:
        x: (n,) float64, in [0, 1].
    Returns: alpha, beta and the weights of the components, each (2,) float64. NaN or infinite where
        the moments of a component allow no beta distribution.
    """
    x = x.clamp(EDGE, 1 - EDGE)
    alpha, beta = x.new_tensor([1.0, 2.0]), x.new_tensor([2.0, 1.0])
    weights = x.new_tensor([0.5, 0.5])
    for _ in range(STEPS):
        r = weighted_densities(x, alpha, beta, weights).clamp(min=TINY)
        r = r / r.sum(0)

        total = r.sum(1)
        mean = (r * x).sum(1) / total
        variance = (r * (x - mean[:, None]) ** 2).sum(1) / total
        alpha = mean * (mean * (1 - mean) / variance - 1)
        beta = alpha * (1 - mean) / mean
        weights = total / total.sum()
    return alpha, beta, weights


def weighted_densities(x: Tensor, alpha: Tensor, beta: Tensor, weights: Tensor) -> Tensor:
    """Return weight times density of each component at x (n,), (2, n)."""
    a, b = alpha[:, None], beta[:, None]
    log_norm = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    log_density = log_norm + (a - 1) * x.log() + (b - 1) * torch.log1p(-x)
    return weights[:, None] * log_density.exp()


def posterior_table(x: Tensor, points: int) -> Tensor:
    """Return the posterior of the second component on a grid, after a fit to x.

    It is held at its maximum to the right of it. Where the mixture is not defined, it is 1/2.

    Args:
        x: (n,) float64, in [0, 1].
        points: of the grid from 0 to 1.
    Returns: (points,) float64.
    """
    grid = torch.linspace(TINY, 1 - TINY, points, dtype=x.dtype, device=x.device)
    half = torch.full_like(grid, 0.5)
    if not len(x):
        return half
    densities = weighted_densities(grid, *fit(x))
    table = densities[1] / (densities.sum(0) + TINY)
    if not table.isfinite().all():
        return half
    position = torch.arange(points, device=x.device)
    return torch.where(position >= table.argmax(), table.max(), table)
