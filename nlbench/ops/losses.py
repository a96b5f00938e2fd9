"""The common part of the losses with per-example targets: kernel calls, errors and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, library
from torch.autograd.function import once_differentiable

from nlbench.ops import reference
from nlbench.ops.checks import require, require_contiguous, require_device, require_number
from nlbench.ops.extension import core, cuda_flags, cuda_kernels, warn_fallback

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
WIDE = (torch.float32, torch.float64)
INTS = (torch.int64,)

# As numbered in csrc/ops.h.
ELR, ELR_SOFT, ALR, UPDATE_TARGETS = range(4)
# The dtypes that kernels take as they are. float16 is computed in float32.
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
OP_NAMES = {
    ELR: "elr_loss",
    ELR_SOFT: "elr_loss_soft",
    ALR: "alr_loss",
    UPDATE_TARGETS: "update_targets",
}


# ---- Kernel or reference -------------------------------------------------------------------------


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
    """Run the kernel of `op`, or the reference where no kernel fits, on checked arguments.

    Args:
        op:          ELR, ELR_SOFT, ALR or UPDATE_TARGETS.
        name:        the op's name in errors.
        logits:      [B, C], a dtype of FLOATS.
        labels:      [B] int64, for ELR.
        soft_labels: [B, C] in the dtype of targets, contiguous, for ELR_SOFT.
        index:       [B] int64, for all but ELR_SOFT.
        targets:     [N, C], contiguous; UPDATED IN PLACE. For ELR_SOFT [B, C], not updated.
        beta:        momentum of the targets; `alpha` of ALR.
        lam:         weight of the second term; `lam_e` of ALR.
        mean:        whether dlogits is the gradient of the losses' mean, else of their sum.
        clamp:       for UPDATE_TARGETS, whether predictions are clamped and renormalised.
        grad:        whether dlogits is needed. Without it, dlogits is empty where a kernel runs.

    Returns: (losses [B], dlogits [B, C]); both are empty for UPDATE_TARGETS.
    """
    B, C = logits.shape
    # The gradient of an empty batch is empty, so that any factor does.
    scale = 1 / B if mean and B else 1.0
    if core is None or not (logits.is_cpu or cuda_kernels(logits.device)):
        return _run_reference(
            op, name, logits, labels, soft_labels, index, targets, beta, lam, scale, clamp
        )

    # Kernels know an array by its address and sizes alone, so it must have no gaps.
    z = (logits if logits.dtype in _TYPES else logits.float()).contiguous()
    labels = None if labels is None else labels.contiguous()
    index = None if index is None else index.contiguous()

    has_loss = op != UPDATE_TARGETS
    grad &= has_loss
    losses = z.new_empty(B if has_loss else 0, dtype=reference.losses_dtype(z))
    dlogits = torch.empty_like(z) if grad else z.new_empty(0, C)
    # In the order of csrc/bindings.cpp, where 0 is a null pointer.
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
        losses.data_ptr(),
        *(B, C, len(targets)),
        *(beta, lam, scale, clamp),
    )
    if z.is_cpu:
        # The kernel returns fault + 8 * row, and 0 where nothing is wrong.
        fault = core.loss_cpu(*arguments, torch.get_num_threads())
        if fault:
            raise _index_error(name, fault & 7, fault >> 3, labels, index, C, len(targets))
    else:
        _start_on_gpu(name, arguments, z.device)

    # Autograd must notice the write to the targets, as it notices torch's own in-place ops.
    # ELR_SOFT writes none, and an inference tensor has no version to raise.
    if op != ELR_SOFT and not targets.is_inference():
        torch.autograd.graph.increment_version(targets)
    return losses, dlogits if z.dtype is logits.dtype else dlogits.to(logits.dtype)


def _start_on_gpu(name: str, arguments: tuple[float, ...], device: torch.device) -> None:
    """Put the kernel on the current stream of `device`; it sets a flag for what it finds wrong."""
    stream = torch.cuda.current_stream(device).cuda_stream
    error = core.loss_cuda(*arguments, cuda_flags(device).data_ptr(), device.index, stream)
    if error:
        raise RuntimeError(f"{name}: the CUDA kernel could not be started: {error}")


def _run_reference(
    op: int,
    name: str,
    logits: Tensor,
    labels: Tensor | None,
    soft_labels: Tensor | None,
    index: Tensor | None,
    targets: Tensor,
    beta: float,
    lam: float,
    scale: float,
    clamp: bool,
) -> tuple[Tensor, Tensor]:
    """Run the reference of `op`, with a warning. Arguments are those of `run`."""
    warn_fallback(logits.device)
    if logits.is_cpu:
        # On a GPU, reading the values would make every step wait for the device.
        _check_values(name, labels, index, logits.shape[1], len(targets))

    if op == ELR_SOFT:
        assert soft_labels is not None
        return reference.elr_step_soft(logits, soft_labels, targets, lam, scale)
    assert index is not None
    if op == UPDATE_TARGETS:
        return reference.update_targets(logits, index, targets, beta, clamp)
    if op == ALR:
        return reference.alr_step(logits, index, targets, beta, lam, scale)
    assert labels is not None
    return reference.elr_step(logits, labels, index, targets, beta, lam, scale)


# ---- Autograd ------------------------------------------------------------------------------------


def finish(
    logits: Tensor,
    reduction: str,
    step: Callable[[bool, bool], tuple[Tensor, Tensor]],
    compiled: Callable[[bool], tuple[Tensor, Tensor]],
) -> Tensor:
    """Make the loss an autograd function of `logits`, from its form without autograd.

    Args:
        step: step(mean, grad) runs the kernel and returns (losses, dlogits), as `run` does.
        compiled: compiled(mean) calls the custom op that torch.compile keeps in its graph.
    """
    mean = reduction == "mean"
    wants_grad = logits.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        losses, dlogits = compiled(mean)
        value = reduce(losses, reduction)
        return torch.ops.nlbench.attach_grad(logits, value, dlogits) if wants_grad else value

    losses, dlogits = step(mean, wants_grad)
    if wants_grad:
        return _Attached.apply(logits, losses, dlogits, reduction)
    return reduce(losses, reduction)


def ranged(logits: Tensor) -> Tensor:
    """Return float16 logits as float32, others unchanged.

    With float16, the factor of a loss scaler has to reach the gradient before the gradient is
    rounded to float16's range.
    """
    return logits.float() if logits.dtype is torch.float16 else logits


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """Return the mean or the sum of `losses` (B,), or the losses themselves for "none"."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


