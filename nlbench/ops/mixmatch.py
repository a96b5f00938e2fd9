"""Semi-supervised learning by MixMatch, as DivideMix and PES use it. Berthelot et al., NeurIPS 2019, arXiv:1905.02249.

Both give the labelled and the unlabelled examples a soft target each, mix all of them with one another, and learn from
cross entropy on the first and the squared error on the second. Formulas as in Li, Socher & Hoi, ICLR 2020,
arXiv:2002.07394, and its authors' code, LiJunnan1992/DivideMix.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p^(1/temperature), divided by its sum: (B, C) rows that sum to 1. In logarithms, where no row can vanish."""
    return (p.log() / temperature).softmax(1)


def mean_prediction(*logits: Tensor) -> Tensor:
    """(B, C) mean of the softmax of each (B, C) of `logits`."""
    return torch.stack([z.softmax(1) for z in logits]).mean(0)


def mix(inputs: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """l * a + (1 - l) * a[perm] for inputs (M, ...) and targets (M, C), with one l and one permutation for all rows.

    l ~ Beta(alpha, alpha), then max(l, 1 - l): a row stays closer to itself than to its partner, so that it may go by
    its own kind of loss.
    """
    drawn = rng.beta(alpha, alpha)
    share = max(drawn, 1 - drawn)
    partner = permutation(len(inputs), rng, inputs.device)
    return share * inputs + (1 - share) * inputs[partner], share * targets + (1 - share) * targets[partner]


def semi_supervised_losses(
    logits: Tensor, targets: Tensor, num_labelled: int, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross entropy on the first `num_labelled` rows and squared error of the probabilities on the others, both 0-d.

        mean over b of  -sum_k w_k t_bk log p_bk        and        mean over b and k of  (p_bk - t_bk)^2

    Args:
        logits:  (M, C), of the mixed inputs.
        targets: (M, C), mixed; no gradient.
        class_weights: (C,) w, or ones.
    """
    log_p, t = logits[:num_labelled].log_softmax(1), targets[:num_labelled]
    weighted = t if class_weights is None else t * class_weights
    squared = F.mse_loss(logits[num_labelled:].softmax(1), targets[num_labelled:])
    return -(weighted * log_p).sum(1).mean(), squared


def linear_ramp(position: float, start: float, length: float) -> float:
    """0 up to `start`, 1 from `start + length` on, linear between; all three in epochs."""
    return min(max(position - start, 0.0) / length, 1.0) if length > 0 else float(position >= start)


def chunks(index: Tensor, size: int) -> list[Tensor]:
    """`index` (n,) in chunks of `size`, the last one shorter; where it would be one example, which batch norm cannot
    take, it joins the chunk before."""
    parts = list(index.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def cycle(index: Tensor, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """`chunks` of `index` without end: first in the order given, then, each time through, in an order of its own."""
    while True:
        yield from chunks(index, size)
        index = index[permutation(len(index), rng, index.device)]


def permutation(n: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """(n,) int64 on `device`, 0 to n - 1 in an order drawn from `rng`; a GPU is not waited for."""
    order = torch.from_numpy(rng.permutation(n))
    return order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order.to(device)


def numpy_rng(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator, which has Beta draws, from torch's."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
