"""The faults: what happens to a call, at which moment, and how often each of them is drawn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from small_suite import Call

KILL, TERM, INT, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1

# The moments of a call.
START, TRAINING, RECORD, WRITING, END = (
    "start-up",
    "training",
    "while a record was written",
    "while another file was written",
    "end",
)

# So many changes of a store belong to one record, and to all files of one run, about.
_RECORD_CHANGES = 17
_RUN_CHANGES = 45


@dataclass(frozen=True)
class Fault:
    """A signal to one of the processes of a call.

    Attributes:
        to: "command", "run" (the process that trains a run), "server" (the fork server) or
            "writer" (whichever process makes the change).
        count: before which change of the store it comes, where the moment is one of writing.
        seconds: how long after the moment has begun it comes, otherwise.
    """

    to: str
    signal: signal.Signals
    moment: str
    count: int = 0
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """Name the fault for the report."""
        who = {
            "command": "the command",
            "run": "a run's process",
            "server": "the fork server",
            "writer": "who writes",
        }
        name = "kill -9" if self.signal == KILL else self.signal.name
        return f"{name} of {who[self.to]}" if self.signal == KILL else f"{name} to {who[self.to]}"

    @property
    def trigger(self) -> dict[str, object] | None:
        """Return what `watched/sitecustomize.py` is to do, or None for a moment that is timed."""
        change = {RECORD: "record", WRITING: "any"}.get(self.moment)
        if change is None:
            return None
        return {"change": change, "count": self.count, "to": self.to, "signal": int(self.signal)}


@dataclass
class Plan:
    """What happens to one call. The last fault ends it, the others do not.

    Attributes:
        jobs: the option of this name.
        flips: how many files are damaged before it.
        full: the moment at which the disk is filled, "" for never.
        beside: whether a second process is started on the same store, which goes on to its end.
        delay: between the two.
    """

    jobs: int
    faults: list[Fault] = field(default_factory=list)
    flips: int = 0
    full: str = ""
    beside: bool = False
    delay: float = 0.0


@dataclass(frozen=True)
class Pace:
    """How long an undisturbed call takes until its first run begins, and then for each run."""

    start: float
    run: float


def draw(rng: random.Random, number: int, small_disk: bool, pace: Pace) -> Plan:
    """Draw what happens to the call `number`; half of them have two jobs.

    Args:
        small_disk: whether the store is on a disk that can be filled.
        pace: of the machine.
    """
    # Two by two, because the lanes of a session take turns with the numbers.
    jobs = 1 + number // 2 % 2
    what = rng.random()
    if small_disk and what < 0.12:
        return Plan(jobs, full=rng.choice([START, TRAINING]))

    plan = Plan(jobs, beside=what > 0.94, delay=rng.uniform(0, pace.start))
    if rng.random() < 0.15:
        plan.flips = rng.choice([1, 1, 2])

    # Each of them up to two runs after the one before.
    runs = 0.0
    for _ in range(rng.choice([0, 1, 1, 2])):
        runs += rng.uniform(0.05, 2.0)
        to = rng.choices(["run", "server"], [4, 1])[0]
        plan.faults.append(_while_writing(rng.choice([RECORD, WRITING]), to, KILL, runs))
    plan.faults.append(_last(rng, runs, pace))
    return plan


def _while_writing(moment: str, to: str, number: signal.Signals, runs: float) -> Fault:
    """Return a fault in the writing of files, after about so many runs of the call."""
    changes = _RECORD_CHANGES if moment == RECORD else _RUN_CHANGES
    return Fault(to, number, moment, count=max(1, round(runs * changes)))


def _last(rng: random.Random, runs: float, pace: Pace) -> Fault:
    """Draw the fault that ends the call, if it is one in writing after so many runs."""
    number = rng.choices([KILL, TERM, INT, USR1], [12, 2, 2, 1])[0]
    moment = rng.choices([START, TRAINING, RECORD, WRITING, END], [2, 5, 6, 4, 1])[0]
    if moment in (RECORD, WRITING):
        return _while_writing(moment, "command", number, runs + rng.uniform(0.05, 2.0))
    longest = {START: pace.start, TRAINING: 3 * pace.run, END: pace.run}[moment]
    return Fault("command", number, moment, seconds=rng.uniform(0, longest))


# ---- Delivering ----------------------------------------------------------------------------------


def deliver(call: Call, fault: Fault, is_done: Callable[[], bool]) -> float | None:
    """Send the signal of a fault whose moment is timed.

    Args:
        is_done: tells whether every run is finished.
    Returns: when it was sent, by the system's clock; None if the call had ended before.
    """
    if fault.moment == TRAINING and not _wait(call, lambda: _trains(call)):
        return None
    if fault.moment == END and not _wait(call, is_done):
        return None
    time.sleep(fault.seconds)
    return time.time() if call.send(fault.signal) else None


def _trains(call: Call) -> bool:
    return call.first_run() is not None


def wait_for_training(call: Call) -> bool:
    """Wait until a run of the call has begun. Returns False if the call has ended before."""
    return _wait(call, lambda: _trains(call))


def _wait(call: Call, seen: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and call.process.poll() is None:
        if seen():
            return True
        time.sleep(0.01)
    return False


# ---- Damaged files -------------------------------------------------------------------------------


_DAMAGED = (
    "runs/*/record.json",
    "runs/*/history.csv",
    "runs/*/predictions.npz",
    "runs/*/checkpoint.pt",
    "fits/*.pt",
    "suites/*.json",
)


def flip(store: Path, rng: random.Random) -> Path | None:
    """Flip a bit in one of the files of a store. Returns the file."""
    # A kind of file first, because there are far more records than plans.
    for pattern in rng.sample(_DAMAGED, len(_DAMAGED)):
        if files := sorted(store.glob(pattern)):
            path = rng.choice(files)
            content = bytearray(path.read_bytes())
            position = rng.randrange(len(content))
            content[position] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
            return path
    return None


# ---- A small disk --------------------------------------------------------------------------------


class SmallDisk:
    """A disk in memory of a few megabytes, mounted where that is allowed.

    Attributes:
        reason: why there is none, else "".
    """

    def __init__(self, folder: Path, megabytes: int = 48) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            self.reason = str(error)
        else:
            self.reason = done.stderr.strip() if done.returncode else ""

    def fill(self, left: int) -> None:
        """Fill the disk, up to so many bytes."""
        stat = os.statvfs(self.folder)
        size = stat.f_bavail * stat.f_frsize - left
        if size > 0:
            with open(self.folder / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)

    def free(self) -> None:
        """Free what `fill` has taken."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give the disk back."""
        if not self.reason:
            subprocess.run(["umount", str(self.folder)], check=True)
