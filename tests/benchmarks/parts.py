"""Where the time of a training goes: clocks around the pieces of an epoch, what a step makes the host wait for."""

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

# An epoch is what `other` times, the rest is within it; each part's seconds are without the parts inside it.
PLACES: tuple[tuple[str, Any, str], ...] = (
    ("augment", Images, "augmented"),
    ("forward", Network, "replay"),
    ("backward", torch.Tensor, "backward"),
    ("optimiser", torch.optim.SGD, "step"),
    ("optimiser", torch.optim.Optimizer, "zero_grad"),
    ("loss", ops, "elr_step"),
    ("other", train, "train_epoch"),
)
PARTS = tuple(dict.fromkeys(part for part, _, _ in PLACES))
FREE = ("forward", "backward", "optimiser")  # what any loop must do


class Clock:
    """Seconds of training epochs by part: the host's clock, on a GPU events in its stream.

    Between two events lies what the GPU did, and where it waited for the host.
    """

    def __init__(self, device: torch.device):
        self._device, self._on_gpu = device, device.type == "cuda"
        self._open: list[str] = []  # parts begun and not ended, the innermost last
        self._marks: list[tuple[Any, str | None]] = []  # a moment, and the part that goes on from it

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within it, the training epochs of ELR are timed. Evaluation, and other threads' work, is not."""
        with contextlib.ExitStack() as stack:
            for part, owner, name in PLACES:
                stack.enter_context(mock.patch.object(owner, name, self._timed(part, getattr(owner, name))))
            yield

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
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
        moment: Any = time.perf_counter()
        if self._on_gpu:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record(torch.cuda.current_stream(self._device))
        self._marks.append((moment, self._open[-1] if self._open else None))

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call. On a GPU it waits until the device is done."""
        seconds = dict.fromkeys(PARTS, 0.0)
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        for (start, part), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                seconds[part] += start.elapsed_time(end) / 1e3 if self._on_gpu else end - start
        self._marks = []
        return seconds


class Waits:
    """What steady training steps make the host wait for, as torch's profiler sees it.

    Attributes:
        steps: whole steps that were looked at, from the end of one optimiser step to the end of another.
        reads: numbers that Python asked a tensor for in them (`.item()` and its like), on whatever device.
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
        self._left -= 1
        if self._left == 0:
            self.profile.stop()

    def stop(self) -> None:
        self._hook.remove()
        if self._left > 0:
            self.profile.stop()
        host = [event for event in self.profile.events() if event.device_type == torch.autograd.DeviceType.CPU]
        ends = sorted(event.time_range.end for event in host if event.name.startswith("Optimizer.step#"))
        # Starting and stopping the profiler waits for the GPU as well, and lies outside of these.
        within = [event.name for event in host if ends and ends[0] < event.time_range.start < ends[-1]]
        self.steps = max(len(ends) - 1, 0)
        self.reads = within.count("aten::_local_scalar_dense")
        self.synchronisations = sum("Synchronize" in name for name in within)


def flops_per_image(model: str, num_classes: int, shape: tuple[int, ...]) -> float:
    """Floating-point operations of forward and backward; a multiplication with its addition is two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        models.build(model, num_classes, shape).train()(torch.randn(2, *shape)).sum().backward()
    return counter.get_total_flops() / 2


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large square torch.mm: the best of ten, after three to warm up."""
    side = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(13):
        begun = time.perf_counter()
        torch.mm(one, other)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times[3:])
