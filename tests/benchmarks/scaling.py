"""What a benchmark costs as it grows: epochs, images, classes, methods and seeds; a target memory's bytes.

    python tests/benchmarks/scaling.py [--data-dir DIR]

One thread. Trains ELR (and cross entropy) through `nlbench.run`: on CIFAR-10 with the model cnn3 where --data-dir says
where it is, else on scikit-learn's digits. Each table has a straight line through its figures, or a figure by unit.
Memory is measured on Linux only.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import nlbench
from nlbench import ops, registry
from nlbench.build import build_method
from nlbench.method import Task

METHODS: dict[str, dict[str, float]] = {"elr": {}, "ce": {}}
SHAPES = ((50_000, 10), (50_000, 100), (1_000_000, 14), (100_000, 1000))  # (N, C): 10 is CIFAR, 14 is Clothing1M


@dataclass(frozen=True)
class Bench:
    """Where runs are trained, and how large: `images` and `epochs` are the largest of the tables."""

    data_dir: Path | None
    images: int
    epochs: int
    repeats: int

    def train(self, methods: int = 1, seeds: int = 1, **overrides: Any) -> tuple[pd.DataFrame, float]:
        """A sweep in a new store: its records, and the seconds that `nlbench.run` took."""
        cifar = self.data_dir is not None
        suite = {
            "name": "scaling",
            "protocol": "cifar-cpu" if cifar else "digits",
            "datasets": [{"name": "cifar10" if cifar else "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
            "methods": dict(list(METHODS.items())[:methods]),
            "seeds": list(range(seeds)),
            "overrides": {"epochs": 1, "subset": self.images, "precision": "float32", "threads": 1, **overrides},
        }
        with tempfile.TemporaryDirectory() as out:
            begun = time.perf_counter()
            records = nlbench.run(suite, out=out, data_dir=self.data_dir, device="cpu")
            spent = time.perf_counter() - begun
        if not (records["status"] == "done").all():
            raise RuntimeError("; ".join(records["error"]))
        return records, spent

    def seconds(self, settings: Sequence[dict[str, int]]) -> list[float]:
        """Of training, the median of the repeats, of each setting; they take turns."""
        rounds = [[float(self.train(**s)[0]["seconds_train"].sum()) for s in settings] for _ in range(self.repeats)]
        return [statistics.median(column) for column in zip(*rounds, strict=True)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown, and an empty one."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' ---: |' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """(slope, value at zero) of the least-squares line."""
    slope, start = np.polyfit(xs, ys, 1)
    return float(slope), float(start)


def of_epochs(bench: Bench) -> Iterator[str]:
    counts = [bench.epochs // 4, bench.epochs // 2, bench.epochs]
    spent = bench.seconds([{"epochs": count} for count in counts])
    slope, start = line(counts, spent)
    rows = [(str(n), f"{s:.3f}", f"{s / n:.4f}") for n, s in zip(counts, spent, strict=True)]
    yield from table((f"epochs of {bench.images} images", "seconds of training", "an epoch"), rows)
    yield f"Line: {start:.3f} s + {slope:.4f} s an epoch.\n"


def of_images(bench: Bench) -> Iterator[str]:
    counts = [bench.images // 4, bench.images // 2, bench.images]
    spent = bench.seconds([{"subset": count, "epochs": bench.epochs // 2} for count in counts])
    slope, start = line(counts, spent)
    rows = [(str(n), f"{s:.3f}", f"{1e6 * s / n:.1f}") for n, s in zip(counts, spent, strict=True)]
    yield from table((f"N, {bench.epochs // 2} epochs", "seconds of training", "µs an image"), rows)
    yield f"Line: {start:.3f} s + {1e6 * slope:.1f} µs an image.\n"


def of_classes(counts: Sequence[int] = (10, 100, 1000), B: int = 128, N: int = 10_000) -> Iterator[str]:
    """`elr_step` alone: loss, gradient and the update of the targets."""
    spent = [_loss_seconds(B, C, N) for C in counts]
    slope, start = line(counts, spent)
    rows = [(str(C), f"{1e6 * s:.1f}", f"{1e9 * s / (B * C):.2f}") for C, s in zip(counts, spent, strict=True)]
    yield from table((f"C, batch of {B}", "µs a step of the loss", "ns a logit"), rows)
    yield f"Line: {1e6 * start:.1f} µs + {1e6 * slope:.3f} µs a class.\n"


def _loss_seconds(B: int, C: int, N: int) -> float:
    """Median of 100 steps, after 10 to warm up."""
    targets, labels = torch.zeros(N, C), torch.arange(B) % C
    logits = torch.randn(B, C)
    times = []
    for _ in range(110):
        index = torch.randperm(N)[:B]
        begun = time.perf_counter()
        ops.elr_step(logits, labels, index, targets, beta=0.7, lam=3.0)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[10:])


def of_sweeps(bench: Bench) -> Iterator[str]:
    """What a sweep of one epoch takes, beside the sum of what records say of preparing, training and evaluating."""
    rows = []
    for methods, seeds in ((1, 1), (2, 1), (2, 2)):
        sweeps = [bench.train(methods, seeds) for _ in range(bench.repeats)]
        inside = [float(records.filter(regex="^seconds_").to_numpy().sum()) for records, _ in sweeps]
        whole = statistics.median(spent for _, spent in sweeps)
        beyond = statistics.median(spent - own for (_, spent), own in zip(sweeps, inside, strict=True))
        runs = methods * seeds
        cells = f"{methods} x {seeds}", f"{whole:.2f}", f"{whole / runs:.2f}", f"{beyond:.2f}", f"{beyond / runs:.2f}"
        rows.append(cells)
    heads = ("methods x seeds", "seconds in all", "a run", "of them beyond the runs' own", "a run")
    yield from table(heads, rows)


def of_memory(shapes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """ELR's buffers, and by how much a process of its own grows once it has seen every example."""
    rows, cells, grown = [], [], []
    spawn = get_context("spawn")
    for N, C in shapes:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            held, more = pool.submit(memory, N, C).result()
        cells.append(N * C)
        grown.append(more)
        rows.append((f"{N} x {C}", f"{held / 1e6:.1f}", f"{more / 1e6:.1f}", f"{more / (N * C):.2f}"))
    yield from table(("N x C", "buffers, MB", "the process grows by, MB", "bytes an entry"), rows)
    slope, start = line(cells, grown)
    yield f"Line: {start / 1e6:.1f} MB + {slope:.2f} bytes an entry.\n"


