"""What is to do in a store, and doing it one run after the other in this process."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nlbench import code, registry
from nlbench.data import loader, sources
from nlbench.errors import SuiteError
from nlbench.records import RunRecord, Store
from nlbench.suite import RunSpec
from nlbench.train import Context, FitHeld, failed, train

POLL_SECONDS = 1.0

Stale = Literal["keep", "rerun"]
OnEpoch = Callable[[RunSpec, int, int, dict[str, Any]], None]  # epoch from 0, epochs, its row of the history


@dataclass
class Listener:
    """What a caller wants to hear of a sweep; every hook may be left out. Several runs may be going at once."""

    on_start: Callable[[RunSpec], None] = lambda spec: None
    on_epoch: OnEpoch = lambda spec, epoch, epochs, row: None
    on_fit: OnEpoch = lambda spec, epoch, epochs, row: None
    on_resume: Callable[[RunSpec, int, int], None] = lambda spec, epoch, epochs: None
    on_postpone: Callable[[RunSpec], None] = lambda spec: None  # begun, but another process trains what it needs first
    on_finish: Callable[[RunSpec, RunRecord], None] = lambda spec, record: None
    on_wait: Callable[[int], None] = lambda count: None  # nothing is going, so many runs are held elsewhere


@dataclass(frozen=True)
class State:
    """Where a plan stands: the keys that are done, diverged or failed, the runs still to do, and stale ones."""

    done: set[str]
    diverged: set[str]
    failed: set[str]
    stale: set[str]  # finished under code that has changed since
    todo: list[RunSpec]
    ages: dict[str, int | None]  # key -> when its record was written, to see what others did since


def state(specs: list[RunSpec], store: Store, methods: dict[str, registry.MethodFile], stale: Stale) -> State:
    """Look at the store. To do are the missing, the failed and, with stale="rerun", the stale runs."""
    result = State(set(), set(), set(), set(), [], {})
    by_status = {"done": result.done, "diverged": result.diverged, "failed": result.failed}
    for spec in {spec.key: spec for spec in specs}.values():
        result.ages[spec.key] = age_of(store, spec.key)
        record = store.read(spec.key)
        if record is not None:
            by_status[record.status].add(spec.key)
            if record.code != code.code_hash(methods[spec.method].path, spec.protocol["model"]):
                result.stale.add(spec.key)
        if record is None or record.status == "failed" or (stale == "rerun" and spec.key in result.stale):
            result.todo.append(spec)
    return result


def pick_devices(names: str) -> list[torch.device]:
    """The devices of "auto", the first GPU where there is one, of "cpu", "cuda:1" or several GPUs as "cuda:0,cuda:2".

    Raises: SuiteError for a device that is not there.
    """
    if names == "auto":
        names = "cuda" if torch.cuda.is_available() else "cpu"
    devices = [_pick_device(name) for name in names.split(",")]
    if len(devices) > 1 and (len(set(devices)) < len(devices) or any(d.index is None for d in devices)):
        raise SuiteError(f"--device {names}: of several devices each must be another cuda:NUMBER")
    return devices


def _pick_device(name: str) -> torch.device:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SuiteError(f"--device {name}: must be auto, cpu, cuda or cuda:NUMBER")
    count = torch.cuda.device_count()
    if name != "cpu" and int(name.partition(":")[2] or 0) >= count:
        raise SuiteError(f"--device {name}: torch sees {count or 'no'} GPU{'' if count == 1 else 's'} here; use cpu")
    return torch.device(name)


@dataclass(frozen=True)
class Setting:
    """Where a sweep's runs are trained; plain data, which another process can be told."""

    root: Path  # of the store
    methods: dict[str, registry.MethodFile]
    data_dir: Path
    device: torch.device
    checkpoint_seconds: float = 10.0
    debug: bool = False  # an error of a run is raised
    cuda_graphs: bool | None = None  # as in Context
    jobs: int = 1  # runs that are trained at once on the device

    def context(self, store: Store, **more: Any) -> Context:
        return Context(
            store,
            self.device,
            self.methods,
            self.checkpoint_seconds,
            cuda_graphs=self.cuda_graphs,
            jobs=self.jobs,
            **more,
        )


class Trainer:
    """Trains runs one after the other; the data of one condition and seed stay for the runs that share them."""

    def __init__(self, setting: Setting, store: Store, listener: Listener):
        self._setting, self._store, self._listener = setting, store, listener
        self._prepared: dict[tuple[object, ...], loader.RunData] = {}

    def attempt(self, spec: RunSpec, age: int | None, wait: bool) -> RunRecord | None:
        """The run's record: of a training under its lock, or of what another process has done since `age`.

        An error of the run becomes its record, or is raised where the setting says debug.

        Args:
            wait: for a helper network that another process trains.
        Returns: None where another process holds the run or, unless `wait`, such a helper network.
        """
        with self._store.lock(spec.key) as mine:
            if not mine:
                return None
            if age_of(self._store, spec.key) != age and (record := self._store.read(spec.key)):
                return record
            self._listener.on_start(spec)
            try:
                return train(spec, self._data(spec), self._context(spec, wait))
            except FitHeld:
                self._listener.on_postpone(spec)
                return None
            except Exception as error:
                if self._setting.debug:
                    raise
                record = failed(spec, error, self._context(spec, wait))
                self._store.write(record, [])
                return record

    def _data(self, spec: RunSpec) -> loader.RunData:
        part = (spec.condition, spec.seed, *(spec.protocol[k] for k in ("val_fraction", "subset", "stratify")))
        if part not in self._prepared:
            self._prepared.clear()
            self._prepared[part] = load_data(spec, self._setting.data_dir)
        return self._prepared[part]

    def _context(self, spec: RunSpec, wait: bool) -> Context:
        hear = self._listener
        return self._setting.context(
            self._store,
            on_epoch=lambda *epoch: hear.on_epoch(spec, *epoch),
            on_fit=lambda *epoch: hear.on_fit(spec, *epoch),
            on_resume=lambda *epoch: hear.on_resume(spec, *epoch),
            wait=wait,
        )


def execute(
    todo: Sequence[RunSpec], ages: dict[str, int | None], setting: Setting, store: Store, listener: Listener
) -> None:
    """Train every run of `todo`; those that another process holds come last, when it has let them go."""
    trainer = Trainer(setting, store, listener)
    waiting, again = list(todo), False
    while waiting:
        held = []
        for spec in waiting:
            record = trainer.attempt(spec, ages[spec.key], wait=again)
            if record is None:
                held.append(spec)
            else:
                listener.on_finish(spec, record)
        waiting, again = held, True
        if waiting:
            listener.on_wait(len(waiting))
            time.sleep(POLL_SECONDS)


def age_of(store: Store, key: str) -> int | None:
    """When the run's record was written, in nanoseconds; None where it has none."""
    path = store.run_dir(key) / "record.json"
    return path.stat().st_mtime_ns if path.exists() else None


def load_data(spec: RunSpec, data_dir: Path) -> loader.RunData:
    """The arrays of a run: noise drawn on all labels, then split, all from the run's seed."""
    dataset = sources.open_dataset(spec.dataset, spec.data_path, data_dir, sources.cache_dir(), spec.seed)
    noise = None if spec.noise is None else {**spec.noise, "path": spec.noise_path}
    return loader.prepare(
        dataset,
        labels=spec.labels,
        noise=noise,
        seed=spec.seed,
        val_fraction=spec.protocol["val_fraction"],
        subset=spec.protocol["subset"],
        stratify=spec.protocol["stratify"],
    )
