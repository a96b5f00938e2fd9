"""Sparse over-parameterisation: the label noise of each example, learnt with the network."""

import torch
from torch import Tensor
from torch.nn import functional as F

# As in the authors' code.
FLOOR = 1e-4


def sop_loss(logits: Tensor, labels: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return SOP's per-example losses, and the prediction with the noise in it.

        Y      = the one-hot given label
        U      = clamp(u^2 * Y, 0, 1)          what the noise adds at the given label
        V      = clamp(v^2 * (1 - Y), 0, 1)    what it takes away from the other classes
        q      = a / sum(a),  a = clamp(p + U - V, min 1e-4),  p = softmax(logits)
        losses = -log q_y + sum_k (o_k + U_k - V_k - Y_k)^2,  o = one-hot argmax of p

    No gradient goes through V in q, nor through o.

    So the network learns from the first term only, v from the second only, and u from both. A clamp
    passes no gradient where it acts: u, or an entry of v, stays once it is beyond 1, and -log q_y
    does not train u while p_y + U is below the floor.
    Source: Liu, Zhu, Qu & You, ICML 2022, arXiv:2202.14026, in the form of shengliu66/SOP,
    without its second floor.

    Args:
        logits: (B, C) float32 or float64.
        labels: (B,) int64, the given labels.
        u:      (B, 1), of the batch's examples.
        v:      (B, C), of the batch's examples.

    Returns: losses (B,), finite for finite arguments, and q (B, C), through which logits and u get
             a gradient.
    """
    given = F.one_hot(labels, logits.shape[1]).to(u.dtype)
    guess = F.one_hot(logits.argmax(1), logits.shape[1]).to(u.dtype)
    U = (u.square() * given).clamp(0, 1)
    V = (v.square() * (1 - given)).clamp(0, 1)

    # Without detach(), v would learn from the first term as well.
    a = (logits.softmax(1) + U - V.detach()).clamp(min=FLOOR)
    # The authors' code has a second floor, under q. It is left out, because it could act only where
    # the first one acts, or nearly acts.
    log_q = a.log() - a.sum(1, keepdim=True).log()
    squared_error = (guess + U - V - given).square().sum(1)
    return squared_error - log_q.gather(1, labels[:, None]).squeeze(1), log_q.exp()


def class_balance(q: Tensor) -> Tensor:
    """Return the cross entropy, 0-d, of the uniform distribution against the batch mean of q.

    The mean of q (B, C) is floored at 1e-4. The result is lowest, log C, where the mean is uniform.
    Source: as in `sop_loss`, for SOP+.
    """
    return -q.mean(0).clamp(min=FLOOR).log().mean()


def consistency(weak: Tensor, strong: Tensor) -> Tensor:
    """Return KL(softmax(weak) || softmax(strong)), (B,), of (B, C) logits; no gradient to `weak`.

    Source: as in `sop_loss`, for SOP+.
    """
    log_p = weak.detach().log_softmax(1)
    return torch.sum(log_p.exp() * (log_p - strong.log_softmax(1)), dim=1)
