"""The Python API: run a suite, load its records. The command line calls the same functions."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nlbench import models, registry
from nlbench.errors import SuiteError, did_you_mean
from nlbench.plan.expand import expand
from nlbench.plan.spec import Plan, RunSpec
from nlbench.plan.suite_file import Suite, read_suite
from nlbench.results.record import RunRecord
from nlbench.results.store import Store, Warn

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from nlbench.executors.base import Listener, State
    from nlbench.plan.options import Jobs


@dataclass
class Sweep:
    """A checked suite: its plan, the runs that were asked for, and their state in the store.

    Attributes:
        devices: returns the devices that the user named. They are looked for when they are needed.
    """

    plan: Plan
    specs: list[RunSpec]
    state: State
    store: Store
    methods: dict[str, registry.MethodFile]
    data_dir: Path
    devices: Callable[[], tuple[torch.device, ...]]

    def run(
        self,
        listener: Listener | None = None,
        *,
        checkpoint_seconds: float = 10.0,
        debug: bool = False,
        jobs: Jobs = 1,
        cuda_graphs: bool | None = None,
    ) -> None:
        """Write the plan, and train the runs of `state.todo`.

        Args:
            listener: gets reports on the runs.
            debug: train only the first run, in this process, and raise its error.
            checkpoint_seconds, jobs, cuda_graphs: see `nlbench.run`.
        Raises: StoreError for a store that cannot be written; SuiteError for published weights that
            cannot be had and for devices that do not exist.
        """
        from nlbench import executors
        from nlbench.executors import base, workers

        self.store.require_writable()
        todo = self.state.todo[:1] if debug else self.state.todo
        devices = self.devices()
        if debug:
            # A debugger needs one process and one device.
            devices, jobs = devices[:1], 1
        options = base.RunOptions(
            devices=devices,
            data_dir=self.data_dir,
            methods=self.methods,
            checkpoint_seconds=checkpoint_seconds,
            cuda_graphs=cuda_graphs,
            jobs=workers.count_jobs(jobs, todo, devices),
            debug=debug,
            executor=os.environ.get("NLBENCH_EXECUTOR", ""),
        )
        executor = executors.choose(options)

        # Workers would otherwise download the same weights at the same time.
        for model, weights in {(spec.protocol.model, spec.protocol.weights) for spec in todo}:
            models.fetch_weights(model, weights)

        plan = self.plan.as_json()
        self._warn_of_lost_rows(plan)
        self._warn_of_slowness(todo, options.device, options.jobs)
        self.store.write_plan(plan)
        planned = [base.Todo(spec, self.state.ages[spec.key]) for spec in todo]
        executor.execute(planned, options, self.store, listener or base.Listener())

    def _warn_of_slowness(self, todo: Sequence[RunSpec], device: torch.device, jobs: int) -> None:
        from nlbench import hardware

        bfloat16 = any(spec.protocol.precision == "bfloat16" for spec in todo)
        if bfloat16 and not hardware.has_bfloat16(device):
            self.store.warn(
                "This hardware has no bfloat16 instructions, so the protocol's precision bfloat16 "
                "may be much slower than float32. Add --set precision=auto to train in float32. "
                "(These count as separate runs.)"
            )

        threads = max((spec.protocol.threads for spec in todo), default=1)
        cores = hardware.cores()
        if device.type == "cpu" and jobs > 1 and jobs * threads > cores:
            self.store.warn(
                f"--jobs {jobs} of {threads} thread{'s' * (threads > 1)} each are too many for "
                f"{cores} cores: the runs will slow each other down. --jobs auto is as many as fit."
            )

    def _warn_of_lost_rows(self, plan: dict[str, Any]) -> None:
        """Warn if this plan replaces one of the same name that has other rows or conditions."""
        old = self.store.plan(plan["suite"])
        if old is None:
            return

        rows = {row["row"] for row in plan["rows"]}
        lost = [row["row"] for row in old["rows"] if row["row"] not in rows]
        lost += [title for title in old["conditions"] if title not in plan["conditions"]]
        if lost:
            self.store.warn(
                f"{self.store.root} held a suite {plan['suite']!r} with {', '.join(lost)}, which "
                f"this one lacks. Its table now shows this suite. The records stay; rename one of "
                f"the two suites to keep both tables."
            )

    def failures(self) -> list[RunRecord]:
        """Return the records of the runs asked for that failed or diverged."""
        records = (self.store.read(spec.key) for spec in self.specs)
        return [record for record in records if record is not None and record.status != "done"]


def prepare(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "results",
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    methods_dir: str | Path | None = None,
    stale: Literal["keep", "rerun"] = "keep",
    warn: Warn = lambda line: None,
) -> Sweep:
    """Check a whole suite, and find out which of its runs are still to be trained.

    A tuned suite has two stages. While a try lacks its record, the sweep holds the tries
    (`plan.tries`); after that, it holds the runs with the settings that the tries chose.

    Args: see `run`; `warn` gets each warning as a line of text.
    Raises: as `run`.
    """
    from nlbench import hardware
    from nlbench.data.places import Places
    from nlbench.executors import base
    from nlbench.plan import tuning

    checked, problems = read_suite(suite)
    _check_only(only, checked)
    methods_dirs = [Path(methods_dir)] if methods_dir is not None else []
    methods = registry.method_files(methods_dirs)
    places, store = Places.of_user(data_dir), Store(out, warn)
    devices = functools.cache(functools.partial(base.pick_devices, device))

    def planned(part: Suite) -> Plan:
        # Tries have a seed of their own, whatever seeds were asked for.
        are_tries = part.name.endswith(tuning.TRIES)
        return expand(
            part,
            problems,
            places=places,
            settings=overrides,
            seeds=None if are_tries else seeds,
            methods_dirs=methods_dirs,
            auto_precision=lambda: hardware.precision(devices()),
        )

    def pending(part: Plan) -> bool:
        return bool(base.state(part.specs, store, methods, stale).todo)

    def score(spec: RunSpec) -> float | None:
        record = store.read(spec.key)
        if record is None or record.status != "done":
            return None
        return record.metrics["val_last"]

    if checked.track == "tuned":
        plan = tuning.stage(checked, problems, only, planned, pending, score)
    else:
        plan = planned(checked)

    chosen = plan.specs
    if only and not plan.tries:
        chosen = [spec for spec in chosen if spec.row in only]
    if seeds is not None and not plan.tries:
        chosen = [spec for spec in chosen if spec.seed in seeds]
    state = base.state(chosen, store, methods, stale)
    return Sweep(plan, chosen, state, store, methods, places.data_dir, devices)


def _check_only(only: Sequence[str] | None, suite: Suite) -> None:
    """Raise SuiteError for each name in `only` that is no row of the suite."""
    known = ", ".join(suite.methods)
    problems = []
    for row in only or ():
        if row not in suite.methods:
            hint = did_you_mean(row, suite.methods)
            problems.append(f"--only {row}: no such row. The suite has: {known}.{hint}")
    if problems:
        raise SuiteError("\n".join(problems))


def run_stages(
    sweep: Sweep, prepare_again: Callable[[], Sweep], train: Callable[[Sweep], None]
) -> Sweep:
    """Train a sweep; of a tuned suite the tries first, then the runs with the chosen settings.

    Args:
        prepare_again: prepares the same suite, after its tries have been trained.
        train: trains one sweep.
    Returns: the sweep of the last stage, whose table is the result.
    """
    while True:
        train(sweep)
        # After a failed try there would be fewer settings to choose from. The choice waits for the
        # next call, which repeats that try.
        failed = any(record.status == "failed" for record in sweep.failures())
        if not sweep.plan.tries or failed:
            return sweep
        sweep = prepare_again()


def run(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "results",
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    methods_dir: str | Path | None = None,
    stale: Literal["keep", "rerun"] = "keep",
    checkpoint_seconds: float = 10.0,
    jobs: Jobs = 1,
    cuda_graphs: bool | None = None,
) -> pd.DataFrame:
    """Train the runs that a suite still lacks, and return its records, older ones included.

    Args:
        suite: a path, the name of a suite that comes with nlbench, or a mapping with the content of
            a suite file.
        out: the folder that holds the records.
        only: rows to train; the others stay as they are.
        seeds: seeds to train; those that the suite does not list are added to its plan.
        overrides: values that replace the protocol's, for example {"epochs": 2}. The result is
            another plan with other run keys.
        data_dir: the folder with the datasets. The default is the environment variable
            NLBENCH_DATA, or else a folder of the user.
        device: "auto", "cpu", "cuda", "cuda:1", or several GPUs as "cuda:0,cuda:2".
        methods_dir: a folder with more method files.
        stale: keep or train again the records made by an older version of the code.
        checkpoint_seconds: a run writes a checkpoint at the end of an epoch, if the last one is at
            least so old.
        jobs: number of runs to train in parallel on each device, each in a process of its own.
            "auto" is as many as the CPU cores allow, and one on a GPU. Results do not depend on it.
        cuda_graphs: on a GPU, replay default training steps as CUDA graphs, with the same results.
            None means True for nlbench's own models and False for others. It has no effect on a
            CPU, with `compile`, and on training steps that a method defines itself.

    Returns: as `load`, for the runs asked for, with the column `row`.
    Raises: SuiteError with every problem of the suite; DataMissing, DataError; StoreError. A run
        that fails or diverges raises nothing: its record says so in `status`.
    """
    prepare_again = functools.partial(
        prepare,
        suite,
        out=out,
        only=only,
        seeds=seeds,
        overrides=overrides,
        data_dir=data_dir,
        device=device,
        methods_dir=methods_dir,
        stale=stale,
    )

    def train(sweep: Sweep) -> None:
        sweep.run(checkpoint_seconds=checkpoint_seconds, jobs=jobs, cuda_graphs=cuda_graphs)

    sweep = run_stages(prepare_again(), prepare_again, train)
    lines = []
    for spec in sweep.specs:
        record = sweep.store.read(spec.key)
        if record is not None:
            lines.append({"row": spec.row, **record.columns()})
    return _frame(lines)


def load(out: str | Path) -> pd.DataFrame:
    """Return every record of a folder, one line each, indexed by key. Needs no torch.

    Columns: status, method, dataset, labels, noise (its kind), seed, protocol, model; `params`, a
    dict; metrics by their keys (`last`, `last10`, `best`, `selected`, ..., fractions in [0, 1]);
    `noise_rate_train` and the other measurements; `seconds_train`, `seconds_evaluate`,
    `seconds_fits`; networks, forward_passes, told; device, device_name, precision, torch; `error`,
    one line for runs that are not done.
    """
    store = Store(out)
    records = [store.read(key) for key in store.run_keys()]
    return _frame([record.columns() for record in records if record is not None])


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    if not lines:
        return pd.DataFrame(columns=["status"])
    return pd.DataFrame(lines).set_index("key")
