"""Labels, indices and draws out of range on a GPU, which are collected without waiting for it."""

from __future__ import annotations

import torch

from nlbench.ops.extension import fault_flags
from nlbench.ops.losses import OP_NAMES

# As numbered in csrc/ops.h: the flags, and the faults that a kernel on a GPU can find.
_NAMES = (*OP_NAMES.values(), "augment", "strong_augment")
_FAULTS = {1: "labels", 2: "index", 4: "draws"}


def check_faults(device: torch.device | str) -> None:
    """Raise IndexError if a kernel on `device` met a value out of range since the last call.

    These are labels, an index or draws. A kernel on a GPU skips such a row, gives it a NaN loss and
    a zero gradient, or an image of NaN, and sets a flag. Reading the flags waits for the device, so
    call this once per epoch. On a CPU every step checks its arguments, and this does nothing.
    """
    device = torch.device(device)
    # The flags are kept under the numbered device, as tensors name theirs.
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    flags = fault_flags.get(device)
    if flags is None:
        return

    found = flags.tolist()
    # In place, because captured CUDA graphs refer to this memory.
    flags.zero_()
    faults = []
    for name, fault in zip(_NAMES, found, strict=True):
        if fault:
            faults.append(
                f"{name}: {_FAULTS[fault]} had values out of range in a batch on {device}"
            )
    if faults:
        raise IndexError("; ".join(faults))
