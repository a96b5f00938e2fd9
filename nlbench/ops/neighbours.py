"""The nearest neighbours of examples, by the cosine of their features. `ssr` uses them."""

import torch
from torch import Tensor
from torch.nn import functional as F

# The number of similarities that are held at a time.
ENTRIES = 2**26


def votes_of_neighbours(features: Tensor, labels: Tensor, num_classes: int, k: int) -> Tensor:
    """Return for each example how often a label occurs among the k nearest ones, (n, C) int64.

    An example is among its own neighbours, and all votes count alike.

    Args:
        features: (n, F).
        labels: (n,) int64.
        k: number of neighbours, all where it is above n.
    """
    n, unit = len(labels), F.normalize(features, dim=1)
    parts = []
    for rows in unit.split(max(1, ENTRIES // n)):
        with torch.autocast(unit.device.type, enabled=False):
            nearest = (rows @ unit.T).topk(min(k, n), 1).indices
        counts = labels.new_zeros(len(rows), num_classes)
        parts.append(counts.scatter_add_(1, labels[nearest], torch.ones_like(nearest)))
    return torch.cat(parts)