def memory(N: int, C: int, B: int = 1000) -> tuple[int, int]:
    """Bytes of ELR's buffers, and by how much this process grew while ELR was built and saw an epoch."""
    logits = torch.randn(B, C)
    ops.elr_step(logits, torch.arange(B) % C, torch.arange(B), torch.zeros(B, C), beta=0.7, lam=3.0)  # loads the kernel
    labels = torch.arange(N) % C
    before = _resident()
    task = Task(N, C, labels, epochs=1, steps_per_epoch=-(-N // B), batch_size=B)
    method = build_method(registry.load_method(registry.method_files([])["elr"]), {}, task)
    for index in torch.arange(N).split(B):
        ops.elr_step(logits[: len(index)], labels[index], index, method.targets, beta=method.beta, lam=method.lam)
    return sum(buffer.nbytes for buffer in method.buffers()), _resident() - before


def _resident() -> int:
    """Bytes of memory that this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(entry.split()[1]) * 1024 for entry in lines if entry.startswith("VmRSS:"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 is; without it, digits")
    parser.add_argument("--images", type=int, default=1280, help="the largest N")
    parser.add_argument("--epochs", type=int, default=4, help="the most epochs")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    bench = Bench(given.data_dir, given.images, given.epochs, given.repeats)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    bench.train()  # imports, and what is read once a process
    for part in (of_epochs(bench), of_images(bench), of_classes(), of_sweeps(bench), of_memory(SHAPES)):
        for text in part:
            print(text, flush=True)
    torch.set_num_threads(before)


if __name__ == "__main__":
    main()
