"""A suite of short runs, and calls of the command that trains it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NLBENCH = Path(sys.executable).with_name("nlbench")
WATCHED = Path(__file__).parent / "watched"

_SUITE = """\
name: faults
protocol: digits
datasets:
  - {name: digits, noise: {kind: symmetric, rate: 0.4}}
methods: {ROWS}
seeds: SEEDS
overrides: {epochs: 4, subset: 200}
"""

# Helper networks (forward, backward, volminnet), two networks (co-teaching, dividemix, elr-plus),
# memories of targets (elr, elr-plus), optimisers and layers of a method's own (sop, pes). A run of
# four epochs on 200 images takes less than a second.
_ROWS = (
    *("forward", "backward", "volminnet", "co-teaching", "dividemix"),
    *("elr-plus", "elr", "sop", "pes", "ce"),
)

# A call that takes longer than this hangs.
CALL_SECONDS = 180.0


@dataclass(frozen=True)
class Suite:
    """A suite to disturb: these methods on so many seeds."""

    seeds: int = 3
    rows: Sequence[str] = _ROWS

    @property
    def text(self) -> str:
        """The text of the suite's file."""
        rows = ", ".join(f"{row}: {{}}" for row in self.rows)
        return _SUITE.replace("ROWS", rows).replace("SEEDS", str(list(range(self.seeds))))

    @property
    def runs(self) -> int:
        """The number of its runs."""
        return len(self.rows) * self.seeds


@dataclass
class Call:
    """One call of the command, which has been started.

    Attributes:
        log: the folder in which `watched/sitecustomize.py` notes what the call changes.
        status, seconds: the exit status, and the time from the start to the end.
        ended: when it ended, in seconds of the system's clock.
        hung: whether it had to be ended because it went on for too long.
    """

    process: subprocess.Popen[str]
    log: Path
    began: float = field(default_factory=time.monotonic)
    status: int | None = None
    seconds: float = 0.0
    ended: float = 0.0
    out: str = ""
    err: str = ""
    hung: bool = False

    def finish(self, seconds: float = CALL_SECONDS) -> None:
        """Wait until the command has ended, and keep what it printed."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.hung = True
            self.process.kill()
            self.process.wait()
        self.status = self.process.returncode
        self.seconds = time.monotonic() - self.began
        self.ended = time.time()
        self.out = (self.log / "out").read_text(errors="replace")
        self.err = (self.log / "err").read_text(errors="replace")

    def changes(self) -> list[list[str]]:
        """Return the changes of the store so far: time, process, role, kind, event and paths."""
        try:
            lines = (self.log / "changes").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split() for line in lines]

    def first_run(self) -> float | None:
        """Return the seconds from the start to the first change by a run; None without any."""
        times = (float(when) for when, _, role, *_ in self.changes() if role == "run")
        first = next(times, None)
        return None if first is None else first - self.began

    def ends(self) -> list[tuple[str, str, str]]:
        """Return for each record that was put in place: key, status, and status before or "-"."""
        try:
            lines = (self.log / "ends").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(key, status, before) for key, status, before in map(str.split, lines)]

    def since(self, number: int) -> float | None:
        """Return the seconds from the signal of a trigger to the end; None if it was not sent."""
        try:
            return self.ended - (self.log / f"sent.{number}").stat().st_mtime
        except FileNotFoundError:
            return None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to the command. Returns whether it was still there."""
        if self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True


class Laboratory:
    """A folder with the suite, a store, and what its calls have left.

    Args:
        folder: is made.
        store: the folder of records.
        text: the text of the suite.
        env: more variables for the calls.
    """

    def __init__(
        self, folder: Path, store: Path, text: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.store = folder.resolve(), store.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.suite = self.folder / "faults.yaml"
        self.suite.write_text(text)
        self._env = dict(env or {})
        self._count = 0

    def start(self, *options: str, triggers: Sequence[Mapping[str, object]] = ()) -> Call:
        """Start the command, with a checkpoint after every epoch, in a process group of its own."""
        self._count += 1
        log = self.folder / f"call-{self._count}"
        log.mkdir()
        path = os.pathsep.join(filter(None, [str(WATCHED), os.environ.get("PYTHONPATH", "")]))
        env = {
            **os.environ,
            **self._env,
            "NLBENCH_FAULT_NAME": str(self.folder),
            "NLBENCH_FAULT_STORE": str(self.store),
            "NLBENCH_FAULT_LOG": str(log),
            "NLBENCH_FAULT_TRIGGERS": json.dumps(list(triggers)),
            "PYTHONPATH": path,
        }
        command = [NLBENCH, "run", self.suite, "--out", self.store, "--device", "cpu"]
        command += ["--checkpoint-seconds", "0", *options]
        # Files and not pipes: nobody need read them while the command goes on.
        with open(log / "out", "w") as out, open(log / "err", "w") as err:
            process = subprocess.Popen(
                command, env=env, stdout=out, stderr=err, text=True, process_group=0
            )
        return Call(process, log)

    def ask(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the store to its end, undisturbed."""
        return subprocess.run(
            [NLBENCH, command, self.store, *options],
            capture_output=True,
            text=True,
            env={**os.environ, **self._env},
            timeout=CALL_SECONDS,
        )

    def processes(self) -> list[int]:
        """Return the ids of the processes that calls of this laboratory have started."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            # A process may end while its files are read.
            with contextlib.suppress(OSError):
                if f"NLBENCH_FAULT_NAME={self.folder}\0".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def remaining(self, seconds: float = 10.0) -> list[int]:
        """Return the processes that are still there after so long, and end them."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left
