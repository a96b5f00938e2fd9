"""The loss of adaptive label refinement (ALR), forward and gradient in one pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, library

from nlbench.ops import losses, narrow
from nlbench.ops.losses import ALR


def alr_loss(
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    lam_e: float,
    reduction: str = "mean",
    rounding: Tensor | None = None,
) -> Tensor:
    """Cross-entropy to soft labels that follow the predictions, plus the predictions' entropy.

        p              = softmax(logits)
        targets[index] = alpha * targets[index] + (1 - alpha) * p      no gradient
        losses[b]      = -<targets[index[b]], log p[b]> + lam_e * H(p[b]),   H(p) = -<p, log p>

    There is no clamp: 0 * log 0 is 0. With alpha = 1 the targets stay as they are. With lam_e = 0
    as well, one-hot targets give the cross-entropy to their label, which is the method's warm-up.
    The loss uses the updated targets before they are rounded to their dtype.

    A row of logits with NaN or +inf, or with nothing but -inf, has NaN as its loss, gradient and
    target, and does not affect the other rows. A class at -inf has probability 0.
    Source: Zhang et al., arXiv:2502.00386, in our parametrisation; the target update as in
    Self-Adaptive Training.

    Args:
        logits:    [B, C] float32, float64, bfloat16 or float16. All arithmetic is float32 or wider.
                   The only argument that receives a gradient, once (no second derivative); never
                   written to.
        index:     [B] int64 in [0, N), no repeats.
        targets:   [N, C] float32 or float64, with `rounding` bfloat16 or float16; contiguous,
                   without gradient. Rows `index` are UPDATED IN PLACE.
        alpha:     momentum of the targets, in [0, 1].
        lam_e:     weight of the entropy, finite and >= 0.
        reduction: "mean", "sum", or "none" for the per-example losses. An empty batch has no mean:
                   ValueError.
        rounding:  as in `elr_loss`.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none".
    Raises:  as `elr_loss`.
    """
    if rounding is not None:
        of_rows = partial(alr_loss, logits, alpha=alpha, lam_e=lam_e, reduction=reduction)
        return narrow.on_rows("alr_loss", logits, index, targets, rounding, of_rows)

    _check("alr_loss", logits, index, targets, alpha, lam_e)
    losses.check_reduction("alr_loss", reduction, len(logits))
    logits = losses.ranged(logits)

    def step(mean: bool, grad: bool) -> tuple[Tensor, Tensor]:
        return losses.run(
            ALR, "alr_loss", logits, None, None, index, targets, alpha, lam_e, mean=mean, grad=grad
        )

    def compiled(mean: bool) -> tuple[Tensor, Tensor]:
        return torch.ops.nlbench.alr_step(logits.detach(), index, targets, alpha, lam_e, mean)

    return losses.finish(logits, reduction, step, compiled)


def alr_step(
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    lam_e: float,
    rounding: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take the step of `alr_loss` without autograd: update the targets, return losses and gradient.

    Arguments and errors are those of `alr_loss`.

    Returns: (losses, dlogits), as `elr_step`.
    """
    if rounding is not None:
        of_rows = partial(alr_step, logits, alpha=alpha, lam_e=lam_e)
        return narrow.on_rows("alr_step", logits, index, targets, rounding, of_rows)

    _check("alr_step", logits, index, targets, alpha, lam_e)
    if torch.compiler.is_compiling():
        return torch.ops.nlbench.alr_step(logits.detach(), index, targets, alpha, lam_e, True)
    return losses.run(ALR, "alr_step", logits, None, None, index, targets, alpha, lam_e)


# ---- Checks --------------------------------------------------------------------------------------


def _check(
    op: str, logits: Tensor, index: Tensor, targets: Tensor, alpha: float, lam_e: float
) -> None:
    losses.check_logits(op, logits)
    losses.check_memory(op, logits, index, targets)
    # Closed, because alpha = 1 keeps the targets as they are, as the method's warm-up does.
    losses.check_momentum(op, "alpha", alpha, closed=True)
    losses.check_weight(op, "lam_e", lam_e)


# ---- For torch.compile, see losses.py ------------------------------------------------------------


@library.custom_op(
    "nlbench::alr_step",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor index, Tensor(a!) targets, float alpha, float lam_e, bool mean)"
    " -> (Tensor losses, Tensor dlogits)",
)
def _alr_step_op(
    logits: Tensor, index: Tensor, targets: Tensor, alpha: float, lam_e: float, mean: bool
) -> tuple[Tensor, Tensor]:
    return losses.run(ALR, "alr_loss", logits, None, None, index, targets, alpha, lam_e, mean=mean)


@_alr_step_op.register_fake
def _alr_step_fake(
    logits: Tensor, index: Tensor, targets: Tensor, alpha: float, lam_e: float, mean: bool
) -> tuple[Tensor, Tensor]:
    return losses.fake_step(logits)
