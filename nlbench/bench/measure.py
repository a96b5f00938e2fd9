"""Time the variants of an op, in one process and in turn."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlbench import ops
from nlbench.bench.load import Span, busy_elsewhere, crowded, work_now
from nlbench.bench.options import BenchOptions, num_examples
from nlbench.bench.variants import TARGET_BYTES, VARIANTS, Call, Shape, Workload, disagreement

# Far more than a processor's caches hold.
COPY_BYTES = 256 << 20

ROUNDS = 20


# ---- Measurements --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """The times of one variant of one shape and dtype.

    Attributes:
        copy_gb_per_s: what a copy_ of COPY_BYTES moved in the same rounds.
        median_us, p25_us, p75_us: microseconds of one call; NaN if n is 0.
        n: number of timed calls.
        compile_seconds: for compiling and the first call; None for variants that are not compiled.
        busy_elsewhere: cores that other programs kept busy; None where it is not known.
        why: the reason why there are no times, or an empty string.
        wrong: whether the variant's results were wrong.
    """

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
    busy_elsewhere: float | None = None
    why: str = ""
    wrong: bool = False

    @property
    def bytes_moved(self) -> int:
        return bytes_moved(self.shape, self.dtype)

    @property
    def gb_per_s(self) -> float:
        # A byte per microsecond is a thousandth of a GB/s.
        return self.bytes_moved / self.median_us / 1e3

    @property
    def share_of_copy(self) -> float:
        return self.gb_per_s / self.copy_gb_per_s


def backend(variant: str, device: torch.device) -> str:
    """Return the name of the code that runs a variant."""
    own = {"eager": "torch eager", "compile": "torch inductor"}
    return own.get(variant) or ops.backend(device)


def bytes_moved(shape: Shape, dtype: str) -> int:
    """Return the bytes that one step must move.

    These are logits read, rows of the targets read and written, and the gradient written.
    """
    logit = getattr(torch, dtype).itemsize
    return shape.B * shape.C * (2 * logit + 2 * TARGET_BYTES)


def times_faster(measurements: Iterable[Measurement], one: Measurement, base: str) -> float | None:
    """Return the median of `base` over that of `one`, at its shape and dtype.

    None if one of them was not timed.
    """
    for other in measurements:
        same = (other.shape, other.dtype) == (one.shape, one.dtype)
        if same and other.variant == base and other.n and one.n:
            return other.median_us / one.median_us
    return None


# ---- Building the variants -----------------------------------------------------------------------


def run(options: BenchOptions) -> Iterator[list[Measurement]]:
    """Measure each dtype and shape in turn, and yield the measurements of its variants."""
    # Computed for all shapes first, so that one that does not fit is refused at once.
    sizes = {shape: num_examples(shape, options.device) for shape in options.shapes}
    copy = _copier(options.device)
    for dtype, shape in itertools.product(options.dtypes, options.shapes):
        work = Workload(shape, getattr(torch, dtype), options.device, sizes[shape])
        yield measure(work, dtype, options.variants, options.seconds, copy)
        # The next shape is compiled as the first one was.
        torch.compiler.reset()


class _Built(NamedTuple):
    """A variant that is ready to be timed; without a call, the reason why it is not."""

    call: Call | None
    why: str = ""
    wrong: bool = False
    compile_seconds: float | None = None


def measure(
    work: Workload, dtype: str, names: Sequence[str], seconds: float, copy: Callable[[], Any]
) -> list[Measurement]:
    """Compare each variant with the formula in float64, then time them in turn."""
    built = {name: _build(name, work) for name in names}
    # A variant that is wrong or does not compile is listed without times.
    calls = {name: one.call for name, one in built.items() if one.call is not None}

    device = work.logits.device
    timed = _timed_cuda if device.type == "cuda" else _timed_cpu
    timings = time_in_turn(calls, copy, work, seconds, timed)
    # A copy reads and writes each byte.
    copy_gb_per_s = 2 * COPY_BYTES / float(np.median(timings.copies)) / 1e3

    measurements = []
    for name, one in built.items():
        numbers: dict[str, Any] = {}
        if name in timings.times:
            p25, median, p75 = np.percentile(timings.times[name], [25, 50, 75]).tolist()
            count = len(timings.times[name])
            numbers = {"median_us": median, "p25_us": p25, "p75_us": p75, "n": count}
        measurements.append(
            Measurement(
                shape=work.shape,
                dtype=dtype,
                variant=name,
                num_examples=work.num_examples,
                backend=backend(name, device),
                copy_gb_per_s=copy_gb_per_s,
                compile_seconds=one.compile_seconds,
                busy_elsewhere=timings.busy_elsewhere,
                why=one.why,
                wrong=one.wrong,
                **numbers,
            )
        )
    return measurements


def _build(name: str, work: Workload) -> _Built:
    """Build a variant, call it once, and compare its results with the formula."""
    start = time.perf_counter()
    try:
        call = VARIANTS[name].build(work)
        wrong = disagreement(name, call, work)
    except Exception as error:
        # Only torch.compile needs a compiler, which a machine may lack.
        if name != "compile":
            raise
        return _Built(None, f"torch.compile failed: {_first_line(error)}")

    # Torch compiles with the first call.
    compile_seconds = None
    if name == "compile":
        compile_seconds = time.perf_counter() - start

    if wrong:
        return _Built(None, wrong, True, compile_seconds)
    return _Built(call, compile_seconds=compile_seconds)


def _first_line(error: BaseException) -> str:
    for line in str(error).splitlines():
        if line.strip():
            return f"{type(error).__name__}: {line.strip()}"
    return type(error).__name__


# ---- Timing -------------------------------------------------------------------------------------


class Timings(NamedTuple):
    """Microseconds of single calls by variant and of copies, and the load by other programs."""

    times: dict[str, list[float]]
    copies: list[float]
    busy_elsewhere: float | None


class _Round(NamedTuple):
    times: dict[str, list[float]]
    copies: list[float]
    span: Span


def time_in_turn(
    calls: Mapping[str, Call],
    copy: Callable[[], Any],
    work: Workload,
    seconds: float,
    timed: Callable[..., float],
) -> Timings:
    """Time the calls in ROUNDS rounds.

    A round is a few copies, then a slice of time for every variant, so that drift affects all of
    them alike. A round in which other programs took cores away is repeated; if most rounds are
    like that, all of them count.

    Args:
        seconds: for each variant, in all rounds together.
        timed: calls its first argument with the others, and returns the microseconds.
    """
    batches = {name: work.epochs() for name in calls}
    order = list(calls)
    quiet: list[_Round] = []
    loud: list[_Round] = []

    # No garbage collection may fall into a call, as with timeit.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name in order:
            _warm_up(calls[name], batches[name], work)

        while len(quiet) < ROUNDS and len(quiet) + len(loud) < 2 * ROUNDS:
            before = work_now()
            # The first copy finds the caches full of another's data.
            copies = [timed(copy) for _ in range(3)][1:]
            times = {}
            for name in order:
                times[name] = _slice(calls[name], batches[name], work, seconds / ROUNDS, timed)
            span = before, work_now()
            kept = loud if crowded(busy_elsewhere([span])) else quiet
            kept.append(_Round(times, copies, span))

            # The variants begin in turn, too.
            order = order[1:] + order[:1]
    finally:
        if collecting:
            gc.enable()

    # Few quiet rounds would be too few for quartiles.
    if len(quiet) < len(loud):
        quiet += loud
    return _together(quiet, list(calls))


def _together(rounds: Sequence[_Round], names: Sequence[str]) -> Timings:
    times: dict[str, list[float]] = {name: [] for name in names}
    copies: list[float] = []
    for one in rounds:
        copies += one.copies
        for name in names:
            times[name] += one.times[name]
    return Timings(times, copies, busy_elsewhere([one.span for one in rounds]))


def _warm_up(call: Call, batches: Iterator[tuple[Tensor, Tensor]], work: Workload) -> None:
    for _ in range(5):
        work.logits.grad = None
        call(*next(batches))


def _slice(
    call: Call,
    batches: Iterator[tuple[Tensor, Tensor]],
    work: Workload,
    seconds: float,
    timed: Callable[..., float],
) -> list[float]:
    """Return the microseconds of at least two calls, for a slice of time."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        # New indices and clearing the gradient are not timed.
        labels, index = next(batches)
        work.logits.grad = None
        times.append(timed(call, labels, index))
    # The first call finds the caches full of another variant's data.
    return times[1:]


def _timed_cpu(call: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter_ns()
    call(*args)
    return (time.perf_counter_ns() - start) / 1e3


def _timed_cuda(call: Callable[..., Any], *args: Any) -> float:
    """Time from an idle device to an idle device: the host's time between launches counts."""
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call(*args)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def _copier(device: torch.device) -> Callable[[], Any]:
    source = torch.ones(COPY_BYTES // 4, device=device)
    destination = torch.zeros_like(source)
    return lambda: destination.copy_(source)
