"""What the ops on images share: checks of their arguments, the table of values, the result."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from nlbench.ops.checks import require, require_contiguous, require_device
from nlbench.ops.extension import core

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FORMATS = (torch.channels_last, torch.contiguous_format)


# ---- Checks --------------------------------------------------------------------------------------


def require_images(op: str, images: Tensor, index: Tensor, draws: Tensor | None) -> None:
    """Check shapes, dtypes, devices and strides; the values are checked later.

    Raises: TypeError, ValueError.
    """
    require(op, "images", images, (torch.uint8,), ("N", "H", "W", 3))
    require(op, "index", index, (torch.int64,), ("B",))
    require_device(op, "index", index, images.device, "images")
    require_contiguous(op, "images", images, "it would be copied whole for each batch")
    if draws is not None:
        require(op, "draws", draws, (torch.int64,), (len(images), 3))
        require_device(op, "draws", draws, images.device, "images")
        require_contiguous(op, "draws", draws, "it would be copied whole for each batch")


def require_form(
    op: str, padding: int, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    """Check the padding and the form of the result. Raises: TypeError, ValueError."""
    if not isinstance(padding, int):
        raise TypeError(f"{op}: padding must be an int, got {type(padding).__name__}")
    if padding < 0:
        raise ValueError(f"{op}: padding must be >= 0, got {padding}")
    if dtype not in _DTYPES:
        allowed = ", ".join(map(str, _DTYPES))
        raise TypeError(f"{op}: dtype must be one of {allowed}, got {dtype}")
    if memory_format not in _FORMATS:
        allowed = " or ".join(map(str, _FORMATS))
        raise ValueError(f"{op}: memory_format must be {allowed}, got {memory_format}")


# ---- The result ----------------------------------------------------------------------------------


def empty(images: Tensor, index: Tensor, table: Tensor, planar: bool) -> Tensor:
    """Return the memory of a result: (B, 3, H, W) in the dtype of `table`.

    Contiguous if `planar`, else channels_last.
    """
    shape = (index.shape[0], 3, images.shape[1], images.shape[2])
    memory_format = torch.contiguous_format if planar else torch.channels_last
    return torch.empty(shape, dtype=table.dtype, device=images.device, memory_format=memory_format)


# ---- The table of normalised values --------------------------------------------------------------


def make_table(
    op: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Compute the normalised value of each byte, per channel: (3, 256) `dtype` on `device`.

    Raises: ValueError for a mean or a deviation that cannot be used.
    """
    if len(mean) != 3 or not all(math.isfinite(value) for value in mean):
        raise ValueError(f"{op}: mean must be three finite numbers, got {list(mean)}")
    if len(std) != 3 or not all(0 < value < math.inf for value in std):
        raise ValueError(f"{op}: std must be three positive numbers, got {list(std)}")

    # The type and the order of operations are torchvision's, so that float32 results are the same
    # to the last bit. Correctly rounded values would not always be.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bytes_ = torch.arange(256, dtype=wide) / 255
    mean_column = torch.tensor(mean, dtype=wide)[:, None]
    std_column = torch.tensor(std, dtype=wide)[:, None]
    return ((bytes_ - mean_column) / std_column).to(device, dtype)


# A batch must not compute and copy the table again. torch.compile cannot trace the cache.
cached_table = functools.lru_cache(maxsize=64)(make_table)


# ---- Values out of range -------------------------------------------------------------------------


def check_values(op: str, index: Tensor, draws: Tensor | None, N: int, padding: int) -> None:
    """Check the values of index and draws for a reference, as the kernels do for themselves.

    Raises: IndexError, ValueError.
    """
    bad = ((index < 0) | (index >= N)).nonzero()
    if len(bad):
        raise _bad_index(op, index, int(bad[0]), N)

    if draws is not None:
        # As in the kernel, the draws of images outside the batch are not looked at.
        used = draws[index]
        highest = used.new_tensor([2 * padding, 2 * padding, 1])
        bad = ((used < 0) | (used > highest)).any(1).nonzero()
        if len(bad):
            raise _bad_draw(op, draws, int(index[int(bad[0])]), padding)


def fault(
    op: str, outcome: int, index: Tensor, draws: Tensor | None, N: int, padding: int
) -> IndexError | ValueError:
    """Make the error for what a kernel returned, which is its fault + 8 * the row of the batch."""
    row = outcome >> 3
    if outcome & 7 == core.DRAW_RANGE and draws is not None:
        return _bad_draw(op, draws, int(index[row]), padding)
    return _bad_index(op, index, row, N)


def _bad_index(op: str, index: Tensor, row: int, N: int) -> IndexError:
    got = int(index[row])
    return IndexError(f"{op}: index must be in [0, {N}), got {got} at position {row}")


def _bad_draw(op: str, draws: Tensor, row: int, padding: int) -> ValueError:
    need = f"dy and dx in [0, {2 * padding}] and flip in {{0, 1}}"
    got = draws[row].tolist()
    return ValueError(f"{op}: draws must have {need}, got {got} in row {row}")
