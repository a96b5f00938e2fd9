"""What processes that were killed have left in a store, and how it is removed.

Only what no living process can use is a leftover: a file is removed while the lock that it belongs
to is held, or because its name names a process that has ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nlbench.errors import StoreError
from nlbench.files import is_abandoned, is_temporary, remove
from nlbench.results.integrity import NEW, RECORD, located
from nlbench.results.lock import hold, is_held
from nlbench.results.record import RunRecord
from nlbench.results.schema import LaterVersion
from nlbench.results.store import Store

CHECKPOINT = "checkpoint.pt"
LOCK = "lock"

# The state of a helper network in training, beside its result with the ending .pt.
GOING = ".going.pt"

# A file that earlier versions made in OUT/runs, to see whether it can be written.
PROBE = ".probe"


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody needs any more."""

    path: Path
    what: str


# ---- To find them --------------------------------------------------------------------------------


def of_run(folder: Path, names: Iterable[str], record: RunRecord | None) -> Iterator[Leftover]:
    """Yield the leftovers in the folder of a run that no process holds.

    Args:
        names: what the folder holds.
        record: of the run, if it has one that can be used.
    """
    for name in sorted(names):
        path = folder / name
        if is_temporary(name):
            yield Leftover(path, "a temporary file of a process that has ended")
        elif name == NEW:
            yield Leftover(path, "files of the run that wait to be moved to their places")
        elif name == LOCK and _names_somebody(path):
            yield Leftover(path, "a lock that names a process which has ended")
        elif name == CHECKPOINT and is_spent(folder, record):
            yield Leftover(path, "the checkpoint of a run that has ended since")


def is_spent(folder: Path, record: RunRecord | None) -> bool:
    """Tell whether the checkpoint of a run is older than its record, which needs none.

    A younger one belongs to a training with `--stale rerun`, which goes on from it. So does a run
    that failed.
    """
    if record is None or record.status == "failed":
        return False
    try:
        written = located(folder, RECORD).stat().st_mtime_ns
        return (folder / CHECKPOINT).stat().st_mtime_ns <= written
    except FileNotFoundError:
        return False


def of_fits(folder: Path) -> dict[str, list[Leftover]]:
    """Return the leftovers of helper networks that no process holds, by the helper's key."""
    names = set(_names(folder))
    found: dict[str, list[Leftover]] = {}
    for name in sorted(names):
        key = _key_of_fit(name)
        if is_temporary(name):
            what = "a temporary file of a process that has ended"
        elif name.endswith(GOING) and f"{key}.pt" in names:
            what = "the state of a helper network whose training has ended since"
        elif name.endswith(".lock") and _names_somebody(folder / name):
            what = "a lock that names a process which has ended"
        else:
            continue
        if key:
            found.setdefault(key, []).append(Leftover(folder / name, what))
    return {key: some for key, some in found.items() if not is_held(folder / f"{key}.lock")}


def abandoned(folder: Path) -> Iterator[Leftover]:
    """Yield the temporary files in a folder whose processes have ended."""
    for name in sorted(_names(folder)):
        path = folder / name
        if (is_temporary(name) or name == PROBE) and is_abandoned(path):
            yield Leftover(path, "a temporary file of a process that has ended")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _names_somebody(lock: Path) -> bool:
    try:
        return lock.stat().st_size > 0
    except FileNotFoundError:
        return False


def _key_of_fit(name: str) -> str:
    """Return the key in the name of a helper network's file, such as ".KEY.pt.12-ab.tmp"."""
    key = name.removeprefix(".").partition(".")[0]
    return key if len(key) == 16 else ""


# ---- To remove them ------------------------------------------------------------------------------


Report = Callable[[Leftover], None]


def _no_report(leftover: Leftover) -> None:
    """Say nothing of a leftover."""


def tidy(store: Store, keys: Iterable[str]) -> None:
    """Remove what killed processes have left of finished runs, of helper networks and of plans.

    Runs that are not finished are tidied when they are trained. What another process holds stays.

    Args:
        keys: the runs to look at.
    """
    for key in keys:
        if _needs_tidying(store, key):
            tidy_run(store, key)
    tidy_rest(store)


def _needs_tidying(store: Store, key: str) -> bool:
    """Tell from the names alone whether a run that has ended may have leftovers."""
    # Most runs have none. Their records need not be read then, and no lock is taken.
    folder = store.run_dir(key)
    names = _names(folder)
    if RECORD not in names and NEW not in names:
        return False
    odd = any(name.startswith(".") or name == CHECKPOINT for name in names)
    return odd or _names_somebody(folder / LOCK)


def tidy_run(store: Store, key: str, report: Report = _no_report) -> bool:
    """Remove the leftovers of a run. Returns False where another process holds it.

    Args:
        report: called with each leftover before it is removed.
    """
    folder = store.run_dir(key)
    if is_held(folder / LOCK):
        return False
    found = list(of_run(folder, _names(folder), _record(store, key)))
    if not found:
        return True
    # Taking the lock removes temporary files and moves a run to its place, and letting go of the
    # lock empties it.
    with store.lock(key) as mine:
        if not mine:
            return False
        for leftover in found:
            report(leftover)
        if is_spent(folder, _record(store, key)):
            (folder / CHECKPOINT).unlink(missing_ok=True)
    return True


def _record(store: Store, key: str) -> RunRecord | None:
    """Return the record of a run; None for one that this version cannot use."""
    try:
        return store.read(key)
    except LaterVersion:
        return None


def tidy_rest(store: Store, report: Report = _no_report) -> None:
    """Remove the leftovers of helper networks and of plans; see `tidy_run`."""
    fits = store.root / "fits"
    for key, found in of_fits(fits).items():
        with hold(fits / f"{key}.lock", warn=store.warn) as mine:
            if not mine:
                continue
            for leftover in found:
                report(leftover)
                # Letting go of the lock empties it.
                if leftover.path.suffix != ".lock":
                    _remove(leftover)
    for name in ("runs", "suites", "fits"):
        for leftover in abandoned(store.root / name):
            report(leftover)
            _remove(leftover)


def _remove(leftover: Leftover) -> None:
    try:
        remove(leftover.path)
    except OSError as error:
        raise StoreError(f"{leftover.path}: cannot be removed ({error.strerror})") from None
