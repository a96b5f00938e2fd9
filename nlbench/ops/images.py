"""Random crop, horizontal flip and normalisation of small colour images, in one pass."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, library

from nlbench.ops import reference
from nlbench.ops.checks import require, require_contiguous, require_device
from nlbench.ops.extension import core, cuda_flags, cuda_kernels, warn_fallback

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FORMATS = (torch.channels_last, torch.contiguous_format)


def augment(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    padding: int = 4,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Pick the batch `index` of `images`, crop and flip it by the images' draws, and normalise it.

        dy, dx, flip = draws[index[b]]
        padded = images[index[b]] with `padding` black pixels on each side
        crop   = padded[dy : dy + H, dx : dx + W], mirrored left to right if flip
        out[b] = (crop / 255 - mean) / std, per channel

    The padding is black before normalisation, as with torchvision's RandomCrop(padding=...),
    RandomHorizontalFlip, ToTensor and Normalize. In float32 the results equal theirs to the last
    bit. They come from a table of the 256 normalised values per channel, which is computed in
    float32 (float64 for dtype float64) and then rounded to `dtype`.

    Args:
        images:  [N, H, W, 3] uint8, contiguous.
        index:   [B] int64 in [0, N); may repeat.
        draws:   [N, 3] int64, contiguous, with dy, dx, flip of each image: dy and dx in
                 [0, 2 * padding], flip 0 or 1. None for no crop and no flip.
        mean:    three numbers, on the scale where white is 1.
        std:     three positive numbers.
        padding: >= 0; has no effect when draws is None.
        dtype:   float32, float64, bfloat16 or float16.
        memory_format: torch.channels_last or torch.contiguous_format, the layout of the result.

    Returns: [B, 3, H, W] `dtype`, on the device of `images`.
    Raises:  TypeError (dtype), ValueError (shape, device, strides, memory_format, draws out of
             range) or IndexError (index), naming the argument. A call does not wait for a GPU:
             there, an image whose index or draws are out of range is all NaN, and `check_faults`
             raises.
    """
    require("augment", "images", images, (torch.uint8,), ("N", "H", "W", 3))
    require("augment", "index", index, (torch.int64,), ("B",))
    require_device("augment", "index", index, images.device, "images")
    require_contiguous("augment", "images", images, "it would be copied whole for each batch")
    if draws is not None:
        require("augment", "draws", draws, (torch.int64,), (len(images), 3))
        require_device("augment", "draws", draws, images.device, "images")
        require_contiguous("augment", "draws", draws, "it would be copied whole for each batch")
    if not isinstance(padding, int):
        raise TypeError(f"augment: padding must be an int, got {type(padding).__name__}")
    if padding < 0:
        raise ValueError(f"augment: padding must be >= 0, got {padding}")
    if dtype not in _DTYPES:
        allowed = ", ".join(map(str, _DTYPES))
        raise TypeError(f"augment: dtype must be one of {allowed}, got {dtype}")
    if memory_format not in _FORMATS:
        allowed = " or ".join(map(str, _FORMATS))
        raise ValueError(f"augment: memory_format must be {allowed}, got {memory_format}")

    planar = memory_format == torch.contiguous_format
    if torch.compiler.is_compiling():
        table = _make_table(tuple(mean), tuple(std), dtype, images.device)
        return torch.ops.nlbench.augment(images, index, draws, table, padding, planar)
    table = _table(tuple(mean), tuple(std), dtype, images.device)
    return _augment(images, index, draws, table, padding, planar)


# ---- Kernel or reference -------------------------------------------------------------------------


def _augment(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    table: Tensor,
    padding: int,
    planar: bool,
) -> Tensor:
    """Run the kernel, or the reference where no kernel fits.

    Args:
        table:  (3, 256), the normalised value of each byte, per channel; in the result's dtype.
        planar: whether the result is contiguous, else channels_last.
    """
    N, H, W = images.shape[:3]
    on_cpu = images.is_cpu
    if core is None or not (on_cpu or cuda_kernels(images.device)):
        warn_fallback(images.device)
        if on_cpu:
            # On a GPU, reading the values would make every batch wait for the device.
            _check_values(index, draws, N, padding)
        return reference.augment(images, index, draws, table, padding, planar)

    index = index.contiguous()
    out = _empty(images, index, table, planar)
    # In the order of csrc/bindings.cpp, where 0 is a null pointer.
    arguments = (
        images.data_ptr(),
        index.data_ptr(),
        0 if draws is None else draws.data_ptr(),
        table.data_ptr(),
        out.data_ptr(),
        len(index),
        N,
        H,
        W,
        padding,
        table.itemsize,
        planar,
    )

    if on_cpu:
        # The kernel returns fault + 8 * row, and 0 where nothing is wrong.
        outcome = core.augment_cpu(*arguments, torch.get_num_threads())
        if outcome:
            raise _fault(outcome & 7, outcome >> 3, index, draws, N, padding)
    else:
        device = images.device
        stream = torch.cuda.current_stream(device).cuda_stream
        error = core.augment_cuda(*arguments, cuda_flags(device).data_ptr(), device.index, stream)
        if error:
            raise RuntimeError(f"augment: the CUDA kernel could not be started: {error}")
    return out


