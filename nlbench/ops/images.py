"""Random crop, horizontal flip and normalisation of small colour images, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, library

from nlbench.ops import reference
from nlbench.ops.extension import core, cuda_flags, cuda_kernels, warn_fallback
from nlbench.ops.pixels import (
    cached_table,
    check_values,
    empty,
    fault,
    make_table,
    require_form,
    require_images,
)


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
    require_images("augment", images, index, draws)
    require_form("augment", padding, dtype, memory_format)

    planar = memory_format == torch.contiguous_format
    if torch.compiler.is_compiling():
        table = make_table("augment", tuple(mean), tuple(std), dtype, images.device)
        return torch.ops.nlbench.augment(images, index, draws, table, padding, planar)
    table = cached_table("augment", tuple(mean), tuple(std), dtype, images.device)
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
            check_values("augment", index, draws, N, padding)
        return reference.augment(images, index, draws, table, padding, planar)

    index = index.contiguous()
    out = empty(images, index, table, planar)
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
            raise fault("augment", outcome, index, draws, N, padding)
    else:
        device = images.device
        stream = torch.cuda.current_stream(device).cuda_stream
        error = core.augment_cuda(*arguments, cuda_flags(device).data_ptr(), device.index, stream)
        if error:
            raise RuntimeError(f"augment: the CUDA kernel could not be started: {error}")
    return out


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
    return empty(images, index, table, planar)
