"""`nlbench bench`: the fused kernels against what a user would write instead, in one process and in turn."""

from __future__ import annotations

import csv
import gc
import itertools
import os
import platform
import re
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlbench import ops
from nlbench.errors import UserError, did_you_mean
from nlbench.tables import markdown
from nlbench.train import processor

BETA, LAM = 0.7, 3.0  # the authors' values for CIFAR-10; no timing depends on them
OPS = ("elr",)
DTYPES = ("float32", "bfloat16", "float16")
PICTURES = (".png", ".pdf", ".svg")
TARGET_BYTES = 4  # the memory is float32 whatever the logits are, as the authors' is
NUM_EXAMPLES = 50_000  # CIFAR's training set
ROUNDS = 20
COPY_BYTES = 256 << 20  # far more than a processor's caches hold


class Shape(NamedTuple):
    B: int
    C: int

    def __str__(self) -> str:
        return f"{self.B}x{self.C}"


# Classes of CIFAR-10, CIFAR-100, Clothing1M, mini-WebVision, and ImageNet at two batch sizes.
SHAPES = [Shape(128, 10), Shape(128, 100), Shape(64, 14), Shape(32, 50), Shape(1024, 1000), Shape(4096, 1000)]

Call = Callable[[Tensor, Tensor], Any]  # (labels, index) -> anything; forward and backward of one step


class Cell:
    """What all variants of one shape and dtype share: logits, memory and batches. The memory is warm from the start."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device, num_examples: int):
        self.shape, self.dtype, self.num_examples = shape, dtype, num_examples
        generator = torch.Generator().manual_seed(0)
        # A leaf that requires grad, so that every variant pays the same fixed cost of the autograd engine.
        self.logits = (2 * torch.randn(shape, generator=generator)).to(device, dtype).requires_grad_()
        seen = (2 * torch.randn(num_examples, shape.C, generator=generator)).softmax(1)
        self.targets = seen.mul_(1 - BETA**5).to(device)  # after five visits
        order = torch.randperm(num_examples, generator=generator)
        labels = torch.randint(shape.C, (num_examples,), generator=generator)
        ends = range(shape.B, num_examples + 1, shape.B)
        self.batches = [(labels[end - shape.B : end].to(device), order[end - shape.B : end].to(device)) for end in ends]

    def epochs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(labels, index), batch after batch of an epoch's order, again and again."""
        return itertools.cycle(self.batches)


