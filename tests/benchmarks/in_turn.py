"""Measure what a method costs, in turn with cross entropy.

Both are trained as `nlbench run` trains them, an epoch of one and then an epoch of the other, in
one process. A cost is the time of a method's epoch divided by the mean of the epochs of cross
entropy before and after it, so that other load on the machine slows both.
"""

import contextlib
import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nlbench import registry
from nlbench.method import HelperLoss
from nlbench.plan.spec import RunSpec
from nlbench.results.store import Store
from nlbench.training.context import EpochMetrics, Listener, RunOptions
from nlbench.training.counters import Counters
from nlbench.training.epoch import train_epoch
from nlbench.training.helper import HelperNetworks
from nlbench.training.network import Passes
from nlbench.training.run_data import RunData
from nlbench.training.run_state import RunState
from nlbench.training.seeding import seeded
from nlbench.training.setup import (
    geometry_of,
    machine_settings,
    make_method,
    make_state,
    make_task,
    own_tensor,
    scored_parts,
)
from nlbench.training.train import clock

# The name of the epochs of a helper network, see `Method.prepare`.
HELPER = "helper network"
# The share of the training examples that it is validated on where there is no validation part.
HELD = 0.1


# What a pass without its backward pass costs of a pass with it.
ALONE = 1 / 3


class Epoch(NamedTuple):
    """What an epoch cost.

    Attributes:
        seconds: its time.
        passes: the images that networks saw, for each training example.
        work: the same, where images without a backward pass count as a third.
    """

    seconds: float
    passes: float
    work: float


# Tells a time in seconds, after the device has done everything that it was given.
Now = Callable[[torch.device], float]


def processor_time(device: torch.device) -> float:
    """Return the seconds that processors have spent on this process.

    Other load hardly changes them. With several threads they count each thread, also one that waits
    for another.
    """
    clock(device)
    return time.process_time()


# ---- A training ----------------------------------------------------------------------------------


class CountedPasses(Passes):
    """Also counts the images that a backward pass follows, as `trained`."""

    def __init__(self) -> None:
        self.trained = 0
        self._images = 0
        super().__init__()

    @property
    def images(self) -> int:
        """Return the images that networks have seen."""
        return self._images

    @images.setter
    def images(self, images: int) -> None:
        if torch.is_grad_enabled():
            self.trained += images - self._images
        self._images = images


class Training:
    """Trains a run epoch by epoch, without evaluation and without checkpoints.

    Args:
        fit: trains a helper network.
        now: tells the time.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: RunData,
        options: RunOptions,
        fit: Callable[..., nn.Module],
        now: Now,
    ):
        device, protocol = options.device, spec.protocol
        labels = own_tensor(data.labels, device)
        clean = None if data.clean_labels is None else own_tensor(data.clean_labels, device)
        task = make_task(data, labels, protocol, device, spec.told)
        scored = scored_parts(data, geometry_of(spec), device)

        self.protocol = protocol
        self._device, self._now = device, now
        self.method = make_method(spec, options, task)
        self._counters = Counters.of(self.method, labels, clean, record_gradients=False)
        self._state = make_state(spec, data, options, task, self.method.num_networks, scored, fit)
        self._passes = CountedPasses()
        for network in self._state.networks:
            network.passes = self._passes  # type: ignore[assignment]
        with seeded(spec.seed, "prepare"):
            self.method.prepare(self._state)

    def epoch(self, epoch: int) -> Epoch:
        """Train an epoch, whichever was the one before. Raises: as `train_epoch`."""
        passes, count = self._passes, self._state.examples_per_epoch
        images, trained = passes.images, passes.trained
        passes.active = True
        began = self._now(self._device)
        train_epoch(self._state, self.method, epoch, self._counters.active())
        self._counters.take()
        seconds = self._now(self._device) - began
        passes.active = False

        images, trained = passes.images - images, passes.trained - trained
        return Epoch(seconds, images / count, (trained + ALONE * (images - trained)) / count)


def no_helper(state: RunState, key: str, loss: HelperLoss, epochs: int) -> nn.Module:
    """Refuse a helper network."""
    raise RuntimeError("cross entropy needs no helper network")


class InTurn:
    """Compares epochs with those of cross entropy right before and after them."""

    def __init__(self, ce: Training):
        self._ce = ce
        self._number = 0
        self._before = 0.0
        # Of all epochs that were compared.
        self.seconds: list[float] = []
        self.begin()

    def begin(self) -> None:
        """Take an epoch of cross entropy, for the next comparison."""
        self._before = self._ce.epoch(self._number % self._ce.protocol.epochs).seconds
        self._number += 1

    def cost(self, seconds: float) -> float:
        """Return how many times as long as cross entropy an epoch took that ends now."""
        before = self._before
        self.begin()
        self.seconds.append(self._before)
        return seconds / statistics.mean([before, self._before])


# ---- Phases --------------------------------------------------------------------------------------


class Costs(NamedTuple):
    """Passes, work and cost of an epoch, as `Phase` has them."""

    passes: float
    work: float
    cost: float


@dataclass
class Phase:
    """The epochs of a training from `first` to before `end`, in which a method does the same.

    Attributes:
        epochs: those that were measured.
        costs: of each of them, how many times as long as cross entropy it took.
    """

    name: str
    first: int
    end: int
    epochs: list[Epoch] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Return the number of its epochs in a training."""
        return self.end - self.first

    @property
    def passes(self) -> float:
        """Return the forward passes for each training example and epoch."""
        return statistics.mean(epoch.passes for epoch in self.epochs)

    @property
    def work(self) -> float:
        """Return the same, where a pass without its backward pass counts as a third."""
        return statistics.mean(epoch.work for epoch in self.epochs)

    @property
    def cost(self) -> float:
        """Return how many times as long as cross entropy an epoch takes.

        That is the passes times the median over the epochs of what a pass costs. An epoch with
        more passes than the others then counts with its passes, and a disturbed one hardly.
        """
        pairs = zip(self.costs, self.epochs, strict=True)
        return self.passes * statistics.median(cost / epoch.passes for cost, epoch in pairs)

    @property
    def range(self) -> tuple[float, float]:
        """Return the least and the most of the share of CE's speed times the passes, by epoch."""
        pairs = zip(self.costs, self.epochs, strict=True)
        shares = [epoch.passes / cost for cost, epoch in pairs]
        return min(shares), max(shares)

    @property
    def costs_of_epoch(self) -> Costs:
        """Return passes, work and cost of an epoch."""
        return Costs(self.passes, self.work, self.cost)

    @property
    def seconds(self) -> float:
        """Return the median seconds of an epoch."""
        return statistics.median(epoch.seconds for epoch in self.epochs)


