"""The contrastive loss of SimCLR. Chen et al., ICML 2020, arXiv:2002.05709."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def simclr_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the loss, 0-d, of projections (B, F) of two views of the same B examples.

    Each of the 2B projections z_i is to find the other view of its example among all others:

        mean over i of  -log( exp(s_ij / t) / sum over k other than i of exp(s_ik / t) ),

    with j the other view of the example of i, and s the cosine of the angle between two.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    # Autocast would multiply in bfloat16.
    with torch.autocast(z.device.type, enabled=False):
        similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(similarity.masked_fill(itself, -math.inf), partner)
