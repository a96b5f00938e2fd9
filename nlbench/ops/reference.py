"""The ops in plain torch, which run where no compiled kernel fits and which test the kernels.

The results are those of the kernels, up to rounding. The arguments have been checked by the ops.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# The clamp of shengliu66/ELR. It keeps 1 - s above 0, and so the logarithm finite.
PROB_MIN, PROB_MAX = 1e-4, 1 - 1e-4


# ---- Losses with a target per example ------------------------------------------------------------


def elr_step(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    beta: float,
    lam: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Update `targets[index]` in place and compute the losses of ELR with their gradient.

    Returns: losses (B,), and `scale` times their gradient (B, C) in the dtype of `logits`.
    """
    # 1 - s is about 1e-4 late in training, of which float32 would keep three digits.
    z = logits.detach().double()
    p = z.softmax(1)
    q = p.clamp(PROB_MIN, PROB_MAX)
    # The clamp passes the gradient at its bounds, too.
    passes = (p >= PROB_MIN) & (p <= PROB_MAX)

    t = beta * targets[index].double() + (1 - beta) * q / q.sum(1, keepdim=True)
    # The loss uses t as it is here, before it is rounded to the dtype of the targets.
    targets[index] = t.to(targets.dtype)

    # The gradient of log(1 - s) goes through the softmax, for classes that the clamp lets pass.
    s = (t * q).sum(1)
    pull = (passes * t * p).sum(1, keepdim=True) - passes * t
    losses = F.cross_entropy(z, labels, reduction="none") + lam * (1 - s).log()
    dlogits = p - F.one_hot(labels, z.shape[1]) + lam * p / (1 - s)[:, None] * pull
    return losses.to(losses_dtype(logits)), (scale * dlogits).to(logits.dtype)


def elr_step_soft(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, lam: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute the losses of ELR+ with their gradient.

    Returns: losses (B,), and `scale` times their gradient (B, C) in the dtype of `logits`.
    """
    z = logits.detach().double()
    y, t = soft_labels.detach().double(), mixed_targets.detach().double()
    p = z.softmax(1)
    passes = (p >= PROB_MIN) & (p <= PROB_MAX)

    s = (t * p.clamp(PROB_MIN, PROB_MAX)).sum(1)
    pull = (passes * t * p).sum(1, keepdim=True) - passes * t
    losses = -_product(y, z.log_softmax(1)).sum(1) + lam * (1 - s).log()
    # A row of soft labels need not sum to 1, so its sum weighs the softmax.
    dlogits = p * y.sum(1, keepdim=True) - y + lam * p / (1 - s)[:, None] * pull
    return losses.to(losses_dtype(logits)), (scale * dlogits).to(logits.dtype)


def alr_step(
    logits: Tensor, index: Tensor, targets: Tensor, alpha: float, lam_e: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Update `targets[index]` in place and compute the losses of ALR with their gradient.

    Returns: losses (B,), and `scale` times their gradient (B, C) in the dtype of `logits`.
    """
    z = logits.detach().double()
    log_p = z.log_softmax(1)
    p = log_p.exp()
    t = alpha * targets[index].double() + (1 - alpha) * p
    targets[index] = t.to(targets.dtype)

    # ALR has no clamp, so log_p is -inf where p is 0.
    entropy = -_product(p, log_p).sum(1)
    losses = -_product(t, log_p).sum(1) + lam_e * entropy
    dlogits = p * t.sum(1, keepdim=True) - t - lam_e * _product(p, log_p + entropy[:, None])
    return losses.to(losses_dtype(logits)), (scale * dlogits).to(logits.dtype)


def update_targets(
    logits: Tensor, index: Tensor, targets: Tensor, beta: float, clamp: bool
) -> tuple[Tensor, Tensor]:
    """Update `targets[index]` in place; return two empty tensors, since there is no loss."""
    p = logits.detach().double().softmax(1)
    if clamp:
        p = p.clamp(PROB_MIN, PROB_MAX)
        p = p / p.sum(1, keepdim=True)
    targets[index] = (beta * targets[index].double() + (1 - beta) * p).to(targets.dtype)
    return logits.new_empty(0), logits.new_empty(0, logits.shape[1])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return a * b, and 0 where a is 0, even where b is infinite."""
    return torch.where(a == 0, 0.0, a * b)


def losses_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype of the losses, which is float32 or wider whatever the logits are."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


# ---- Augmentation --------------------------------------------------------------------------------


def augment(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    table: Tensor,
    padding: int,
    planar: bool,
) -> Tensor:
    """Crop and flip by `draws[index]`, then map each byte through `table` (3, 256).

    Returns: (B, 3, H, W), contiguous if `planar`, else channels_last.
    """
    B, H, W = len(index), images.shape[1], images.shape[2]
    picked = images[index]
    if draws is not None:
        dy, dx, flip = draws[index, :, None].unbind(1)  # (B, 1) each
        x = torch.arange(W, device=images.device)
        y = torch.arange(H, device=images.device) + dy - padding  # (B, H), rows of the image
        x = torch.where(flip == 1, W - 1 - x, x) + dx - padding  # (B, W), its columns

        # Outside of the image the crop is black, so those pixels are read anywhere and zeroed.
        inside = ((y >= 0) & (y < H))[:, :, None] & ((x >= 0) & (x < W))[:, None, :]
        b = torch.arange(B, device=images.device)[:, None, None]
        y, x = y.clamp(0, H - 1)[:, :, None], x.clamp(0, W - 1)[:, None, :]
        picked = picked[b, y, x] * inside[..., None]

    channel = torch.arange(3, device=images.device)
    out = table[channel, picked.long()].permute(0, 3, 1, 2)
    return out.contiguous() if planar else out
