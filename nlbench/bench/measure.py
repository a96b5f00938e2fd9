"""`nlbench bench`: the fused kernels against what a user would write instead, in one process and in turn."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlbench import ops
from nlbench.bench.setting import ROUNDS, Setting, num_examples
from nlbench.bench.variants import TARGET_BYTES, VARIANTS, Call, Cell, Shape, first_line, official_elr, short_name

COPY_BYTES = 256 << 20  # far more than a processor's caches hold


@dataclass(frozen=True)
class Measurement:
    """One variant of one shape and dtype. `why` says why there are no numbers; n is 0 then."""

    shape: Shape
    dtype: str
    variant: str
    num_examples: int
    backend: str
    copy_gb_per_s: float
    median_us: float = float("nan")
    p25_us: float = float("nan")
    p75_us: float = float("nan")
    n: int = 0
    compile_seconds: float | None = None
    busy_elsewhere: float | None = None  # cores that other programs kept busy meanwhile
    why: str = ""

    @property
    def bytes_moved(self) -> int:
        return bytes_moved(self.shape, self.dtype)

    @property
    def gb_per_s(self) -> float:
        return self.bytes_moved / self.median_us / 1e3

    @property
    def share_of_copy(self) -> float:
        return self.gb_per_s / self.copy_gb_per_s


def backend(variant: str, device: torch.device) -> str:
    """Which code runs a variant."""
    return {"eager": "torch eager", "compile": "torch inductor"}.get(variant) or ops.backend(device)


def bytes_moved(shape: Shape, dtype: str) -> int:
    """What one step must move: logits read, target rows read and written, gradient written."""
    logit = getattr(torch, dtype).itemsize
    return shape.B * shape.C * (2 * logit + 2 * TARGET_BYTES)


def times_faster(measurements: Iterable[Measurement], one: Measurement, base: str) -> float | None:
    """Median of `base` over the median of `one`, at its shape and dtype; None where either is missing."""
    for other in measurements:
        if (other.shape, other.dtype, other.variant) == (one.shape, one.dtype, base) and other.n and one.n:
            return other.median_us / one.median_us
    return None


def run(setting: Setting) -> Iterator[list[Measurement]]:
    """The variants of one shape and dtype after another."""
    rows = {shape: num_examples(shape, setting.device) for shape in setting.shapes}
    copy = _copier(setting.device)
    for dtype, shape in itertools.product(setting.dtypes, setting.shapes):
        cell = Cell(shape, getattr(torch, dtype), setting.device, rows[shape])
        yield measure(cell, setting.variants, setting.seconds, copy)
        torch.compiler.reset()  # the next shape is compiled as the first was


def measure(cell: Cell, names: Sequence[str], seconds: float, copy: Callable[[], Any]) -> list[Measurement]:
    """Check each variant against the formula in float64, then time them in turn."""
    calls: dict[str, Call] = {}
    why: dict[str, str] = {}
    compile_seconds: dict[str, float] = {}
    device = cell.logits.device
    for name in names:
        start = time.perf_counter()
        try:
            call = VARIANTS[name].build(cell)
            disagreement = disagrees(name, call, cell)
        except Exception as error:
            if name != "compile":
                raise
            why[name] = f"torch.compile failed: {first_line(error)}"
            continue
        if name == "compile":
            compile_seconds[name] = time.perf_counter() - start
        if disagreement:
            why[name] = disagreement
        else:
            calls[name] = call

    timed = _timed_cuda if device.type == "cuda" else _timed_cpu
    times, copies, busy_elsewhere = _in_turn(calls, copy, cell, seconds, timed)
    copy_gb_per_s = 2 * COPY_BYTES / float(np.median(copies)) / 1e3

    measurements = []
    for name in names:
        facts = Measurement(
            cell.shape, short_name(cell.dtype), name, cell.num_examples, backend(name, device), copy_gb_per_s
        )
        numbers: dict[str, Any] = {"why": why.get(name, ""), "compile_seconds": compile_seconds.get(name)}
        numbers |= {"busy_elsewhere": busy_elsewhere}
        if name in times:
            p25, median, p75 = np.percentile(times[name], [25, 50, 75]).tolist()
            numbers |= {"median_us": median, "p25_us": p25, "p75_us": p75, "n": len(times[name])}
        measurements.append(Measurement(**(vars(facts) | numbers)))
    return measurements


def disagrees(name: str, call: Call, cell: Cell) -> str:
    """Why the variant's loss, gradient or targets differ from the formula in float64; "" when they do not."""
    labels, index = cell.batches[0]
    before = cell.targets[index]
    cell.logits.grad = None
    result = call(labels, index)
    if name == "step":
        loss, gradient = result
    else:
        assert cell.logits.grad is not None
        loss, gradient = result, cell.logits.grad
    after = cell.targets[index]
    cell.targets[index] = before

    exact = cell.logits.detach().double().requires_grad_()
    memory = before.double()
    exact_loss = official_elr(exact, labels, torch.arange(len(index), device=index.device), memory)
    exact_loss.backward()
    assert exact.grad is not None
    # A gradient is rounded to the dtype of the logits; where p is on the clamp's bound, float32 may see it off the
    # bound, which moves an entry by up to 1e-3 of the largest.
    rounding = max(1e-3, 2 * torch.finfo(cell.dtype).eps)
    for what, got, want, allowed in (
        ("loss", loss.detach().double().mean(), exact_loss.detach(), 1e-4),
        ("gradient", gradient.double(), exact.grad, rounding),
        ("targets", after.double(), memory, 1e-4),
    ):
        difference = float((got - want).abs().max() / want.abs().max())
        if not difference <= allowed:
            return f"wrong, so not timed: {what} off by {difference:.1e} of its largest entry, {allowed:.0e} is allowed"
    return ""


