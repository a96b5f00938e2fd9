"""The loss of early-learning regularisation with its per-example targets, forward and gradient in one pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nlbench.ops import reference
from nlbench.ops.checks import require, require_contiguous, require_device, require_number
from nlbench.ops.extension import core, say_fallback

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_WIDE = (torch.float32, torch.float64)
_INTS = (torch.int64,)

_KERNELS: dict[tuple[torch.dtype, torch.dtype], Any] = {}  # by dtype of logits and of targets
if core is not None:
    _KERNELS = {
        (torch.float32, torch.float32): core.elr_step_f32_f32,
        (torch.float32, torch.float64): core.elr_step_f32_f64,
        (torch.float64, torch.float32): core.elr_step_f64_f32,
        (torch.float64, torch.float64): core.elr_step_f64_f64,
    }


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
    the updated targets before they are rounded to their dtype. A row with a NaN or an infinity in its logits gives
    NaN in its loss, gradient and target, and leaves the other rows right.
    Source: Liu et al., NeurIPS 2020, arXiv:2007.00151, eq. 6 and Lemma 2; order of operations as in shengliu66/ELR.

    Args:
        logits:    [B, C] float32, float64, bfloat16 or float16; half types are widened to float32 first. The only
                   argument that receives a gradient, once (no second derivative); never written to.
        labels:    [B] int64 in [0, C).
        index:     [B] int64 in [0, N), no repeats.
        targets:   [N, C] float32 or float64, contiguous, without gradient. Rows `index` are UPDATED IN PLACE.
        beta:      momentum of the targets, in [0, 1).
        lam:       weight of the regulariser, finite and >= 0.
        reduction: "mean", "sum", or "none" for the rows. An empty batch has no mean: ValueError.

    Returns: float64 for float64 logits, else float32; 0-d, or [B] for reduction="none".
    Raises:  TypeError (dtype), ValueError (shape, device, strides, range of a number) or IndexError (labels, index),
             naming the argument; nothing has been written then. On a GPU the values of labels and index are left to
             torch's own device checks, since looking at them would wait for the device, and repeats go unnoticed.
    """
    _check("elr_loss", logits, labels, index, targets, beta, lam)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"elr_loss: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    mean = reduction == "mean"
    if mean and len(logits) == 0:
        raise ValueError("elr_loss: the mean of an empty batch is undefined: logits must have a row, got shape [0, C]")
    wants_grad = logits.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        rows, dlogits = torch.ops.nlbench.elr_step(logits.detach(), labels, index, targets, beta, lam, mean)
        value = _reduce(rows, reduction)
        return torch.ops.nlbench.attach_grad(logits, value, dlogits) if wants_grad else value
    if wants_grad:
        return _ElrLoss.apply(logits, labels, index, targets, beta, lam, reduction)
    return _reduce(_step("elr_loss", logits, labels, index, targets, beta, lam, mean)[0], reduction)


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
    return _step("elr_step", logits.detach(), labels, index, targets, beta, lam, True)


def _check(op: str, logits: Any, labels: Any, index: Any, targets: Any, beta: Any, lam: Any) -> None:
    require(op, "logits", logits, _FLOATS, ("B", "C"))
    B, C = logits.shape
    require(op, "labels", labels, _INTS, (B,))
    require(op, "index", index, _INTS, (B,))
    require(op, "targets", targets, _WIDE, ("N", C))
    for name, tensor in (("labels", labels), ("index", index), ("targets", targets)):
        require_device(op, name, tensor, logits.device, "logits")
    require_contiguous(op, "targets", targets, "it is updated in place, and a copy would take the update")
    if targets.requires_grad:
        raise ValueError(f"{op}: targets must not require a gradient: it is updated in place")
    require_number(op, "beta", beta)
    require_number(op, "lam", lam)
    if not 0 <= beta < 1:
        raise ValueError(f"{op}: beta must be in [0, 1), got {beta}")
    if not 0 <= lam < math.inf:
        raise ValueError(f"{op}: lam must be finite and >= 0, got {lam}")


def _reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


