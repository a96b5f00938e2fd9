"""Formulas of losses in float64, written from the papers; autograd differentiates them."""

import math

import numpy as np
import torch


def one_hot(labels, C):
    """Return 1 at the label of each row and 0 elsewhere, (B, C)."""
    return (labels[:, None] == torch.arange(C)).double()


def softmax(z):
    """Return the softmax of each row."""
    e = torch.exp(z - z.amax(1, keepdim=True).detach())
    return e / e.sum(1, keepdim=True)


def clipped(z, low=1e-7, high=1 - 1e-7):
    """Return the softmax between two bounds, at which no gradient passes."""
    p = softmax(z)
    bounded = torch.where(p > high, torch.full_like(p, high), p)
    return torch.where(p < low, torch.full_like(p, low), bounded)


def true_T(C):
    """Return a transition matrix that keeps at least 0.6 of each class."""
    rng = np.random.default_rng(C)
    T = np.eye(C) * 0.6 + 0.4 * rng.dirichlet(np.ones(C), size=C)
    return torch.from_numpy(T)


def ref_ce(z, y):
    """Return the cross entropy of each row."""
    return torch.logsumexp(z, 1) - (z * one_hot(y, z.shape[1])).sum(1)


def at_most_1(square):
    """Return a number up to 1, or a 1 that passes no gradient."""
    return square if square <= 1 else torch.ones_like(square)


def sop_row(z, y, u, v):
    """Return -log q_y + the squared error, and q, for one example: z and v (C,), u 0-d.

    The given class is shifted by u, each other class by its v.
    """
    C = len(z)
    shifted = []
    for k in range(C):
        p = torch.exp(z[k] - torch.logsumexp(z, 0))
        # The cross entropy trains no v. The squared error below does.
        shift = at_most_1(u * u) if k == y else -at_most_1(v[k] * v[k]).detach()
        noisy = p + shift
        # Below the bound no gradient passes.
        shifted.append(noisy if noisy >= 1e-4 else torch.full_like(p, 1e-4))
    total = sum(shifted)

    guess = max(range(C), key=z.tolist().__getitem__)
    error = torch.zeros((), dtype=z.dtype)
    for k in range(C):
        if k == y:
            error = error + (float(k == guess) + at_most_1(u * u) - 1) ** 2
        else:
            error = error + (float(k == guess) - at_most_1(v[k] * v[k])) ** 2
    return error - torch.log(shifted[y] / total), torch.stack(shifted) / total


def sop_rows(z, labels, u, v):
    """Return the losses (B,) and the q (B, C) of a batch."""
    losses, probs = [], []
    for b in range(len(z)):
        loss, q = sop_row(z[b], int(labels[b]), u[b, 0], v[b])
        losses.append(loss)
        probs.append(q)
    return torch.stack(losses), torch.stack(probs)


def of_label(logits, labels, value, weight):
    """Compute the mean of a loss of p_y and its gradient, a number at a time.

    Args:
        value: maps p_y to the loss.
        weight: maps p_y to -p_y times the derivative of the loss. The gradient to the logits is
            this times p - Y.
    Returns: a float, and (B, C) float64.
    """
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        total = math.fsum(math.exp(v - max(z)) for v in z)
        p = [math.exp(v - max(z)) / total for v in z]
        loss += value(p[y]) / B
        for c in range(C):
            grad[b, c] = weight(p[y]) * (p[c] - float(c == y)) / B

    return loss, grad
