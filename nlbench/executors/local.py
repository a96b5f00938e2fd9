"""Runs one after the other, in this process."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from nlbench import code, registry
from nlbench.data import loader, sources
from nlbench.errors import SuiteError
from nlbench.records import RunRecord, Store
from nlbench.suite import RunSpec
from nlbench.train import Context, OnEpoch, failed, train

POLL_SECONDS = 1.0

Stale = Literal["keep", "rerun"]


@dataclass
class Listener:
    """What a caller wants to hear of a sweep; every hook may be left out."""

    on_start: Callable[[RunSpec, int, int], None] = lambda spec, number, total: None
    on_epoch: OnEpoch = lambda epoch, epochs, row: None
    on_fit: OnEpoch = lambda epoch, epochs, row: None
    on_resume: Callable[[int, int], None] = lambda epoch, epochs: None
    on_finish: Callable[[RunSpec, RunRecord], None] = lambda spec, record: None
    on_wait: Callable[[int], None] = lambda count: None


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
        result.ages[spec.key] = _age(store, spec.key)
        record = store.read(spec.key)
        if record is not None:
            by_status[record.status].add(spec.key)
            if record.code != code.code_hash(methods[spec.method].path, spec.protocol["model"]):
                result.stale.add(spec.key)
        if record is None or record.status == "failed" or (stale == "rerun" and spec.key in result.stale):
            result.todo.append(spec)
    return result


def pick_device(name: str) -> torch.device:
    """ "auto" is the first GPU where there is one. Raises SuiteError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SuiteError(f"--device {name}: must be auto, cpu, cuda or cuda:NUMBER")
    count = torch.cuda.device_count()
    if name != "cpu" and int(name.partition(":")[2] or 0) >= count:
        raise SuiteError(f"--device {name}: torch sees {count or 'no'} GPU{'' if count == 1 else 's'} here; use cpu")
    return torch.device(name)


def execute(
    todo: list[RunSpec],
    ages: dict[str, int | None],
    store: Store,
    methods: dict[str, registry.MethodFile],
    data_dir: Path,
    device: torch.device,
    listener: Listener,
    checkpoint_seconds: float = 10.0,
    debug: bool = False,
) -> None:
    """Train every run of `todo`, each under its lock; what another process holds or has done since is not trained.

    An error of a run becomes its record and the sweep goes on; with `debug` it is raised instead.
    """
    context = Context(
        store, device, methods, checkpoint_seconds, listener.on_epoch, listener.on_fit, listener.on_resume
    )
    prepared: dict[tuple[object, ...], loader.RunData] = {}  # holds the data of one condition and seed
    waiting = list(todo)
    total, finished = len(todo), 0
    while waiting:
        held = []
        for spec in waiting:
            with store.lock(spec.key) as mine:
                if not mine:
                    held.append(spec)
                    continue
                finished += 1
                if _age(store, spec.key) != ages[spec.key] and (record := store.read(spec.key)):
                    listener.on_finish(spec, record)  # another process has done it meanwhile
                    continue
                listener.on_start(spec, finished, total)
                listener.on_finish(spec, _run(spec, context, prepared, data_dir, debug))
        waiting = held
        if waiting:
            listener.on_wait(len(waiting))
            time.sleep(POLL_SECONDS)


def _age(store: Store, key: str) -> int | None:
    path = store.run_dir(key) / "record.json"
    return path.stat().st_mtime_ns if path.exists() else None


def _run(
    spec: RunSpec,
    context: Context,
    prepared: dict[tuple[object, ...], loader.RunData],
    data_dir: Path,
    debug: bool,
) -> RunRecord:
    try:
        part = (spec.condition, spec.seed, *(spec.protocol[k] for k in ("val_fraction", "subset", "stratify")))
        if part not in prepared:
            prepared.clear()
            prepared[part] = load_data(spec, data_dir)
        return train(spec, prepared[part], context)
    except Exception as error:
        if debug:
            raise
        record = failed(spec, error, context.device, context.methods[spec.method].path)
        context.store.write(record, [])
        return record


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