def phases_of(begins: dict[str, int], epochs: int) -> list[Phase]:
    """Return the phases of a training: from the first epoch, and from each that `begins` names.

    Phases that begin in the same epoch are one. One that begins after the training is left out.
    """
    names: dict[int, list[str]] = {0: []}
    for name, first in begins.items():
        if first < epochs:
            names.setdefault(max(first, 0), []).append(name)

    firsts = sorted(names)
    found = []
    for first, end in zip(firsts, [*firsts[1:], epochs], strict=True):
        found.append(Phase(", ".join(names[first]) or "first epochs", first, end))
    if len(found) == 1:
        found[0].name = "all epochs"
    return found


# ---- A method ------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What a method costs.

    Attributes:
        row: its name in the table.
        phases: of its own training; of helper networks, with as many epochs as they are trained.
        images: training examples in an epoch.
        ce_seconds: the seconds of the epochs of cross entropy, in turn with those of the method.
        peak: the most memory in bytes beyond what the process had before; None where unknown.
    """

    row: str
    phases: list[Phase]
    images: int
    ce_seconds: list[float]
    peak: int | None

    @property
    def dearest(self) -> Phase:
        """Return the phase with the most passes; the longest of several."""
        own = [phase for phase in self.phases if phase.name != HELPER]
        return max(own, key=lambda phase: (round(phase.passes, 1), phase.length))

    @property
    def epochs(self) -> int:
        """Return the number of epochs of the method's own training."""
        return sum(phase.length for phase in self.phases if phase.name != HELPER)

    def whole(self) -> Costs:
        """Return what the whole training costs, for each of its own epochs."""
        passes = sum(phase.length * phase.passes for phase in self.phases)
        work = sum(phase.length * phase.work for phase in self.phases)
        cost = sum(phase.length * phase.cost for phase in self.phases)
        return Costs(passes / self.epochs, work / self.epochs, cost / self.epochs)


