"""Print measurements as Markdown, and write them as CSV."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nlbench import ops
from nlbench.bench.load import crowded
from nlbench.bench.measure import ROUNDS, Measurement, times_faster
from nlbench.bench.options import BenchOptions
from nlbench.bench.variants import BASES, VARIANTS, Shape
from nlbench.errors import UserError
from nlbench.hardware import device_name
from nlbench.results.formats import markdown

# ---- The machine ---------------------------------------------------------------------------------


def environment(device: torch.device) -> dict[str, Any]:
    """Return the hardware and versions that each line of the CSV repeats."""
    # Only the kernels on a CPU have an instruction set to name.
    kernels_simd = ops.cpu_isa() if device.type == "cpu" else ""
    return {
        "device": device.type,
        "device_name": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_simd": torch.backends.cpu.get_cpu_capability(),
        "nlbench": version("nlbench"),
        "kernels": ops.source_hash()[:16],
        "kernels_simd": kernels_simd,
    }


# ---- Markdown -----------------------------------------------------------------------------------


def render(options: BenchOptions, measurements: Sequence[Measurement]) -> str:
    """Return the report: for each dtype a table of all variants and one of ratios, then notes."""
    blocks = []
    for dtype in options.dtypes:
        own = [m for m in measurements if m.dtype == dtype]
        # After an interrupt not every dtype was measured.
        if own:
            blocks.append(_details(options.op, dtype, own).strip())
            blocks.append(_summary(options.op, dtype, own).strip())

    notes = [f"- {note}" for note in _notes(options, measurements)]
    return "\n\n".join([*blocks, "\n".join(notes)]) + "\n"


def _notes(options: BenchOptions, measurements: Sequence[Measurement]) -> list[str]:
    facts = environment(options.device)
    notes = [_describe(facts, ops.backend(options.device))]
    for name in options.variants:
        notes.append(f"{name}: {VARIANTS[name].meaning}.")
    notes.append(_describe_timing(options.device))
    notes.append(
        "GB/s: logits read, target rows read and written, gradient written, over the median; of "
        "copy: its share of what a copy_ of 256 MiB moves in the same rounds, bytes read and "
        "written."
    )

    counts = dict.fromkeys(f"{m.num_examples:,} at {m.shape}" for m in measurements)
    notes.append(f"Rows of the memory: {', '.join(counts)}.")

    for m in measurements:
        if m.why:
            notes.append(f"{m.shape} {m.dtype} {m.variant}: {m.why}.")
    notes += _warnings(measurements, facts)

    return notes


def _describe(facts: dict[str, Any], backend: str) -> str:
    machine = f"{facts['device_name']}, {facts['cores']} cores, {facts['threads']} threads"
    versions = (
        f"python {facts['python']}, torch {facts['torch']} ({facts['torch_simd']}), "
        f"nlbench {facts['nlbench']}, kernels {facts['kernels'] or 'not compiled'}"
    )
    fused = f"the fused variants ran as: {backend} {facts['kernels_simd']}".rstrip()
    return f"{machine}; {facts['platform']}; {versions}; {fused}."


def _describe_timing(device: torch.device) -> str:
    clock = "wall clock"
    if device.type == "cuda":
        clock = "CUDA events around a call, the device idle before it"
    return (
        f"One call each ({clock}), the variants in turn over {ROUNDS} rounds; new indices and "
        "clearing the gradient are not in it; a round in which other programs took cores away is "
        "repeated. vs: how many times faster, median over median."
    )


def _warnings(measurements: Sequence[Measurement], facts: dict[str, Any]) -> list[str]:
    """Return a warning for each shape and dtype that other programs disturbed."""
    warnings: list[str] = []
    for m in measurements:
        warning = (
            f"! {m.shape} {m.dtype}: NOT RELIABLE: other programs kept {m.busy_elsewhere or 0:.1f} "
            f"of {facts['cores']} cores busy, and {facts['threads']} threads waited for each "
            "other. Repeat when it is idle, or with fewer --threads."
        )
        # The variants of a shape are timed in the same rounds, so they share a warning.
        if crowded(m.busy_elsewhere) and warning not in warnings:
            warnings.append(warning)
    return warnings


def _details(op: str, dtype: str, measurements: Sequence[Measurement]) -> str:
    """Return a table with a line for each variant of each shape."""
    ratios = [f"vs {base}" for base in BASES]
    heads = ["shape, variant", "median µs", "quartiles µs", "n", *ratios]
    heads += ["GB/s", "of copy", "compiled in"]
    lines = [_details_line(m, measurements) for m in measurements]

    rates = sorted(m.copy_gb_per_s for m in measurements)
    copy = f"copy_ moves {_range(rates[0], rates[-1])} GB/s"
    title = f"{op}, {dtype}: one step, forward and backward; {copy}"
    return markdown(title, heads, lines, [])


def _details_line(m: Measurement, measurements: Sequence[Measurement]) -> list[str]:
    label = f"{m.shape} {m.variant}{_mark(m)}"
    compiled = "" if m.compile_seconds is None else f"{m.compile_seconds:.1f} s"
    if not m.n:
        return [label, "-", "-", "0", "-", "-", "-", "-", compiled]

    quartiles = f"{_microseconds(m.p25_us)} to {_microseconds(m.p75_us)}"
    ratios = [_ratio(times_faster(measurements, m, base)) for base in BASES]
    rates = [f"{m.gb_per_s:.2f}", f"{100 * m.share_of_copy:.1f}%"]
    return [label, _microseconds(m.median_us), quartiles, str(m.n), *ratios, *rates, compiled]


# Column of the summary -> (variant, the one it is compared with).
_PAIRS = {
    "step+backward vs eager": ("step+backward", "eager"),
    "step+backward vs compile": ("step+backward", "compile"),
    "autograd vs compile": ("autograd", "compile"),
    "step alone vs eager": ("step", "eager"),
}


def _summary(op: str, dtype: str, measurements: Sequence[Measurement]) -> str:
    """Return a table with a line for each shape: how many times faster."""
    by_shape: dict[Shape, dict[str, Measurement]] = {}
    for m in measurements:
        by_shape.setdefault(m.shape, {})[m.variant] = m

    lines = []
    for shape, by_name in by_shape.items():
        own = list(by_name.values())
        ratios = []
        for variant, base in _PAIRS.values():
            ratios.append(_ratio(times_faster(own, by_name[variant], base)))

        step = by_name["step"]
        share = f"{100 * step.share_of_copy:.1f}%" if step.n else "-"
        lines.append([f"{shape}{_mark(step)}", *ratios, share])
    heads = ["shape", *_PAIRS, "step alone, of copy"]
    return markdown(f"{op}, {dtype}: times faster, medians", heads, lines, [])


def _mark(m: Measurement) -> str:
    return " !" if crowded(m.busy_elsewhere) else ""


def _range(low: float, high: float) -> str:
    first, last = f"{low:.1f}", f"{high:.1f}"
    return first if first == last else f"{first} to {last}"


def _microseconds(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# ---- CSV ----------------------------------------------------------------------------------------

COLUMNS = (
    *("op", "B", "C", "num_examples", "dtype", "variant", "backend"),
    *("median_us", "p25_us", "p75_us", "n", "times_faster_than_eager", "times_faster_than_compile"),
    *("bytes_moved", "gb_per_s", "copy_gb_per_s", "share_of_copy", "compile_seconds"),
    *("busy_elsewhere", "why", "device", "device_name", "cores", "threads", "platform", "python"),
    *("torch", "torch_simd", "nlbench", "kernels", "kernels_simd"),
)


def write_csv(path: Path, options: BenchOptions, measurements: Sequence[Measurement]) -> None:
    """Write a line with COLUMNS for each measurement. Raises UserError if that fails."""
    facts = environment(options.device)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            for m in measurements:
                writer.writerow({"op": options.op, **_csv_line(m, measurements), **facts})
    except OSError as error:
        raise UserError(f"--csv {path}: cannot be written: {error.strerror}") from None


def _csv_line(m: Measurement, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the values of a measurement by column; columns without a number are left out."""
    numbers: dict[str, float | None] = {
        "compile_seconds": m.compile_seconds,
        "busy_elsewhere": m.busy_elsewhere,
    }
    if m.n:
        for name in ("median_us", "p25_us", "p75_us", "gb_per_s", "share_of_copy"):
            numbers[name] = getattr(m, name)
        for base in BASES:
            numbers[f"times_faster_than_{base}"] = times_faster(measurements, m, base)

    line: dict[str, Any] = {
        "B": m.shape.B,
        "C": m.shape.C,
        "num_examples": m.num_examples,
        "dtype": m.dtype,
        "variant": m.variant,
        "backend": m.backend,
        "n": m.n,
        "bytes_moved": m.bytes_moved,
        "copy_gb_per_s": f"{m.copy_gb_per_s:.3f}",
        "why": m.why,
    }
    for name, value in numbers.items():
        if value is not None:
            line[name] = f"{value:.4f}"
    return line
