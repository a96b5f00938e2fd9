"""What a training gets besides its run and its data: options, and a listener that it reports to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from nlbench.plan.options import DEFAULT_TIMEOUT_MINUTES
from nlbench.plan.spec import RunSpec
from nlbench.registry import MethodFile
from nlbench.results.record import RunRecord

# The metrics of one epoch by name; `training.evaluate` makes the names.
EpochMetrics = Mapping[str, int | float | None]


class At(NamedTuple):
    """The place that a training has reached.

    Attributes:
        part: "run", "helper network", or "predicting". Then the steps are images.
        epoch, epochs: the epoch, counted from 0, and the number of epochs.
        step, steps: steps done in this epoch, and the steps of the default plan. A method with
            another plan may take more.
    """

    part: str
    epoch: int
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class RunOptions:
    """The options of training, of which none changes a result.

    It is plain data, so that it can be sent to another process.

    Attributes:
        devices: the devices that runs are spread over. One training uses the first of them.
        data_dir: the folder of data files.
        methods: the method files by name.
        checkpoint_seconds: a run writes a checkpoint at the end of an epoch, and in a long epoch
            between two steps, if the last one is at least so old.
        checkpoint_epochs: a run also writes a checkpoint after so many epochs; 0 for no such rule.
        cuda_graphs: on a GPU, replay default training steps as CUDA graphs. None: for our own
            models, and not for others.
        whole_steps: on a GPU, capture whole default training steps as CUDA graphs, see
            `whole_step`. Those of other models than our own only if `cuda_graphs` is true.
        jobs: number of runs that are trained at the same time on each device. Kept in the records.
            With the executor `ray`: at the same time in all; 0 for as many as there is room for.
        wait: wait for a helper network that another process trains. If false, FitHeld is raised.
        leave_held: end when only runs are left that other processes hold, and do not wait for them.
        debug: raise the error of a run, instead of recording it.
        save_weights: keep the weights of the final networks beside the record.
        save_probabilities: keep the predicted probabilities of all examples, also where they are
            many.
        record_gradients: let methods that can tell the terms of their gradient apart do so after
            each step.
        executor: name of a module of `nlbench.executors`; empty for the usual choice.
        address: the cluster of the executor `ray`; empty for a Ray of this machine alone.
        gpus_per_run: the part of a GPU that the executor `ray` reserves for a run.
        timeout_seconds: a run that shows no sign of life for so long is ended as failed; 0 for no
            such limit. A run that is trained in this process has none.
        ends: when the time that the user gave is over, on the monotonic clock of this machine.
    """

    devices: tuple[torch.device, ...]
    data_dir: Path
    methods: Mapping[str, MethodFile]
    checkpoint_seconds: float = 10.0
    cuda_graphs: bool | None = None
    whole_steps: bool = False
    jobs: int = 1
    wait: bool = True
    leave_held: bool = False
    debug: bool = False
    save_weights: bool = False
    save_probabilities: bool = False
    record_gradients: bool = False
    executor: str = ""
    address: str = ""
    gpus_per_run: float = 1.0
    timeout_seconds: float = DEFAULT_TIMEOUT_MINUTES * 60
    checkpoint_epochs: int = 0
    ends: float = math.inf

    @property
    def device(self) -> torch.device:
        """Return the device of one training."""
        return self.devices[0]


class Listener:
    """Gets reports on the runs of a sweep. Override the methods of interest; here they do nothing.

    Several runs may be going at the same time. Epochs are counted from 0.

    Attributes:
        stopping: set to true when the sweep is to end. A training then ends its step, writes a
            checkpoint, and raises `pulse.Stopped`.
    """

    stopping: bool = False

    def on_start(self, spec: RunSpec) -> None:
        """React to the start of a run."""

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        """React to a run that continues at `epoch` of `epochs`, from its checkpoint."""

    def on_phase(self, spec: RunSpec, phase: str) -> None:
        """React to what the run does now besides its steps, such as "reading data"."""

    def on_step(self, spec: RunSpec, at: At) -> None:
        """React to the steps of a run. Called at most twice a second for each run."""

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        """React to the end of `epoch`, after its evaluation."""

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        """React to an epoch of a helper network. Its metrics are loss and held_loss."""

    def on_stopped(self, spec: RunSpec, epoch: int, epochs: int, step: int) -> None:
        """React to a run that has stopped, and will continue after `step` steps of `epoch`."""

    def on_postpone(self, spec: RunSpec) -> None:
        """React to a run that is put off: another process trains its helper network."""

    def on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        """React to the record of a run, which another process may have made."""

    def on_wait(self, count: int) -> None:
        """React to a pause: other processes hold all of the `count` runs that are left."""

    def on_stop(self, line: str) -> None:
        """React to the request to stop, by Ctrl-C or SIGTERM. `line` says what happens now."""


class FitHeld(Exception):
    """Another process trains a helper network that this run needs. The run can be tried later."""
