"""What all executors share: their interface, the state of a plan, and the choice of devices."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from nlbench import code_hash, hardware
from nlbench.errors import SuiteError
from nlbench.plan.options import Jobs, parse_devices
from nlbench.plan.spec import RunSpec
from nlbench.registry import MethodFile
from nlbench.results.store import Store
from nlbench.training.context import At, EpochMetrics, Listener, RunOptions
from nlbench.training.weights import Trained, load_trained

__all__ = [
    "At",
    "EpochMetrics",
    "Executor",
    "Listener",
    "RunOptions",
    "Stale",
    "State",
    "Todo",
    "Trained",
    "Way",
    "age_of",
    "count_jobs",
    "device_of_cluster",
    "load_trained",
    "pick_devices",
    "seen_here",
    "state",
    "ways_to_be_faster",
]

# What becomes of runs whose record was made by other code.
Stale = Literal["keep", "rerun"]


# ---- The interface ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Todo:
    """A run to train.

    Attributes:
        age: `age_of` the run's record when the work was planned. If it has changed when the run's
            turn comes, another process has trained the run meanwhile.
    """

    spec: RunSpec
    age: int | None


class Executor(Protocol):
    """The interface of an executor, which is a module with this function."""

    def execute(
        self, todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener
    ) -> None:
        """Have every run of `todo` trained, and return when all of them have their records.

        Reports to `listener`; at least `on_finish` for each run.
        """


# ---- The state of a plan ------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """The state of a plan: the keys of its runs by status, and the runs to train.

    Attributes:
        stale: keys of finished runs whose code has changed since.
        todo: the runs to train, in the plan's order.
        ages: `age_of` every run, by key.
    """

    done: set[str] = field(default_factory=set)
    diverged: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    todo: list[RunSpec] = field(default_factory=list)
    ages: dict[str, int | None] = field(default_factory=dict)


def state(
    specs: Sequence[RunSpec], store: Store, methods: Mapping[str, MethodFile], stale: Stale
) -> State:
    """Read the state of these runs from a store.

    Runs without a record and failed ones are to be trained; with stale="rerun" the stale ones, too.
    """
    result = State()
    by_status = {"done": result.done, "diverged": result.diverged, "failed": result.failed}
    # Finding the files that a hash covers takes ten milliseconds, and a plan may have 5,000 runs.
    code_today = functools.cache(code_hash.code_hash)
    # Two rows may be the same run. It is trained once.
    for key, spec in {spec.key: spec for spec in specs}.items():
        # Read before the record: one that is written in between is then newer when the run's turn
        # comes, and the run is not trained a second time.
        result.ages[key] = age_of(store, key)
        record = store.read(key)
        if record is None:
            result.todo.append(spec)
            continue

        by_status[record.status].add(key)
        method_file, model = methods[spec.method].path, spec.protocol.model
        condition = spec.condition
        code = code_today(method_file, model, condition.dataset, condition.noise_kind)
        if record.code != code and not store.reproduced_under(key, code):
            result.stale.add(key)
        # An error may have a passing cause. A diverged run is a result and is not tried again.
        if record.status == "failed" or (stale == "rerun" and key in result.stale):
            result.todo.append(spec)
    return result


def age_of(store: Store, key: str) -> int | None:
    """Return when the run's record was written, in nanoseconds, or None if it has none."""
    try:
        return store.record_path(key).stat().st_mtime_ns
    except FileNotFoundError:
        return None


# ---- Devices ------------------------------------------------------------------------------------


def pick_devices(names: str) -> tuple[torch.device, ...]:
    """Return the devices that a user names.

    Args:
        names: "cpu", "cuda:1", several GPUs as "cuda:0,cuda:2", or "auto", which is the first GPU
            if there is one.
    Raises: SuiteError for a device that does not exist.
    """
    devices = parse_devices(names)
    if devices == ("auto",):
        devices = ("cuda",) if torch.cuda.is_available() else ("cpu",)
    return tuple(_existing(name) for name in devices)


