"""The mixup of DISC. Li et al., CVPR 2023; as in the code of its authors, JackYFL/DISC.

The selected examples of a batch are mixed in each view by itself: weak views with weak ones, strong
views with strong ones, each with draws and a forward pass of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.ops.mixmatch import on_device, permutation


@dataclass(frozen=True)
class Mixup:
    """The selected examples of a batch, and how they are mixed.

    Attributes:
        selected: their positions in the batch, (M,) int64.
        draws: for the weak and for the strong view, the share of an image itself and the positions
            of the partners among the selected. Without a selected example there are no draws.
    """

    selected: Tensor
    draws: list[tuple[float, Tensor]]

    def loss(
        self, network: Callable[[Tensor], Tensor], views: tuple[Tensor, Tensor], labels: Tensor
    ) -> Tensor:
        """Return the loss, 0-d: a mean over the selected examples and over the views.

        A single selected example occurs twice, because batch norm refuses a batch of one. Its loss
        does not change.

        Args:
            network: images -> logits.
            views: the weak and the strong view of the batch, each (B, ...).
            labels: (B,) int64, those that the selected are learnt as.
        """
        selected = self.selected
        if len(selected) == 1:
            selected = selected.repeat(2)
        own = labels[selected]

        losses = []
        for view, (share, partner) in zip(views, self.draws, strict=True):
            images = view[selected]
            logits = network(share * images + (1 - share) * images[partner])
            own_loss = F.cross_entropy(logits, own)
            other_loss = F.cross_entropy(logits, own[partner])
            losses.append(share * own_loss + (1 - share) * other_loss)
        weak, strong = losses
        return (weak + strong) / 2


def draw_mixup(
    flags: Tensor, alpha: float, rng: np.random.Generator, device: torch.device
) -> Mixup:
    """Draw the mixup of a batch from `rng`; without a selected example nothing is drawn.

    Args:
        flags: (B,) bool, on the host: the selected examples.
        alpha: of Beta(alpha, alpha), from which the shares come.
        device: of the result.
    """
    selected = flags.nonzero().squeeze(1)
    draws = []
    for _ in range(2 if len(selected) else 0):
        # The authors take max(share, 1 - share). With a random permutation that makes no
        # difference.
        share = float(rng.beta(alpha, alpha))
        draws.append((share, permutation(max(len(selected), 2), rng, device)))
    return Mixup(on_device(selected, device), draws)
