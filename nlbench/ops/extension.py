"""Find the compiled extension and its CUDA library, and report which code runs without them."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Without the extension every op runs its torch reference, so a failing import is no error here.
core: Any = None
_why = ""
try:
    core = importlib.import_module("nlbench._core")
except ImportError as error:
    _why = f"the extension nlbench._core cannot be imported: {error}"

# The extension ignores a name that it does not know or that this processor lacks.
if core is not None and os.environ.get("NLBENCH_ISA") not in (None, "", core.isa()):
    raise RuntimeError(
        f"NLBENCH_ISA must be portable, avx2 or avx512, as far as this processor has them; got "
        f"{os.environ['NLBENCH_ISA']!r}, and the best one here is {core.isa()!r}"
    )

# The reasons for running the reference that a warning has already given.
_warned: set[str] = set()

# For each device, an int32 per op that a kernel on a GPU sets when it meets a fault. Allocated in
# the device's first step and never replaced, because captured CUDA graphs refer to its memory.
fault_flags: dict[torch.device, Tensor] = {}


# ---- Which code runs -----------------------------------------------------------------------------


def backend(device: torch.device | str) -> str:
    """Name the code that runs the ops on `device`.

    Returns: "cpp" or "cuda" for compiled kernels, "torch" for the reference.
    """
    device = torch.device(device)
    if _why_torch(device):
        return "torch"
    return "cpp" if device.type == "cpu" else "cuda"


def cpu_isa() -> str:
    """Name the instruction set of the kernels on the CPU.

    It is the best that the processor has, unless the environment variable NLBENCH_ISA names a
    lesser one.

    Returns: "portable", "avx2" or "avx512"; "" without the extension.
    """
    return core.isa() if core is not None else ""


def source_hash() -> str:
    """Return the SHA-256 over the C++ and CUDA sources that the extension was built from.

    Returns: 64 hex digits; "" without the extension.
    """
    return core.source_hash if core is not None else ""


def why_no_extension() -> str:
    """Return why the compiled extension cannot be used, or "" when it can."""
    return _why


# ---- CUDA ----------------------------------------------------------------------------------------


@functools.cache
def why_no_cuda() -> str:
    """Return why there are no CUDA kernels, or "" when there are.

    The answer does not depend on whether there is a GPU to run them.
    """
    if core is None:
        return _why
    if core.cuda_build:
        return f"there are no CUDA kernels: {core.cuda_build}"
    # A library beside the extension: if it fails to load, the CPU kernels are not affected.
    return core.load_cuda(str(Path(core.__file__).with_name("libnlbench_cuda.so")))


def cuda_architectures() -> str:
    """Return the GPU architectures of the CUDA kernels, such as "80;90"; "" without kernels."""
    return "" if why_no_cuda() else core.cuda_architectures


def cuda_kernels(device: torch.device) -> bool:
    """Return whether compiled CUDA kernels run the ops on `device`."""
    return device.type == "cuda" and not why_no_cuda()


def cuda_flags(device: torch.device) -> Tensor:
    """Return the fault flags of a GPU, which are allocated on first use."""
    flags = fault_flags.get(device)
    if flags is None:
        # What is allocated during a capture belongs to that graph, and the flags outlive it.
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("nlbench.ops: run one step before capturing a CUDA graph of it")
        flags = torch.zeros(core.FLAGS, dtype=torch.int32, device=device)
        fault_flags[device] = flags
    return flags


# ---- The reference instead of a kernel -----------------------------------------------------------


def warn_fallback(device: torch.device) -> None:
    """Warn that the torch reference runs on `device`, and why; once per reason and process."""
    why = _why_torch(device)
    if why not in _warned:
        _warned.add(why)
        warnings.warn(f"nlbench.ops runs its torch reference, which is slower: {why}", stacklevel=2)


def _why_torch(device: torch.device) -> str:
    """Return why the reference runs on `device`, or "" where a kernel does."""
    if _why:
        return _why
    if device.type == "cpu":
        return ""
    if device.type != "cuda":
        return f"there is no kernel for {device.type} tensors"
    return why_no_cuda()
