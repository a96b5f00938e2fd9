"""Benchmark methods for learning with noisy labels under one identical protocol.

From Python: `nlbench.run(suite, ...)`, `nlbench.load(OUT) -> DataFrame`, `nlbench.ops`,
`nlbench.method`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlbench import method, ops
    from nlbench.api import load, run

__all__ = ["load", "method", "ops", "run"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import nlbench` does not import torch."""
    if name in ("run", "load"):
        return getattr(importlib.import_module("nlbench.api"), name)
    if name in ("method", "ops"):
        return importlib.import_module(f"nlbench.{name}")
    raise AttributeError(f"module 'nlbench' has no attribute {name!r}")
