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
    from nlbench.executors.workers import Jobs


@dataclass
class Sweep:
    """A suite made ready: its plan, the runs that were asked for, and their state in the store.

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
        """Write the plan and train what is to do; see `run` for the arguments. `debug` trains one run, in this process.

        Raises: StoreError for a store that cannot be written, SuiteError for published weights that cannot be had and
            for devices that are not there.
        """
        from nlbench import executors
        from nlbench.executors import base, workers

        self.store.require_writable()
        plan = self.plan.as_json()
        todo = self.state.todo[:1] if debug else self.state.todo
        devices = self.devices()
        if debug:
            # One process and one device, so that a debugger can be opened.
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

        for model, weights in {(spec.protocol.model, spec.protocol.weights) for spec in todo}:
            models.fetch_weights(model, weights)
        self._warn_of_lost_rows(plan)
        self._warn_of_slowness(todo, options.device, options.jobs)
        self.store.write_plan(plan)
        planned = [base.Todo(spec, self.state.ages[spec.key]) for spec in todo]
        executor.execute(planned, options, self.store, listener or base.Listener())

    def _warn_of_slowness(self, todo: Sequence[RunSpec], device: torch.device, jobs: int) -> None:
        from nlbench import hardware

        if any(spec.protocol.precision == "bfloat16" for spec in todo) and not hardware.has_bfloat16(device):
            self.store.warn(
                "the protocol's precision is bfloat16, which this hardware has no instructions for: with --set "
                "precision=auto, as runs of their own, it would be float32 here, and may be much faster"
            )
        threads = max((spec.protocol.threads for spec in todo), default=1)
        if device.type == "cpu" and jobs > 1 and jobs * threads > hardware.cores():
            self.store.warn(
                f"--jobs {jobs} of {threads} thread{'s' * (threads > 1)} each are too many for {hardware.cores()} "
                "cores and will slow each other down; --jobs auto is as many as fit"
            )

    def _warn_of_lost_rows(self, plan: dict[str, Any]) -> None:
        """Two suites of one name share one plan file: say what the table of the older one loses."""
        old = self.store.plan(plan["suite"])
        if old is None:
            return
        lost = [r["row"] for r in old["rows"] if r["row"] not in {new["row"] for new in plan["rows"]}]
        lost += [c for c in old["conditions"] if c not in plan["conditions"]]
        if lost:
            self.store.warn(
                f"{self.store.root} held a suite {plan['suite']!r} with {', '.join(lost)}, which this one lacks: its "
                f"table now shows this suite (the records stay; give one of the two another name)"
            )

    def failures(self) -> list[RunRecord]:
        """Records of the runs asked for that failed or diverged."""
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
    """Check a suite whole and find out what is to do; see `run` for the arguments.

    A tuned suite comes in two parts: while a try lacks its record the sweep holds the tries (`plan.tries`), then the
    runs with the settings they chose.
    """
    from nlbench import hardware
    from nlbench.data.places import Places
    from nlbench.executors import base
    from nlbench.plan import tuning

    extra = [Path(methods_dir)] if methods_dir is not None else []
    checked, problems = read_suite(suite)
    if unknown := [row for row in only or () if row not in checked.methods]:
        known = ", ".join(checked.methods)
        lines = (f"--only {r}: no such row. The suite has: {known}.{did_you_mean(r, checked.methods)}" for r in unknown)
        raise SuiteError("\n".join(lines))
    places, store = Places.of_user(data_dir), Store(out, warn)
    devices = functools.cache(functools.partial(base.pick_devices, device))

    def planned(part: Suite) -> Plan:
        return expand(
            part,
            problems,
            places=places,
            settings=overrides,
            seeds=None if part.name.endswith(tuning.TRIES) else seeds,
            methods_dirs=extra,
            auto_precision=lambda: hardware.precision(devices()),
        )

    methods = registry.method_files(extra)

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
    if not plan.tries:
        chosen = [s for s in chosen if (not only or s.row in only) and (seeds is None or s.seed in seeds)]
    state = base.state(chosen, store, methods, stale)
    return Sweep(plan, chosen, state, store, methods, places.data_dir, devices)


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
    """Train what a suite still lacks and return its records, those of earlier calls included.

    Args:
        suite: a path, the bare name of a suite that comes with nlbench, or a mapping with a suite file's content.
        out: the record store.
        only: rows to train; the others stay as they are.
        seeds: seeds to train; ones that the suite does not list are added to its plan.
        overrides: protocol values over the suite's own, for example {"epochs": 2}; another plan and other keys.
        data_dir: else the environment's NLBENCH_DATA, else a folder of the user's.
        device: "auto", "cpu", "cuda", "cuda:1", or several GPUs as "cuda:0,cuda:2".
        methods_dir: a folder of further method files.
        stale: what to do with records made by code that has changed since.
        checkpoint_seconds: a run writes a checkpoint at the first end of an epoch after so long.
        jobs: runs to train at once on each device, in processes of their own; "auto" is as many as the CPU has cores
            for, and one on a GPU. Results do not depend on it.
        cuda_graphs: replay default training steps as CUDA graphs; the results are the same. None is True for our own
            models and False for others. Without effect on a CPU, with compile, and on steps that a method makes itself.

    Returns: as `load`, for the runs asked for, with the column `row`.
    Raises: SuiteError with every problem of the suite; DataMissing, DataError; StoreError. A run that fails or
        diverges raises nothing: its record says so in `status`.
    """
    while True:
        sweep = prepare(
            suite, out=out, only=only, seeds=seeds, overrides=overrides, data_dir=data_dir, device=device,
            methods_dir=methods_dir, stale=stale,
        )  # fmt: skip
        sweep.run(checkpoint_seconds=checkpoint_seconds, jobs=jobs, cuda_graphs=cuda_graphs)
        # A try that failed is no reason to choose another: it comes back in the records, and is tried again next time.
        if not sweep.plan.tries or any(record.status == "failed" for record in sweep.failures()):
            break
    lines = []
    for spec in sweep.specs:
        record = sweep.store.read(spec.key)
        if record is not None:
            lines.append({"row": spec.row, **record.columns()})
    return _frame(lines)


def load(out: str | Path) -> pd.DataFrame:
    """Every record of a store, a row each, indexed by key; no torch needed.

    Columns: status, method, dataset, labels, noise (kind), seed, protocol, model; `params`, a dict; metrics by their
    own names (`last`, `last10`, `best`, `selected`, ..., fractions in [0, 1]); `noise_rate_train` and the other
    measurements; `seconds_train`, `seconds_evaluate`, `seconds_fits`; networks, forward_passes, told; device,
    device_name, precision, torch; `error`, a line for runs that are not done.
    """
    store = Store(out)
    records = [store.read(key) for key in store.run_keys()]
    return _frame([record.columns() for record in records if record is not None])


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    if not lines:
        return pd.DataFrame(columns=["status"])
    return pd.DataFrame(lines).set_index("key")
