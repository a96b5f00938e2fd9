"""Measure where the time of a training goes.

`Clock` times the parts of an epoch. `Waits` counts how often a step makes the host wait.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from nlbench import models, ops
from nlbench.training import train
from nlbench.training.images import Images
from nlbench.training.network import Network

# (part, owner, name of the function). `other` spans the epoch, and the other parts lie within it.
# The seconds of a part leave out those of the parts inside it.
PLACES: tuple[tuple[str, Any, str], ...] = (
    ("augment", Images, "augmented"),
    ("augment", Images, "strong"),
    ("forward", Network, "replay"),
    # Methods with their own steps call the network.
    ("forward", Network, "forward"),
    ("backward", torch.Tensor, "backward"),
    ("optimiser", torch.optim.SGD, "step"),
    ("optimiser", torch.optim.Adam, "step"),
    ("optimiser", torch.optim.Optimizer, "zero_grad"),
    ("loss", ops, "elr_step"),
    ("other", train, "train_epoch"),
)
PARTS = tuple(dict.fromkeys(part for part, _, _ in PLACES))
# The parts that no training loop can do without.
FREE = ("forward", "backward", "optimiser")


class Clock:
    """Time the parts of training epochs: by the host's clock, on a GPU by events in its stream.

    Between two events lies the work of the GPU, and its waiting for the host.
    """

    def __init__(self, device: torch.device):
        self._device, self._on_gpu = device, device.type == "cuda"
        # The parts that have begun and not ended; the innermost is last.
        self._open: list[str] = []
        # Moments, each with the part that goes on from it.
        self._marks: list[tuple[Any, str | None]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time the training epochs within it, but not evaluation or other threads' work."""
        with contextlib.ExitStack() as stack:
            for part, owner, name in PLACES:
                timed = self._timed(part, getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call` with a mark before and after it, where it runs within an epoch."""

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            # Outside of an epoch, for example in evaluation.
            if not self._open and part != "other":
                return call(*args, **kwargs)

            self._open.append(part)
            self._mark()
            try:
                return call(*args, **kwargs)
            finally:
                self._open.pop()
                self._mark()

        return timed

    def _mark(self) -> None:
        """Note the moment, and which part goes on from it."""
        # An event does not wait for the GPU, so that measuring slows no step.
        moment: Any = time.perf_counter()
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record(torch.cuda.current_stream(self._device))
        self._marks.append((moment, self._open[-1] if self._open else None))

    def take(self) -> dict[str, float]:
        """Return the seconds by part since the last call. Waits until a GPU is done."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)

        seconds = dict.fromkeys(PARTS, 0.0)
        for (start, part), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                seconds[part] += self._seconds(start, end)
        self._marks = []
        return seconds

    def _seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two moments. Events of a GPU tell milliseconds."""
        if self._on_gpu:
            return start.elapsed_time(end) / 1e3
        return end - start


class Waits:
    """Count by torch's profiler how often training steps make the host wait.

    Attributes:
        steps: whole steps that were profiled, each from the end of an optimiser step to the next.
        reads: numbers read from tensors in them (by `.item()` and its like), on any device.
        synchronisations: calls in them that wait for a GPU.
    """

    def __init__(self, device: torch.device, most: int = 12):
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profile = torch.profiler.profile(activities=activities)
        self.steps = self.reads = self.synchronisations = 0
        self._left = most

    def start(self) -> None:
        """Watch the next `most` steps of an optimiser, or those until `stop`."""
        self._hook = register_optimizer_step_post_hook(lambda *_: self._count_down())
        self.profile.start()

    def _count_down(self) -> None:
        """Stop the profiler after the last step that was asked for."""
        self._left -= 1
        if self._left == 0:
            self.profile.stop()

    def stop(self) -> None:
        """Stop the profiler if it still runs, and count in what it has seen."""
        self._hook.remove()
        if self._left > 0:
            self.profile.stop()

        host, ends = [], []
        for event in self.profile.events():
            if event.device_type == torch.autograd.DeviceType.CPU:
                host.append(event)
                if event.name.startswith("Optimizer.step#"):
                    ends.append(event.time_range.end)
        if len(ends) < 2:
            return

        # Only whole steps count: starting and stopping the profiler waits for the GPU as well.
        within = []
        for event in host:
            if min(ends) < event.time_range.start < max(ends):
                within.append(event.name)
        self.steps = len(ends) - 1
        self.reads = within.count("aten::_local_scalar_dense")
        self.synchronisations = sum("Synchronize" in name for name in within)


def flops_per_image(model: str, num_classes: int, shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of forward and backward for one image.

    A multiplication with its addition counts as two.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = models.build(model, num_classes, shape).train()
        # Two images, because batch normalisation refuses one.
        network(torch.randn(2, *shape)).sum().backward()
    return counter.get_total_flops() / 2


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a large square torch.mm.

    It is the best of ten calls, after three to warm up.
    """
    # A GPU is idle with small matrices, and a processor takes long for large ones.
    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device).to(dtype)
    other = torch.randn(side, side, device=device).to(dtype)

    times = []
    for _ in range(13):
        begun = time.perf_counter()
        torch.mm(one, other)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times[3:])
