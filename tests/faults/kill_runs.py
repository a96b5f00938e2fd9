"""Train a suite of 30 short runs under random faults, and count what is lost, doubled or left.

    python tests/faults/kill_runs.py --faults 200 --minutes 20 --seed 1
    python tests/faults/kill_runs.py --every
    python tests/faults/kill_runs.py --processes 1,2,8

A pass is the suite in an empty store. Its calls are disturbed, one after the other, and the same
command is called again until everything is done; then the next pass begins. After each call the
finished runs are compared with what they were before it, and with those of an undisturbed store.

What happens to the call n of a seed is drawn from the two alone, so `--first n` repeats it, on an
empty store. The exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fault_kinds
import many_processes
from fault_kinds import WRITING, Fault, Plan, SmallDisk
from fault_report import Session
from passes import Pass, Undisturbed
from small_suite import Suite

# Helper processes of decoding and of torch share memory there.
_SHARED_MEMORY = Path("/dev/shm")


class Lane:
    """Passes one after the other. The lanes of a session go on at the same time.

    Args:
        numbers: of the calls that it makes, as long as the session goes on.
    """

    def __init__(self, folder: Path, numbers: range, undisturbed: Undisturbed, seed: int) -> None:
        self._folder, self._numbers = folder, numbers
        self._undisturbed, self._seed = undisturbed, seed
        self.disk = SmallDisk(folder / "disk")
        self.passes: list[Pass] = []

    @property
    def signals(self) -> int:
        """The number of signals that were sent."""
        return sum(fault.is_signal for each in self.passes for fault in each.faults)

    def run(self, wanted: int, deadline: float) -> None:
        """Make calls until so many signals were sent, or the deadline has come; end the pass."""
        current = None
        for number in self._numbers:
            if self.signals >= wanted or time.monotonic() > deadline:
                break
            if current is None or current.done:
                current = self._next_pass()
            rng = random.Random(f"{self._seed} {number}")
            pace = self._undisturbed.pace
            plan = fault_kinds.draw(rng, number, current.on_small_disk, pace)
            current.disturb(number, plan, rng)
        if current is not None:
            current.finish()

    def _next_pass(self) -> Pass:
        number = len(self.passes)
        # Every second pass is on the disk that can be filled.
        disk = None if number % 2 or self.disk.reason else self.disk
        self.passes.append(Pass(self._folder / f"pass-{number}", self._undisturbed, disk))
        return self.passes[-1]


def kill(
    folder: Path,
    *,
    faults: int,
    minutes: float,
    seed: int,
    suite: Suite,
    lanes: int = 1,
    first: int = 0,
) -> Session:
    """Disturb passes until so many signals were sent, or so many minutes are over.

    The time of the undisturbed suite, and of the last pass after these minutes, comes on top.

    Args:
        folder: an empty one, in which everything happens.
        lanes: how many passes go on at the same time.
        first: the number of the first call.
    Returns: the figures.
    """
    began = time.monotonic()
    session = Session(seed)
    undisturbed = Undisturbed(folder / "undisturbed", suite)
    pace = undisturbed.pace
    print(f"undisturbed: {pace.start:.1f} s to the first run, {pace.run:.1f} s a run", flush=True)
    made = []
    for lane in range(lanes):
        numbers = range(first + lane, first + 100_000, lanes)
        made.append(Lane(folder / f"lane-{lane}", numbers, undisturbed, seed))

    deadline = time.monotonic() + 60 * minutes
    wanted = -(-faults // lanes)
    try:
        with ThreadPoolExecutor(lanes) as pool:
            # `list` raises what a lane has raised.
            list(pool.map(lambda lane: lane.run(wanted, deadline), made))
        for lane in made:
            for each in lane.passes:
                session.add(each)
    finally:
        for lane in made:
            lane.disk.unmount()

    if made[0].disk.reason:
        session.not_run.append(f"disk full: {made[0].disk.reason}")
    session.seconds = time.monotonic() - began
    return session


def kill_at_every_change(folder: Path, lanes: int, suite: Suite) -> Session:
    """Kill the process that changes the store just before each change, once for each of them.

    Returns: the figures. Every pass is one kill, and the calls that end the suite.
    """
    began = time.monotonic()
    undisturbed = Undisturbed(folder / "undisturbed", suite)
    print(f"undisturbed: {undisturbed.changes} changes of the store", flush=True)

    def survive(number: int) -> Pass:
        made = Pass(folder / f"change-{number}", undisturbed, None)
        fault = Fault("writer", signal.SIGKILL, WRITING, count=number)
        made.disturb(number, Plan(jobs=1, faults=[fault]), random.Random(number))
        made.finish()
        return made

    session = Session(0)
    with ThreadPoolExecutor(lanes) as pool:
        for made in pool.map(survive, range(1, undisturbed.changes + 1)):
            session.add(made)
    session.seconds = time.monotonic() - began
    return session


# ---- The command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script, print its report, and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=200, help="signals to send (200)")
    parser.add_argument("--minutes", type=float, default=30, help="time for that (30)")
    parser.add_argument("--seed", type=int, help="decides every draw; random unless given")
    parser.add_argument("--first", type=int, default=0, help="number of the first call (0)")
    parser.add_argument("--lanes", type=int, default=2, help="passes at the same time (2)")
    parser.add_argument("--processes", help="instead: train one suite by 1,2,8 processes at once")
    parser.add_argument(
        "--every", action="store_true", help="instead: kill before each change of two runs' files"
    )
    parser.add_argument("--keep", type=Path, help="work in this folder, which stays")
    options = parser.parse_args(arguments)
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    # A shell that puts this script into the background lets it, and its commands, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    folder = options.keep or Path(tempfile.mkdtemp(prefix="nlbench-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    if options.processes:
        numbers = [int(number) for number in options.processes.split(",")]
        text, problems = many_processes.compare(folder, numbers)
    elif options.every:
        session = kill_at_every_change(folder, options.lanes, Suite(1, ("forward", "co-teaching")))
        text, problems = session.text(), session.problems
    else:
        print(f"seed {seed}, in {folder}", flush=True)
        shared = set(_SHARED_MEMORY.iterdir())
        session = kill(
            folder,
            faults=options.faults,
            minutes=options.minutes,
            seed=seed,
            suite=Suite(),
            lanes=options.lanes,
            first=options.first,
        )
        # Also those of other programs: nothing else should run beside this script.
        session.note_shared_memory(set(_SHARED_MEMORY.iterdir()) - shared)
        text, problems = session.text(), session.problems
    print(text)
    if not problems and options.keep is None:
        shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
