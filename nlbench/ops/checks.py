"""Checks of an op's arguments.

An error names the op and the argument, what the op needs and what it got.
"""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int | str, ...]  # a name such as "N" stands for any size


def require(op: str, name: str, got: object, dtypes: tuple[torch.dtype, ...], shape: Shape) -> None:
    """Check that `got` is a tensor with one of `dtypes` and with `shape`.

    Raises: TypeError for another type or dtype, ValueError for another shape.
    """
    if not isinstance(got, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(got).__name__}")
    if got.dtype not in dtypes:
        raise TypeError(_mismatch(op, name, got, dtypes, shape))
    if got.dim() != len(shape) or not _fits(got.shape, shape):
        raise ValueError(_mismatch(op, name, got, dtypes, shape))


def require_device(op: str, name: str, got: Tensor, device: torch.device, like: str) -> None:
    """Check that `got` is on `device`, where the argument called `like` is."""
    if got.device != device:
        raise ValueError(f"{op}: {name} must be on {device} as {like} is, got {got.device}")


def require_contiguous(op: str, name: str, got: Tensor, because: str) -> None:
    """Check that `got` is contiguous; an error gives the reason `because`."""
    if not got.is_contiguous():
        strides = list(got.stride())
        raise ValueError(f"{op}: {name} must be contiguous ({because}), got strides {strides}")


def require_number(op: str, name: str, got: object) -> None:
    """Check that `got` is an int or a float."""
    if not isinstance(got, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(got).__name__}")


def require_int(op: str, name: str, got: object, lowest: int, highest: int) -> None:
    """Check that `got` is an int in [lowest, highest]. Raises: TypeError, ValueError."""
    if not isinstance(got, int):
        raise TypeError(f"{op}: {name} must be an int, got {type(got).__name__}")
    if not lowest <= got <= highest:
        raise ValueError(f"{op}: {name} must be in [{lowest}, {highest}], got {got}")


def _fits(sizes: torch.Size, shape: Shape) -> bool:
    pairs = zip(sizes, shape, strict=True)
    return all(isinstance(want, str) or want == size for size, want in pairs)


def _mismatch(
    op: str, name: str, got: Tensor, dtypes: tuple[torch.dtype, ...], shape: Shape
) -> str:
    allowed = " or ".join(_name(dtype) for dtype in dtypes)
    sizes = ", ".join(map(str, shape))
    found = f"{_name(got.dtype)} of shape {list(got.shape)}"
    return f"{op}: {name} must be {allowed} of shape [{sizes}], got {found}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
