"""The losses of early-learning regularisation (ELR, ELR+), forward and gradient in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from nlbench.ops import losses
from nlbench.ops.checks import require, require_device
from nlbench.ops.losses import ELR, ELR_SOFT, UPDATE_TARGETS


def elr_loss(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    beta: float,
    lam: float,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with early-learning regularisation; the backward pass only scales what the forward pass stored.

        q              = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        targets[index] = beta * targets[index] + (1 - beta) * q / sum(q)      no gradient
        rows[b]        = CE(logits[b], labels[b]) + lam * log(1 - <targets[index[b]], q[b]>)

    The clamp passes no gradient where it acts, and passes it at its bounds; CE sees the logits, not q. The loss uses
    the updated targets before they are rounded to their dtype. A row with NaN or +inf in its logits, or nothing
    but -inf, gives NaN in its loss, gradient and target, and leaves the other rows right; a class at -inf has
    probability 0.
    Source: Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2; order of operations as in shengliu66/ELR.

    Args:
        logits:    [B, C] float32, float64, bfloat16 or float16. All arithmetic is float32 or wider. The only argument
                   that receives a gradient, once (no second derivative); never written to.
        labels:    [B] int64 in [0, C).
        index:     [B] int64 in [0, N), no repeats.
        targets:   [N, C] float32 or float64, contiguous, without gradient. Rows `index` are UPDATED IN PLACE.
        beta:      momentum of the targets, in [0, 1).
        lam:       weight of the regulariser, finite and >= 0.
        reduction: "mean", "sum", or "none" for the rows. An empty batch has no mean: ValueError.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none".
    Raises:  TypeError (dtype), ValueError (shape, device, strides, range of a number) or IndexError (labels, index),
             naming the argument; nothing has been written then. On a GPU looking at labels and index would wait for
             the device: a row with one out of range is skipped, its loss is NaN and its gradient zero, and
             `check_faults` raises. That indices do not repeat is the caller's word there.
    """
    _check("elr_loss", logits, labels, index, targets, beta, lam)
    losses.check_reduction("elr_loss", reduction, len(logits))
    logits = losses.ranged(logits)
    return losses.finish(
        logits,
        reduction,
        lambda mean, grad: losses.run(
            ELR, "elr_loss", logits, labels, None, index, targets, beta, lam, mean=mean, grad=grad
        ),
        lambda mean: torch.ops.nlbench.elr_step(logits.detach(), labels, index, targets, beta, lam, mean),
    )


def elr_step(
    logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, *, beta: float, lam: float
) -> tuple[Tensor, Tensor]:
    """The step of `elr_loss` without autograd: update the targets, return the losses and their mean's gradient.

    Arguments and errors are those of `elr_loss`. `targets[index]` is UPDATED IN PLACE.

    Returns: (rows, dlogits): rows [B] as `elr_loss(reduction="none")`; dlogits [B, C] in the dtype of `logits`, the
             gradient of rows.mean(). Neither is connected to `logits`. Both are empty for an empty batch.
    """
    _check("elr_step", logits, labels, index, targets, beta, lam)
    if torch.compiler.is_compiling():
        return torch.ops.nlbench.elr_step(logits.detach(), labels, index, targets, beta, lam, True)
    return losses.run(ELR, "elr_step", logits, labels, None, index, targets, beta, lam)


def elr_loss_soft(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, *, lam: float, reduction: str = "mean"
) -> Tensor:
    """The loss of ELR+, where labels and targets are mixtures and the targets stay as they are.

        q       = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        rows[b] = -<soft_labels[b], log softmax(logits[b])> + lam * log(1 - <mixed_targets[b], q[b]>)

    The clamp passes no gradient where it acts. A class with a soft label of 0 costs nothing, however unlikely it is.
    The caller mixes: `update_targets` from the other network's logits first, then rows of the targets and of the
    one-hot labels with the weights of the mixup. The reweighting of the labels that the authors' code does for 100
    classes, and the ramp on lam, are the caller's as well.
    Source: Liu et al., NeurIPS 2020, arXiv:2007.00151, section 4.3; shengliu66/ELR, ELR_plus.

    Args:
        logits:        [B, C] float32, float64, bfloat16 or float16, as in `elr_loss`.
        soft_labels:   [B, C] float32 or float64; rows need not sum to 1.
        mixed_targets: [B, C] of the dtype of soft_labels; <mixed_targets[b], q[b]> < 1 for the logarithm, which holds
                       when its entries are >= 0 and sum to at most 1.
        lam:           weight of the regulariser, finite and >= 0.
        reduction:     "mean", "sum", or "none" for the rows. An empty batch has no mean: ValueError.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none". No argument is written to.
    Raises:  TypeError (dtype) or ValueError (shape, device, range of a number), naming the argument.
    """
    _check_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam)
    losses.check_reduction("elr_loss_soft", reduction, len(logits))
    logits = losses.ranged(logits)
    return losses.finish(
        logits,
        reduction,
        lambda mean, grad: _run_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam, mean, grad),
        lambda mean: torch.ops.nlbench.elr_step_soft(logits.detach(), soft_labels, mixed_targets, lam, mean),
    )


def elr_step_soft(logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, *, lam: float) -> tuple[Tensor, Tensor]:
    """The step of `elr_loss_soft` without autograd: (rows, dlogits, the gradient of rows.mean()), as `elr_step`."""
    _check_soft("elr_step_soft", logits, soft_labels, mixed_targets, lam)
    if torch.compiler.is_compiling():
        return torch.ops.nlbench.elr_step_soft(logits.detach(), soft_labels, mixed_targets, lam, True)
    return _run_soft("elr_step_soft", logits, soft_labels, mixed_targets, lam)


