"""What the machine offers that a training's speed depends on. Nothing here changes a result but `precision`."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's names for them, of malloc.h
_MOST = 2**31 - 1


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def precision(devices: Sequence[torch.device]) -> str:
    """What the precision "auto" stands for: "bfloat16" where each of `devices` multiplies it, else "float32"."""
    return "bfloat16" if all(map(has_bfloat16, devices)) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16 products. Without them it runs too, slower than float32.

    A GPU from compute capability 8.0 on; on Linux a processor with AVX512-BF16, AMX or Arm's bf16. Elsewhere not.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _processor_flags().isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def _processor_flags() -> frozenset[str]:
    """Features of the processor by Linux's names; none where it is not asked that way."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(values.split())
    return frozenset()


@functools.cache
def keep_freed_memory() -> bool:
    """Have malloc keep what a training step frees for the next one, where it is glibc's; once a process.

    Above 32 MB it otherwise gives memory back to the system at once and asks for it again a step later, and each page
    is then faulted in and zeroed anew. Measured on two cores: a step of resnet8 took 12% less time, one of digits_cnn
    19%. What the process holds stays at its peak. Returns whether it was done.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    done = [libc.mallopt(_MMAP_THRESHOLD, _MOST), libc.mallopt(_TRIM_THRESHOLD, _MOST)]  # the first not before 2.35
    return all(done)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor for any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """The CPU's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
