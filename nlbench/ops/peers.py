"""What `peer` and `f-divergence` share: independent images and labels, and a floored CE."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# The authors of both. Added to p inside the logarithm.
FLOOR = 1e-5


def floored_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(p_y + FLOOR) over a batch."""
    return F.nll_loss((logits.softmax(1) + FLOOR).log(), labels)


def with_peers(
    order: Tensor, num_train: int, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the positions (batch, x1, y2) of each batch of an order, as many of each.

    The positions of x1 and of y2 follow an order of all `num_train` examples of their own, drawn
    from `generator`.
    """
    images = torch.randperm(num_train, generator=generator).to(order.device)
    labels = torch.randperm(num_train, generator=generator).to(order.device)

    for number, index in enumerate(order.split(batch_size)):
        start = number * batch_size
        there = slice(start, start + len(index))
        yield index, images[there], labels[there]
