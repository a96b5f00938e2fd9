"""Checks of an op's arguments. A message names the op and the argument, what it needs and what it got."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Shape = tuple[int | str, ...]  # a name such as "N" stands for any size


def require(op: str, name: str, got: Any, dtypes: tuple[torch.dtype, ...], shape: Shape) -> None:
    """TypeError unless `got` is a tensor with one of `dtypes`, ValueError unless it has `shape`."""
    if not isinstance(got, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(got).__name__}")
    if got.dtype not in dtypes:
        raise TypeError(_mismatch(op, name, got, dtypes, shape))
    if got.dim() != len(shape) or any(
        want != size for want, size in zip(shape, got.shape, strict=True) if not isinstance(want, str)
    ):
        raise ValueError(_mismatch(op, name, got, dtypes, shape))


def require_device(op: str, name: str, got: Tensor, device: torch.device, like: str) -> None:
    if got.device != device:
        raise ValueError(f"{op}: {name} must be on {device} as {like} is, got {got.device}")


def require_contiguous(op: str, name: str, got: Tensor, because: str) -> None:
    if not got.is_contiguous():
        raise ValueError(f"{op}: {name} must be contiguous ({because}), got strides {list(got.stride())}")


def require_number(op: str, name: str, got: Any) -> None:
    if not isinstance(got, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(got).__name__}")


def _mismatch(op: str, name: str, got: Tensor, dtypes: tuple[torch.dtype, ...], shape: Shape) -> str:
    allowed = " or ".join(_name(dtype) for dtype in dtypes)
    sizes = ", ".join(str(size) for size in shape)
    return f"{op}: {name} must be {allowed} of shape [{sizes}], got {_name(got.dtype)} of shape {list(got.shape)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