def _step(
    op: str, logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor, beta: float, lam: float, mean: bool
) -> tuple[Tensor, Tensor]:
    """(rows, dlogits), where dlogits is the gradient of the rows' mean, or of their sum."""
    (B, C), N = logits.shape, len(targets)
    scale = 1 / max(B, 1) if mean else 1.0
    if core is None or not logits.is_cpu:
        say_fallback(logits.device)
        if logits.is_cpu:
            _check_values(op, labels, index, C, N)
        return reference.elr_step(logits, labels, index, targets, beta, lam, scale)

    z = logits.to(reference.rows_dtype(logits)).contiguous()
    labels, index = labels.contiguous(), index.contiguous()
    rows, dlogits = z.new_empty(B), z.new_empty(B, C)
    fault, row = _KERNELS[z.dtype, targets.dtype](
        z.data_ptr(),
        labels.data_ptr(),
        index.data_ptr(),
        targets.data_ptr(),
        dlogits.data_ptr(),
        rows.data_ptr(),
        *(B, C, N),
        *(beta, lam, scale),
    )
    if fault:
        raise _index_error(op, fault, row, labels, index, C, N)
    if not targets.is_inference():
        torch.autograd.graph.increment_version(targets)  # autograd must notice the write, as of any in-place op
    return rows, dlogits.to(logits.dtype)


def _check_values(op: str, labels: Tensor, index: Tensor, C: int, N: int) -> None:
    """The kernel's own checks of labels and index, for the reference."""
    for name, values, end in (("labels", labels, C), ("index", index, N)):
        bad = ((values < 0) | (values >= end)).nonzero()
        if len(bad):
            raise _out_of_range(op, name, end, values, int(bad[0]))
    order = index.argsort(stable=True)
    again = order[1:][index[order].diff() == 0]
    if len(again):
        raise _repeated(op, index, int(again.min()))


def _index_error(op: str, fault: int, row: int, labels: Tensor, index: Tensor, C: int, N: int) -> IndexError:
    if fault == core.LABEL_RANGE:
        return _out_of_range(op, "labels", C, labels, row)
    if fault == core.INDEX_RANGE:
        return _out_of_range(op, "index", N, index, row)
    return _repeated(op, index, row)


def _out_of_range(op: str, name: str, end: int, values: Tensor, row: int) -> IndexError:
    return IndexError(f"{op}: {name} must be in [0, {end}), got {int(values[row])} at position {row}")


def _repeated(op: str, index: Tensor, row: int) -> IndexError:
    return IndexError(f"{op}: index must not repeat within a batch, got {int(index[row])} again at position {row}")


class _ElrLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        targets: Tensor,
        beta: float,
        lam: float,
        reduction: str,
    ) -> Tensor:
        rows, dlogits = _step("elr_loss", logits, labels, index, targets, beta, lam, reduction == "mean")
        ctx.save_for_backward(dlogits)
        return _reduce(rows, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (dlogits,) = ctx.saved_tensors
        return _scaled(dlogits, grad), None, None, None, None, None, None


def _scaled(dlogits: Tensor, grad: Tensor) -> Tensor:
    """`grad` is 0-d, or (B,) for the rows."""
    return (dlogits * (grad[:, None] if grad.dim() else grad)).to(dlogits.dtype)


# For torch.compile, which cannot look into the extension. An op that changes an argument cannot carry autograd, so
# there are two: one updates the targets, one ties the gradient found there to the logits. Eager code calls neither:
# the way through the dispatcher adds about 13 us to a step at (128, 10), where the kernel itself takes 12.
@torch.library.custom_op(
    "nlbench::elr_step",
    mutates_args=("targets",),
    schema="(Tensor logits, Tensor labels, Tensor index, Tensor(a!) targets, float beta, float lam, bool mean)"
    " -> (Tensor rows, Tensor dlogits)",
)
def _elr_step_op(logits, labels, index, targets, beta, lam, mean):
    return _step("elr_loss", logits, labels, index, targets, beta, lam, mean)


@_elr_step_op.register_fake
def _elr_step_fake(logits, labels, index, targets, beta, lam, mean):
    rows = logits.new_empty(logits.shape[0], dtype=reference.rows_dtype(logits))
    return rows, logits.new_empty(logits.shape)


@torch.library.custom_op(
    "nlbench::attach_grad", mutates_args=(), schema="(Tensor logits, Tensor value, Tensor dlogits) -> Tensor"
)
def _attach_grad_op(logits, value, dlogits):
    return value.clone()


@_attach_grad_op.register_fake
def _attach_grad_fake(logits, value, dlogits):
    return torch.empty_like(value)


def _attach_grad_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[2])


def _attach_grad_backward(ctx, grad):
    return _scaled(ctx.saved_tensors[0], grad), None, None


_attach_grad_op.register_autograd(_attach_grad_backward, setup_context=_attach_grad_setup)
