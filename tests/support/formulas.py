"""Formulas of losses in float64, written from the papers; autograd differentiates them."""

import numpy as np
import torch


def one_hot(labels, C):
    return (labels[:, None] == torch.arange(C)).double()


def softmax(z):
    e = torch.exp(z - z.amax(1, keepdim=True).detach())
    return e / e.sum(1, keepdim=True)


def clipped(z, low=1e-7, high=1 - 1e-7):
    p = softmax(z)
    return torch.where(
        p < low, torch.full_like(p, low), torch.where(p > high, torch.full_like(p, high), p)
    )


def true_T(C):
    rng = np.random.default_rng(C)
    T = np.eye(C) * 0.6 + 0.4 * rng.dirichlet(np.ones(C), size=C)
    return torch.from_numpy(T)


def ref_ce(z, y):
    return torch.logsumexp(z, 1) - (z * one_hot(y, z.shape[1])).sum(1)


def at_most_1(square):
    return square if square <= 1 else torch.ones_like(square)


def sop_row(z, y, u, v):
    """-log q_y + the squared error, and q, for one example: z and v (C,), u 0-d. Only the given class has a U."""
    C = len(z)
    shifted = []
    for k in range(C):
        p = torch.exp(z[k] - torch.logsumexp(z, 0))
        noisy = p + at_most_1(u * u) if k == y else p - at_most_1(v[k] * v[k]).detach()
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
    pairs = [sop_row(z[b], int(labels[b]), u[b, 0], v[b]) for b in range(len(z))]
    return torch.stack([row for row, _ in pairs]), torch.stack([q for _, q in pairs])
