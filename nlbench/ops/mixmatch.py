"""Semi-supervised learning by MixMatch. Berthelot et al., NeurIPS 2019, arXiv:1905.02249.

DivideMix and PES use it. Both give each labelled and each unlabelled example a soft target, mix all
of them with one another, and learn by cross entropy from the labelled ones and by the squared error
from the unlabelled ones. Formulas as in Li, Socher & Hoi, ICLR 2020, arXiv:2002.07394, and its
authors' code, LiJunnan1992/DivideMix.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# ---- Targets and losses --------------------------------------------------------------------------


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """Return p^(1/temperature) divided by its sum, (B, C) rows that sum to 1."""
    # From logarithms, where no row can underflow to 0.
    return (p.log() / temperature).softmax(1)


def mean_prediction(*logits: Tensor) -> Tensor:
    """Return the mean, (B, C), of the softmax of each (B, C) of `logits`."""
    return torch.stack([z.softmax(1) for z in logits]).mean(0)


def mix(
    inputs: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix the examples of a batch: l * a + (1 - l) * a[perm], for inputs and for targets.

    One l and one permutation hold for the whole batch. l ~ Beta(alpha, alpha), then max(l, 1 - l).

    Args:
        inputs:  (M, ...).
        targets: (M, C).
    """
    drawn = rng.beta(alpha, alpha)
    # A mixed example stays closer to itself than to its partner, so it keeps its own kind of loss.
    share = max(drawn, 1 - drawn)
    partner = permutation(len(inputs), rng, inputs.device)
    mixed_inputs = share * inputs + (1 - share) * inputs[partner]
    mixed_targets = share * targets + (1 - share) * targets[partner]
    return mixed_inputs, mixed_targets


def semi_supervised_losses(
    logits: Tensor, targets: Tensor, num_labelled: int, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss of the first `num_labelled` examples and that of the others, both 0-d.

        mean over b of  -sum_k w_k t_bk log p_bk        and        mean over b and k of  (p_bk -
        t_bk)^2

    Args:
        logits:  (M, C), of the mixed inputs.
        targets: (M, C), mixed; no gradient.
        class_weights: (C,) w; None for ones.
    """
    log_p, t = logits[:num_labelled].log_softmax(1), targets[:num_labelled]
    weighted = t if class_weights is None else t * class_weights
    squared = F.mse_loss(logits[num_labelled:].softmax(1), targets[num_labelled:])
    return -(weighted * log_p).sum(1).mean(), squared


def linear_ramp(position: float, start: float, length: float) -> float:
    """Return 0 up to `start`, 1 from `start + length` on, linear between; all three in epochs."""
    # A ramp without length is a step, and would be a division by 0 below.
    if length <= 0:
        return float(position >= start)
    return min(max(position - start, 0.0) / length, 1.0)


# ---- Batches -------------------------------------------------------------------------------------


def chunks(index: Tensor, size: int) -> list[Tensor]:
    """Split `index` (n,) into chunks of `size`, the last of which may be shorter.

    A last chunk of one example joins the chunk before it.
    """
    parts = list(index.split(size))
    # Batch norm refuses one example.
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def cycle(index: Tensor, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield `chunks` of `index` without end: first in the given order, then in new orders."""
    while True:
        yield from chunks(index, size)
        index = index[permutation(len(index), rng, index.device)]


def balanced(index: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the examples at `index` (n,), each class repeated up to the largest, in random order.

    Where the largest class is no multiple of a class, members of that class are left out of its
    last repeats at random.

    Args:
        index: on the host.
        labels: (n,) int64, of these examples, on the host.
    """
    groups = [index[labels == c] for c in labels.unique()]
    most = max(len(group) for group in groups)

    rows = []
    for group in groups:
        repeated = group.repeat(math.ceil(most / len(group)))
        last = repeated[-most:][torch.from_numpy(rng.permutation(most))]
        rows.append(torch.cat([repeated[:-most], last])[:most])

    every = torch.cat(rows)
    return every[torch.from_numpy(rng.permutation(len(every)))]


# ---- Random numbers ------------------------------------------------------------------------------


def permutation(n: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Return 0 to n - 1 in an order drawn from `rng`, (n,) int64 on `device`.

    The host does not wait for a GPU.
    """
    return on_device(torch.from_numpy(rng.permutation(n)), device)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the host on `device`, without waiting for a GPU."""
    # Only a copy from pinned memory lets the host continue.
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def numpy_rng(generator: torch.Generator) -> np.random.Generator:
    """Make a NumPy generator from a generator of torch."""
    # `mix` needs Beta draws, which torch does not make from a generator.
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
