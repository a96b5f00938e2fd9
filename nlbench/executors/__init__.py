"""Executors: ways to carry out the runs of a plan.

An executor is a module of this folder with a function `execute`, see `base.Executor`. A new file
`nlbench/executors/NAME.py` can be used at once, with NLBENCH_EXECUTOR=NAME.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.errors import SuiteError, did_you_mean

if TYPE_CHECKING:
    from nlbench.executors.base import Executor
    from nlbench.training.context import RunOptions


def names() -> list[str]:
    """Return the names of all executors."""
    # The folder is the list of executors, so a new file needs no entry elsewhere.
    modules = {path.stem for path in Path(__file__).parent.glob("[!_]*.py")}
    return sorted(modules - {"base", "progress"})


def usual(options: RunOptions) -> str:
    """Return the name of the executor that is taken if none is named.

    That is `workers`, or `local` for a debugger, which needs the run in its own process.
    """
    return "local" if options.debug else "workers"


def choose(options: RunOptions) -> Executor:
    """Return the executor that `options` names, or the usual one.

    Raises: SuiteError for a name that is no executor.
    """
    name = options.executor or usual(options)
    if name not in names():
        hint = did_you_mean(name, names())
        raise SuiteError(
            f"NLBENCH_EXECUTOR={name}: no such executor. There are: {', '.join(names())}.{hint}"
        )

    # Imported by its name and only when it is used: training imports torch, and help and tables do
    # without it.
    executor: Executor = importlib.import_module(f"nlbench.executors.{name}")
    return executor
