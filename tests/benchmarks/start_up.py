"""Measure what the commands cost that train little or nothing.

    python tests/benchmarks/start_up.py
    python tests/benchmarks/start_up.py --against OLDER --rounds 5   # in turn with other sources
    python tests/benchmarks/start_up.py --whole                      # and the whole suite `quick`

Prints the medians of wall-clock seconds and of processor seconds. The latter are those of all
processes of a command, and other programs disturb them less. OLDER is a folder that holds a package
`nlbench`, ready to be imported. Each command is then started with both sources in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = "import sys; sys.argv[0] = 'nlbench'; from nlbench.cli import main; main()"
QUICK = ("run", "quick", "--jobs", "2")
EPOCH = (*QUICK, "--set", "epochs=1")


@dataclass(frozen=True)
class Case:
    """A command to measure.

    Attributes:
        arguments: of `nlbench`, without --out.
        filled: whether its store holds the records of all runs of one epoch; None for no store.
        begun: measure the wall-clock time until so many runs have begun, and not until the end.
    """

    title: str
    arguments: Sequence[str]
    filled: bool | None
    begun: int = 0


CASES = (
    Case("`nlbench --help`", ["--help"], None),
    Case("`nlbench list methods`", ["list", "methods"], None),
    Case("`nlbench table`, 50 records", ["table"], True),
    Case("`nlbench run quick`, nothing to do", EPOCH, True),
    Case("one run of one epoch", [*EPOCH, "--only", "ce", "--seeds", "0"], False),
    Case("until two runs of `--jobs 2` begin", [*EPOCH, "--only", "ce"], False, begun=2),
    Case("50 runs of one epoch, `--jobs 2`", EPOCH, False),
)
WHOLE = Case("`nlbench run quick --jobs 2`, 50 runs of 40 epochs", QUICK, False)


@dataclass
class Measured:
    """Seconds that the rounds of one case have taken with one folder of sources."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        wall, processor = statistics.median(self.wall), statistics.median(self.processor)
        return f"{wall:.2f} | {processor:.2f}"


def _processor_seconds() -> float:
    """Return the seconds of user and system time of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(case: Case, sources: Path, full: Path, measured: Measured) -> None:
    """Start a command once, and add its seconds to `measured`.

    Args:
        full: the store with all records of one epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        arguments = list(case.arguments)
        if case.filled:
            shutil.copytree(full, store)
        if case.filled is not None:
            # `table` takes the store as an argument.
            arguments += [str(store)] if arguments == ["table"] else ["--out", str(store)]

        before, began = _processor_seconds(), time.perf_counter()
        with start(sources, arguments) as command:
            # A run that begins takes its lock.
            while command.poll() is None and len(list(store.glob("runs/*/lock"))) < case.begun:
                time.sleep(0.01)
            begun = time.perf_counter()
            command.wait()
        ended = time.perf_counter()
        if command.returncode:
            raise SystemExit(f"{' '.join(arguments)}: exit status {command.returncode}")
        measured.wall.append((begun if case.begun else ended) - began)
        measured.processor.append(_processor_seconds() - before)


def start(sources: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the command `nlbench` of these sources."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, "PYTHONPATH": str(sources)},
        # Python would import from the working directory first, which may hold other sources.
        cwd=tempfile.gettempdir(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    """Measure all cases, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="OLDER", help="other sources to compare")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--whole", action="store_true", help="train the whole suite quick, once")
    options = parser.parse_args()

    folders = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    columns = ["seconds"] if options.against is None else ["before", "after"]
    heads = [f"{column}, {unit}" for column in columns for unit in ("wall", "processor")]
    print(f"| command | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")

    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder, "full")
        with start(ROOT, [*EPOCH, "--out", str(full)]) as filling:
            filling.wait()
        for case in (*CASES, *([WHOLE] if options.whole else [])):
            results = [Measured() for _ in folders]
            for _ in range(1 if case is WHOLE else options.rounds):
                for sources, measured in zip(folders, results, strict=True):
                    measure(case, sources, full, measured)
            print(f"| {case.title} | {' | '.join(map(str, results))} |", flush=True)


if __name__ == "__main__":
    main()
