"""Labels, indices and draws out of range on a GPU, which no step waits to hear of."""

from __future__ import annotations

import torch

from nlbench.ops.extension import fault_flags
from nlbench.ops.losses import OP_NAMES

# As csrc/ops.h numbers them: the marks, and the faults that a kernel on a GPU can find.
_NAMES = (*OP_NAMES.values(), "augment")
_FAULTS = {1: "labels", 2: "index", 4: "draws"}


def check_faults(device: torch.device | str) -> None:
    """Raise IndexError if since the last call a kernel met labels, an index or draws out of range on `device`.

    A kernel on a GPU skips such a row, gives it a NaN loss and a zero gradient, or an image of NaN, and leaves a mark;
    reading the mark waits for the device, so do it once an epoch. On a CPU every step checks and this does nothing.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    flags = fault_flags.get(device)
    if flags is None:
        return
    found = flags.tolist()
    flags.zero_()
    faults = [
        f"{name}: {_FAULTS[fault]} had values out of range in a batch on {device}"
        for name, fault in zip(_NAMES, found, strict=True)
        if fault
    ]
    if faults:
        raise IndexError("; ".join(faults))
