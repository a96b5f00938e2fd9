"""The figures of a session of faults, as text."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from passes import Pass


@dataclass
class Done:
    """A fault that has happened.

    Attributes:
        call: the number of its call.
        seconds: from the fault to the end of the command; None for one that does not end it.
        lost, doubled: what the call has lost and doubled, counted with its last fault.
    """

    call: int
    kind: str
    moment: str
    jobs: int
    seconds: float | None
    lost: int = 0
    doubled: int = 0

    @property
    def is_signal(self) -> bool:
        """Whether it was a signal to a process."""
        return self.kind.startswith(("kill", "SIG"))


@dataclass
class Session:
    """Everything that a session has found.

    Attributes:
        passes: for each suite that was trained to its end, whether its table was the right one.
        statuses: exit statuses of the calls, with how often they came.
        not_run: why a kind of fault was not tried.
        problems: one line for everything that must not be.
        set_aside: damaged files that the command has set aside.
    """

    seed: int
    faults: list[Done] = field(default_factory=list)
    passes: list[bool] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    unequal: int = 0
    leftovers: int = 0
    processes: int = 0
    shared_memory: int = 0
    set_aside: int = 0
    statuses: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    not_run: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, done: Pass) -> None:
        """Add what was found in a pass that has ended."""
        books = done.books
        self.faults += done.faults
        self.passes.append(done.done and done.equal)
        self.problems += books.problems
        self.lost += books.lost
        self.doubled += books.doubled
        self.unequal += books.unequal
        self.leftovers += done.leftovers
        self.processes += done.processes
        self.set_aside += len(list(books.store.rglob("*.corrupt-*")))
        for status in done.statuses:
            self.statuses[status] += 1

    def note_shared_memory(self, new: Iterable[Path]) -> None:
        """Note files in /dev/shm that came during the session and that no process has open."""
        for path in sorted(new):
            # torch, multiprocessing and semaphores name theirs like this.
            if path.name.startswith(("torch_", "psm_", "sem.mp-", "nlbench")) and not in_use(path):
                self.shared_memory += 1
                self.problems.append(f"shared memory left: {path}")

    def text(self) -> str:
        """Return the report."""
        lines = [_row("fault", "moment", "count", "--jobs 2", "seconds", "lost", "doubled")]
        groups: dict[tuple[str, str], list[Done]] = defaultdict(list)
        for fault in self.faults:
            groups[fault.kind, fault.moment].append(fault)
        for (kind, moment), faults in sorted(groups.items()):
            lines.append(_group_row(kind, moment, faults))
        lines.append(_group_row("all", "", self.faults))

        statuses = ", ".join(f"{key} ({n})" for key, n in sorted(self.statuses.items()))
        equal = sum(self.passes)
        signals = sum(fault.is_signal for fault in self.faults)
        lines += [
            "",
            f"seed {self.seed}; {signals} signals and {len(self.faults) - signals} other faults in "
            f"{sum(self.statuses.values())} calls; {self.seconds:.0f} s",
            f"exit statuses (calls): {statuses}",
            f"tables equal {equal} of {len(self.passes)}; runs unequal {self.unequal}; "
            f"lost {self.lost}; doubled {self.doubled}; leftovers {self.leftovers}; "
            f"processes left {self.processes}; shared memory left {self.shared_memory}; "
            f"damaged files set aside {self.set_aside}",
            *(f"not run: {line}" for line in self.not_run),
            *(f"PROBLEM: {line}" for line in self.problems),
        ]
        return "\n".join(lines)


def _group_row(kind: str, moment: str, faults: Sequence[Done]) -> str:
    known = [fault.seconds for fault in faults if fault.seconds is not None]
    seconds = f"{statistics.median(known):.1f} ({max(known):.1f})" if known else "-"
    return _row(
        kind,
        moment,
        str(len(faults)),
        str(sum(fault.jobs == 2 for fault in faults)),
        seconds,
        str(sum(fault.lost for fault in faults)),
        str(sum(fault.doubled for fault in faults)),
    )


def _row(kind: str, moment: str, *figures: str) -> str:
    return f"{kind:<28} {moment:<30} " + " ".join(f"{figure:>11}" for figure in figures)


def in_use(path: Path) -> bool:
    """Return whether a process has a file mapped or open."""
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            if str(path) in (process / "maps").read_text():
                return True
        with contextlib.suppress(OSError):
            for handle in (process / "fd").iterdir():
                if os.readlink(handle) == str(path):
                    return True
    return False
