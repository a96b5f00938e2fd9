"""Benchmark methods for learning with noisy labels under one identical protocol.

From Python: `nlbench.run(suite, ...)` trains, `nlbench.load(OUT)` returns the records as a
DataFrame, `nlbench.table(OUT)` returns the printed table. `nlbench.method` is the interface of a
method, and `nlbench.ops` holds the kernels. Errors that a user can mend are UserErrors.
"""

import signal
import sys

# The command `nlbench` begins here. Until `nlbench.cli.interrupt` handles Ctrl-C, it ends the
# process without the traceback that Python would print.
_is_command = bool(sys.argv) and sys.argv[0].endswith(("/nlbench", "\\nlbench.exe"))
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlbench import method, ops
    from nlbench.api import load, load_weights, merge, run, table
    from nlbench.errors import (
        DataError,
        DataMissing,
        NlbenchWarning,
        StoreError,
        SuiteError,
        UserError,
    )
    from nlbench.reproduction.interface import reproduce

    __version__: str

__all__ = [
    "DataError",
    "DataMissing",
    "NlbenchWarning",
    "StoreError",
    "SuiteError",
    "UserError",
    "__version__",
    "load",
    "load_weights",
    "merge",
    "method",
    "ops",
    "reproduce",
    "run",
    "table",
]

_FUNCTIONS = ("load", "load_weights", "merge", "run", "table")
_MODULES = ("method", "ops")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import nlbench` does not import torch."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("nlbench")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("nlbench.api"), name)
    if name == "reproduce":
        return importlib.import_module("nlbench.reproduction.interface").reproduce
    if name in _MODULES:
        return importlib.import_module(f"nlbench.{name}")
    if name in __all__:
        return getattr(importlib.import_module("nlbench.errors"), name)
    raise AttributeError(f"module 'nlbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that are there, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
