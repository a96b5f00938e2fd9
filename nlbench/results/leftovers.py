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
from nlbench.results.store import Store

CHECKPOINT = "checkpoint.pt"
LOCK = "lock"

# The state of a helper network in training, beside its result with the ending .pt.
GOING = ".going.pt"

# A file for a try that nlbench 0.3 and earlier versions made in OUT/runs.
_PROBE = ".probe"


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
        if (is_temporary(name) or name == _PROBE) and is_abandoned(path):
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


def tidy(store: Store, keys: Iterable[str], warn: Callable[[Leftover], None] | None = None) -> None:
    """Remove what killed processes have left of finished runs, of helper networks and of plans.

    Runs that are not finished are tidied when they are trained. What another process holds stays.

    Args:
        keys: the runs to look at.
        warn: called with each leftover before it is removed.
    """
    report = warn or (lambda leftover: None)
    for key in keys:
        tidy_run(store, key, report)

    for key, found in of_fits(store.root / "fits").items():
        with hold(store.root / "fits" / f"{key}.lock", warn=store.warn) as mine:
            if mine:
                # Letting go of the lock empties it.
                _remove_all((one for one in found if not one.path.match("*.lock")), report)
    for name in ("runs", "suites", "fits"):
        _remove_all(abandoned(store.root / name), report)


def tidy_run(store: Store, key: str, report: Callable[[Leftover], None]) -> bool:
    """Remove the leftovers of a run that has ended; see `tidy`. Returns whether there were any."""
    folder = store.run_dir(key)
    names = _names(folder)
    if RECORD not in names and NEW not in names:
        return False
    # Most runs have none. Their records need not be read then, and no lock is taken.
    odd = [n for n in names if n.startswith(".") or n == CHECKPOINT]
    if not odd and not _names_somebody(folder / LOCK):
        return False

    if is_held(folder / LOCK):
        return False
    found = list(of_run(folder, names, store.read(key)))
    if not found:
        return False
    for leftover in found:
        report(leftover)
    # Taking the lock removes temporary files and moves a run to its place, and letting go empties
    # it.
    with store.lock(key) as mine:
        if mine and is_spent(folder, store.read(key)):
            (folder / CHECKPOINT).unlink(missing_ok=True)
    return mine


def _remove_all(found: Iterable[Leftover], report: Callable[[Leftover], None]) -> None:
    for leftover in found:
        report(leftover)
        try:
            remove(leftover.path)
        except OSError as error:
            raise StoreError(f"{leftover.path}: cannot be removed ({error.strerror})") from None
