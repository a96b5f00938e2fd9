"""Sparse over-parameterisation: a learnt share of label noise beside the network's prediction, per example."""

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-4  # authors' code


def sop_loss(logits: Tensor, labels: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """SOP's loss, and the prediction with the noise in it.

        U    = clamp(u^2 * Y, 0, 1)          what the noise adds at the given label, Y its one-hot row
        V    = clamp(v^2 * (1 - Y), 0, 1)    what it takes away elsewhere
        q    = a / sum(a),  a = clamp(p + U - V, min 1e-4),  p = softmax(logits)      no gradient to V
        rows = -log q_y + sum_k (o_k + U_k - V_k - Y_k)^2,  o one-hot argmax of p      no gradient to o

    So the network learns from the first term alone, v from the second alone, u from both. A clamp passes no gradient
    where it acts: u, or an entry of v, that got beyond 1 stays, and -log q_y teaches u nothing while p_y + U is below
    the floor. Source: Liu, Zhu, Qu & You, ICML 2022, arXiv:2202.14026, in the form of shengliu66/SOP, whose second
    floor, under q, is left out: it could act only where the first one does or nearly does.

    Args:
        logits: (B, C) float32 or float64.
        labels: (B,) int64, the given labels.
        u:      (B, 1), the batch's rows.
        v:      (B, C), the batch's rows.
    Returns: rows (B,), finite for finite arguments, and q (B, C), through which logits and u get a gradient.
    """
    given = F.one_hot(labels, logits.shape[1]).to(u.dtype)
    guess = F.one_hot(logits.argmax(1), logits.shape[1]).to(u.dtype)
    U = (u.square() * given).clamp(0, 1)
    V = (v.square() * (1 - given)).clamp(0, 1)
    a = (logits.softmax(1) + U - V.detach()).clamp(min=FLOOR)
    log_q = a.log() - a.sum(1, keepdim=True).log()
    squared_error = (guess + U - V - given).square().sum(1)
    return squared_error - log_q.gather(1, labels[:, None]).squeeze(1), log_q.exp()


def class_balance(q: Tensor) -> Tensor:
    """0-d: cross entropy of the uniform distribution against the mean of the rows of q (B, C), floored at 1e-4.

    At its least, log C, where the mean is uniform. Source: as above, for SOP+.
    """
    return -q.mean(0).clamp(min=FLOOR).log().mean()


def consistency(weak: Tensor, strong: Tensor) -> Tensor:
    """(B,) rows KL(softmax(weak) || softmax(strong)), both (B, C) logits, no gradient to weak. Source: as above."""
    log_p = weak.detach().log_softmax(1)
    return torch.sum(log_p.exp() * (log_p - strong.log_softmax(1)), dim=1)
