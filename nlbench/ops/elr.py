"""The losses of early-learning regularisation (ELR, ELR+), forward and gradient in one pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, library

from nlbench.ops import losses, narrow
from nlbench.ops.checks import require, require_device
from nlbench.ops.losses import ELR, ELR_SOFT, UPDATE_TARGETS

# ---- ELR -----------------------------------------------------------------------------------------


def elr_loss(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    beta: float,
    lam: float,
    reduction: str = "mean",
    rounding: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with early-learning regularisation.

        q              = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        targets[index] = beta * targets[index] + (1 - beta) * q / sum(q)      no gradient
        losses[b]      = CE(logits[b], labels[b]) + lam * log(1 - <targets[index[b]], q[b]>)

    The backward pass only scales what the forward pass stored. The clamp passes no gradient where
    it acts, and passes it at its bounds; CE sees the logits, not q. The loss uses the updated
    targets before they are rounded to their dtype.

    A row of logits with NaN or +inf, or with nothing but -inf, has NaN as its loss, gradient and
    target, and does not affect the other rows. A class at -inf has probability 0.
    Source: Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2; order of operations as in
    shengliu66/ELR.

    Args:
        logits:    [B, C] float32, float64, bfloat16 or float16. All arithmetic is float32 or wider.
                   The only argument that receives a gradient, once (no second derivative); never
                   written to.
        labels:    [B] int64 in [0, C).
        index:     [B] int64 in [0, N), no repeats.
        targets:   [N, C] float32 or float64, with `rounding` bfloat16 or float16; contiguous,
                   without gradient. Rows `index` are UPDATED IN PLACE.
        beta:      momentum of the targets, in [0, 1).
        lam:       weight of the regulariser, finite and >= 0.
        reduction: "mean", "sum", or "none" for the per-example losses. An empty batch has no mean:
                   ValueError.
        rounding:  [2] int64, the random stream that rounds targets in bfloat16 or float16, see
                   `narrow.on_rows`. UPDATED IN PLACE. None for wider targets.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none".
    Raises:  TypeError (dtype), ValueError (shape, device, strides, range of a number) or IndexError
             (labels, index), naming the argument; nothing has been written then. On a GPU, reading
             labels and index would wait for the device. There, a row with one out of range is
             skipped, its loss is NaN and its gradient zero, and `check_faults` raises. The caller
             must make sure that indices do not repeat; on a GPU nothing checks it.
    """
    if rounding is not None:
        of_rows = partial(elr_loss, logits, labels, beta=beta, lam=lam, reduction=reduction)
        return narrow.on_rows("elr_loss", logits, index, targets, rounding, of_rows)

    _check("elr_loss", logits, labels, index, targets, beta, lam)
    losses.check_reduction("elr_loss", reduction, len(logits))
    logits = losses.ranged(logits)

    def step(mean: bool, grad: bool) -> tuple[Tensor, Tensor]:
        return losses.run(
            ELR, "elr_loss", logits, labels, None, index, targets, beta, lam, mean=mean, grad=grad
        )

    def compiled(mean: bool) -> tuple[Tensor, Tensor]:
        return torch.ops.nlbench.elr_step(logits.detach(), labels, index, targets, beta, lam, mean)

    return losses.finish(logits, reduction, step, compiled)