class _Attached(torch.autograd.Function):
    """The reduced losses, with the known gradient `dlogits` attached to `logits`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, losses: Tensor, dlogits: Tensor, reduction: str
    ) -> Tensor:
        ctx.save_for_backward(dlogits)
        return losses.clone() if reduction == "none" else reduce(losses, reduction)

    @staticmethod
    # The gradient is a stored constant, so a second derivative would be wrong. torch refuses it.
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return scaled(ctx.saved_tensors[0], grad), None, None, None


def scaled(dlogits: Tensor, grad: Tensor) -> Tensor:
    """Multiply `dlogits` (B, C) by `grad`, which is 0-d, or (B,) for per-example losses."""
    # A factor for each example is float32, and would widen a bfloat16 gradient.
    return (dlogits * (grad[:, None] if grad.dim() else grad)).to(dlogits.dtype)


# ---- Checks --------------------------------------------------------------------------------------


def check_logits(op: str, logits: Tensor) -> tuple[int, int]:
    """Check type, dtype and shape of `logits`; return (B, C)."""
    require(op, "logits", logits, FLOATS, ("B", "C"))
    B, C = logits.shape
    if C == 0:
        raise ValueError(f"{op}: logits must have at least one class, got shape [{B}, {C}]")
    return B, C


def check_memory(
    op: str,
    logits: Tensor,
    index: Tensor,
    targets: Tensor,
    dtypes: tuple[torch.dtype, ...] = WIDE,
) -> None:
    """Check `targets`, a memory that the op updates, and `index`, which addresses it."""
    B, C = logits.shape
    require(op, "index", index, INTS, (B,))
    require(op, "targets", targets, dtypes, ("N", C))
    require_device(op, "index", index, logits.device, "logits")
    require_device(op, "targets", targets, logits.device, "logits")
    because = "it is updated in place, and a copy would take the update"
    require_contiguous(op, "targets", targets, because)
    if targets.requires_grad:
        raise ValueError(f"{op}: targets must not require a gradient: it is updated in place")


def check_momentum(op: str, name: str, value: float, closed: bool = False) -> None:
    """Check that `value` is a number in [0, 1), or in [0, 1] if `closed`."""
    require_number(op, name, value)
    if not (0 <= value < 1 or (closed and value == 1)):
        end = "]" if closed else ")"
        raise ValueError(f"{op}: {name} must be in [0, 1{end}, got {value}")


def check_weight(op: str, name: str, value: float) -> None:
    """Check that `value` is a finite number >= 0."""
    require_number(op, name, value)
    if not 0 <= value < math.inf:
        raise ValueError(f"{op}: {name} must be finite and >= 0, got {value}")


def check_reduction(op: str, reduction: str, B: int) -> None:
    """Check that `reduction` is known, and that a batch of `B` examples has it."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "mean" and B == 0:
        raise ValueError(
            f"{op}: the mean of an empty batch is undefined: logits must have a row, "
            "got shape [0, C]"
        )


