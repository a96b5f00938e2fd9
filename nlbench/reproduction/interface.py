"""The public function `nlbench.reproduce`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.plan import arguments
from nlbench.plan.arguments import python_interface
from nlbench.plan.options import DEFAULT_TIMEOUT_MINUTES
from nlbench.reproduction import again, draw
from nlbench.reproduction.source import Options
from nlbench.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from nlbench.executors.base import Listener
    from nlbench.plan.options import Jobs


@python_interface
def reproduce(
    out: str | Path = "results",
    *,
    keys: Sequence[str] | None = None,
    sample: int | None = 3,
    seed: int = 0,
    suite: str | None = None,
    suite_file: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    methods_dir: str | Path | None = None,
    jobs: Jobs = 1,
    timeout: float = DEFAULT_TIMEOUT_MINUTES,
    progress: bool = True,
) -> pd.DataFrame:
    """Train finished runs again, and compare their numbers with those of the records.

    They must be the same, bit for bit, where hardware and versions are; elsewhere the accuracy
    after the last epoch must lie within a tolerance. `nlbench.results.rounding` states both. The
    records stay as they are. A run that is reproduced gets a note in its folder.

    Args:
        out: the folder that holds the records.
        keys: the runs, by their keys or the first characters. None draws runs.
        sample: how many finished runs to draw; None for all.
        seed: another one draws other runs.
        suite: draws among the runs of this suite of the folder.
        suite_file: a suite, by name or path, that says where folders, label files, matrices and
            weights lie, because records hold no paths.
        data_dir, device, methods_dir, jobs, timeout, progress: see `nlbench.run`.

    Returns: a line for each run, indexed by key, with method, dataset, seed; `verdict`, one of
        "reproduced bit for bit", "reproduced within the tolerance", "not reproduced" and "could
        not be tried"; `detail`, the reasons; `noted`, whether the folder has a note of it.
    Raises: StoreError for a folder without finished runs and for a key that begins no run or
        several; SuiteError; TypeError or ValueError for an argument of another type or value.
    """
    from nlbench.results import frame

    arguments.check_path("out", out)
    for name, folder in (("data_dir", data_dir), ("methods_dir", methods_dir)):
        arguments.check_path(name, folder, optional=True)
    arguments.check_device(device)
    arguments.check_text("suite", suite)
    arguments.check_seconds("timeout", timeout, "minutes")
    arguments.check_flag("progress", progress)
    named = arguments.check_texts("keys", keys, "keys of runs", '["3f2a", "91bc"]') or []
    count = None if sample is None else arguments.check_count("sample", sample)
    options = Options(
        device, data_dir, methods_dir, suite_file, arguments.check_jobs(jobs), timeout
    )

    store = Store(out, arguments.warn_caller)
    chosen = draw.choose(store, named, sample=count, seed=seed, suite=suite)
    results = again.reproduce(
        store, chosen, options, listener=_with_progress if progress else _without_progress
    )
    return frame.of_records([_as_line(result) for result in results])


def _with_progress(total: int) -> contextlib.AbstractContextManager[Listener]:
    from nlbench.executors.progress import Progress

    return Progress(total)


def _without_progress(total: int) -> contextlib.AbstractContextManager[Listener]:
    from nlbench.executors.base import Listener

    return contextlib.nullcontext(Listener())


def _as_line(result: again.Result) -> dict[str, Any]:
    spec = result.record.spec if result.record is not None else {}
    return {
        "key": result.key,
        "method": spec.get("method"),
        "dataset": spec.get("dataset"),
        "seed": spec.get("seed"),
        "verdict": result.verdict.value,
        "detail": result.detail,
        "noted": result.noted,
    }