def official_elr(logits: Tensor, labels: Tensor, index: Tensor, targets: Tensor) -> Tensor:
    """ELR in plain PyTorch, with the operations of the authors' code in their order, on float32 or wider.

    Half types are widened first: in bfloat16 the upper bound of the clamp rounds to 1, and the loss becomes infinite.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    q = z.softmax(1).clamp(1e-4, 1 - 1e-4)
    seen = q.detach()
    targets[index] = BETA * targets[index] + (1 - BETA) * (seen / seen.sum(1, keepdim=True))
    agreement = (targets[index] * q).sum(1)
    return F.cross_entropy(z, labels) + LAM * (1 - agreement).log().mean()


def _autograd(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = ops.elr_loss(cell.logits, labels, index, cell.targets, beta=BETA, lam=LAM)
        loss.backward()
        return loss

    return call


def _step_backward(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        rows, dlogits = ops.elr_step(cell.logits.detach(), labels, index, cell.targets, beta=BETA, lam=LAM)
        cell.logits.backward(dlogits)
        return rows

    return call


def _step(cell: Cell) -> Call:
    def call(labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return ops.elr_step(cell.logits.detach(), labels, index, cell.targets, beta=BETA, lam=LAM)

    return call


def _eager(cell: Cell, loss_of: Callable[..., Tensor] = official_elr) -> Call:
    def call(labels: Tensor, index: Tensor) -> Tensor:
        loss = loss_of(cell.logits, labels, index, cell.targets)
        loss.backward()
        return loss

    return call


def _compile(cell: Cell) -> Call:
    # Shapes are static and the number of threads is written down: what one shape or thread count compiled is never
    # taken for another.
    options: dict[str, Any] = {"cpp.threads": torch.get_num_threads()} if cell.logits.is_cpu else {}
    return _eager(cell, torch.compile(official_elr, fullgraph=True, dynamic=False, options=options))


class Variant(NamedTuple):
    meaning: str
    build: Callable[[Cell], Call]


VARIANTS = {
    "autograd": Variant("loss = ops.elr_loss(logits, ...); loss.backward()", _autograd),
    "step+backward": Variant("rows, d = ops.elr_step(logits.detach(), ...); logits.backward(d)", _step_backward),
    "step": Variant("ops.elr_step alone: loss and gradient, without the autograd engine", _step),
    "eager": Variant("the authors' operations in plain PyTorch, loss.backward()", _eager),
    "compile": Variant("torch.compile of those, loss.backward()", _compile),
}
BASES = ("eager", "compile")


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


@dataclass(frozen=True)
class Setting:
    """What to measure. `read` makes one from the command line's text."""

    op: str
    shapes: list[Shape]
    dtypes: list[str]
    seconds: float  # per variant
    device: torch.device
    variants: list[str]

    @staticmethod
    def read(
        op: str, shapes: str, dtypes: str, seconds: float, threads: int | None, device: str, compiled: bool
    ) -> Setting:
        """No shapes are SHAPES. Raises UserError with every problem, one a line."""
        problems: list[str] = []
        if op not in OPS:
            problems.append(f"--op {op}: unknown. There are: {', '.join(OPS)}.{did_you_mean(op, OPS)}")
        names = _words(dtypes)
        for name in names:
            if name not in DTYPES:
                known = f"There are: {', '.join(DTYPES)}.{did_you_mean(name, DTYPES)}"
                problems.append(f"--dtypes {name}: unknown. {known}")
        if not names:
            problems.append(f"--dtypes: names none. There are: {', '.join(DTYPES)}.")
        read = [_shape(text, problems) for text in _words(shapes)] or SHAPES
        if not 0 < seconds < float("inf"):
            problems.append(f"--seconds {seconds:g}: must be above 0")
        if threads is not None and threads < 1:
            problems.append(f"--threads {threads}: must be 1 or more")
        where = _device(device, problems)
        if problems:
            raise UserError("\n".join(problems))
        variants = [name for name in VARIANTS if compiled or name != "compile"]
        kept = list(dict.fromkeys(shape for shape in read if shape))
        return Setting(op, kept, list(dict.fromkeys(names)), seconds, where, variants)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _shape(text: str, problems: list[str]) -> Shape | None:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if not match:
        problems.append(f"--shapes {text}: not a shape. Write BxC, rows by classes, as in 128x10,1024x1000")
        return None
    shape = Shape(int(match[1]), int(match[2]))
    if shape.B < 1 or shape.C < 2:
        problems.append(f"--shapes {text}: needs at least 1 row and 2 classes")
        return None
    return shape


def _device(text: str, problems: list[str]) -> torch.device:
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if not match:
        problems.append(f"--device {text}: must be cpu, cuda or cuda:N")
    elif text != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        problems.append(f"--device {text}: torch sees {torch.cuda.device_count() or 'no'} GPU here")
    else:
        return torch.device(text)
    return torch.device("cpu")


def check_writable(option: str, path: Path, endings: Sequence[str] = ()) -> None:
    """UserError unless a file can be written there, before minutes are spent on its content."""
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: must end in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{option} {path}: may not be written")


def num_examples(shape: Shape, device: torch.device) -> int:
    """Rows of the memory: as CIFAR has, or what an eighth of the machine's memory holds; UserError when under B."""
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0]
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit = memory // 8 // (TARGET_BYTES * shape.C)
    if fit < shape.B:
        raise UserError(
            f"--shapes {shape}: a memory of {shape.B} rows takes {TARGET_BYTES * shape.B * shape.C / 2**30:.1f} GiB, "
            f"and an eighth of this machine's memory is {memory / 8 / 2**30:.1f} GiB"
        )
    return max(shape.B, min(NUM_EXAMPLES, fit))


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
            why[name] = f"torch.compile failed: {_first_line(error)}"
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
            cell.shape, _name(cell.dtype), name, cell.num_examples, backend(name, device), copy_gb_per_s
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


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def hardware(setting: Setting) -> dict[str, Any]:
    """What every row of the CSV repeats."""
    cuda = setting.device.type == "cuda"
    return {
        "device": setting.device.type,
        "device_name": torch.cuda.get_device_name(setting.device) if cuda else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
        "nlbench": version("nlbench"),
        "kernels": ops.source_hash()[:16],
        "kernels_simd": ops.cpu_isa() if setting.device.type == "cpu" else "",
    }