def _empty(images: Tensor, index: Tensor, table: Tensor, planar: bool) -> Tensor:
    shape = (index.shape[0], 3, images.shape[1], images.shape[2])
    memory_format = torch.contiguous_format if planar else torch.channels_last
    return torch.empty(shape, dtype=table.dtype, device=images.device, memory_format=memory_format)


# ---- The table of normalised values --------------------------------------------------------------


def _make_table(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Compute the normalised value of each byte, per channel: (3, 256) `dtype` on `device`."""
    if len(mean) != 3 or not all(math.isfinite(value) for value in mean):
        raise ValueError(f"augment: mean must be three finite numbers, got {list(mean)}")
    if len(std) != 3 or not all(0 < value < math.inf for value in std):
        raise ValueError(f"augment: std must be three positive numbers, got {list(std)}")

    # The type and the order of operations are torchvision's, so that float32 results are the same
    # to the last bit. Correctly rounded values would not always be.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bytes_ = torch.arange(256, dtype=wide) / 255
    mean_column = torch.tensor(mean, dtype=wide)[:, None]
    std_column = torch.tensor(std, dtype=wide)[:, None]
    return ((bytes_ - mean_column) / std_column).to(device, dtype)


# A batch must not compute and copy the table again. torch.compile cannot trace the cache.
_table = functools.lru_cache(maxsize=64)(_make_table)


# ---- Values out of range -------------------------------------------------------------------------


def _check_values(index: Tensor, draws: Tensor | None, N: int, padding: int) -> None:
    """Check the values of index and draws for the reference, as the kernel does for itself."""
    bad = ((index < 0) | (index >= N)).nonzero()
    if len(bad):
        raise _bad_index(index, int(bad[0]), N)

    if draws is not None:
        # As in the kernel, the draws of images outside the batch are not looked at.
        used = draws[index]
        highest = used.new_tensor([2 * padding, 2 * padding, 1])
        bad = ((used < 0) | (used > highest)).any(1).nonzero()
        if len(bad):
            raise _bad_draw(draws, int(index[int(bad[0])]), padding)


def _fault(
    fault: int, row: int, index: Tensor, draws: Tensor | None, N: int, padding: int
) -> IndexError | ValueError:
    """Make the error for what the kernel found: its `fault`, at position `row` of the batch."""
    if fault == core.DRAW_RANGE and draws is not None:
        return _bad_draw(draws, int(index[row]), padding)
    return _bad_index(index, row, N)


def _bad_index(index: Tensor, row: int, N: int) -> IndexError:
    got = int(index[row])
    return IndexError(f"augment: index must be in [0, {N}), got {got} at position {row}")


def _bad_draw(draws: Tensor, row: int, padding: int) -> ValueError:
    need = f"dy and dx in [0, {2 * padding}] and flip in {{0, 1}}"
    got = draws[row].tolist()
    return ValueError(f"augment: draws must have {need}, got {got} in row {row}")


# ---- For torch.compile ---------------------------------------------------------------------------
# It cannot trace into the extension, so it needs an op. Eager code does not call the op, to save
# the time of the dispatcher.


@library.custom_op(
    "nlbench::augment",
    mutates_args=(),
    schema="(Tensor images, Tensor index, Tensor? draws, Tensor table, int padding, bool planar)"
    " -> Tensor",
)
def _augment_op(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    table: Tensor,
    padding: int,
    planar: bool,
) -> Tensor:
    return _augment(images, index, draws, table, padding, planar)


@_augment_op.register_fake
def _augment_fake(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    table: Tensor,
    padding: int,
    planar: bool,
) -> Tensor:
    return _empty(images, index, table, planar)
