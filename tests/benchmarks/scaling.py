"""Measure how costs grow with epochs, images, classes and runs, and the memory of targets.

    python tests/benchmarks/scaling.py [--data-dir DIR]

Trains ELR (and cross entropy) through `nlbench.run` on one thread: on CIFAR-10 with the model cnn3
if --data-dir names its folder, otherwise on scikit-learn's digits. Each table has a straight line
through its figures, or a figure by unit. Memory is measured on Linux only.
"""

import argparse
import itertools
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
# (N, C) of CIFAR-10, CIFAR-100, Clothing1M, and of a dataset with as many classes as ImageNet.
SHAPES = ((50_000, 10), (50_000, 100), (1_000_000, 14), (100_000, 1000))


@dataclass(frozen=True)
class Bench:
    """Train runs of a size; `images` and `epochs` are the largest of the tables."""

    data_dir: Path | None
    images: int
    epochs: int
    repeats: int

    def train(
        self, methods: int = 1, seeds: int = 1, **overrides: Any
    ) -> tuple[pd.DataFrame, float]:
        """Train a sweep in a new store. Return its records and the seconds of `nlbench.run`."""
        dataset, protocol = "digits", "digits"
        if self.data_dir is not None:
            dataset, protocol = "cifar10", "cifar-cpu"
        values = {"epochs": 1, "subset": self.images, "precision": "float32", "threads": 1}
        suite = {
            "name": "scaling",
            "protocol": protocol,
            "datasets": [{"name": dataset, "noise": {"kind": "symmetric", "rate": 0.4}}],
            "methods": dict(list(METHODS.items())[:methods]),
            "seeds": list(range(seeds)),
            "overrides": {**values, **overrides},
        }

        with tempfile.TemporaryDirectory() as out:
            begun = time.perf_counter()
            records = nlbench.run(suite, out=out, data_dir=self.data_dir, device="cpu")
            spent = time.perf_counter() - begun

        if not (records["status"] == "done").all():
            raise RuntimeError("; ".join(records["error"]))
        return records, spent

    def seconds(self, settings: Sequence[dict[str, int]]) -> list[float]:
        """Return the median seconds of training of each setting; the settings take turns."""
        # In turn, because a minute with other load must not slow one setting alone.
        spent: list[list[float]] = [[] for _ in settings]
        for _ in range(self.repeats):
            for setting, seconds in zip(settings, spent, strict=True):
                records, _ = self.train(**setting)
                seconds.append(float(records["seconds_train"].sum()))
        return list(map(statistics.median, spent))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown, and an empty one."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' ---: |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return the slope of the least-squares line and its value at zero."""
    slope, start = np.polyfit(xs, ys, 1)
    return float(slope), float(start)


