"""Check what the hooks of a method return: losses, gradients, logits, batches.

All checks look at types, shapes and dtypes alone. None of them reads a value from the device, so
that no step waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from nlbench.errors import MethodError

# ---- Losses -------------------------------------------------------------------------------------


def mean_loss(loss: object, logits: Tensor) -> Tensor:
    """Return the mean of what the hook `loss` returned for `logits` (B, C), as a 0-d tensor.

    Raises: MethodError for anything but one value or (B,) values that depend on the logits.
    """
    values = _real_tensor("loss", loss, "one value (0-d) or one for each example")
    rows, classes = len(logits), logits.shape[1]
    if values.dim() and values.shape != (rows,):
        raise MethodError(
            f"loss returned {described(values)} for {_counts(rows, classes)}; "
            f"it must be 0-d or ({rows},)",
            _fix_for_shape(tuple(values.shape), rows, classes),
        )
    _demand_gradient("loss returned a value that", values)
    return values.mean()


def mean_of_fast_loss(result: object, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean of the losses, dlogits (B, C)) of what `loss_and_grad` returned for `logits`.

    Raises: MethodError for anything but (losses (B,), dlogits (B, C)).
    """
    rows, classes = len(logits), logits.shape[1]
    wanted = f"losses ({rows},) and dlogits ({rows}, {classes})"
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise MethodError(
            f"loss_and_grad returned {described(result)}; it must return two tensors, {wanted}",
            "return losses, dlogits",
        )

    losses = _real_tensor("loss_and_grad, as its first value,", result[0], f"losses ({rows},)")
    dlogits = _real_tensor(
        "loss_and_grad, as its second value,", result[1], f"dlogits ({rows}, {classes})"
    )
    if losses.shape != (rows,) or dlogits.shape != logits.shape:
        raise MethodError(
            f"loss_and_grad returned {described(losses)} and {described(dlogits)}; "
            f"it must return {wanted}",
            "return one loss for each example, and the gradient of their mean by the logits",
        )
    return losses.mean(), dlogits