def check_index(op: str, index: Tensor, N: int) -> None:
    """Check that `index` (B,) int64, on the CPU, is in [0, N) and does not repeat."""
    values = np.sort(index.numpy())
    if len(values) and (values[0] < 0 or values[-1] >= N or (np.diff(values) == 0).any()):
        _check_values(op, None, index, 0, N)


def _check_values(op: str, labels: Tensor | None, index: Tensor | None, C: int, N: int) -> None:
    """Check the values of labels and index for the reference, as the kernel does for itself."""
    for name, values, end in (("labels", labels, C), ("index", index, N)):
        if values is None:
            continue
        bad = ((values < 0) | (values >= end)).nonzero()
        if len(bad):
            raise _out_of_range(op, name, end, values, int(bad[0]))
    if index is None:
        return

    # After sorting, a repeated index follows itself. A stable sort keeps the later position second.
    order = index.argsort(stable=True)
    again = order[1:][index[order].diff() == 0]
    if len(again):
        raise _repeated(op, index, int(again.min()))


def _index_error(
    op: str, fault: int, row: int, labels: Tensor | None, index: Tensor | None, C: int, N: int
) -> IndexError:
    """Make the error for what the kernel found: its `fault`, at position `row` of the batch."""
    if fault == core.LABEL_RANGE and labels is not None:
        return _out_of_range(op, "labels", C, labels, row)
    assert index is not None
    if fault == core.INDEX_RANGE:
        return _out_of_range(op, "index", N, index, row)
    return _repeated(op, index, row)


def _out_of_range(op: str, name: str, end: int, values: Tensor, row: int) -> IndexError:
    got = int(values[row])
    return IndexError(f"{op}: {name} must be in [0, {end}), got {got} at position {row}")


def _repeated(op: str, index: Tensor, row: int) -> IndexError:
    got = int(index[row])
    return IndexError(
        f"{op}: index must not repeat within a batch, got {got} again at position {row}"
    )


# ---- For torch.compile ---------------------------------------------------------------------------
# It cannot trace into the extension, so it needs custom ops. An op that changes an argument cannot
# carry autograd, so there are two: one runs the step, the other attaches the gradient found there
# to the logits. Eager code calls neither: the dispatcher adds about 13 us to a step at (128, 10),
# several times the kernel's own time.


def fake_step(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return (losses, dlogits) without values, for torch.compile to learn shapes and dtypes."""
    losses = logits.new_empty(logits.shape[0], dtype=reference.losses_dtype(logits))
    return losses, logits.new_empty(logits.shape)


@library.custom_op(
    "nlbench::attach_grad",
    mutates_args=(),
    schema="(Tensor logits, Tensor value, Tensor dlogits) -> Tensor",
)
def _attach_grad_op(logits: Tensor, value: Tensor, dlogits: Tensor) -> Tensor:
    # A custom op may not return one of its arguments.
    return value.clone()


@_attach_grad_op.register_fake
def _attach_grad_fake(logits: Tensor, value: Tensor, dlogits: Tensor) -> Tensor:
    return torch.empty_like(value)


def _attach_grad_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _attach_grad_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return scaled(ctx.saved_tensors[0], grad), None, None


_attach_grad_op.register_autograd(_attach_grad_backward, setup_context=_attach_grad_setup)
