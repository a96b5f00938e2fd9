"""Parts of ProMix: the loss of one network, and which examples fill up a batch.

Xiao et al., IJCAI 2023, arXiv:2207.10276; constants of the authors' code, Justherozen/ProMix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nlbench.ops import fmix, mixmatch

FULL = 0.9  # authors' code

Heads = tuple[Tensor, Tensor]  # (B, C) logits of the primary and of the pseudo head


@dataclass
class View:
    """What a network has of a batch before it learns from it.

    Attributes:
        images: (B, ...), of the weak view.
        weak, strong: the logits for both views.
        chosen: (B,) bool, the selected examples.
        labels: (B,) int64, what these are learnt as.
        log_pi: (2, C), of the selected and of the others.
    """

    images: Tensor
    weak: Heads
    strong: Heads
    chosen: Tensor
    labels: Tensor
    log_pi: Tensor


@dataclass(frozen=True)
class Losses:
    """Selection and loss of a network in a step. The attributes are hyperparameters of ProMix."""

    tau: float
    a: float
    b: float
    temperature: float
    alpha: float

    def choose(
        self,
        own: Tensor,
        other: Tensor,
        selected: Tensor,
        given: Tensor,
        log_pi: Tensor,
        fills: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return which examples a network selects, (B,) bool, and their labels, (B,) int64.

        Args:
            own, other: (B, C), the primary logits of this network and of the other, without graph.
            selected: (B,) bool, the selection by loss.
            given: (B,) int64, the given labels.
            log_pi: as in `View`.
            fills: whether the batch is filled up.
        """
        p = own.softmax(1)
        chosen = selected | (p.gather(1, given[:, None]).squeeze(1) > self.tau)
        labels = torch.where(chosen, given, (own - self.b * log_pi[0]).argmax(1))
        if fills:
            chosen = chosen | agreed(p, other.softmax(1), chosen, self.tau)
        return chosen, labels

    def terms(
        self,
        both_heads: Callable[[Tensor], Heads],
        view: View,
        weights: tuple[float, float],
        rng: np.random.Generator,
    ) -> list[Tensor]:
        """Return the terms of the loss, each 0-d, of which there may be none.

        Args:
            both_heads: the network, images -> logits.
            weights: w and beta.
        """
        (w, beta), chosen = weights, view.chosen
        x, y = view.images[chosen], view.labels[chosen]
        shift, other_shift = self.a * view.log_pi
        terms = []
        for head in range(2 if len(y) else 0):
            weak, strong = view.weak[head][chosen] + shift, view.strong[head][chosen] + shift

            def forward(images: Tensor, head: int = head) -> Tensor:
                return both_heads(images)[head] + shift

            also = F.cross_entropy(strong, y) + mixed_loss(forward, x, y, self.alpha, rng)
            terms.append(F.cross_entropy(weak, y) + w * also)

        if beta and len(y) < len(chosen):
            sharp = (view.weak[0].detach() - self.b * view.log_pi[1]) / self.temperature
            target = sharp.softmax(1)[~chosen]
            for z, weight in ((view.weak[1], beta), (view.strong[1], w * beta)):
                terms.append(weight * F.cross_entropy(z[~chosen] + other_shift, target))
        return terms


def mixed_loss(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    alpha: float,
    rng: np.random.Generator,
) -> Tensor:
    """Return the sum of the losses of mixup and of FMix, 0-d, each with its own partners.

    Args:
        forward: images -> logits.
        images, labels: (M, ...) and (M,) int64, of at least one example.
        alpha: of mixup's Beta(alpha, alpha).
    """
    # Batch norm refuses a batch of one, and its loss does not change when it is doubled.
    if len(labels) == 1:
        images, labels = images.repeat(2, *[1] * (images.ndim - 1)), labels.repeat(2)

    share = float(rng.beta(alpha, alpha))
    # Of an image: a number, or 1 and 0 at its pixels.
    taken: list[tuple[float, float | Tensor]] = [(max(share, 1 - share),) * 2]
    share, mask = fmix.draw_mask(images.shape[1:], rng)
    taken.append((share, mixmatch.on_device(mask.to(images.dtype), images.device)))

    total = images.new_zeros(())
    for share, part in taken:
        partner = mixmatch.permutation(len(labels), rng, labels.device)
        z = forward(part * images + (1 - part) * images[partner])
        own, other = F.cross_entropy(z, labels), F.cross_entropy(z, labels[partner])
        total = total + share * own + (1 - share) * other
    return total


def agreed(p: Tensor, q: Tensor, chosen: Tensor, tau: float) -> Tensor:
    """Return which examples fill up a batch that has fewer than 90% chosen ones, (B,) bool.

    Those are examples of which both networks predict the same class with more than tau. If there
    are more than are needed, those with the largest mean of both probabilities.

    Args:
        p, q: (B, C), the predictions of the networks.
        chosen: (B,) bool.
    """
    first, second = p.max(1), q.max(1)
    fits = (first.indices == second.indices) & (first.values > tau) & (second.values > tau)
    fits = fits & ~chosen

    room = max(0, int(FULL * len(p)) - int(chosen.sum()))
    score = torch.where(fits, first.values + second.values, -1.0)
    added = torch.zeros_like(chosen)
    added[score.argsort(descending=True, stable=True)[:room]] = True
    return added & fits
