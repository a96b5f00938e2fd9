"""Executors: ways to carry out the runs of a plan.

An executor is a module of this folder with a function `execute`, see `base.Executor`. A new file
`nlbench/executors/NAME.py` can be used at once, with `--executor NAME`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.errors import SuiteError, UserError, did_you_mean

if TYPE_CHECKING:
    from nlbench.executors.base import Executor
    from nlbench.training.context import RunOptions

# The executor whose options are `address` and `gpus_per_run`.
RAY = "ray"


@dataclass(frozen=True)
class Choice:
    """The executor that a user names, with the options that are its own.

    Attributes:
        name: empty for the usual one.
        address: the Ray cluster; empty for a Ray of this machine alone.
        gpus_per_run: the part of a GPU that Ray reserves for a run; None for a whole one.
    """

    name: str = ""
    address: str = ""
    gpus_per_run: float | None = None

    @classmethod
    def of_user(
        cls, name: str | None = None, address: str | None = None, gpus_per_run: float | None = None
    ) -> Choice:
        """Return what was asked for, by options or by the environment variable NLBENCH_EXECUTOR.

        Raises: SuiteError for a name that is no executor, and for options of another executor.
        """
        chosen = name or os.environ.get("NLBENCH_EXECUTOR", "")
        if chosen:
            _require_known(chosen, f"--executor {name}" if name else f"NLBENCH_EXECUTOR={chosen}")
        for option, value in (("--address", address), ("--gpus-per-run", gpus_per_run)):
            if value is not None and chosen != RAY:
                raise SuiteError(f"{option} {value}: is an option of --executor {RAY}; add that")
        if gpus_per_run is not None and not 0 < gpus_per_run <= 1:
            raise SuiteError(
                f"--gpus-per-run {gpus_per_run:g}: must be above 0 and at most 1, because a run "
                "trains on one GPU; 0.25 lets four runs share one"
            )
        return cls(chosen, address or "", gpus_per_run)

    def check(self, device: str, sharded: bool = False) -> None:
        """Check that the executor can train this sweep.

        Args:
            device: as the user names it.
            sharded: the sweep is one shard of a suite.
        Raises: SuiteError for what the executor cannot do; UserError if its package is not
            installed.
        """
        if self.name != RAY:
            return
        if sharded:
            raise SuiteError(
                "--shard and --executor ray exclude each other: Ray divides the runs among its "
                "nodes; start the command once"
            )
        if ":" in device:
            raise SuiteError(
                f"--device {device}: Ray assigns the GPUs of each node to runs; write --device "
                "cuda. CUDA_VISIBLE_DEVICES, where Ray is started, limits which ones it has"
            )
        if device == "cpu" and self.gpus_per_run is not None:
            raise SuiteError("--gpus-per-run and --device cpu exclude each other")
        # Whoever has to change the command anyway need not install Ray for it.
        if importlib.util.find_spec(RAY) is None:
            raise UserError(
                f"--executor {RAY}: the package ray is not installed: pip install 'nlbench[ray]'"
            )

    @property
    def remote(self) -> bool:
        """Return whether runs are trained on other machines than this one."""
        return bool(self.address)


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
    _require_known(name, f"NLBENCH_EXECUTOR={name}")

    # Imported by its name and only when it is used: training imports torch, and help and tables do
    # without it.
    executor: Executor = importlib.import_module(f"nlbench.executors.{name}")
    return executor


def started_ahead(choice: Choice) -> contextlib.AbstractContextManager[None]:
    """Start the process that makes those of runs, to let it import torch while a suite is checked.

    The next sweep takes it. At the end of the `with` block none is left. An executor that has no
    such process starts none.
    """
    if choice.name not in ("", "workers"):
        return contextlib.nullcontext()
    from nlbench.executors import _fork_server

    return _fork_server.started_ahead()


def end_ahead() -> None:
    """End the process that `started_ahead` has started, where no run needs it."""
    from nlbench.executors import _fork_server

    _fork_server.end_ahead()


def _require_known(name: str, given: str) -> None:
    """Raise SuiteError for a name that is no executor.

    Args:
        given: how the user has named it.
    """
    if name not in names():
        hint = did_you_mean(name, names())
        raise SuiteError(f"{given}: no such executor. There are: {', '.join(names())}.{hint}")
