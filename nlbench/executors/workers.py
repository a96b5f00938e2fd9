"""Train each run in a process of its own, several at the same time if asked. Same numbers.

So a method that ends, blocks or changes its process does this to its own run alone. `_sweep` says
which run is begun next, `_processes` what becomes of its process, and `_child` what that does. Runs
open decoded data from the same cache files, whose pages the system shares between them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nlbench.executors import _server
from nlbench.executors._budget import Budget
from nlbench.executors._processes import Runs
from nlbench.executors._stopping import StopSignals
from nlbench.executors._sweep import Sweep
from nlbench.executors.base import Todo
from nlbench.results.store import Store
from nlbench.training.context import Listener, RunOptions

# What the fork server may import ahead, because it starts no threads that matter: these packages,
# and modules of nlbench.ops, which bring the packages that they need.
_PRELOADED = ("numpy", "scipy", "sklearn", "torch")
_OPS = "nlbench.ops."


def execute(todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener) -> None:
    """Train `todo` in processes, `options.jobs` on each device, begun in this order.

    If a process dies, for example because memory is short, or shows no sign of life for
    `options.timeout_seconds`, its run gets a record with status "failed". See `base.Executor`.

    Raises: KeyboardInterrupt after Ctrl-C, Terminated after another signal, BudgetSpent at the end
        of the time. The runs have then had some seconds to write a checkpoint.
    """
    if not todo:
        return

    places = places_for(len(todo), options)
    runs = Runs(places, options, store, preloaded(todo, options))
    try:
        with StopSignals(runs.pause, runs.resume) as signals:
            Sweep(todo, runs, signals, Budget(options.ends), listener).share_out()
    finally:
        # Also after an error: no process may outlive this sweep.
        runs.end()


def places_for(count: int, options: RunOptions) -> list[torch.device]:
    """Return a device for each run that may go on at the same time, of `count` in all."""
    # Device by device, so that with few runs each device gets one before any gets a second.
    places = [device for _ in range(options.jobs) for device in options.devices]
    return places[:count]


def preloaded(todo: Sequence[Todo], options: RunOptions) -> list[str]:
    """Return the modules that the methods and datasets of these runs import, as far as it helps."""
    found = {"nlbench.training.train"}
    for name in {run.spec.method for run in todo}:
        found |= set(_imports(options.methods[name].path))
    # These two are arrays from the beginning. Others may be image files.
    arrays = {"digits", "gaussians"}
    if {run.spec.condition.dataset for run in todo} - arrays:
        found.add(_server.DECODES)
    return sorted(found)


def _imports(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        # Loading the method reports it.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.startswith(_OPS) or name.partition(".")[0] in _PRELOADED:
                yield name