def elr_step(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    beta: float,
    lam: float,
    rounding: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take the step of `elr_loss` without autograd: update the targets, return losses and gradient.

    Arguments and errors are those of `elr_loss`. `targets[index]` is UPDATED IN PLACE.

    Returns: (losses, dlogits): losses [B] as `elr_loss(reduction="none")`; dlogits [B, C] in the
             dtype of `logits`, the gradient of losses.mean(). Neither is connected to `logits`.
             Both are empty for an empty batch.
    """
    if rounding is not None:
        of_rows = partial(elr_step, logits, labels, beta=beta, lam=lam)
        return narrow.on_rows("elr_step", logits, index, targets, rounding, of_rows)

    _check("elr_step", logits, labels, index, targets, beta, lam)
    if torch.compiler.is_compiling():
        return torch.ops.nlbench.elr_step(logits.detach(), labels, index, targets, beta, lam, True)
    return losses.run(ELR, "elr_step", logits, labels, None, index, targets, beta, lam)


# ---- ELR+, whose labels are mixed and whose targets are updated apart ----------------------------


def elr_loss_soft(
    logits: Tensor,
    soft_labels: Tensor,
    mixed_targets: Tensor,
    *,
    lam: float,
    reduction: str = "mean",
) -> Tensor:
    """Compute the loss of ELR+: labels and targets are mixtures, and the targets do not change.

        q         = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        losses[b] = -<soft_labels[b], log softmax(logits[b])>
                    + lam * log(1 - <mixed_targets[b], q[b]>)

    The clamp passes no gradient where it acts. A class with a soft label of 0 costs nothing,
    however unlikely it is.

    The caller does the mixing: first `update_targets` from the other network's logits, then the
    rows of the targets and the one-hot labels are mixed with the weights of the mixup. The caller
    also reweights the labels, as the authors' code does for 100 classes, and ramps lam.
    Source: Liu et al., NeurIPS 2020, arXiv:2007.00151, section 4.3; shengliu66/ELR, ELR_plus.

    Args:
        logits:        [B, C] float32, float64, bfloat16 or float16, as in `elr_loss`.
        soft_labels:   [B, C] float32 or float64; rows need not sum to 1.
        mixed_targets: [B, C] of the dtype of soft_labels; <mixed_targets[b], q[b]> < 1 for the
                       logarithm, which holds when its entries are >= 0 and sum to at most 1.
        lam:           weight of the regulariser, finite and >= 0.
        reduction:     "mean", "sum", or "none" for the per-example losses. An empty batch has no
                       mean: ValueError.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none". No argument
             is written to.
    Raises:  TypeError (dtype) or ValueError (shape, device, range of a number), naming the
    argument.
    """
    _check_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam)
    losses.check_reduction("elr_loss_soft", reduction, len(logits))
    logits = losses.ranged(logits)

    def step(mean: bool, grad: bool) -> tuple[Tensor, Tensor]:
        return _run_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam, mean, grad)

    def compiled(mean: bool) -> tuple[Tensor, Tensor]:
        return torch.ops.nlbench.elr_step_soft(
            logits.detach(), soft_labels, mixed_targets, lam, mean
        )

    return losses.finish(logits, reduction, step, compiled)


def elr_step_soft(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, *, lam: float
) -> tuple[Tensor, Tensor]:
    """Take the step of `elr_loss_soft` without autograd: return losses and gradient.

    Arguments and errors are those of `elr_loss_soft`.

    Returns: (losses, dlogits), as `elr_step`.
    """
    _check_soft("elr_step_soft", logits, soft_labels, mixed_targets, lam)
    if torch.compiler.is_compiling():
        return torch.ops.nlbench.elr_step_soft(
            logits.detach(), soft_labels, mixed_targets, lam, True
        )
    return _run_soft("elr_step_soft", logits, soft_labels, mixed_targets, lam)


def update_targets(
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    *,
    beta: float,
    clamp: bool,
    rounding: Tensor | None = None,
) -> None:
    """Move the targets of some examples towards what a network predicts for them.

        q              = clamp(softmax(logits), 1e-4, 1 - 1e-4)
        p              = q / sum(q) with clamp, else softmax(logits)
        targets[index] = beta * targets[index] + (1 - beta) * p

    ELR+ updates without the clamp, from the logits of the other network. A row of logits with NaN
    or +inf, or with nothing but -inf, has NaN as its target.

    Args:
        logits:   [B, C] float32, float64, bfloat16 or float16; receives no gradient, never written
                  to.
        index:    [B] int64 in [0, N), no repeats.
        targets:  [N, C], as in `elr_loss`. Rows `index` are UPDATED IN PLACE.
        beta:     momentum of the targets, in [0, 1).
        clamp:    whether the prediction is first clamped and renormalised, as in `elr_loss`.
        rounding: as in `elr_loss`.

    Raises: as `elr_loss`.
    """
    if rounding is not None:
        of_rows = partial(update_targets, logits, beta=beta, clamp=clamp)
        narrow.on_rows("update_targets", logits, index, targets, rounding, of_rows)
        return

    losses.check_logits("update_targets", logits)
    losses.check_memory("update_targets", logits, index, targets)
    losses.check_momentum("update_targets", "beta", beta)
    if not isinstance(clamp, bool):
        raise TypeError(f"update_targets: clamp must be a bool, got {type(clamp).__name__}")

    if torch.compiler.is_compiling():
        torch.ops.nlbench.update_targets(logits.detach(), index, targets, beta, clamp)
    else:
        _update("update_targets", logits, index, targets, beta, clamp)


# ---- Checks --------------------------------------------------------------------------------------

_FLOATS, _WIDE = frozenset(losses.FLOATS), frozenset(losses.WIDE)


def _check(
    op: str,
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    beta: float,
    lam: float,
) -> None:
    # Fast path: one combined test, because checks take a fifth of a step at (128, 10). Only when it
    # fails are the arguments checked one by one, to name the wrong one.
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
        # NaN fails every comparison, so it goes on to the checks below, which refuse it.
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


def _check_soft(
    op: str, logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, lam: float
) -> None:
    B, C = losses.check_logits(op, logits)
    require(op, "soft_labels", soft_labels, losses.WIDE, (B, C))
    require(op, "mixed_targets", mixed_targets, (soft_labels.dtype,), (B, C))
    require_device(op, "soft_labels", soft_labels, logits.device, "logits")
    require_device(op, "mixed_targets", mixed_targets, logits.device, "logits")
    losses.check_weight(op, "lam", lam)
    for name, tensor in (("soft_labels", soft_labels), ("mixed_targets", mixed_targets)):
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{op}: {name} must not require a gradient: it would get none")


# ---- Calls of the kernel -------------------------------------------------------------------------


def _run_soft(
    op: str,
    logits: Tensor,
    soft_labels: Tensor,
    mixed_targets: Tensor,
    lam: float,
    mean: bool = True,
    grad: bool = True,
) -> tuple[Tensor, Tensor]:
    """Run the kernel of ELR+, where beta = 1 leaves the targets as they are."""
    # Neither is written to, so a copy does no harm.
    y, t = soft_labels.contiguous(), mixed_targets.contiguous()
    return losses.run(ELR_SOFT, op, logits, None, y, None, t, 1.0, lam, mean=mean, grad=grad)


def _update(
    op: str, logits: Tensor, index: Tensor, targets: Tensor, beta: float, clamp: bool
) -> None:
    losses.run(UPDATE_TARGETS, op, logits, None, None, index, targets, beta, 0.0, clamp=clamp)


# ---- For torch.compile, see losses.py ------------------------------------------------------------


@library.custom_op(
    "nlbench::elr_step",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor labels, Tensor index, Tensor(a!) targets, float beta, float lam,"
    " bool mean) -> (Tensor losses, Tensor dlogits)",
)
def _elr_step_op(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    beta: float,
    lam: float,
    mean: bool,
) -> tuple[Tensor, Tensor]:
    return losses.run(ELR, "elr_loss", logits, labels, None, index, targets, beta, lam, mean=mean)


@_elr_step_op.register_fake
def _elr_step_fake(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    targets: Tensor,
    beta: float,
    lam: float,
    mean: bool,
) -> tuple[Tensor, Tensor]:
    return losses.fake_step(logits)


@library.custom_op(
    "nlbench::elr_step_soft",
    mutates_args=(),
    schema="(Tensor logits, Tensor soft_labels, Tensor mixed_targets, float lam, bool mean)"
    " -> (Tensor losses, Tensor dlogits)",
)
def _elr_step_soft_op(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, lam: float, mean: bool
) -> tuple[Tensor, Tensor]:
    return _run_soft("elr_loss_soft", logits, soft_labels, mixed_targets, lam, mean)


@_elr_step_soft_op.register_fake
def _elr_step_soft_fake(
    logits: Tensor, soft_labels: Tensor, mixed_targets: Tensor, lam: float, mean: bool
) -> tuple[Tensor, Tensor]:
    return losses.fake_step(logits)


@library.custom_op(
    "nlbench::update_targets",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor index, Tensor(a!) targets, float beta, bool clamp) -> ()",
)
def _update_targets_op(
    logits: Tensor, index: Tensor, targets: Tensor, beta: float, clamp: bool
) -> None:
    _update("update_targets", logits, index, targets, beta, clamp)


@_update_targets_op.register_fake
def _update_targets_fake(
    logits: Tensor, index: Tensor, targets: Tensor, beta: float, clamp: bool
) -> None:
    return None