def _in_turn(
    calls: Mapping[str, Call], copy: Callable[[], Any], cell: Cell, seconds: float, timed: Callable[..., float]
) -> tuple[dict[str, list[float]], list[float], float | None]:
    """Microseconds of single calls and of copies, and how many cores other programs kept busy meanwhile.

    A round is a few copies, then a slice of time for every variant, so that drift hits all alike. A crowded round is
    repeated; where the quiet ones stay in the minority, all count.
    """
    batches = {name: cell.epochs() for name in calls}
    quiet: list[tuple[dict[str, list[float]], list[float], Span]] = []
    loud: list[tuple[dict[str, list[float]], list[float], Span]] = []
    order = list(calls)
    collecting = gc.isenabled()
    gc.disable()  # no cyclic garbage collection falls into a call, as with timeit
    try:
        for name in order:  # warm up
            for _ in range(5):
                cell.logits.grad = None
                calls[name](*next(batches[name]))
        while len(quiet) < ROUNDS and len(quiet) + len(loud) < 2 * ROUNDS:
            before = _work()
            copies = [timed(copy) for _ in range(3)][1:]
            times = {name: _slice(calls[name], batches[name], cell, seconds / ROUNDS, timed) for name in order}
            span = before, _work()
            (loud if crowded(_busy_elsewhere([span])) else quiet).append((times, copies, span))
            order = order[1:] + order[:1]
    finally:
        if collecting:
            gc.enable()
    kept = quiet if len(quiet) >= len(loud) else quiet + loud
    together = {name: [one for times, _, _ in kept for one in times[name]] for name in calls}
    copies = [one for _, copies, _ in kept for one in copies]
    return together, copies, _busy_elsewhere([span for _, _, span in kept])


def _slice(
    call: Call, batches: Iterator[tuple[Tensor, Tensor]], cell: Cell, seconds: float, timed: Callable[..., float]
) -> list[float]:
    """New indices and clearing the gradient are outside the times. The first call finds the caches full of another
    variant's data, and is left out."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        labels, index = next(batches)
        cell.logits.grad = None
        times.append(timed(call, labels, index))
    return times[1:]


def _timed_cpu(call: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter_ns()
    call(*args)
    return (time.perf_counter_ns() - start) / 1e3


def _timed_cuda(call: Callable[..., Any], *args: Any) -> float:
    """From an idle device to an idle device, so that what the host adds between launches counts."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call(*args)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


class Work(NamedTuple):
    """Seconds: on the clock, and of work that all cores together and this process have done since they started."""

    clock: float
    machine: float
    own: float


Span = tuple[Work | None, Work | None]


def _work() -> Work | None:
    """None where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, stolen = map(int, fields)
    ticks = user + nice + system + irq + softirq + stolen
    return Work(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def _busy_elsewhere(spans: Iterable[Span]) -> float | None:
    """Cores that other programs kept busy; None where that is not known, or the time too short for a tick of 10 ms."""
    clock = others = 0.0
    for before, after in spans:
        if before and after:
            clock += after.clock - before.clock
            others += (after.machine - before.machine) - (after.own - before.own)
    return max(0.0, others / clock) if clock > 0.1 else None


def crowded(busy_elsewhere: float | None) -> bool:
    """Whether other programs leave fewer cores than there are threads here.

    A thread that waits for a core makes the others spin: torch's parallel regions then take milliseconds instead of
    microseconds, while code that runs on one thread hardly notices, so even ratios are wrong.
    """
    if busy_elsewhere is None:
        return False
    return (os.cpu_count() or 1) - busy_elsewhere < torch.get_num_threads() - 0.15


def _copier(device: torch.device) -> Callable[[], Any]:
    source = torch.ones(COPY_BYTES // 4, device=device)
    destination = torch.zeros_like(source)
    return lambda: destination.copy_(source)
