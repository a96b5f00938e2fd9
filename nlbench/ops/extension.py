"""Finds the compiled extension, and says which code runs where it cannot."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch

core: Any = None
_why = ""
try:
    core = importlib.import_module("nlbench._core")
except ImportError as error:
    _why = f"the extension nlbench._core cannot be imported: {error}"

_said: set[str] = set()


def backend(device: torch.device | str) -> str:
    """Which code runs the ops on tensors of `device`: "cpp" for the compiled kernels, "torch" for the reference."""
    return "torch" if _why_torch(torch.device(device)) else "cpp"


def source_hash() -> str:
    """SHA-256 over the C++ sources that the extension was built from, 64 hex digits; "" without the extension."""
    return core.source_hash if core is not None else ""


def why_no_extension() -> str:
    """Why the compiled extension cannot be used, or "" when it can."""
    return _why


def say_fallback(device: torch.device) -> None:
    """Warn that the torch reference runs on `device` and why, once for each reason in a process."""
    why = _why_torch(device)
    if why not in _said:
        _said.add(why)
        warnings.warn(f"nlbench.ops runs its torch reference, which is slower: {why}", stacklevel=2)


def _why_torch(device: torch.device) -> str:
    if _why:
        return _why
    return "" if device.type == "cpu" else f"there is no kernel for {device.type} tensors"
