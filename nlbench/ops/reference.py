"""The ops in plain torch: what runs where no compiled kernel fits, and what the kernels are compared with.

Same results as the kernels up to rounding. Arguments are as the ops have checked them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PROB_MIN, PROB_MAX = 1e-4, 1 - 1e-4


def elr_step(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, beta: float, lam: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Update `targets[index]`; return the losses (B,) and `scale` times their gradient (B, C), dtype of `logits`.

    In float64 throughout: 1 - s is about 1e-4 late in training, where float32 keeps three digits.
    """
    z = logits.detach().double()
    p = z.softmax(1)
    q = p.clamp(PROB_MIN, PROB_MAX)
    passes = (p >= PROB_MIN) & (p <= PROB_MAX)  # where the clamp has a gradient
    t = beta * targets[index].double() + (1 - beta) * q / q.sum(1, keepdim=True)
    targets[index] = t.to(targets.dtype)
    s = (t * q).sum(1)
    pull = (passes * t * p).sum(1, keepdim=True) - passes * t
    rows = F.cross_entropy(z, labels, reduction="none") + lam * (1 - s).log()
    dlogits = p - F.one_hot(labels, z.shape[1]) + lam * p / (1 - s)[:, None] * pull
    return rows.to(rows_dtype(logits)), (scale * dlogits).to(logits.dtype)


def elr_step_soft(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, lam: float, scale: float
) -> tuple[Tensor, Tensor]:
    """The losses (B,) and `scale` times their gradient (B, C), dtype of `logits`."""
    z, y, t = logits.detach().double(), soft_labels.detach().double(), mixed_targets.detach().double()
    p = z.softmax(1)
    passes = (p >= PROB_MIN) & (p <= PROB_MAX)
    s = (t * p.clamp(PROB_MIN, PROB_MAX)).sum(1)
    pull = (passes * t * p).sum(1, keepdim=True) - passes * t
    rows = -_product(y, z.log_softmax(1)).sum(1) + lam * (1 - s).log()
    dlogits = p * y.sum(1, keepdim=True) - y + lam * p / (1 - s)[:, None] * pull
    return rows.to(rows_dtype(logits)), (scale * dlogits).to(logits.dtype)


def alr_step(
    logits: Tensor, index: Tensor, targets: Tensor, alpha: float, lam_e: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Update `targets[index]`; return the losses (B,) and `scale` times their gradient (B, C), dtype of `logits`."""
    z = logits.detach().double()
    log_p = z.log_softmax(1)
    p = log_p.exp()
    t = alpha * targets[index].double() + (1 - alpha) * p
    targets[index] = t.to(targets.dtype)
    entropy = -_product(p, log_p).sum(1)
    rows = -_product(t, log_p).sum(1) + lam_e * entropy
    dlogits = p * t.sum(1, keepdim=True) - t - lam_e * _product(p, log_p + entropy[:, None])
    return rows.to(rows_dtype(logits)), (scale * dlogits).to(logits.dtype)


def update_targets(logits: Tensor, index: Tensor, targets: Tensor, beta: float, clamp: bool) -> tuple[Tensor, Tensor]:
    """Update `targets[index]`; returns two empty tensors, as there is no loss."""
    p = logits.detach().double().softmax(1)
    if clamp:
        p = p.clamp(PROB_MIN, PROB_MAX)
        p = p / p.sum(1, keepdim=True)
    targets[index] = (beta * targets[index].double() + (1 - beta) * p).to(targets.dtype)
    return logits.new_empty(0), logits.new_empty(0, logits.shape[1])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a * b, and 0 where a is 0, be b infinite or not."""
    return torch.where(a == 0, 0.0, a * b)


def rows_dtype(logits: Tensor) -> torch.dtype:
    """Losses are float32 or wider whatever the logits are."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def augment(images: Tensor, index: Tensor, draws: Tensor | None, table: Tensor, padding: int, planar: bool) -> Tensor:
    """(B, 3, H, W), contiguous if `planar`, else channels_last.

    Crop and flip by `draws[index]`, then each byte through `table` (3, 256).
    """
    B, H, W = len(index), images.shape[1], images.shape[2]
    picked = images[index]
    if draws is not None:
        dy, dx, flip = draws[index, :, None].unbind(1)  # (B, 1) each
        x = torch.arange(W, device=images.device)
        y = torch.arange(H, device=images.device) + dy - padding  # (B, H), rows of the image
        x = torch.where(flip == 1, W - 1 - x, x) + dx - padding  # (B, W), its columns
        inside = ((y >= 0) & (y < H))[:, :, None] & ((x >= 0) & (x < W))[:, None, :]
        b = torch.arange(B, device=images.device)[:, None, None]
        picked = picked[b, y.clamp(0, H - 1)[:, :, None], x.clamp(0, W - 1)[:, None, :]] * inside[..., None]
    channel = torch.arange(3, device=images.device)
    out = table[channel, picked.long()].permute(0, 3, 1, 2)
    return out.contiguous() if planar else out