def of_epochs(bench: Bench) -> Iterator[str]:
    """Report the seconds of training by epochs."""
    counts = [bench.epochs // 4, bench.epochs // 2, bench.epochs]
    spent = bench.seconds([{"epochs": count} for count in counts])
    slope, start = line(counts, spent)

    rows = []
    for n, s in zip(counts, spent, strict=True):
        rows.append((str(n), f"{s:.3f}", f"{s / n:.4f}"))
    yield from table((f"epochs of {bench.images} images", "seconds of training", "an epoch"), rows)
    yield f"Line: {start:.3f} s + {slope:.4f} s an epoch.\n"


def of_images(bench: Bench) -> Iterator[str]:
    """Report the seconds of training by images."""
    counts = [bench.images // 4, bench.images // 2, bench.images]
    epochs = bench.epochs // 2
    spent = bench.seconds([{"subset": count, "epochs": epochs} for count in counts])
    slope, start = line(counts, spent)

    rows = []
    for n, s in zip(counts, spent, strict=True):
        rows.append((str(n), f"{s:.3f}", f"{1e6 * s / n:.1f}"))
    yield from table((f"N, {epochs} epochs", "seconds of training", "µs an image"), rows)
    yield f"Line: {start:.3f} s + {1e6 * slope:.1f} µs an image.\n"


def of_classes(
    counts: Sequence[int] = (10, 100, 1000), B: int = 128, N: int = 10_000
) -> Iterator[str]:
    """Report the time of `elr_step` alone: loss, gradient and the update of the targets."""
    spent = [_loss_seconds(B, C, N) for C in counts]
    slope, start = line(counts, spent)

    rows = []
    for C, s in zip(counts, spent, strict=True):
        rows.append((str(C), f"{1e6 * s:.1f}", f"{1e9 * s / (B * C):.2f}"))
    yield from table((f"C, batch of {B}", "µs a step of the loss", "ns a logit"), rows)
    yield f"Line: {1e6 * start:.1f} µs + {1e6 * slope:.3f} µs a class.\n"


def _loss_seconds(B: int, C: int, N: int) -> float:
    """Return the median seconds of 100 steps, after 10 to warm up."""
    targets, labels = torch.zeros(N, C), torch.arange(B) % C
    logits = torch.randn(B, C)

    times = []
    for _ in range(110):
        # Other rows each time, as in a training, whose targets do not stay in the cache.
        index = torch.randperm(N)[:B]
        begun = time.perf_counter()
        ops.elr_step(logits, labels, index, targets, beta=0.7, lam=3.0)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[10:])


def of_sweeps(bench: Bench) -> Iterator[str]:
    """Report the seconds of sweeps of one epoch, and how many of them no record accounts for.

    Records hold the seconds of preparing, training and evaluating.
    """
    rows = []
    for methods, seeds in ((1, 1), (2, 1), (2, 2)):
        whole, beyond = [], []
        for _ in range(bench.repeats):
            records, spent = bench.train(methods, seeds)
            recorded = float(records.filter(regex="^seconds_").to_numpy().sum())
            whole.append(spent)
            beyond.append(spent - recorded)

        cells = [f"{methods} x {seeds}"]
        for seconds in (statistics.median(whole), statistics.median(beyond)):
            cells += [f"{seconds:.2f}", f"{seconds / (methods * seeds):.2f}"]
        rows.append(cells)

    heads = ("methods x seeds", "seconds in all", "a run", "of them beyond the runs' own", "a run")
    yield from table(heads, rows)


def of_memory(shapes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Report the bytes of ELR's buffers, and how much a new process grows in an epoch of ELR."""
    rows, cells, grown = [], [], []
    # A new process for each shape: freed memory stays with a process, and a fork has its parent's.
    spawn = get_context("spawn")
    for N, C in shapes:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            held, more = pool.submit(memory, N, C).result()
        cells.append(N * C)
        grown.append(more)
        sizes = [f"{held / 1e6:.1f}", f"{more / 1e6:.1f}", f"{more / (N * C):.2f}"]
        rows.append([f"{N} x {C}", *sizes])

    yield from table(("N x C", "buffers, MB", "the process grows by, MB", "bytes an entry"), rows)
    slope, start = line(cells, grown)
    yield f"Line: {start / 1e6:.1f} MB + {slope:.2f} bytes an entry.\n"


def memory(N: int, C: int, B: int = 1000) -> tuple[int, int]:
    """Build ELR and let it see an epoch.

    Return the bytes of its buffers, and by how much this process grew.
    """
    logits = torch.randn(B, C)
    # The first call loads the kernel, which must not count.
    index, targets = torch.arange(B), torch.zeros(B, C)
    ops.elr_step(logits, index % C, index, targets, beta=0.7, lam=3.0)
    del targets
    labels = torch.arange(N) % C

    before = _resident()
    task = Task(N, C, labels, epochs=1, steps_per_epoch=-(-N // B), batch_size=B)
    method = build_method(registry.load_method(registry.method_files([])["elr"]), {}, task)
    values = {"beta": method.beta, "lam": method.lam}
    for index in torch.arange(N).split(B):
        ops.elr_step(logits[: len(index)], labels[index], index, method.targets, **values)
    return sum(buffer.nbytes for buffer in method.buffers()), _resident() - before


def _resident() -> int:
    """Return the bytes of this process in the machine's memory."""
    status = Path("/proc/self/status").read_text()
    kilobytes = status.partition("VmRSS:")[2].split()[0]
    return int(kilobytes) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 is; without it, digits")
    parser.add_argument("--images", type=int, default=1280, help="the largest N")
    parser.add_argument("--epochs", type=int, default=4, help="the most epochs")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)

    bench = Bench(given.data_dir, given.images, given.epochs, given.repeats)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # The first sweep imports and reads what later ones need not.
    bench.train()
    parts = (
        of_epochs(bench),
        of_images(bench),
        of_classes(),
        of_sweeps(bench),
        of_memory(SHAPES),
    )
    for text in itertools.chain(*parts):
        print(text, flush=True)
    torch.set_num_threads(before)


if __name__ == "__main__":
    main()
