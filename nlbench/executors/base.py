"""Base."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from nlbench import code_hash, registry
from nlbench.errors import SuiteError
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

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
            method_file, model = methods[spec.method].path, spec.protocol.model
            if record.code != code_hash.code_hash(method_file, model, spec.condition.dataset):
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


def age_of(store: Store, key: str) -> int | None:
    """When the run's record was written, in nanoseconds; None where it has none."""
    path = store.run_dir(key) / "record.json"
    return path.stat().st_mtime_ns if path.exists() else None
