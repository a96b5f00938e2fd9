"""Regularisers that pull predictions towards the uniform distribution, of M-DYR and others."""

import math

from torch import Tensor


def divergence_from_uniform(log_p: Tensor) -> Tensor:
    """Return KL(uniform || mean over b of p_b), 0-d, from log p (B, C).

    It is finite even where the mean probability of a class underflows.
    """
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return -math.log(log_p.shape[1]) - log_mean.mean()


def negative_entropy(logits: Tensor) -> Tensor:
    """Return the mean over b of sum_k p_bk log p_bk, 0-d, from logits (B, C).

    DivideMix and its successors add it to cross entropy in a warm-up on asymmetric noise.
    """
    log_p = logits.log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean()
