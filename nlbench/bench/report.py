"""Report."""

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
from nlbench.bench.measure import Measurement, crowded, times_faster
from nlbench.bench.setting import ROUNDS, Setting
from nlbench.bench.variants import BASES, VARIANTS
from nlbench.errors import UserError
from nlbench.hardware import processor
from nlbench.results.formats import markdown


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