def update_targets(logits: Tensor, index: Tensor, targets: Tensor, *, beta: float, clamp: bool) -> None:
    """Move the targets of some examples towards what a network predicts for them.

        p              = softmax(logits), or with clamp:  q / sum(q), q = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        targets[index] = beta * targets[index] + (1 - beta) * p

    ELR+ updates without the clamp, from the logits of the other network. A row with NaN or +inf in its logits, or
    nothing but -inf, gives NaN in its target.

    Args:
        logits:  [B, C] float32, float64, bfloat16 or float16; receives no gradient, never written to.
        index:   [B] int64 in [0, N), no repeats.
        targets: [N, C] float32 or float64, contiguous, without gradient. Rows `index` are UPDATED IN PLACE.
        beta:    momentum of the targets, in [0, 1).
        clamp:   whether the prediction is clamped and renormalised first, as `elr_loss` does it.

    Raises: as `elr_loss`.
    """
    losses.check_logits("update_targets", logits)
    losses.check_memory("update_targets", logits, index, targets)
    losses.check_momentum("update_targets", "beta", beta)
    if not isinstance(clamp, bool):
        raise TypeError(f"update_targets: clamp must be a bool, got {type(clamp).__name__}")
    if torch.compiler.is_compiling():
        torch.ops.nlbench.update_targets(logits.detach(), index, targets, beta, clamp)
    else:
        losses.run(UPDATE_TARGETS, "update_targets", logits, None, None, index, targets, beta, 0.0, clamp=clamp)


_FLOATS, _WIDE = frozenset(losses.FLOATS), frozenset(losses.WIDE)


def _check(op: str, logits: Any, labels: Any, index: Any, targets: Any, beta: Any, lam: Any) -> None:
    # In a step at (128, 10) the checks are a fifth of the time, so one look decides, and only a no is spelled out.
    if (
        isinstance(logits, Tensor)
        and isinstance(labels, Tensor)
        and isinstance(index, Tensor)
        and isinstance(targets, Tensor)
        and logits.dim() == 2
        and logits.shape[1] > 0
        and labels.shape == index.shape == logits.shape[:1]
        and targets.dim() == 2
        and targets.shape[1] == logits.shape[1]
        and logits.dtype in _FLOATS
        and targets.dtype in _WIDE
        and labels.dtype is index.dtype is torch.int64
        and logits.device == labels.device == index.device == targets.device
        and targets.is_contiguous()
        and not targets.requires_grad
        and type(beta) in (float, int)
        and type(lam) in (float, int)
        and 0 <= beta < 1
        and 0 <= lam < 1e300
    ):
        return
    B, _ = losses.check_logits(op, logits)
    require(op, "labels", labels, losses.INTS, (B,))
    require_device(op, "labels", labels, logits.device, "logits")
    losses.check_memory(op, logits, index, targets)
    losses.check_momentum(op, "beta", beta)
    losses.check_weight(op, "lam", lam)


def _check_soft(op: str, logits: Any, soft_labels: Any, mixed_targets: Any, lam: Any) -> None:
    B, C = losses.check_logits(op, logits)
    require(op, "soft_labels", soft_labels, losses.WIDE, (B, C))
    require(op, "mixed_targets", mixed_targets, (soft_labels.dtype,), (B, C))
    require_device(op, "soft_labels", soft_labels, logits.device, "logits")
    require_device(op, "mixed_targets", mixed_targets, logits.device, "logits")
    losses.check_weight(op, "lam", lam)
    for name, tensor in (("soft_labels", soft_labels), ("mixed_targets", mixed_targets)):
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{op}: {name} must not require a gradient: it would get none")


def _run_soft(
    op: str,
    logits: Tensor,
    soft_labels: Tensor,
    mixed_targets: Tensor,
    lam: float,
    mean: bool = True,
    grad: bool = True,
) -> tuple[Tensor, Tensor]:
    soft_labels, mixed_targets = soft_labels.contiguous(), mixed_targets.contiguous()
    return losses.run(ELR_SOFT, op, logits, None, soft_labels, None, mixed_targets, 1.0, lam, mean=mean, grad=grad)


# --- for torch.compile, see losses.py ----------------------------------------------------------------------------


@library.custom_op(
    "nlbench::elr_step",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor labels, Tensor index, Tensor(a!) targets, float beta, float lam, bool mean)"
    " -> (Tensor rows, Tensor dlogits)",
)
def _elr_step_op(logits, labels, index, targets, beta, lam, mean):
    return losses.run(ELR, "elr_loss", logits, labels, None, index, targets, beta, lam, mean=mean)


@_elr_step_op.register_fake
def _elr_step_fake(logits, labels, index, targets, beta, lam, mean):
    return losses.fake_step(logits)


@library.custom_op(
    "nlbench::elr_step_soft",
    mutates_args=(),
    schema="(Tensor logits, Tensor soft_labels, Tensor mixed_targets, float lam, bool mean)"
    " -> (Tensor rows, Tensor dlogits)",
)
def _elr_step_soft_op(logits, soft_labels, mixed_targets, lam, mean):
    return _run_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam, mean)


@_elr_step_soft_op.register_fake
def _elr_step_soft_fake(logits, soft_labels, mixed_targets, lam, mean):
    return losses.fake_step(logits)


@library.custom_op(
    "nlbench::update_targets",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor index, Tensor(a!) targets, float beta, bool clamp) -> ()",
)
def _update_targets_op(logits, index, targets, beta, clamp):
    losses.run(UPDATE_TARGETS, "update_targets", logits, None, None, index, targets, beta, 0.0, clamp=clamp)


@_update_targets_op.register_fake
def _update_targets_fake(logits, index, targets, beta, clamp):
    return None