def render(setting: Setting, measurements: Sequence[Measurement]) -> str:
    """For each dtype the table of all variants, then the ratios in short."""
    facts = hardware(setting)
    notes = [
        f"{facts['device_name']}, {facts['cores']} cores, {facts['threads']} threads; {facts['platform']}; "
        f"python {facts['python']}, torch {facts['torch']} ({facts['torch_simd']}), nlbench {facts['nlbench']}, "
        f"kernels {facts['kernels'] or 'not compiled'}; the fused variants ran as: {ops.backend(setting.device)} "
        f"{facts['kernels_simd']}".rstrip()
        + ".",
        *(f"{name}: {VARIANTS[name].meaning}." for name in setting.variants),
        _how(setting),
        "GB/s: logits read, target rows read and written, gradient written, over the median; of copy: its share of "
        "what a copy_ of 256 MiB moves in the same rounds, bytes read and written.",
    ]
    sizes = {m.shape: m.num_examples for m in measurements}
    notes.append("Rows of the memory: " + ", ".join(f"{n:,} at {shape}" for shape, n in sizes.items()) + ".")
    notes += dict.fromkeys(f"{m.shape} {m.dtype} {m.variant}: {m.why}." for m in measurements if m.why)
    notes += dict.fromkeys(
        f"! {m.shape} {m.dtype}: NOT RELIABLE: other programs kept {m.busy_elsewhere:.1f} of {facts['cores']} cores "
        f"busy, and {facts['threads']} threads waited for each other. Repeat when it is idle, or with fewer --threads."
        for m in measurements
        if crowded(m.busy_elsewhere)
    )
    blocks = []
    for dtype in setting.dtypes:
        own = [m for m in measurements if m.dtype == dtype]
        if own:
            blocks += [_details(setting, dtype, own), _summary(setting, dtype, own)]
    return "\n\n".join([*(block.strip() for block in blocks), "\n".join(f"- {note}" for note in notes)]) + "\n"


def _how(setting: Setting) -> str:
    clock = "CUDA events around a call, the device idle before it" if setting.device.type == "cuda" else "wall clock"
    return (
        f"One call each ({clock}), the variants in turn over {ROUNDS} rounds; new indices and clearing the gradient "
        "are not in it; a round in which other programs took cores away is repeated. vs: how many times faster, median "
        "over median."
    )


def _details(setting: Setting, dtype: str, measurements: Sequence[Measurement]) -> str:
    heads = ["shape, variant", "median µs", "quartiles µs", "n", *(f"vs {base}" for base in BASES)]
    heads += ["GB/s", "of copy", "compiled in"]
    rows = []
    for m in measurements:
        label = f"{m.shape} {m.variant}{' !' if crowded(m.busy_elsewhere) else ''}"
        compiled = "" if m.compile_seconds is None else f"{m.compile_seconds:.1f} s"
        if not m.n:
            rows.append([label, "-", "-", "0", "-", "-", "-", "-", compiled])
            continue
        quartiles = f"{_us(m.p25_us)} to {_us(m.p75_us)}"
        ratios = [_ratio(times_faster(measurements, m, base)) for base in BASES]
        rates = [f"{m.gb_per_s:.2f}", f"{100 * m.share_of_copy:.1f}%"]
        rows.append([label, _us(m.median_us), quartiles, str(m.n), *ratios, *rates, compiled])
    copies = [m.copy_gb_per_s for m in measurements]
    title = f"{setting.op}, {dtype}: one step, forward and backward; copy_ moves {_range(copies)} GB/s"
    return markdown(title, heads, rows, [])


