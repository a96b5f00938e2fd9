"""Strong views: a policy's operations, crop, flip, cutout and normalisation, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlbench.ops.checks import require, require_device
from nlbench.ops.extension import core, cuda_flags, cuda_kernels, warn_fallback
from nlbench.ops.pixels import (
    cached_table,
    check_values,
    empty,
    fault,
    require_form,
    require_images,
)
from nlbench.ops.policies import AUTOAUGMENT, POLICIES, Policy, table_on


def strong_augment(
    images: Tensor,
    index: Tensor,
    draws: Tensor | None,
    *,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    policy: Policy = AUTOAUGMENT,
    examples: Tensor | None = None,
    padding: int = 4,
    reflect: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Pick the batch `index` of `images`, and return a strong view of each, normalised.

    The policy's operations change the image, crop and flip come before or after them, and a square
    is cut out at the end. All of that but crop and flip is drawn from `seed` and the number of the
    example, so that it does not depend on the batch, its order or the number of threads.

    Args:
        images:  [N, H, W, 3] uint8, contiguous.
        index:   [B] int64 in [0, N); may repeat.
        draws:   [N, 3] int64, contiguous, with dy, dx, flip of each image, as for `augment`. None
                 for no crop and no flip.
        seed:    in [0, 2^64): another one for each epoch and view.
        mean, std: as for `augment`.
        policy:  what is drawn from, see `policies`.
        examples: [B] int64, the examples that the images are of; `index` if None.
        padding: >= 0; has no effect when draws is None.
        reflect: whether the padding is the image's reflection, without the edge itself; else it is
                 black. A reflection needs a padding below H and W.
        dtype, memory_format: as for `augment`.

    Returns: [B, 3, H, W] `dtype`, on the device of `images`. CPU, CUDA and the reference in torch
             give the same bits.
    Raises:  as `augment`; also for `examples`, a seed that is no int or out of range, a policy that
             is no `Policy`, and a padding that is too wide to reflect.

    torch.compile breaks its graph here: the op is not for use inside of a compiled function.
    """
    require_images("strong_augment", images, index, draws)
    require_form("strong_augment", padding, dtype, memory_format)
    if examples is None:
        examples = index
    require("strong_augment", "examples", examples, (torch.int64,), (len(index),))
    require_device("strong_augment", "examples", examples, images.device, "images")
    if not isinstance(seed, int):
        raise TypeError(f"strong_augment: seed must be an int, got {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"strong_augment: seed must be in [0, 2^64), got {seed}")
    if not isinstance(policy, Policy):
        raise TypeError(
            "strong_augment: policy must be a Policy, got "
            f"{type(policy).__name__}. fix: nlbench.ops.policies.POLICIES has those of protocols, "
            f"by name: {', '.join(POLICIES)}"
        )
    height, width = images.shape[1:3]
    if reflect and draws is not None and padding >= min(height, width):
        raise ValueError(
            f"strong_augment: reflect needs a padding below the image's side, got {padding} for "
            f"images of {height} x {width}"
        )

    planar = memory_format == torch.contiguous_format
    table = cached_table("strong_augment", tuple(mean), tuple(std), dtype, images.device)
    return _strong(images, index, examples, draws, policy, seed, table, padding, reflect, planar)


def _strong(
    images: Tensor,
    index: Tensor,
    examples: Tensor,
    draws: Tensor | None,
    policy: Policy,
    seed: int,
    table: Tensor,
    padding: int,
    reflect: bool,
    planar: bool,
) -> Tensor:
    """Run the kernel, or the reference where no kernel fits, on checked arguments.

    Args:
        table:  (3, 256), the normalised value of each byte, per channel; in the result's dtype.
        planar: whether the result is contiguous, else channels_last.
    """
    N, H, W = images.shape[:3]
    device, on_cpu = images.device, images.is_cpu
    if core is None or not (on_cpu or cuda_kernels(device)):
        # torchvision is slow to import, and only the reference needs it.
        from nlbench.ops import strong_reference

        warn_fallback(device)
        check_values("strong_augment", index, draws, N, padding)
        return strong_reference.strong_augment(
            images, index, examples, draws, policy, seed, table, padding, reflect, planar
        )

    index, examples = index.contiguous(), examples.contiguous()
    out = empty(images, index, table, planar)
    numbers = table_on(policy, H, W, device)
    # In the order of csrc/bindings.cpp, where 0 is a null pointer.
    arguments = (
        images.data_ptr(),
        index.data_ptr(),
        examples.data_ptr(),
        0 if draws is None else draws.data_ptr(),
        numbers.data_ptr(),
        table.data_ptr(),
        out.data_ptr(),
    )
    sizes = (
        len(index),
        N,
        H,
        W,
        padding,
        seed,
        policy.rounds,
        len(policy.entries),
        policy.slots,
        policy.strengths,
        table.itemsize,
        planar,
        policy.crop_first,
        reflect,
    )

    if on_cpu:
        # The kernel returns fault + 8 * row, and 0 where nothing is wrong.
        outcome = core.strong_cpu(*arguments, 0, *sizes, torch.get_num_threads())
        if outcome:
            raise fault("strong_augment", outcome, index, draws, N, padding)
        return out

    # A block of threads keeps small images in its own memory, and needs a place for large ones.
    values = 3 * H * W
    needed = 2 * values * len(index) if values > core.SHARED_VALUES else 0
    scratch = torch.empty(needed, dtype=torch.uint8, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream
    flags = cuda_flags(device).data_ptr()
    error = core.strong_cuda(*arguments, scratch.data_ptr(), *sizes, flags, device.index, stream)
    if error:
        raise RuntimeError(f"strong_augment: the CUDA kernel could not be started: {error}")
    return out