class Helpers(Listener):
    """Trains helper networks for few epochs, in turn with cross entropy.

    Attributes:
        phases: of each helper network, with as many epochs as the method wants.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: RunData,
        options: RunOptions,
        store: Store,
        turns: InTurn,
        few: int,
        now: Now,
    ):
        self.phases: list[Phase] = []
        self._nlbench = HelperNetworks(spec, options, store, self)
        self._turns, self._few = turns, few
        self._device, self._now = options.device, now
        # Of what a helper network sees, a part is held out and predicted at the end of each epoch.
        held = data.num_val or round(HELD * data.num_train)
        trained = data.num_train - (0 if data.num_val else held)
        self._passes = (trained + held) / data.num_train
        self._work = (trained + ALONE * held) / data.num_train
        self._began = 0.0

    def fit(
        self, state: RunState, key: str, loss: HelperLoss, epochs: int, **choices: Any
    ) -> nn.Module:
        """Return a helper network that was trained for few epochs; see `Run.fit`."""
        self.phases.append(Phase(HELPER, 0, epochs))
        self._began = self._now(self._device)
        return self._nlbench.fit(state, key, loss, self._few + 1, **choices)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        """Compare an epoch of a helper network. The first one is not measured."""
        seconds = self._now(self._device) - self._began
        if epoch == 0:
            self._turns.begin()
        else:
            self.phases[-1].epochs.append(Epoch(seconds, self._passes, self._work))
            self.phases[-1].costs.append(self._turns.cost(seconds))
        self._began = self._now(self._device)


def measure(
    ce: RunSpec,
    spec: RunSpec,
    data: RunData,
    device: torch.device,
    folder: Path,
    *,
    rounds: int,
    now: Now = clock,
) -> Measured:
    """Measure up to `rounds` epochs of each phase of a method, in turn with cross entropy.

    Epochs between them are left out. The first epoch of each phase is trained once more before.

    Args:
        ce: the run of cross entropy, under the same protocol.
        folder: for helper networks. Empty.
        now: tells the time. `processor_time` is for a machine that has other work.
    Raises: what the method raises.
    """
    store = Store(folder)
    store.require_writable()
    options = RunOptions(
        devices=(device,),
        data_dir=folder,
        methods=registry.method_files([]),
        checkpoint_seconds=math.inf,
    )
    with machine_settings(spec.protocol, device):
        turns = InTurn(Training(ce, data, options, no_helper, now))
        memory = Memory(device)
        helpers = Helpers(spec, data, options, store, turns, rounds, now)
        training = Training(spec, data, options, helpers.fit, now)

        phases = phases_of(dict(training.method.begins), spec.protocol.epochs)
        for phase in phases:
            training.epoch(phase.first)
            turns.begin()
            for epoch in range(phase.first, min(phase.end, phase.first + rounds)):
                measured = training.epoch(epoch)
                phase.costs.append(turns.cost(measured.seconds))
                phase.epochs.append(measured)
        peak = memory.peak()

    every = phases + helpers.phases
    return Measured(spec.row, every, data.num_train, turns.seconds, peak)


# ---- Memory --------------------------------------------------------------------------------------


class Memory:
    """Measures the most memory that is used from now on, beyond that which is in use now.

    On a GPU it is that of torch's tensors, elsewhere that of the process, on Linux alone.
    """

    def __init__(self, device: torch.device):
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return

        # Trainings let malloc keep what they free, so that it counts as used.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            # This sets the process's peak to what it has now.
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS") or 0

    def peak(self) -> int | None:
        """Return the most memory in bytes; None where it is unknown."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        most = _status("VmHWM")
        return None if most is None else most - self._before


def _status(name: str) -> int | None:
    """Return an entry of Linux's description of this process in bytes."""
    path = Path("/proc/self/status")
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return 1024 * int(value.split()[0])
    return None


# ---- Tables --------------------------------------------------------------------------------------


def markdown(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield a table in Markdown, a line a method."""
    columns = "of CE's speed | passes | x passes | x work"
    phase_columns = columns.replace("x passes", "x passes | range")
    head = f"method | phase with most passes | images/s | {phase_columns}"
    yield f"| {head} | whole: {columns} | MB |"
    yield f"| --- | --- {'| ---: ' * 11}|"
    for one in measured:
        phase, whole = one.dearest, one.whole()
        where = phase.name
        if phase.length < one.epochs:
            where = f"{phase.name}, from epoch {phase.first + 1} of {one.epochs}"
        memory = "" if one.peak is None else f"{one.peak / 1e6:,.0f}"
        least, most = phase.range
        shares = _shares(phase.costs_of_epoch, f"{least:.2f} to {most:.2f} | ")
        speed = f"{one.images / phase.seconds:,.0f}"
        yield f"| {one.row} | {where} | {speed} | {shares} | {_shares(whole)} | {memory} |"


def _shares(costs: Costs, spread: str = "") -> str:
    """Return cells: the share of CE's speed, passes, share x passes, `spread`, share x work."""
    share = 1 / costs.cost
    by_passes, by_work = f"{share * costs.passes:.2f}", f"{share * costs.work:.2f}"
    return f"{share:.2f} | {costs.passes:.2f} | {by_passes} | {spread}{by_work}"


COLUMNS = (
    "dataset",
    "model",
    "precision",
    "threads",
    "method",
    "phase",
    "epochs",
    "epochs_measured",
    "images_per_second",
    "ce_images_per_second",
    "share_of_ce",
    "passes",
    "work",
    "share_times_passes",
    "share_times_work",
    "peak_bytes",
)


def lines(measured: Measured, setting: Sequence[object]) -> Iterator[list[object]]:
    """Yield the lines of COLUMNS of a method: one for each phase, and one for the whole training.

    Args:
        setting: dataset, model, precision and threads.
    """
    ce = round(measured.images / statistics.median(measured.ce_seconds), 1)
    count = 0
    for phase in measured.phases:
        count += len(phase.epochs)
        speed = round(measured.images / phase.seconds, 1)
        named = measured.row, phase.name, phase.length, len(phase.epochs)
        yield [*setting, *named, speed, ce, *_numbers(phase.costs_of_epoch), ""]

    named = measured.row, "whole training", measured.epochs, count
    peak = "" if measured.peak is None else measured.peak
    yield [*setting, *named, "", ce, *_numbers(measured.whole()), peak]


def _numbers(costs: Costs) -> list[float]:
    share = 1 / costs.cost
    numbers = share, costs.passes, costs.work, share * costs.passes, share * costs.work
    return [round(number, 4) for number in numbers]