def _summary(setting: Setting, dtype: str, measurements: Sequence[Measurement]) -> str:
    heads = [
        "shape",
        "step+backward vs eager",
        "step+backward vs compile",
        "autograd vs compile",
        "step alone vs eager",
        "step alone, of copy",
    ]
    rows = []
    for shape in dict.fromkeys(m.shape for m in measurements):
        by_name = {m.variant: m for m in measurements if m.shape == shape}
        pairs = [("step+backward", "eager"), ("step+backward", "compile"), ("autograd", "compile"), ("step", "eager")]
        ratios = [_ratio(times_faster(measurements, by_name[one], base)) for one, base in pairs]
        mark = " !" if crowded(by_name["step"].busy_elsewhere) else ""
        share = f"{100 * by_name['step'].share_of_copy:.1f}%" if by_name["step"].n else "-"
        rows.append([f"{shape}{mark}", *ratios, share])
    return markdown(f"{setting.op}, {dtype}: times faster, medians", heads, rows, [])


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _us(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


COLUMNS = (
    *("op", "B", "C", "num_examples", "dtype", "variant", "backend"),
    *("median_us", "p25_us", "p75_us", "n", "times_faster_than_eager", "times_faster_than_compile"),
    *("bytes_moved", "gb_per_s", "copy_gb_per_s", "share_of_copy", "compile_seconds", "busy_elsewhere", "why"),
    *("device", "device_name", "cores", "threads", "platform", "python", "torch", "torch_simd"),
    *("nlbench", "kernels", "kernels_simd"),
)


def as_rows(setting: Setting, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A dict with COLUMNS for each measurement; "" where there is no number."""
    facts = hardware(setting)
    rows = []
    for m in measurements:
        row: dict[str, Any] = {"op": setting.op, "B": m.shape.B, "C": m.shape.C, **facts}
        row |= {name: getattr(m, name) for name in ("num_examples", "dtype", "variant", "backend", "n", "why")}
        row |= {"bytes_moved": m.bytes_moved, "copy_gb_per_s": f"{m.copy_gb_per_s:.3f}"}
        numbers: dict[str, float | None] = {"compile_seconds": m.compile_seconds, "busy_elsewhere": m.busy_elsewhere}
        if m.n:
            names = ("median_us", "p25_us", "p75_us", "gb_per_s", "share_of_copy")
            numbers |= {name: getattr(m, name) for name in names}
            numbers |= {f"times_faster_than_{base}": times_faster(measurements, m, base) for base in BASES}
        row |= {name: f"{value:.4f}" for name, value in numbers.items() if value is not None}
        rows.append({name: row.get(name, "") for name in COLUMNS})
    return rows


def write_csv(path: Path, setting: Setting, measurements: Sequence[Measurement]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(as_rows(setting, measurements))
    except OSError as error:
        raise UserError(f"--csv {path}: cannot be written: {error.strerror}") from None


_COLOURS = {
    "eager": "#b0b0b0",
    "compile": "#6f6f6f",
    "autograd": "#9ecae1",
    "step+backward": "#3182bd",
    "step": "#08306b",
}


def plot(path: Path, setting: Setting, measurements: Sequence[Measurement]) -> None:
    """Time and share of the copy bandwidth, a column of panels per dtype."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dtypes = [d for d in setting.dtypes if any(m.dtype == d for m in measurements)]
    shapes = list(dict.fromkeys(m.shape for m in measurements))
    names = [name for name in _COLOURS if any(m.variant == name and m.n for m in measurements)]
    width = 2 + max(4.0, 1.15 * len(shapes)) * len(dtypes)
    wide = width > 8
    figure = Figure(figsize=(width, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(dtypes), sharey="row", sharex=True, squeeze=False)
    bar = 0.84 / len(names)
    for column, dtype in enumerate(dtypes):
        above, below = panels[0][column], panels[1][column]
        for place, name in enumerate(names):
            own = [m for m in measurements if m.dtype == dtype and m.variant == name and m.n]
            x = [shapes.index(m.shape) + (place - (len(names) - 1) / 2) * bar for m in own]
            medians = [m.median_us for m in own]
            spread = [[m.median_us - m.p25_us for m in own], [m.p75_us - m.median_us for m in own]]
            style: dict[str, Any] = {"width": bar, "color": _COLOURS[name], "label": name}
            above.bar(x, medians, yerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "black"}, **style)
            below.bar(x, [100 * m.share_of_copy for m in own], **style)
        above.set_title(dtype)
        above.set_yscale("log")
        below.set_xticks(range(len(shapes)), [str(shape) for shape in shapes])
        below.set_xlabel("rows x classes")
        for panel in (above, below):
            panel.grid(axis="y", color="#dddddd", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("µs per step, median and quartiles")
    panels[1][0].set_ylabel("% of the copy bandwidth")
    facts = hardware(setting)
    title = f"{setting.op}: {facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}"
    if loud := dict.fromkeys(f"{m.shape} {m.dtype}" for m in measurements if crowded(m.busy_elsewhere)):
        title += "\n" + textwrap.fill(
            f"NOT RELIABLE, other programs took cores away: {', '.join(loud)}", 20 + 60 * len(dtypes)
        )
    figure.suptitle(title, fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names) if wide else 3, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--plot {path}: cannot be written: {error.strerror}") from None
