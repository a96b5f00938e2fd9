"""One, two and eight processes on one suite, whose data they all have to decode first."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bookkeeping import Books, finished, results
from PIL import Image
from small_suite import Laboratory

# Parquet files are unpacked into the cache, once. Two of the methods share helper networks.
SUITE = """\
name: processes
protocol: images-32
datasets:
  - {name: folder, path: PICTURES}
methods:
  forward: {}
  backward: {}
  co-teaching: {}
  ce: {}
  gce: {}
  elr: {}
seeds: [0, 1, 2, 3, 4]
overrides: {model: cnn3, epochs: 2, batch_size: 64, resize: 18, crop: 16, precision: float32}
"""
RUNS = 30
_CLASSES = 3


@dataclass
class Together:
    """What so many processes have made of the suite.

    Attributes:
        trained: how often each run was trained to its end, as number of times -> runs.
        shares: how many runs each process has trained.
        problems: one line for everything that must not be.
    """

    processes: int
    seconds: float
    trained: Counter[int]
    shares: list[int]
    table: str
    cache: list[str]
    problems: list[str] = field(default_factory=list)


def write_pictures(folder: Path, train: int = 600, test: int = 120) -> Path:
    """Write two parquet files of noisy pictures of three classes. Every fifth label is wrong."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("test", test)):
        clean = np.arange(count) % _CLASSES
        labels = np.where((np.arange(count) % 5 == 0) & (part == "train"), (clean + 1) % 3, clean)
        pictures = [{"bytes": _picture(rng, label), "path": None} for label in clean]
        columns = {"image": pictures, "label": labels, "clean_label": clean}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
    return folder


def _picture(rng: np.random.Generator, label: int) -> bytes:
    """Return the bytes of a picture in which one colour is brighter than the others."""
    pixels = rng.integers(0, 120, (20, 20, 3), dtype=np.uint8)
    pixels[..., label] += 60
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def train_together(folder: Path, pictures: Path, processes: int) -> Together:
    """Start so many commands at once, on an empty store and an empty cache."""
    text = SUITE.replace("PICTURES", str(pictures))
    # Images are decoded in the runs' own processes: eight pools would be too many.
    env = {"NLBENCH_CACHE": str(folder / "cache"), "NLBENCH_WORKERS": "0"}
    lab = Laboratory(folder, folder / "store", text, env)
    began = time.monotonic()
    calls = [lab.start() for _ in range(processes)]
    for call in calls:
        call.finish(600)
    seconds = time.monotonic() - began

    ends = [end for call in calls for end in call.ends()]
    counts = Counter(key for key, status, _ in ends if status == "done")
    shares = [len(call.ends()) for call in calls]
    cache = sorted(path.name for path in (folder / "cache").rglob("*") if path.is_dir())
    found = Together(processes, seconds, Counter(counts.values()), shares, calls[0].out, cache)

    problem = found.problems.append
    if found.trained != {1: RUNS}:
        problem(f"{processes} processes: times trained -> runs: {dict(found.trained)}")
    for call in calls:
        if call.status != 0 or "Traceback" in call.err:
            problem(f"{processes} processes: status {call.status}, see {call.log / 'err'}")
        if call.out != found.table:
            problem(f"{processes} processes: another table, see {call.log / 'out'}")
    for name in Books(lab.store, {}).leftovers():
        problem(f"{processes} processes: left over: {name}")
    for path in sorted((folder / "cache").rglob(".*")):
        problem(f"{processes} processes: left over in the cache: {path.name}")
    if left := lab.remaining():
        problem(f"{processes} processes: processes left: {left}")
    return found


def compare(folder: Path, numbers: Sequence[int]) -> tuple[str, list[str]]:
    """Train the suite by each of these numbers of processes. Returns a report, and problems."""
    pictures = write_pictures(folder / "pictures")
    lines = [f"{'processes':>9} {'seconds':>8} {'trained once':>13} {'table':>6}  trained by each"]
    problems: list[str] = []
    first: tuple[str, object] | None = None
    for number in numbers:
        found = train_together(folder / f"processes-{number}", pictures, number)
        store = folder / f"processes-{number}" / "store"
        outcome = found.table, results(store, set(finished(store)))
        first = first or outcome
        if outcome != first:
            problems.append(f"{number} processes: other results than {numbers[0]}")
        problems += found.problems
        lines.append(
            f"{number:>9} {found.seconds:>8.1f} {found.trained[1]:>6} of {RUNS:<3} "
            f"{'equal' if outcome == first else 'other':>6}  {found.shares}"
        )
    return "\n".join([*lines, *(f"PROBLEM: {line}" for line in problems)]), problems
