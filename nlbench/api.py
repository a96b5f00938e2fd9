"""The Python API: run a suite, load its records. The command line calls the same functions."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nlbench import executors, models, registry
from nlbench.errors import BudgetSpent, StoreError, SuiteError, did_you_mean, place_of_condition
from nlbench.executors import RAY, Choice
from nlbench.plan import arguments, shards
from nlbench.plan.arguments import python_interface
from nlbench.plan.arguments import warn_caller as _warn
from nlbench.plan.expand import expand, plan_name
from nlbench.plan.memories import Room
from nlbench.plan.options import DEFAULT_TIMEOUT_MINUTES, command_line, parse_shard
from nlbench.plan.shards import Shard
from nlbench.plan.spec import Plan, RunSpec, differing_value
from nlbench.plan.suite_file import Suite, read_suite
from nlbench.results.formats import WIDTH
from nlbench.results.guess import name_of_suite, seems_done
from nlbench.results.leftovers import tidy
from nlbench.results.record import RunRecord
from nlbench.results.requested import has_gradients, has_probabilities
from nlbench.results.store import Store, Warn

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from nlbench.executors.base import Listener, State, Trained, Way
    from nlbench.plan.options import Jobs
    from nlbench.results.merge import MergeReport
    from nlbench.watching import Logger


@dataclass
class Sweep:
    """A checked suite: its plan, the runs that were asked for, and their state in the store.

    Attributes:
        devices: returns the devices that the user named. They are looked for when they are needed.
        looked_at: the keys of the runs whose records were read to prepare the sweep. Of a tuned
            suite they are those of its tries, too.
        executor: the executor that the user named.
        command: the command that prepares the same sweep, without --out; empty where the suite is
            in no file.
        shard: the part of `specs` that this process begins with; None for all of them.
        own: the keys of the shard's runs.
    """

    plan: Plan
    specs: list[RunSpec]
    state: State
    store: Store
    methods: dict[str, registry.MethodFile]
    data_dir: Path
    devices: Callable[[], tuple[torch.device, ...]]
    looked_at: set[str] = field(default_factory=set)
    executor: Choice = field(default_factory=Choice)
    command: str = ""
    shard: Shard | None = None
    own: frozenset[str] = frozenset()

    def run(
        self,
        listener: Listener | None = None,
        *,
        checkpoint_seconds: float = 10.0,
        checkpoint_epochs: int = 0,
        debug: bool = False,
        jobs: Jobs | None = None,
        cuda_graphs: bool | None = None,
        whole_steps: bool = False,
        save_weights: bool = False,
        save_probabilities: bool = False,
        record_gradients: bool = False,
        timeout: float = DEFAULT_TIMEOUT_MINUTES,
        ends: float = math.inf,
    ) -> None:
        """Write the plan, and train the runs of `state.todo`.

        Args:
            listener: gets reports on the runs.
            debug: train only the first run, in this process, and raise its error.
            checkpoint_seconds, checkpoint_epochs, jobs, cuda_graphs, whole_steps, save_weights,
                save_probabilities, record_gradients, timeout: see `nlbench.run`.
            ends: when the time that the user gave is over, on the monotonic clock.
        Raises: StoreError for a store that cannot be written; SuiteError for published weights that
            cannot be had and for devices that do not exist; BudgetSpent if runs are left at the
            end of the time.
        """
        from nlbench.executors import base

        self.store.require_writable()
        tidy(self.store, sorted(self.looked_at))
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
            whole_steps=whole_steps,
            jobs=self._count_jobs(jobs, todo, devices),
            debug=debug,
            save_weights=save_weights,
            save_probabilities=save_probabilities,
            record_gradients=record_gradients,
            executor=self.executor.name,
            address=self.executor.address,
            gpus_per_run=self.executor.gpus_per_run or 1.0,
            timeout_seconds=60 * timeout,
            leave_held=self._leaves_held(),
            checkpoint_epochs=checkpoint_epochs,
            ends=ends,
        )

        self._refuse_what_cannot_fit(todo, devices, options.jobs)

        # Workers would otherwise download the same weights at the same time.
        for model, weights in {(spec.protocol.model, spec.protocol.weights) for spec in todo}:
            models.fetch_weights(model, weights)

        for line in self.about_data(folders_only=True)[1] if todo else ():
            self.store.warn(f"warning: {line}")

        if save_weights:
            self._warn_of_missing("--save-weights", "weights", _has_weights)
        if save_probabilities:
            self._warn_of_missing("--save-probabilities", "probabilities", has_probabilities)
        if record_gradients:
            self._warn_of_missing("--record-gradients", "gradients", self._needs_no_gradients)
            self._warn_of_whole_gradients()
        plan = {
            **self.plan.as_json(),
            "method_files": self._method_files(),
            "command": self.command,
        }
        self._warn_of_lost_runs(plan)
        self._warn_of_slowness(todo, options.device, options.jobs)
        if whole_steps and todo:
            self._warn_of_steps(todo, options.device, cuda_graphs)
        self.store.write_plan(plan)
        # Importing an executor takes a moment, which a suite that is done can do without.
        if todo:
            planned = [base.Todo(spec, self.state.ages[spec.key]) for spec in todo]
            executor = executors.choose(options)
            executor.execute(planned, options, self.store, listener or base.Listener())
        self._require_results()
        # The process of a run may have been killed after its record was written. Where this call
        # ends the suite, no other would remove what it left.
        tidy(self.store, sorted(self.store.ended))

    def _count_jobs(
        self, jobs: Jobs | None, todo: Sequence[RunSpec], devices: Sequence[torch.device]
    ) -> int:
        """Return how many runs may go on at the same time, as `RunOptions.jobs`."""
        from nlbench.executors import base

        if self.executor.name == RAY:
            # Ray knows for how many each node has room.
            return jobs if isinstance(jobs, int) else 0
        return base.count_jobs(jobs or 1, todo, devices)

    def ways_to_be_faster(self, jobs: Jobs | None) -> list[Way]:
        """Return what would make the runs to do take less time.

        Args:
            jobs: as the user names it.
        """
        from nlbench.executors import base
        from nlbench.plan import tuning

        # Nobody knows here what the nodes of a cluster can do.
        if self.executor.name == RAY or not self.state.todo:
            return []
        devices, todo = self.devices(), self.state.todo
        if self.plan.tries:
            # The user narrows the suite to rows, and not to tries.
            todo = [replace(spec, row=tuning.row_and_number(spec.row)[0]) for spec in todo]
        return base.ways_to_be_faster(todo, devices[0], self._count_jobs(jobs, todo, devices))

    def about_memory(self, above: int = 0) -> list[str]:
        """Return a line on what each row keeps of each example and class, if so many bytes."""
        titles = {need.dataset for need in self.plan.needs.values()}
        lines: dict[str, None] = {}
        for spec in self.specs:
            need = self.plan.needs.get((spec.row, spec.condition.dataset))
            if need is not None and need.memories and need.kept >= above:
                place = f"{need.dataset}: " if len(titles) > 1 else ""
                lines[f"{place}{need}"] = None
        return list(lines)

    def _refuse_what_cannot_fit(
        self, todo: Sequence[RunSpec], devices: Sequence[torch.device], jobs: int
    ) -> None:
        """Raise SuiteError if runs need more memory than this machine and its GPUs have."""
        from nlbench import hardware

        # Nobody knows here what other machines have.
        if self.executor.name == RAY:
            return
        gpus = [hardware.gpu_memory_bytes(device) for device in devices if device.type == "cuda"]
        room = Room(hardware.memory_bytes(), len(gpus), min(gpus, default=0), jobs)
        wanted = [self.plan.needs.get((spec.row, spec.condition.dataset)) for spec in todo]
        lines = room.refusals([need for need in wanted if need is not None])
        if lines:
            raise SuiteError("\n".join(lines))

    def _leaves_held(self) -> bool:
        """Return whether this process ends while others still train runs of the suite."""
        if self.shard is None:
            return False
        # What the tries of all shards choose is trained next, so it is worth waiting for them. A
        # shard that leaves the tries of others alone might wait for one that has not begun.
        return not (self.plan.tries and self.shard.leftovers)

    def _warn_of_missing(self, option: str, what: str, has: Callable[[Path], bool]) -> None:
        """Warn of runs that are done and lack what an option keeps: it is had by training again.

        Args:
            what: that, as a word of the message.
            has: returns whether the folder of a run has it.
        """
        todo = {spec.key for spec in self.state.todo}
        done = {spec.key for spec in self.specs if spec.key in self.state.done} - todo
        lost = [key for key in done if not has(self.store.run_dir(key))]
        if lost:
            runs = "1 run was" if len(lost) == 1 else f"{len(lost)} runs were"
            self.store.warn(
                f"{runs} trained before without {option}, so their {what} are not there. "
                "Another --out trains them again."
            )

    def _needs_no_gradients(self, folder: Path) -> bool:
        """Return whether a run has recorded its gradients, or would have none either way."""
        record = self.store.read(folder.name)
        if record is None or record.spec["method"] in self._methods_without_parts():
            return True
        # Without true labels there is nothing to record.
        return record.noise.get("noise_rate_train") is None or has_gradients(folder)

    def _warn_of_whole_gradients(self) -> None:
        """Name the rows of which `--record-gradients` records nothing."""
        without = self._methods_without_parts()
        rows = dict.fromkeys(spec.row for spec in self.specs if spec.method in without)
        if rows:
            have = "has" if len(rows) == 1 else "have"
            self.store.warn(
                f"--record-gradients: {', '.join(rows)} {have} no columns of gradients in "
                "history.csv: the method does not tell the terms of its loss apart. A method of "
                "your own does so by the hook gradient_parts"
            )

    def _methods_without_parts(self) -> set[str]:
        """Return the methods of the suite that have no `gradient_parts`."""
        names = {spec.method for spec in self.specs}
        return {name for name in names if not registry.tells_parts(self.methods[name])}

    def _require_results(self) -> None:
        """Raise StoreError where runs have ended and their records or the plan are not there."""
        lost = [key for key in self.store.ended if self.store.check(key) is None]
        if not lost and self.store.plan(self.plan.name) is not None:
            return
        runs = "1 run has" if len(lost) == 1 else f"{len(lost)} runs have"
        raise StoreError(
            f"{self.store.root}: {runs} ended and left no record, or the suite's plan is gone. Was "
            "the folder removed or replaced meanwhile? The same command trains the runs again"
        )

    def _method_files(self) -> dict[str, str]:
        """Return the files of the plan's methods that do not come with nlbench, by name.

        With them `nlbench table` can tell which records are stale without --methods-dir.
        """
        found = {}
        for name in sorted({spec.method for spec in self.plan.specs}):
            file = self.methods[name]
            if not file.module:
                found[name] = str(file.path.resolve())
        return found

    def _warn_of_slowness(self, todo: Sequence[RunSpec], device: torch.device, jobs: int) -> None:
        from nlbench import hardware

        # Nobody knows the processors of other machines here.
        if self.executor.remote:
            return
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

    def _warn_of_steps(
        self, todo: Sequence[RunSpec], device: torch.device, cuda_graphs: bool | None
    ) -> None:
        """Warn of runs whose steps are not captured whole, although that was asked for."""
        if device.type != "cuda":
            self.store.warn(
                "--whole-steps has no effect: it needs a GPU, and these runs are trained on the "
                f"{device.type.upper()}"
            )
            return

        used = {spec.protocol.model for spec in todo}
        others = sorted(model for model in used if not models.is_repeatable(model))
        if others and cuda_graphs is not True:
            self.store.warn(
                f"--whole-steps: steps of {', '.join(others)} are not captured, because a CUDA "
                "graph would not notice if the model's Python code did something else in each "
                "step. If you know that it does not, add --cuda-graphs"
            )

    def _warn_of_lost_runs(self, plan: dict[str, Any]) -> None:
        """Warn if this plan replaces one of the same name whose table has other rows or runs."""
        try:
            old = self.store.plan(plan["suite"])
        except StoreError:
            # Writing the new plan says so.
            return
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
            return

        # With edited settings, or with other data, the same rows have other runs.
        titles = old["conditions"]
        old_keys = {(c["row"], titles[c["condition"]], c["seed"]): c["key"] for c in old["cells"]}
        ended, changed = 0, ""
        for spec in self.plan.specs:
            key = old_keys.get((spec.row, spec.condition.title, spec.seed), spec.key)
            if key == spec.key:
                continue
            try:
                record = self.store.read(key)
            except StoreError:
                # One that a later version wrote. This suite does not need it.
                continue
            if record is not None:
                ended += 1
                changed = changed or differing_value(record.spec, spec.identity())
        if ended:
            self.store.warn(
                f"{self.store.root} held a suite {plan['suite']!r} with another {changed}, and "
                f"{ended} of its runs had ended. Its table now shows the new runs. The records "
                "stay; rename one of the two suites, or give this one another folder, to keep both "
                "tables."
            )

    def about_data(self, *, folders_only: bool = False) -> tuple[list[str], list[str]]:
        """Return a line on the classes of each dataset, and what is odd in them."""
        from nlbench.data.places import Places
        from nlbench.plan.conditions import about_data

        places = Places.of_user(self.data_dir)
        return about_data(self.plan.conditions, places, folders_only=folders_only)

    def failures(self) -> list[RunRecord]:
        """Return the records of the runs asked for that failed or diverged.

        A shard answers for its own runs, and for those of others that it has trained.
        """
        failures = []
        for spec in self.specs:
            record = self.store.read(spec.key)
            now = self.store.ended.get(spec.key)
            if self.shard is not None and now is None and spec.key not in self.own:
                continue
            # The older record of a run that failed when it was trained again is kept.
            if now is not None and now.status == "failed":
                record = now
            if record is not None and record.status != "done":
                failures.append(record)
        return failures

    def missing(self) -> int:
        """Return how many of the runs asked for have no record."""
        return sum(self.store.read(key) is None for key in {spec.key for spec in self.specs})


def started_ahead(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "results",
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    conditions: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    stale: Literal["keep", "rerun"] = "keep",
    executor: Choice,
    shard: Shard | None = None,
) -> contextlib.AbstractContextManager[None]:
    """Start importing what runs need while `prepare` checks the suite, if any seem to be left.

    Args: see `prepare`.
    Returns: a context. A sweep that is run in it begins its first run seconds sooner.
    """
    plan = plan_name(name_of_suite(suite), overrides or {})
    done = seems_done(Path(out), plan, rows=only, seeds=seeds, conditions=conditions, shard=shard)
    if done and stale == "keep":
        return contextlib.nullcontext()
    return executors.started_ahead(executor)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Switch Python's garbage collector off within a `with` block, where torch may be imported.

    It would look for unused objects again and again among those of 1,200 modules, and find next to
    none. Without it the import takes a sixth less time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collector()
def prepare(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "results",
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    conditions: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    methods_dir: str | Path | None = None,
    stale: Literal["keep", "rerun"] = "keep",
    executor: Choice | None = None,
    shard: Shard | None = None,
    elsewhere: bool = False,
    warn: Warn = lambda line: None,
) -> Sweep:
    """Check a whole suite, and find out which of its runs are still to be trained.

    A tuned suite has two stages. While a try lacks its record, the sweep holds the tries
    (`plan.tries`); after that, it holds the runs with the settings that the tries chose.

    The runs to do of a shard are its own, followed by those of the other shards that have no
    record, or a stale one that is to be trained again. Who tries a run again that has failed is the
    shard that it belongs to: otherwise each of them would.

    Args: see `run`; `warn` gets each warning as a line of text. `executor` is by default the one
        that NLBENCH_EXECUTOR names.
        elsewhere: the runs are for another machine, so this one's devices are not asked for what
            they can. A precision "auto" stays undecided, and with it the keys of such runs.
    Raises: as `run`.
    """
    from nlbench import hardware
    from nlbench.data.places import Places
    from nlbench.executors import base
    from nlbench.plan import tuning

    choice = Choice.of_user() if executor is None else executor
    choice.check(device, sharded=shard is not None)
    checked, problems = read_suite(suite)
    _check_only(only, checked)
    methods_dirs = [Path(methods_dir)] if methods_dir is not None else []
    methods = registry.method_files(methods_dirs)
    places, store = Places.of_user(data_dir), Store(out, warn)
    pick_devices = base.device_of_cluster if choice.remote else base.pick_devices
    devices = functools.cache(functools.partial(pick_devices, device))

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
            auto_precision=lambda: (
                "auto" if elsewhere else hardware.precision(base.seen_here(devices()))
            ),
        )

    looked_at: set[str] = set()

    def pending(part: Plan) -> bool:
        looked_at.update(spec.key for spec in part.specs)
        return bool(base.state(part.specs, store, methods, stale).todo)

    def score(spec: RunSpec) -> float | None:
        record = store.read(spec.key)
        if record is None or record.status != "done":
            return None
        return record.metrics.get("val_last")

    if checked.track == "tuned":
        if conditions is not None:
            raise SuiteError(
                "--condition: a tuned suite chooses its settings for all labels and noises of a "
                "dataset together; leave --condition out"
            )
        plan = tuning.stage(checked, problems, only, planned, pending, score)
    else:
        plan = planned(checked)

    chosen = plan.specs
    if only and not plan.tries:
        chosen = [spec for spec in chosen if spec.row in only]
    if seeds is not None and not plan.tries:
        chosen = [spec for spec in chosen if spec.seed in seeds]
    if conditions is not None:
        titles = [condition.title for condition in plan.conditions]
        named = {titles[place_of_condition(name, titles, plan.name)] for name in conditions}
        chosen = [spec for spec in chosen if spec.condition.title in named]
    state = base.state(chosen, store, methods, stale)
    looked_at.update(spec.key for spec in chosen)
    more_seeds = seeds is not None and not plan.tries and not set(seeds) <= set(checked.seeds)
    command = command_line(
        None if isinstance(suite, Mapping) else Path(problems.source),
        settings=overrides or {},
        seeds=sorted({spec.seed for spec in plan.specs}) if more_seeds else (),
        methods_dir=methods_dir,
        data_dir=data_dir,
    )
    if not state.todo:
        executors.end_ahead()
    sweep = Sweep(
        plan, chosen, state, store, methods, places.data_dir, devices, looked_at, choice, command
    )
    return sweep if shard is None else _sharded(sweep, shard)


def _sharded(sweep: Sweep, shard: Shard) -> Sweep:
    """Return the sweep of one shard."""
    divided = shards.divide(sweep.specs, shard.count)
    own = frozenset(spec.key for spec in divided[shard.number - 1])

    state = sweep.state
    todo = {spec.key: spec for spec in state.todo}
    turn = [spec for key, spec in todo.items() if key in own]
    if shard.leftovers:
        for spec in shards.others(divided, shard.number):
            if spec.key in todo and spec.key not in state.failed:
                turn.append(spec)
    return replace(sweep, state=replace(state, todo=turn), shard=shard, own=own)


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

    Tries that Optuna proposes come in several sweeps.

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
        tried = {spec.key for spec in sweep.specs}
        sweep = prepare_again()
        # Tries are left that belong to other shards, and the settings cannot be chosen yet.
        if sweep.plan.tries and tried.issuperset(spec.key for spec in sweep.specs):
            return sweep


@python_interface
def run(
    suite: str | Path | Mapping[str, Any],
    *,
    out: str | Path = "results",
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    conditions: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    methods_dir: str | Path | None = None,
    stale: Literal["keep", "rerun"] = "keep",
    checkpoint_seconds: float = 10.0,
    jobs: Jobs | None = None,
    cuda_graphs: bool | None = None,
    whole_steps: bool = False,
    save_weights: bool = False,
    timeout: float = DEFAULT_TIMEOUT_MINUTES,
    executor: str | None = None,
    address: str | None = None,
    gpus_per_run: float | None = None,
    shard: str | None = None,
    leftovers: bool = True,
    progress: bool = True,
    checkpoint_epochs: int = 0,
    budget: str | float | None = None,
    save_probabilities: bool = False,
    record_gradients: bool = False,
    loggers: Sequence[str | Logger] = (),
) -> pd.DataFrame:
    """Train the runs that a suite still lacks, and return its records, older ones included.

    Each warning is a NlbenchWarning, and so is the number of runs that failed.

    Args:
        suite: a path, the name of a suite that comes with nlbench, or a mapping with the content of
            a suite file.
        out: the folder that holds the records.
        only: rows to train, for example ["ce", "elr"]; the others stay as they are.
        seeds: seeds to train, for example range(3); those that the suite does not list are added to
            its plan.
        conditions: datasets with their labels or noise to train on, as tables print them, such as
            ["CIFAR-10N worst"]; or a part of the name that fits one alone.
        overrides: values that replace the protocol's, for example {"epochs": 2}. The result is
            another plan with other run keys.
        data_dir: the folder with the datasets. The default is the environment variable
            NLBENCH_DATA, or else a folder of the user.
        device: "auto", "cpu", "cuda", "cuda:1", or several GPUs as "cuda:0,cuda:2".
        methods_dir: a folder with more method files.
        stale: keep or train again the records made by an older version of the code.
        checkpoint_seconds: a run writes a checkpoint at the end of an epoch, and in a long epoch
            between two steps, if the last one is at least so old.
        jobs: number of runs to train in parallel on each device, each in a process of its own; 1
            by default. "auto" is as many as the CPU cores allow, and one on a GPU. With the
            executor "ray": the largest number in parallel in all, by default as many as there is
            room for. Results do not depend on it.
        cuda_graphs: on a GPU, replay default training steps as CUDA graphs, with the same results.
            None means True for nlbench's own models and False for others. It has no effect on a
            CPU, with `compile`, and on training steps that a method defines itself.
        whole_steps: on a GPU, capture whole training steps as one CUDA graph, with the same
            results, where the method allows it. Not measured on a GPU yet, and off by default.
            Steps of models of torchvision and timm are captured only if `cuda_graphs` is True, too.
            Without a GPU it has no effect, and a warning says so.
        save_weights: keep the weights of the final networks of each run that is trained now, for
            `load_weights`.
        timeout: minutes after which a run that shows no sign of life is ended as failed; 0 for no
            limit.
        executor: "workers", the default; "local" trains in this process, and "ray" on a Ray cluster
            or a Ray of this machine. The environment variable NLBENCH_EXECUTOR names another
            default.
        address: with the executor "ray", the cluster: "HOST:PORT" or "auto". By default Ray is
            started on this machine for this call.
        gpus_per_run: with the executor "ray", the part of a GPU that it reserves for each run; 1 by
            default.
        shard: "2/8" trains the second of eight parts of the suite's runs, for eight processes that
            share `out`. Runs that another process is training are not waited for.
        leftovers: a shard also trains, after its own runs, those of other shards that nobody has
            begun.
        progress: show the progress on standard error: live in a terminal or a notebook, else a line
            for each run.
        checkpoint_epochs: a run also writes a checkpoint after so many epochs; 0 for no such rule.
        budget: the time for this call, as seconds or as a text such as "6h", "90m" or "1:30:00".
            Before its end the runs that go on write checkpoints and stop, and a warning says how
            many are left.
        save_probabilities: keep the predicted probabilities of all training, validation and test
            images of each run that is trained now, as float16 in predictions.npz. Where they are at
            most 20,000 numbers they are always kept.
        record_gradients: keep, for each epoch of each run that is trained now, the mean gradient at
            the true class, for right and for wrong labels and each term of the loss apart. For
            methods that have the hook `gradient_parts`, such as ce and elr.
        loggers: show the runs that are trained now elsewhere, epoch by epoch: "tensorboard",
            "tensorboard:FOLDER", "wandb:PROJECT", "mlflow:ADDRESS", "mlflow:EXPERIMENT", a file
            such as "my_logger.py", or an object with the methods of `nlbench.watching.Logger`.
            They change no result, and one that fails is switched off with a warning.

    Returns: as `load`, for the runs asked for: a line for each row, condition and seed.
    Raises: SuiteError with every problem of the suite; DataMissing, DataError; StoreError;
        TypeError or ValueError for an argument of another type or value. A run that fails or
        diverges raises nothing: its record says so in `status`.
    """
    arguments.check_suite(suite)
    _check_folders(out=out, data_dir=data_dir, methods_dir=methods_dir)
    arguments.check_device(device)
    arguments.check_choice("stale", stale, ("keep", "rerun"))
    arguments.check_seconds("checkpoint_seconds", checkpoint_seconds)
    arguments.check_seconds("timeout", timeout, "minutes")
    arguments.check_epochs("checkpoint_epochs", checkpoint_epochs)
    ends = time.monotonic() + arguments.check_budget(budget)
    arguments.check_flag("cuda_graphs", cuda_graphs, optional=True)
    arguments.check_flag("whole_steps", whole_steps)
    arguments.check_flag("save_weights", save_weights)
    arguments.check_flag("save_probabilities", save_probabilities)
    arguments.check_flag("record_gradients", record_gradients)
    arguments.check_flag("progress", progress)
    if isinstance(loggers, str):
        raise TypeError(f'loggers must be a list, got {loggers!r}; for one: ["{loggers}"]')
    parallel_jobs = None if jobs is None else arguments.check_jobs(jobs)
    arguments.check_text("executor", executor)
    arguments.check_text("address", address)
    arguments.check_number("gpus_per_run", gpus_per_run)
    arguments.check_flag("leftovers", leftovers)
    arguments.check_text("shard", shard)
    only = arguments.check_texts("only", only, "row names", '["ce", "elr"]')
    seeds = arguments.check_seeds(seeds)
    conditions = arguments.check_texts("conditions", conditions, "conditions", '["worst"]')
    overrides = arguments.check_overrides(overrides)
    choice = Choice.of_user(executor, address, gpus_per_run)
    part = None if shard is None else parse_shard(shard, leftovers)
    prepare_again = functools.partial(
        prepare,
        suite,
        out=out,
        only=only,
        seeds=seeds,
        conditions=conditions,
        overrides=overrides,
        data_dir=data_dir,
        device=device,
        methods_dir=methods_dir,
        stale=stale,
        executor=choice,
        shard=part,
        warn=_warn,
    )

    def train(sweep: Sweep) -> None:
        from nlbench.executors.progress import Progress

        with contextlib.ExitStack() as stack:
            listener: Listener | None = None
            if progress:
                # The records' warnings follow as warnings of Python.
                ways = sweep.ways_to_be_faster(parallel_jobs)
                faster = [f"{way.argument} {way.effect}" for way in ways]
                progress_of_sweep = Progress(len(sweep.state.todo), warnings=False, faster=faster)
                listener = stack.enter_context(progress_of_sweep)
            sweep.run(
                watch.listener(sweep.plan, sweep.store, listener),
                checkpoint_seconds=checkpoint_seconds,
                checkpoint_epochs=checkpoint_epochs,
                jobs=parallel_jobs,
                cuda_graphs=cuda_graphs,
                whole_steps=whole_steps,
                save_weights=save_weights,
                save_probabilities=save_probabilities,
                record_gradients=record_gradients,
                timeout=timeout,
                ends=ends,
            )

    ahead = started_ahead(
        suite,
        out=out,
        only=only,
        seeds=seeds,
        conditions=conditions,
        overrides=overrides,
        stale=stale,
        executor=choice,
        shard=part,
    )
    with ahead:
        sweep = prepare_again()
        # It imports torch, for which the process that was started ahead must not wait.
        from nlbench.watching.feed import watching

        # A device that is not there is an error before a folder is made.
        sweep.devices()
        if sweep.state.stale and stale == "keep":
            _warn(stale_records(len(sweep.state.stale)))
        try:
            with watching(loggers if sweep.state.todo else (), out, _warn) as watch:
                sweep = run_stages(sweep, prepare_again, train)
        except BudgetSpent as spent:
            _warn(f"{spent}; the same call continues from here")
            sweep = prepare_again()
    _warn_of_results(sweep)

    lines = []
    for spec in sweep.specs:
        record = sweep.store.read(spec.key)
        if record is not None:
            lines.append({"row": spec.row, **record.columns()})
    return _frame(lines)


@python_interface
def load(out: str | Path = "results") -> pd.DataFrame:
    """Return every record of a folder, one line each, indexed by key. Needs no torch.

    Columns: `row`, the name in the suites of this folder; status, method, dataset, labels, noise
    (its kind), seed, protocol, model; `params`, a dict; metrics by their keys (`last`, `last10`,
    `best`, `selected`, ..., fractions in [0, 1]); `noise_rate_train` and the other measurements;
    `seconds_train`, `seconds_evaluate`, `seconds_fits`; networks, forward_passes, told; device,
    device_name, precision, torch; `error`, one line for runs that are not done. docs/records.md
    describes each of them. `to_parquet` writes the columns that hold dicts as JSON text.

    Raises: StoreError for a folder that is no store.
    """
    _check_folders(out=out)
    store = Store(out, _warn)
    store.require()
    names = _row_names(store)
    lines = []
    for key in store.run_keys():
        record = store.read(key)
        if record is not None:
            # A store that was put together by hand may lack the plan.
            row = ", ".join(names.get(key, [record.spec["method"]]))
            lines.append({"row": row, **record.columns()})
    return _frame(lines)


@python_interface
def load_weights(key: str, out: str | Path = "results") -> Trained:
    """Return the final networks of a run that was trained with `save_weights`.

        trained = nlbench.load_weights("3f2a", out="results")
        probs = trained.probabilities(["a.jpg", "b.jpg"])     (2, C)
        names = [trained.class_names[i] for i in probs.argmax(1)]

    Args:
        key: the run's key, or its first characters. `nlbench.load(out)` lists the keys.
        out: the folder that holds the records.

    Raises: StoreError for a key that begins no run or several, and for a run without weights.
    """
    from nlbench.executors.base import load_trained

    arguments.check_text("key", key, optional=False)
    _check_folders(out=out)
    store = Store(out, _warn)
    store.require()
    found = [known for known in store.run_keys() if known.startswith(key)]
    if len(found) != 1:
        what = f"begins {len(found)} runs" if found else "begins no run"
        raise StoreError(f"key {key!r} {what} in {out}; nlbench.load({str(out)!r}) lists the keys")
    return load_trained(store, found[0])


@python_interface
def table(
    out: str | Path = "results",
    *,
    suite: str | None = None,
    fmt: Literal["md", "csv", "latex", "html", "json"] = "md",
    metric: str | None = None,
    against: str | None = None,
    only: Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    details: bool = False,
    published: bool = False,
    methods_dir: str | Path | None = None,
    sort: str | None = None,
    ascending: bool | None = None,
    group_by: Literal["dataset", "noise", "dataset,noise"] | None = None,
    purpose: Literal["paper"] | None = None,
) -> str:
    """Return the tables of the suites in a folder of records, as `nlbench table` prints them.

    Args:
        out: the folder that holds the records.
        suite: one of the suites in that folder. The default is all of them.
        fmt: "md" for Markdown, "csv", "latex", "html" or "json".
        metric: shows this metric alone, for example "best".
        against: the row that differences are taken to. The default is "ce".
        only: rows to show, and the one that differences are taken to.
        conditions: datasets with their labels or noise to show, by their names or parts of them.
        columns: metrics to show, and "minus", "nets" or "passes".
        details: shows every metric.
        published: shows published numbers beside the measured ones.
        methods_dir: the folder with the method files that the suite was trained with.
        sort: sorts the rows by this column, the best first: "method", a column as in `columns`, or
            a dataset with its noise as tables print it. Rows with runs that are missing or failed
            come after the others.
        ascending: with `sort`, whether the lowest value is first.
        group_by: prints a table for each dataset, each noise, or both.
        purpose: "paper" prints what a paper prints: the best mean bold, with the next best ones
            before the first that can be told apart from it, and protocol, seeds and test in the
            caption.

    Raises: StoreError for a folder without results; SuiteError for an unknown suite, metric, column
        or row, and for arguments that exclude each other; TypeError or ValueError for an argument
        of another type or value.
    """
    from nlbench.results import table as tables

    _check_folders(out=out, methods_dir=methods_dir)
    for name, value in (
        ("suite", suite),
        ("metric", metric),
        ("against", against),
        ("sort", sort),
    ):
        arguments.check_text(name, value)
    if group_by is not None:
        arguments.check_choice("group_by", group_by, ("dataset", "noise", "dataset,noise"))
    if purpose is not None:
        arguments.check_choice("purpose", purpose, ("paper",))
    if ascending is not None:
        arguments.check_flag("ascending", ascending)
    arguments.check_choice("fmt", fmt, ("md", "csv", "latex", "html", "json"))
    arguments.check_flag("details", details)
    arguments.check_flag("published", published)
    rows = arguments.check_texts("only", only, "row names", '["ce", "elr"]')
    named = arguments.check_texts("conditions", conditions, "conditions", '["worst"]')
    shown = arguments.check_texts("columns", columns, "columns", '["last", "memorised"]')
    return tables.render_suites(
        Store(out, _warn),
        suite,
        methods=registry.method_files([Path(methods_dir)] if methods_dir is not None else []),
        conditions=named or (),
        fmt=fmt,
        metric=metric,
        against=against,
        details=details,
        published=published,
        columns=tuple(shown or ()),
        only=tuple(rows or ()),
        width=WIDTH,
        sort=sort,
        ascending=ascending,
        group_by=group_by,
        purpose=purpose,
    )


@python_interface
def merge(
    other: str | Path,
    out: str | Path = "results",
    *,
    take: Literal["ours", "newer", "theirs"] = "ours",
    dry_run: bool = False,
    small: bool = False,
) -> MergeReport:
    """Take a colleague's records into a folder, and say where the numbers of one run differ.

    Runs that only `other` has are copied, with the suites that they belong to. Damaged ones are
    left out. `other` is only read.

    Args:
        other: the colleague's folder of records.
        out: the folder that the records are copied to.
        take: what to keep where both have a run with different numbers, or a suite with different
            rows. What is replaced is kept under another name.
        dry_run: only say what would be done.
        small: of the runs that are taken, leave out weights, helper networks and all that
            predictions.npz has for each image but the predicted class.

    Returns: the keys by what became of the runs (`added`, `same`, `replaced`, `kept`, `left_out`),
        likewise for suites, and `lines`, with one about each run and suite to look at.
    Raises: StoreError for a folder that is no store or cannot be written; SuiteError where both are
        one folder; TypeError or ValueError for an argument of another type or value.
    """
    from nlbench.results import merge as merging

    _check_folders(out=out)
    arguments.check_path("other", other)
    arguments.check_choice("take", take, ("ours", "newer", "theirs"))
    arguments.check_flag("dry_run", dry_run)
    arguments.check_flag("small", small)
    return merging.merge(
        other, Store(out, _warn), take=merging.Take(take), dry_run=dry_run, small=small
    )


# ---- Warnings ------------------------------------------------------------------------------------


def stale_records(count: int) -> str:
    """Return the warning about records of another version of the code that are kept."""
    records = "1 record was" if count == 1 else f"{count} records were"
    them = "it" if count == 1 else "them"
    return f"{records} made by an older version of the code. `--stale rerun` trains {them} again."


def _warn_of_results(sweep: Sweep) -> None:
    """Warn of what the records say: once of each warning, and of the runs that failed."""
    records = {spec.key: sweep.store.read(spec.key) for spec in sweep.specs}
    lines = [line for record in records.values() if record for line in record.warnings]
    for line in dict.fromkeys(lines):
        _warn(line)

    failures = sweep.failures()
    if failures:
        first = failures[0]
        reason = first.error_message.partition("\n")[0]
        _warn(
            f"{len(failures)} of {len(sweep.specs)} runs failed or diverged; the columns `status` "
            f"and `error` say which and why. The first is {first.spec['method']}, "
            f"seed {first.spec['seed']}: {reason}"
        )


# ---- Data frames ---------------------------------------------------------------------------------


def _row_names(store: Store) -> dict[str, list[str]]:
    """Return the rows of each run's key, in all plans of a store."""
    names: dict[str, list[str]] = {}
    for path in sorted(store.root.glob("suites/*.json")):
        # The records can be read without the plan, whose rows then have their methods' names.
        try:
            plan = store.plan(path.stem)
        except StoreError as error:
            store.warn(str(error))
            continue
        for cell in plan["cells"] if plan else []:
            rows = names.setdefault(cell["key"], [])
            if cell["row"] not in rows:
                rows.append(cell["row"])
    return names


def _has_weights(folder: Path) -> bool:
    return (folder / "weights.pt").is_file()


def _check_folders(**folders: object) -> None:
    for name, folder in folders.items():
        arguments.check_path(name, folder, optional=name != "out")


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    from nlbench.results import frame

    return frame.of_records(lines)
