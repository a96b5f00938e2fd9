"""What is to do in a store, and doing it one run after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nlbench import registry
from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.executors.base import Listener, age_of
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training import run_data
from nlbench.training.context import Context, FitHeld
from nlbench.training.record import failed
from nlbench.training.train import train

POLL_SECONDS = 1.0


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
        self._prepared: dict[tuple[object, ...], run_data.RunData] = {}

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

    def _data(self, spec: RunSpec) -> run_data.RunData:
        protocol = spec.protocol
        part = (spec.condition, spec.seed, protocol.val_fraction, protocol.subset, protocol.stratify)
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


def load_data(spec: RunSpec, data_dir: Path) -> run_data.RunData:
    """The arrays of a run: noise drawn on all labels, then split, all from the run's seed."""
    condition, protocol = spec.condition, spec.protocol
    places = Places.of_user(data_dir)
    dataset = catalogue.open_dataset(condition.dataset, condition.data_path, places, spec.seed)
    noise = None if condition.noise is None else {**condition.noise, "path": condition.noise_path}
    return run_data.prepare(
        dataset,
        labels=condition.labels,
        noise=noise,
        seed=spec.seed,
        val_fraction=protocol.val_fraction,
        subset=protocol.subset,
        stratify=protocol.stratify,
    )
