"""Methods for learning with noisy labels under one protocol: five seeds, mean and standard deviation.

From Python: `nlbench.run(suite, ...)`, `nlbench.load(OUT) -> DataFrame`, `nlbench.ops`, `nlbench.method`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlbench import method, ops
    from nlbench.api import load, run

__all__ = ["load", "method", "ops", "run"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: `import nlbench` alone does not import torch."""
    if name in ("run", "load"):
        return getattr(importlib.import_module("nlbench.api"), name)
    if name in ("method", "ops"):
        return importlib.import_module(f"nlbench.{name}")
    raise AttributeError(f"module 'nlbench' has no attribute {name!r}")
