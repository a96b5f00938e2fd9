"""Measure what every method costs beside cross entropy, on digits and on CIFAR-10.

    python tests/benchmarks/every_method.py --data-dir DIR [--csv FILE] [--markdown FILE]
    python tests/benchmarks/every_method.py --data-dir DIR --datasets cifar10 --rounds 3

Each method is trained as `nlbench run` trains it, in turn with cross entropy in the same process;
see `in_turn`. A share is the median over its epochs, and "range" has the least and the most of
them. "x passes" is its share of the speed of cross entropy times its passes: 1 where its passes
explain its cost, less where it is slower. A forward pass without its backward pass costs about a
third of a pass. So methods with such passes are above 1, and "x work" counts these passes as a
third. Without --data-dir the pictures are random, which costs the same. The lines go to the
terminal as they are measured. The exit status is 1 if a method has less than 0.75 by its passes.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import training
from in_turn import COLUMNS, Measured, lines, markdown, measure, processor_time

from nlbench import registry
from nlbench.data import catalogue
from nlbench.data.base import Dataset
from nlbench.data.places import Places
from nlbench.executors import base
from nlbench.plan import protocol as protocols
from nlbench.plan.protocol import Protocol
from nlbench.training.train import clock

# Rows that differ from their method's defaults in what they compute.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "bootstrap-soft": ("bootstrap", {"kind": "soft"}),
    "gce-truncated": ("gce", {"truncate": True}),
}
# Fewer steps leave an epoch to chance, and to what a method does once in an epoch.
LEAST_BATCHES = 20
# Each method has at least this share of the speed of cross entropy divided by its passes.
WANTED = 0.75


def rows(named: Sequence[str]) -> dict[str, tuple[str, dict[str, object]]]:
    """Return row -> (method, hyperparameters): those that are named, or all if there are none.

    Raises: SystemExit for a name that is no row.
    """
    every: dict[str, tuple[str, dict[str, object]]] = {}
    for name in registry.method_files([]):
        every[name] = name, {}
    every = dict(sorted({**every, **VARIANTS}.items()))

    unknown = [name for name in named if name not in every]
    if unknown:
        sys.exit(f"--methods: there is no {unknown[0]!r}; choose from {', '.join(every)}")
    return {name: every[name] for name in named or every}


def setting_of(name: str, given: argparse.Namespace) -> tuple[Dataset, Protocol]:
    """Return a dataset, and the protocol that methods are measured under on it."""
    common = {"precision": "float32", "threads": given.threads}
    if name == "digits":
        dataset = catalogue.open_dataset("digits", "", Places.of_user(Path()), 0)
        return dataset, protocols.resolve("digits", "digits", {**common, "threads": 1})

    dataset = training.read(given.data_dir, given.images)
    values = {"model": given.model, "subset": given.images}
    # 0 stands for all images.
    if given.images >= dataset.info.num_train:
        values["subset"] = 0
    return dataset, protocols.resolve("cifarn-02", "cifar10", {**common, **values})


def all_measured(
    dataset: Dataset, protocol: Protocol, device: torch.device, given: argparse.Namespace
) -> Iterator[Measured]:
    """Yield what each method costs."""
    now = processor_time if given.processor_time else clock
    ce, data = training.prepared(dataset, protocol, "ce")
    for row, (method, params) in rows(given.methods).items():
        spec, _ = training.prepared(dataset, protocol, method, params, row=row)
        with tempfile.TemporaryDirectory() as folder:
            yield measure(ce, spec, data, device, Path(folder), rounds=given.rounds, now=now)


def report(found: Sequence[Measured], protocol: Protocol, title: str, machine: str) -> list[str]:
    """Return the lines of a dataset's report in Markdown."""
    seconds = [second for one in found for second in one.ce_seconds]
    images = found[0].images
    ce = images / statistics.median(seconds)
    fastest, slowest = images / min(seconds), images / max(seconds)

    return [
        f"### {title}, {protocol.model}, {protocol.precision}, {protocol.threads} threads",
        "",
        f"{machine}. {images} images an epoch, {batches(images, protocol)} batches of "
        f"{protocol.batch_size}. "
        f"Cross entropy: {ce:,.0f} images/s (median; {slowest:,.0f} to {fastest:,.0f}).",
        "",
        *markdown(found),
        "",
        f"Below {WANTED} by passes: {_named(too_slow(found, 'passes'))}; "
        f"by work: {_named(too_slow(found, 'work'))}.",
        "",
    ]


def batches(images: int, protocol: Protocol) -> int:
    """Return the number of batches of an epoch."""
    return -(-images // protocol.batch_size)


def too_slow(found: Sequence[Measured], unit: str) -> list[str]:
    """Return the rows that cost more than their passes or their work explain, in any phase."""
    rows = []
    for one in found:
        costs = [one.whole(), *(phase.costs_of_epoch for phase in one.phases)]
        if min(getattr(each, unit) / each.cost for each in costs) < WANTED:
            rows.append(one.row)
    return rows


def _too_few(images: int, protocol: Protocol) -> list[str]:
    """Return a warning where an epoch is too short for the shares to mean much."""
    count = batches(images, protocol)
    if count >= LEAST_BATCHES:
        return []
    return [
        f"An epoch of {count} batches is short, so the shares are uncertain: --images "
        f"{LEAST_BATCHES * protocol.batch_size} has {LEAST_BATCHES}.",
        "",
    ]


def _named(rows: Sequence[str]) -> str:
    return ", ".join(rows) or "none"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, help="the folder of CIFAR-10; without it, random pictures"
    )
    parser.add_argument("--datasets", nargs="+", default=["digits", "cifar10"])
    parser.add_argument("--methods", nargs="+", default=[], help="rows; the default is all")
    parser.add_argument("--model", default="resnet8", help="for CIFAR-10")
    parser.add_argument(
        "--images",
        type=int,
        default=2560,
        help=f"images an epoch of CIFAR-10; below {LEAST_BATCHES} batches of 128 the shares are "
        f"uncertain; the default has {LEAST_BATCHES}",
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each phase")
    parser.add_argument("--threads", type=int, default=2, help="for CIFAR-10; digits have one")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure the processor's seconds; for one thread, on a machine with other work",
    )
    parser.add_argument("--csv", type=Path, help="write a line for each phase into this file")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all methods on all datasets; return the exit status."""
    given = options(arguments)
    device = base.pick_devices(given.device)[0]
    written: list[str] = []
    table: list[list[object]] = []
    slow: list[str] = []
    for name in given.datasets:
        dataset, protocol = setting_of(name, given)
        found = []
        begun = time.monotonic()
        for one in all_measured(dataset, protocol, device, given):
            minutes = f"{(time.monotonic() - begun) / 60:.1f} min"
            print(f"{name}: {minutes} {list(markdown([one]))[-1]}", file=sys.stderr, flush=True)
            found.append(one)
            setting = name, protocol.model, protocol.precision, protocol.threads
            table += lines(one, setting)

        machine = training.machine(protocol, device)
        block = report(found, protocol, dataset.info.title, machine)
        # There are no more digits.
        if name != "digits":
            block += _too_few(found[0].images, protocol)
        block += [f"Measured in {(time.monotonic() - begun) / 60:.1f} minutes.", ""]
        slow += too_slow(found, "passes")
        print("\n".join(block), flush=True)
        written += block

    if given.markdown:
        given.markdown.write_text("\n".join(written), encoding="utf-8")
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *table])
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
