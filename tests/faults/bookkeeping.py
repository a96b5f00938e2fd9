"""What a fault must not do to a store: lose, change or double a finished run, or leave files."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from small_suite import Call

from nlbench.results.integrity import FILES, HISTORY, PREDICTIONS, RECORD, check_run, located

# The files that a store has when everything is done, relative to it.
EXPECTED = re.compile(
    r"runs/[0-9a-f]{16}/(record\.json|history\.csv|predictions\.npz|lock)"
    r"|suites/[^/.][^/]*\.json"
    r"|fits/[0-9a-f]{16}\.(pt|lock)"
)
SET_ASIDE = re.compile(r".*\.corrupt-\d+")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        files: the hash of each of its files.
        place: which file the record is, as long as it is not written again.
    """

    files: Mapping[str, str]
    place: tuple[int, int]


def finished(store: Path) -> dict[str, Run]:
    """Return the runs of a store that are done and whole, by key."""
    found = {}
    for folder in sorted(store.glob("runs/*")):
        checked = check_run(folder, folder.name) if folder.is_dir() else None
        if checked is None or checked.record is None or checked.record.status != "done":
            continue
        sums = {}
        for name in (RECORD, *FILES):
            path = located(folder, name)
            content = path.read_bytes() if path.exists() else b""
            sums[name] = hashlib.sha256(content).hexdigest()
        stat = located(folder, RECORD).stat()
        found[folder.name] = Run(sums, (stat.st_ino, stat.st_mtime_ns))
    return found


def results(store: Path, keys: set[str]) -> dict[str, object]:
    """Return everything of finished runs that must not depend on when or how they were trained."""
    found: dict[str, object] = {}
    for key in sorted(keys):
        folder = store / "runs" / key
        record = json.loads(located(folder, RECORD).read_bytes())
        facts = [record.get(name) for name in ("spec", "metrics", "method", "noise", "classes")]
        with np.load(located(folder, PREDICTIONS)) as file:
            arrays = {name: file[name].tobytes() for name in file.files}
        found[key] = [*facts, _history(located(folder, HISTORY)), arrays]
    return found


def _history(path: Path) -> list[dict[str, str]]:
    """Return the metrics of each epoch without those of the clock."""
    with open(path, newline="") as file:
        epochs = list(csv.DictReader(file))
    for epoch in epochs:
        del epoch["seconds"], epoch["images_per_second"]
    return epochs


@dataclass
class Books:
    """What was found in one store so far.

    Attributes:
        reference: `results` of the undisturbed store.
        damaged: keys of runs whose files the test itself has damaged. They are trained again.
        flips: how many files the test has damaged, of which each may be set aside.
        problems: one line for everything that must not be.
    """

    store: Path
    reference: Mapping[str, object]
    before: dict[str, Run] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    flips: int = 0
    lost: int = 0
    doubled: int = 0
    unequal: int = 0
    problems: list[str] = field(default_factory=list)

    def look(self, *calls: Call) -> None:
        """Compare the store with what it was at the last look, and with the undisturbed one."""
        after = finished(self.store)
        for key, run in self.before.items():
            if key in self.damaged:
                continue
            if key not in after:
                self.lost += 1
                self.problems.append(f"lost: the finished run {key}")
            elif after[key].files != run.files:
                self.lost += 1
                self.problems.append(f"lost: the files of the finished run {key} have changed")

        self._look_for_doubles(after, calls)
        new = set(after) - set(self.before)
        for key, value in results(self.store, new).items():
            if value != self.reference.get(key):
                self.unequal += 1
                self.problems.append(f"unequal: {key} differs from the undisturbed run")
        self.before, self.damaged = after, set()

    def _look_for_doubles(self, after: Mapping[str, Run], calls: tuple[Call, ...]) -> None:
        again = {key for call in calls for key, _, before in call.ends() if before == "done"}
        for key, run in self.before.items():
            # The same bytes in another file: somebody has written the record a second time.
            if key in after and key not in self.damaged and after[key].place != run.place:
                again.add(key)
        for key in sorted(again):
            self.doubled += 1
            self.problems.append(f"doubled: {key} was trained to its end again")

    def leftovers(self) -> list[str]:
        """Return the files that do not belong into a store in which everything is done."""
        found, set_aside = [], 0
        for path in sorted(self.store.rglob("*")):
            name = path.relative_to(self.store).as_posix()
            if path.is_dir():
                if not re.fullmatch(r"runs|suites|fits|runs/[0-9a-f]{16}", name):
                    found.append(f"{name}/")
            elif SET_ASIDE.fullmatch(name):
                set_aside += 1
            elif not EXPECTED.fullmatch(name):
                found.append(name)
            elif path.name == "lock" and path.stat().st_size:
                found.append(f"{name} names a process")
        # A damaged record takes its two other files with it.
        if set_aside > 3 * self.flips:
            found.append(f"{set_aside} files set aside, and {self.flips} were damaged")
        return found
