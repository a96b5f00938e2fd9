"""The regulariser that keeps one class from taking all examples, of M-DYR and DivideMix."""

import math

from torch import Tensor


def divergence_from_uniform(log_p: Tensor) -> Tensor:
    """Return KL(uniform || mean over b of p_b), 0-d, from log p (B, C).

    It is finite even where the mean probability of a class underflows.
    """
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return -math.log(log_p.shape[1]) - log_mean.mean()
