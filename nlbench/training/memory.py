"""How much memory a run has had at most, and whether it failed because there was too little."""

from __future__ import annotations

import errno
import resource
import sys
from pathlib import Path

import torch

from nlbench.files import in_bytes

# In the text of errors for which torch has no class of its own.
_SHORTAGE = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)

# Where Linux counts the processes that it has ended because memory was short: in this container, by
# either version of control groups, or else on the whole machine.
_COUNTS = (
    (Path("/sys/fs/cgroup/memory.events"), "oom_kill"),
    (Path("/sys/fs/cgroup/memory/memory.oom_control"), "oom_kill"),
    (Path("/proc/vmstat"), "oom_kill"),
)

_ADVICE = "Fewer --jobs, a smaller network or a smaller --set batch_size need less"


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that there was too little memory, of the host or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # The code of an exception class may do anything, so the text of foreign ones is not made.
    return type(error) is RuntimeError and any(word in str(error) for word in _SHORTAGE)


def peak_bytes() -> int:
    """Return the most memory that this process has had, in bytes."""
    return bytes_of(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def bytes_of(maxrss: int) -> int:
    """Return what the system calls `ru_maxrss` in bytes."""
    return maxrss if sys.platform == "darwin" else 1024 * maxrss


def peak_gpu_bytes(device: torch.device) -> int:
    """Return the most memory that torch has had on a GPU, in bytes; 0 for another device."""
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return 0
    return torch.cuda.max_memory_allocated(device)


def kills() -> int:
    """Return how many processes the system has ended because memory was short; 0 if unknown."""
    for path, name in _COUNTS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(" ")
            if key == name and value.isdecimal():
                return int(value)
    return 0


def advice(peak: int, gpu_peak: int = 0) -> str:
    """Return what a run had of memory at most, and what needs less, as the end of a message."""
    had = f"its process had {in_bytes(peak)} of memory at most" if peak else ""
    if gpu_peak:
        had = f"it had {in_bytes(gpu_peak)} of the GPU's memory at most"
    return ". ".join(filter(None, [had, _ADVICE]))


def why_killed(peak: int, more_kills: bool) -> str:
    """Return what is known of a process that SIGKILL has ended, as the end of a message.

    Args:
        more_kills: `kills` has become more while it ran.
    """
    if more_kills:
        return f"the system did that because memory was short: {advice(peak)}"
    return f"the system does that when memory is short: {advice(peak)}"