def loss_of_step(loss: object, through: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the loss that `run.backward_step` got, if it can be differentiated.

    Args:
        through: as in `Run.backward_step`.
    Raises: MethodError for another loss, or for a gradient of another shape than its logits.
    """
    value = _real_tensor("run.backward_step", loss, "one value (0-d)", verb="got")
    if value.numel() != 1:
        raise MethodError(
            f"run.backward_step got a loss {described(value)}; it must be one value (0-d)",
            "sum over the classes, where there are any, and take the mean over the examples",
        )

    if through is None:
        _demand_gradient("run.backward_step got a loss that", value)
        return value

    logits, dlogits = through
    if logits.shape != dlogits.shape:
        raise MethodError(
            f"run.backward_step got logits {described(logits)} and dlogits {described(dlogits)} "
            "as `through`; both must have one shape",
            "pass the gradient of the loss by these logits",
        )
    if not logits.requires_grad:
        raise MethodError(
            "run.backward_step got logits as `through` that have no graph",
            "pass the network's output itself, and not a detached copy",
        )
    return value


def _demand_gradient(subject: str, value: Tensor) -> None:
    if not value.requires_grad:
        raise MethodError(
            f"{subject} has no gradient: it does not depend on the network's output",
            "leave out detach(), no_grad(), .data and .item() between the logits and the loss; "
            "argmax, comparisons and rounding have no gradient",
        )


def _fix_for_shape(shape: tuple[int, ...], rows: int, classes: int) -> str:
    """Return the likely fix for a loss of a wrong shape."""
    fixes = []
    if shape == (rows, classes):
        fixes.append("the sum over the classes is left out, .sum(1)")
    if shape == (rows, rows) and rows > 1:
        fixes.append(
            "a tensor (B, 1) was combined with one of (B,), which makes every pair of examples; "
            "use .squeeze(1) on the first"
        )
    if shape == (rows, 1):
        fixes = ["drop the last dimension, .squeeze(1)"]
    if shape == (1,):
        fixes.append("it is one value, drop its dimension with .squeeze(0)")
    if shape == (1, rows) and rows > 1:
        fixes.append("drop the first dimension, .squeeze(0)")
    if shape == (classes,) and classes != 1:
        fixes.append("the examples were summed in place of the classes, use dimension 1 and not 0")
    return "; or ".join(fixes) or "return one value, or one value for each example"


# ---- Logits and batches -------------------------------------------------------------------------


def step_logits(logits: object, rows: int, classes: int) -> Tensor:
    """Return what `training_step` returned for its first batch of `rows` examples.

    Raises: MethodError for anything but logits (rows, classes).
    """
    fix = f"return the network's output for the item's first batch, ({rows}, {classes}), or nothing"
    if not isinstance(logits, Tensor) or logits.shape != (rows, classes):
        raise MethodError(f"training_step returned {described(logits)}, which are no logits", fix)
    if not logits.is_floating_point():
        raise MethodError(
            f"training_step returned {described(logits)}; logits are floating point", fix
        )
    return logits


def predicted_logits(logits: object, rows: int, classes: int) -> Tensor:
    """Return what `predict` returned for `rows` images.

    Raises: MethodError for anything but logits (rows, classes).
    """
    wanted = f"predict must return logits ({rows}, {classes}) for {rows} images"
    if logits is None:
        raise MethodError(f"{wanted}, and returned None", "end it with `return logits`")
    if not isinstance(logits, Tensor):
        raise MethodError(f"{wanted}, and returned {described(logits)}", "return one tensor")
    if logits.shape == (rows,):
        fix = "return the scores of all classes, and not the class: leave out argmax"
        raise MethodError(f"{wanted}, and returned {described(logits)}", fix)
    if logits.shape != (rows, classes):
        fix = "return one row for each image, with one score for each class"
        raise MethodError(f"{wanted}, and returned {described(logits)}", fix)
    if not logits.is_floating_point():
        fix = "return the scores of the classes as floating point"
        raise MethodError(f"{wanted}, and returned {described(logits)}", fix)
    return logits


def gradient_parts(parts: object, rows: int, classes: int) -> Mapping[str, Tensor]:
    """Return what the hook `gradient_parts` returned for logits (rows, classes); {} for None.

    Raises: MethodError for anything but names with tensors (rows, classes).
    """
    if parts is None:
        return {}
    fix = f'return {{"ce": ..., "regulariser": ...}} with a tensor ({rows}, {classes}) for each'
    if not isinstance(parts, Mapping):
        raise MethodError(f"gradient_parts returned {described(parts)}, which names no parts", fix)
    for name, part in parts.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise MethodError(f"gradient_parts has a part {name!r}; names are single words", fix)
        if not isinstance(part, Tensor) or part.shape != (rows, classes):
            raise MethodError(f"gradient_parts[{name!r}] is {described(part)}", fix)
        if not part.is_floating_point():
            raise MethodError(f"gradient_parts[{name!r}] is no floating point, {part.dtype}", fix)
    return parts


def plan_of(items: object) -> Iterable[Any]:
    """Return what `batches` returned. Raises MethodError if it cannot be gone through."""
    if items is None:
        raise MethodError(
            "batches returned None", "yield run.batch(index) for each step of the epoch"
        )
    if isinstance(items, Tensor) or not isinstance(items, Iterable):
        raise MethodError(
            f"batches returned {described(items)}; it must yield an item for each step",
            "yield run.batch(index) for each step of the epoch",
        )
    return items


def not_a_batch(item: object) -> MethodError:
    """Return the error of a plan whose item the default `training_step` cannot train on."""
    return MethodError(
        f"batches yielded {described(item)}, which the default training_step cannot train on",
        "yield run.batch(index), or define training_step",
    )


# ---- Words --------------------------------------------------------------------------------------


def _real_tensor(hook: str, value: object, wanted: str, verb: str = "returned") -> Tensor:
    """Return `value` if it is a tensor of real floating point numbers. Raises MethodError."""
    said = f"{hook} {verb} {described(value)}; it must be a tensor, {wanted}"
    if value is None:
        raise MethodError(said, "end the function with `return` and the value")
    if isinstance(value, bool | int | float | complex | np.generic | np.ndarray):
        raise MethodError(
            said,
            "leave out .item(), float() and .numpy(), which cut the value off from the network",
        )
    if isinstance(value, tuple | list | dict):
        raise MethodError(said, "add the terms up, and return their sum")
    if not isinstance(value, Tensor):
        raise MethodError(said, "return a tensor that is computed from the logits")
    if value.is_complex():
        raise MethodError(said + " of real numbers", "take .real or .abs()")
    if not value.is_floating_point():
        raise MethodError(
            said + " of floating point numbers",
            "a count, a comparison or argmax has no gradient: compute the loss from the logits",
        )
    return value


def described(value: object) -> str:
    """Return a value's type, and of a tensor or an array its shape and dtype, for a message."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{_shape(value.shape)} {dtype}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array {_shape(value.shape)} {value.dtype}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def _shape(shape: Iterable[int]) -> str:
    return str(tuple(shape))


def _counts(rows: int, classes: int) -> str:
    examples = "1 example" if rows == 1 else f"{rows} examples"
    return f"{examples} and {classes} classes"
