"""What the losses with per-example targets share: running a kernel, its faults as exceptions, autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd.function import once_differentiable

from nlbench.ops import reference
from nlbench.ops.checks import require, require_contiguous, require_device, require_number
from nlbench.ops.extension import core, cuda_flags, cuda_kernels, say_fallback

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WIDE = (torch.float32, torch.float64)
INTS = (torch.int64,)

# As csrc/ops.h numbers them.
ELR, ELR_SOFT, ALR, UPDATE_TARGETS = range(4)
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
_REFERENCES: dict[int, Callable[..., Any]] = {
    ELR: reference.elr_step,
    ELR_SOFT: reference.elr_step_soft,
    ALR: reference.alr_step,
    UPDATE_TARGETS: reference.update_targets,
}
OP_NAMES = {ELR: "elr_loss", ELR_SOFT: "elr_loss_soft", ALR: "alr_loss", UPDATE_TARGETS: "update_targets"}


def run(
    op: int,
    name: str,
    logits: Tensor,
    labels: Tensor | None,
    soft_labels: Tensor | None,
    index: Tensor | None,
    targets: Tensor,
    beta: float,
    lam: float,
    *,
    mean: bool = True,
    clamp: bool = False,
    grad: bool = True,
) -> tuple[Tensor, Tensor]:
    """(rows, dlogits), the latter the gradient of the rows' mean, or of their sum; update_targets leaves both empty.

    `name` is what an error calls the op. Without `grad`, dlogits is empty where a kernel runs.
    """
    B, C = logits.shape
    scale = 1 / B if mean and B else 1.0
    on_cpu = logits.is_cpu
    if core is None or not (on_cpu or cuda_kernels(logits.device)):
        say_fallback(logits.device)
        if on_cpu:
            _check_values(name, labels, index, C, len(targets))
        given = [tensor for tensor in (labels, soft_labels, index) if tensor is not None]
        options = (beta, clamp) if op == UPDATE_TARGETS else (lam, scale) if op == ELR_SOFT else (beta, lam, scale)
        return _REFERENCES[op](logits, *given, targets, *options)

    z = logits if logits.dtype in _TYPES else logits.float()
    z = z.contiguous()
    if labels is not None:
        labels = labels.contiguous()
    if index is not None:
        index = index.contiguous()
    makes_rows = op != UPDATE_TARGETS
    grad = grad and makes_rows
    rows = z.new_empty(B if makes_rows else 0, dtype=reference.rows_dtype(z))
    dlogits = torch.empty_like(z) if grad else z.new_empty(0, C)
    arguments = (
        op,
        _TYPES[z.dtype],
        _TYPES[targets.dtype],
        z.data_ptr(),
        0 if labels is None else labels.data_ptr(),
        0 if soft_labels is None else soft_labels.data_ptr(),
        0 if index is None else index.data_ptr(),
        targets.data_ptr(),
        dlogits.data_ptr() if grad else 0,
        rows.data_ptr(),
        B,
        C,
        len(targets),
        beta,
        lam,
        scale,
        clamp,
    )
    if on_cpu:
        fault = core.loss_cpu(*arguments, torch.get_num_threads())
        if fault:
            raise _index_error(name, fault & 7, fault >> 3, labels, index, C, len(targets))
    else:
        stream = torch.cuda.current_stream(z.device).cuda_stream
        error = core.loss_cuda(*arguments, cuda_flags(z.device).data_ptr(), z.device.index, stream)
        if error:
            raise RuntimeError(f"{name}: the CUDA kernel could not be started: {error}")
    if op != ELR_SOFT and not targets.is_inference():
        torch.autograd.graph.increment_version(targets)  # autograd must notice the write, as of any in-place op
    return rows, dlogits if z.dtype is logits.dtype else dlogits.to(logits.dtype)


def finish(
    logits: Tensor, reduction: str, step: Callable[[bool, bool], tuple[Tensor, Tensor]], compiled: Callable[..., Any]
) -> Tensor:
    """The loss as an autograd function of `logits`, from its step form.

    `step(mean, grad)` runs the kernel, `compiled(mean)` calls the custom op that torch.compile keeps in its graph.
    """
    mean = reduction == "mean"
    wants_grad = logits.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        rows, dlogits = compiled(mean)
        value = reduce(rows, reduction)
        return torch.ops.nlbench.attach_grad(logits, value, dlogits) if wants_grad else value
    rows, dlogits = step(mean, wants_grad)
    return _Attached.apply(logits, rows, dlogits, reduction) if wants_grad else reduce(rows, reduction)


def ranged(logits: Tensor) -> Tensor:
    """float16 as float32: a loss scaler's factor must meet the gradient before it is rounded to float16's range."""
    return logits.float() if logits.dtype is torch.float16 else logits


def reduce(rows: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" else rows.sum()


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Tensor, dlogits: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(dlogits)
        return rows.clone() if reduction == "none" else reduce(rows, reduction)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return scaled(ctx.saved_tensors[0], grad), None, None, None


def scaled(dlogits: Tensor, grad: Tensor) -> Tensor:
    """`grad` is 0-d, or (B,) for the rows."""
    return (dlogits * (grad[:, None] if grad.dim() else grad)).to(dlogits.dtype)


# --- checks ------------------------------------------------------------------------------------------------------


def check_logits(op: str, logits: Any) -> tuple[int, int]:
    require(op, "logits", logits, FLOATS, ("B", "C"))
    if logits.shape[1] == 0:
        raise ValueError(f"{op}: logits must have at least one class, got shape {list(logits.shape)}")
    return logits.shape


def check_memory(op: str, logits: Tensor, index: Any, targets: Any) -> None:
    """`targets` is a memory that `index` addresses and the op updates."""
    B, C = logits.shape
    require(op, "index", index, INTS, (B,))
    require(op, "targets", targets, WIDE, ("N", C))
    require_device(op, "index", index, logits.device, "logits")
    require_device(op, "targets", targets, logits.device, "logits")
    require_contiguous(op, "targets", targets, "it is updated in place, and a copy would take the update")
    if targets.requires_grad:
        raise ValueError(f"{op}: targets must not require a gradient: it is updated in place")


def check_momentum(op: str, name: str, value: Any, closed: bool = False) -> None:
    require_number(op, name, value)
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ValueError(f"{op}: {name} must be in [0, 1{']' if closed else ')'}, got {value}")


def check_weight(op: str, name: str, value: Any) -> None:
    require_number(op, name, value)
    if not 0 <= value < math.inf:
        raise ValueError(f"{op}: {name} must be finite and >= 0, got {value}")


def check_reduction(op: str, reduction: Any, B: int) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "mean" and B == 0:
        raise ValueError(f"{op}: the mean of an empty batch is undefined: logits must have a row, got shape [0, C]")


def _check_values(op: str, labels: Tensor | None, index: Tensor | None, C: int, N: int) -> None:
    """The kernel's own checks of labels and index, for the reference."""
    for name, values, end in (("labels", labels, C), ("index", index, N)):
        if values is None:
            continue
        bad = ((values < 0) | (values >= end)).nonzero()
        if len(bad):
            raise _out_of_range(op, name, end, values, int(bad[0]))
    if index is None:
        return
    order = index.argsort(stable=True)
    again = order[1:][index[order].diff() == 0]
    if len(again):
        raise _repeated(op, index, int(again.min()))