def device_of_cluster(name: str) -> tuple[torch.device, ...]:
    """Return the device that runs use on other machines, which this one need not have.

    Args:
        name: "cpu", "cuda", or "auto" for what this machine would use.
    """
    return pick_devices(name) if name == "auto" else (torch.device(name),)


def seen_here(devices: tuple[torch.device, ...]) -> tuple[torch.device, ...]:
    """Return `devices`. Raises SuiteError where this machine cannot tell what they can do."""
    if devices[0].type == "cuda" and not torch.cuda.is_available():
        raise SuiteError(
            "precision auto: this machine decides it for the whole cluster and sees no GPU; add "
            "--set precision=bfloat16 (GPUs from compute capability 8.0 on) or float32"
        )
    return devices


def _existing(name: str) -> torch.device:
    """Return the device `name`. Raises SuiteError where torch does not see it."""
    # Compared as text: torch.device("cuda:999") is cuda:-25.
    count = torch.cuda.device_count()
    if name != "cpu" and int(name.partition(":")[2] or 0) >= count:
        gpus = "1 GPU" if count == 1 else f"{count or 'no'} GPUs"
        raise SuiteError(f"--device {name}: torch sees {gpus} here; use cpu")
    return torch.device(name)


def count_jobs(jobs: Jobs, todo: Sequence[RunSpec], devices: Sequence[torch.device]) -> int:
    """Return the number of runs to train at the same time on each device.

    "auto" is 1 on a GPU. On a CPU it is as many as there are cores for the threads of each run.

    Raises: SuiteError for less than 1.
    """
    if jobs == "auto":
        threads = max((spec.protocol.threads for spec in todo), default=1)
        return 1 if devices[0].type == "cuda" else max(1, hardware.cores() // threads)
    if jobs < 1:
        raise SuiteError(f"--jobs {jobs}: must be at least 1, or auto")
    return jobs


# ---- Time ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """An option that would make a sweep take less time.

    Attributes:
        option: the option of the command line, with its value.
        argument: the same as an argument of `nlbench.run`.
        effect: what it does, as the rest of a sentence that begins with the option.
    """

    option: str
    argument: str
    effect: str


def ways_to_be_faster(todo: Sequence[RunSpec], device: torch.device, jobs: int) -> list[Way]:
    """Return what would make these runs take less time.

    Args:
        device: the device that they are trained on, of this machine.
        jobs: the number of runs that go on at the same time.
    """
    ways = []
    bfloat16 = any(spec.protocol.precision == "bfloat16" for spec in todo)
    if bfloat16 and not hardware.has_bfloat16(device):
        way = Way(
            "--set precision=auto",
            'overrides={"precision": "auto"}',
            "trains in float32, because bfloat16 is emulated here, at a tenth of the speed on a "
            "CPU with AVX2 (runs of their own)",
        )
        ways.append(way)

    threads = max((spec.protocol.threads for spec in todo), default=1)
    cores = hardware.cores()
    at_once = min(cores // threads, len(todo))
    if device.type == "cpu" and at_once > jobs:
        effect = f"trains {at_once} runs at the same time, and not {jobs}"
        ways.append(Way(f"--jobs {at_once}", f"jobs={at_once}", effect))
    elif device.type == "cpu" and cores // jobs > threads:
        more = cores // jobs
        effect = f"uses all {cores} cores, which helps large networks (runs of their own)"
        ways.append(Way(f"--set threads={more}", f'overrides={{"threads": {more}}}', effect))

    seeds = sorted({spec.seed for spec in todo})
    if len(seeds) > 1:
        effect = f"trains one of {len(seeds)} seeds; others can follow"
        ways.append(Way(f"--seeds {seeds[0]}", f"seeds=[{seeds[0]}]", effect))
    rows = list(dict.fromkeys(spec.row for spec in todo))
    if len(rows) > 2:
        effect = f"trains two of {len(rows)} methods"
        # The name of a row may have spaces and quotes.
        typed = f"--only {shlex.quote(','.join(rows[:2]))}"
        ways.append(Way(typed, f"only={json.dumps(rows[:2], ensure_ascii=False)}", effect))
    return ways