def _index_error(
    op: str, fault: int, row: int, labels: Tensor | None, index: Tensor | None, C: int, N: int
) -> IndexError:
    if fault == core.LABEL_RANGE and labels is not None:
        return _out_of_range(op, "labels", C, labels, row)
    assert index is not None
    if fault == core.INDEX_RANGE:
        return _out_of_range(op, "index", N, index, row)
    return _repeated(op, index, row)


def _out_of_range(op: str, name: str, end: int, values: Tensor, row: int) -> IndexError:
    return IndexError(f"{op}: {name} must be in [0, {end}), got {int(values[row])} at position {row}")


def _repeated(op: str, index: Tensor, row: int) -> IndexError:
    return IndexError(f"{op}: index must not repeat within a batch, got {int(index[row])} again at position {row}")


# --- torch.compile -----------------------------------------------------------------------------------------------
# It cannot look into the extension. An op that changes an argument cannot carry autograd, so there are two: one runs
# the step, one ties the gradient found there to the logits. Eager code calls neither: the way through the dispatcher
# adds about 13 us to a step at (128, 10), several times what the kernel takes.


def fake_step(logits: Tensor) -> tuple[Tensor, Tensor]:
    rows = logits.new_empty(logits.shape[0], dtype=reference.rows_dtype(logits))
    return rows, logits.new_empty(logits.shape)


@library.custom_op(
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
    return scaled(ctx.saved_tensors[0], grad), None, None


_attach_grad_op.register_autograd(_attach_grad_backward, setup_context=_attach_grad_setup)
