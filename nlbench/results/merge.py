"""Take the runs of another store into this one: nothing is lost, and nothing is written there.

Of a run that only the other store has, all files are copied. Of one that both have, the numbers are
compared. Where they differ, ours stays unless the caller wants the other one, and then ours is kept
under another name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from nlbench.errors import StoreError, SuiteError
from nlbench.files import move, sync_folder, write_atomic
from nlbench.results import merge_plans, state_files
from nlbench.results.integrity import (
    FILES,
    NEW,
    RECORD,
    Kind,
    RunFiles,
    check_run,
    listed_files,
    located,
    read_object,
)
from nlbench.results.numbers import first_difference, read_numbers
from nlbench.results.record import RunRecord
from nlbench.results.reproduced import NOTE, is_about, read_note
from nlbench.results.rounding import differing
from nlbench.results.small import shrink
from nlbench.results.store import Store, free_name

_KEY = re.compile(r"[0-9a-f]{16}")

# Files beside a run's record that the record does not vouch for. They belong to it alone.
_WEIGHTS = "weights.pt"
_BESIDE = (_WEIGHTS, NOTE)

# The name of a file that another one has replaced ends with this word and a number.
REPLACED = "replaced"


class Take(StrEnum):
    """Which run is taken where both stores have one, with different numbers."""

    OURS = "ours"
    NEWER = "newer"
    THEIRS = "theirs"


@dataclass
class MergeReport:
    """What became of the runs, plans and helper networks of another store.

    Attributes:
        added: keys of runs that only the other store had, or that had failed in ours.
        same: keys of runs that both have with the same numbers.
        replaced: keys of runs whose numbers differ, and of which theirs was taken.
        kept: keys of runs whose numbers differ, and of which ours has stayed.
        left_out: keys, or names, of what could not be taken.
        plans: names of suites whose plan was added or extended.
        plans_kept: names of suites of which the other store has another plan, and ours has stayed.
        fits: how many helper networks were copied.
        lines: a line about each run and plan that someone should look at.
        dry_run: whether this is only what would become of them.
        small: whether runs are taken without what makes them large.
    """

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    plans_kept: list[str] = field(default_factory=list)
    fits: int = 0
    lines: list[str] = field(default_factory=list)
    dry_run: bool = False
    small: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything of the other store is in ours now, with the same numbers."""
        return not (self.kept or self.left_out or self.plans_kept)

    def summary(self) -> list[str]:
        """Return in a few lines what became of everything."""
        would = "would be " if self.dry_run else ""
        runs = (
            f"runs: {len(self.added)} {would}added, {len(self.same)} there already with the same "
            f"numbers, {len(self.kept) + len(self.replaced)} with other numbers "
            f"({len(self.kept)} of ours {would}kept, {len(self.replaced)} {would}replaced), "
            f"{len(self.left_out)} left out"
        )
        others = (
            f"suites: {len(self.plans)} {would}added or extended, {len(self.plans_kept)} of ours "
            f"{would}kept although theirs differs; helper networks: {self.fits} {would}added"
        )
        return [runs, others]


def merge(
    other: str | Path,
    store: Store,
    *,
    take: Take = Take.OURS,
    dry_run: bool = False,
    small: bool = False,
) -> MergeReport:
    """Take what the folder `other` holds into `store`.

    Args:
        other: a store, which is only read. Links in it are not followed.
        take: what to keep where both have a run with different numbers, or a suite with different
            rows. A run that failed never replaces one that did not.
        dry_run: only say what would be done.
        small: of the runs that are taken, leave out what `small.LEFT_OUT` names, and weights. No
            helper network is taken.
    Raises: StoreError for a folder that is no store, or the same one; for a store that cannot be
        written.
    """
    theirs = Store(other)
    theirs.require()
    if store.root.exists() and os.path.samefile(theirs.root, store.root):
        raise SuiteError(f"{other}: is the store itself; name the other one, and ours with --out")
    if not dry_run:
        store.require_writable()

    report = MergeReport(dry_run=dry_run, small=small)
    for folder in sorted((theirs.root / "runs").iterdir()):
        _merge_run(folder, store, take, report)
    for name, line in merge_plans.merge(theirs, store, take.value, dry_run).items():
        _add_plan(name, line, report)
    if not small:
        _merge_fits(theirs.root / "fits", store, report)
    return report


def _add_plan(name: str, found: merge_plans.Found, report: MergeReport) -> None:
    if found.line:
        report.lines.append(found.line)
    if found.outcome == merge_plans.Outcome.TAKEN:
        report.plans.append(name)
    elif found.outcome == merge_plans.Outcome.KEPT:
        report.plans_kept.append(name)
    elif found.outcome == merge_plans.Outcome.LEFT_OUT:
        report.left_out.append(name)


# ---- One run -------------------------------------------------------------------------------------


class _LeftOut(Exception):
    """A run of the other store that cannot be taken, with the reason."""


def _merge_run(folder: Path, store: Store, take: Take, report: MergeReport) -> None:
    """Take a run of the other store, whose folder this is, and report what became of it."""
    key = folder.name
    if not _KEY.fullmatch(key):
        # Files such as .probe have no record, and nobody misses them.
        if os.path.lexists(folder / RECORD):
            report.left_out.append(key)
            report.lines.append(f"{_shown(folder)}: left out: its name is no key of a run")
        return
    try:
        theirs = _usable(folder, key)
        if theirs is None:
            return
        with contextlib.ExitStack() as stack:
            if not report.dry_run and not stack.enter_context(store.lock(key)):
                holder = store.holder(key) or "another process"
                raise _LeftOut(f"{holder} holds the run here; merge again when it has ended")
            _decide(folder, theirs, store, take, report)
    except _LeftOut as reason:
        report.left_out.append(key)
        report.lines.append(f"{_shown(folder)}: left out: {reason}")


def _usable(folder: Path, key: str) -> RunFiles | None:
    """Return what was found of a run of the other store, or None for one that has not ended.

    Raises: _LeftOut for one that is damaged, or that has links in it.
    """
    new = folder / NEW
    names = (RECORD, *FILES, *_BESIDE)
    for path in (folder, new, *(folder / name for name in names), *(new / name for name in names)):
        # A link may lead to any file of this user, who would then publish it with the store.
        if path.is_symlink():
            raise _LeftOut(f"{path.name} is a link, and links are not followed")
    try:
        found = check_run(folder, key)
    except PermissionError:
        raise _LeftOut("its record may not be read by this user") from None
    except StoreError as error:
        raise _LeftOut(str(error)) from None
    if found is None:
        return None

    if _is_damaged(found):
        raise _LeftOut(f"{found.damage[0].path.name}: {found.damage[0].reason}")
    return found


def _decide(folder: Path, theirs: RunFiles, store: Store, take: Take, report: MergeReport) -> None:
    """Compare a run with ours, and copy it where it is to be taken."""
    key = folder.name
    try:
        ours = check_run(store.run_dir(key), key)
    except StoreError as error:
        raise _LeftOut(f"ours cannot be compared with it: {error}") from None
    if ours is None or ours.record is None or theirs.record is None:
        _take(folder, theirs, store, report)
        report.added.append(key)
        return

    # A run that failed is no result. It never counts before one that has ended in another way.
    failed = ours.record.status == "failed", theirs.record.status == "failed"
    same_record = ours.checksum == theirs.checksum and theirs.checked
    if failed == (True, False) or (same_record and _is_damaged(ours)):
        _take(folder, theirs, store, report)
        report.added.append(key)
        return
    line = ""
    if not same_record and not failed[1]:
        line = _difference(folder, theirs.record, store, ours)
    if not line:
        report.same.append(key)
        if same_record and not report.dry_run:
            _copy_beside(folder, theirs, store, report)
        return

    times = [located(place, RECORD).stat().st_mtime for place in (store.run_dir(key), folder)]
    wanted = take is Take.THEIRS or (take is Take.NEWER and times[1] > times[0])
    line = f"{line}; {_which_is_newer(*times)}"
    if wanted:
        word = _take(folder, theirs, store, report)
        line += f"; theirs is taken, ours is kept as {word}" if word else "; theirs would be taken"
        report.replaced.append(key)
    else:
        line += "; ours stays"
        report.kept.append(key)
    report.lines.append(line)


def _difference(folder: Path, theirs: RunRecord, store: Store, own: RunFiles) -> str:
    """Say where the numbers of a run that both have differ first; nothing where they do not."""
    ours = own.record
    if ours is None:
        return ""
    if _is_damaged(own):
        where = f"{own.damage[0].path}: {own.damage[0].reason}"
        raise _LeftOut(f"it cannot be compared with ours, which is damaged ({where})")
    try:
        was = read_numbers(store.run_dir(ours.key), ours)
        found = first_difference(was, read_numbers(folder, theirs))
    except ValueError as error:
        raise _LeftOut(f"the numbers cannot be compared: {error}") from None
    if found is None:
        return ""

    spec = ours.spec
    name = f"{spec['method']} · {spec['dataset']} · seed {spec['seed']}"
    line = f"{ours.key} ({name}): {found.place}: {found.one} here, {found.other} there"
    reasons = [
        f"{apart.name} {apart.one} here, {apart.other} there"
        for apart in differing(ours.environment, theirs.environment)
    ]
    if ours.code != theirs.code:
        reasons.append("they were made by different versions of the code")
    if not reasons:
        reasons.append(
            "hardware, versions and code are the same, so `nlbench reproduce` can tell which of "
            "them is right"
        )
    return f"{line}; {'; '.join(reasons)}"


def _which_is_newer(ours: float, theirs: float) -> str:
    # A record does not say when it was made.
    if ours == theirs:
        return "by the files' times neither is newer"
    newer = "theirs" if theirs > ours else "ours"
    return f"by the files' times {newer} is newer ({_date(ours)} here, {_date(theirs)} there)"


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).isoformat(sep=" ", timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "an impossible date"


# ---- Copying -------------------------------------------------------------------------------------


def _take(folder: Path, theirs: RunFiles, store: Store, report: MergeReport) -> str:
    """Make the run in `folder` the run of our store, and keep the files of ours.

    Returns: the name that our record has now; empty where there was none, or in a dry run.
    Raises: _LeftOut where a file changes while it is copied.
    """
    if report.dry_run:
        return ""
    key = folder.name
    own = store.run_dir(key)
    with store.replacing_run(key) as staged:
        _copy(located(folder, RECORD), staged / RECORD)
        names = listed_files(read_object(staged / RECORD)) if theirs.checked else set(FILES)
        for name in sorted(names):
            _copy(located(folder, name), staged / name)
        # The files may have changed since they were looked at. The copies cannot.
        copied = check_run(staged, key)
        if copied is None or copied.checksum != theirs.checksum or _is_damaged(copied):
            raise _LeftOut("it has changed while it was copied; merge again")
        if report.small:
            try:
                shrink(staged)
            except ValueError as error:
                raise _LeftOut(f"it cannot be made smaller: {error}") from None
        kept = _keep_replaced(own)
    if theirs.record is not None and theirs.record.status != "failed":
        (own / "checkpoint.pt").unlink(missing_ok=True)
    _copy_beside(folder, theirs, store, report)
    return kept


def _is_damaged(files: RunFiles) -> bool:
    # A record of nlbench 0.1 that lacks a value is used as it is.
    return any(damage.kind != Kind.INCOMPLETE for damage in files.damage)


def _keep_replaced(folder: Path) -> str:
    """Give the files of a run further names, before others take their places.

    Returns: the name that the record has then; empty where there is none.
    """
    kept = ""
    for name in (RECORD, *FILES):
        path = folder / name
        if not path.is_file():
            continue
        other = free_name(path, REPLACED)
        # A second name and no copy. The run stays whole until the new one takes its place.
        try:
            os.link(path, other)
        except OSError:
            shutil.copy2(path, other)
        kept = other.name if name == RECORD else kept
    for name in _BESIDE:
        # These belong to the old record, and must not lie beside the new one.
        if os.path.lexists(folder / name):
            move(folder / name, free_name(folder / name, REPLACED))
    sync_folder(folder)
    return kept


def _copy_beside(folder: Path, theirs: RunFiles, store: Store, report: MergeReport) -> None:
    """Copy the weights, and the note that the run was reproduced, where ours has none."""
    # The note is about the whole files, and not about those that were made smaller.
    if report.small:
        return
    own = store.run_dir(folder.name)
    for name in _BESIDE:
        if os.path.lexists(own / name) or not (folder / name).is_file():
            continue
        if name == NOTE:
            try:
                if not is_about(read_note(folder, folder.name), folder, theirs):
                    continue
            except (OSError, ValueError):
                # A note that cannot be used says nothing of the run.
                continue
        _copy(folder / name, own / name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, if it is there. A link is not followed.

    Raises: _LeftOut for what is no file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(source, flags)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _LeftOut(f"{source.name} cannot be read ({error.strerror})") from None
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise _LeftOut(f"{source.name} is not a file")
        write_atomic(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 20))
    # A later merge can then tell which of two runs is newer.
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))


def _shown(folder: Path) -> str:
    """Return a path of the other store, whose name may hold anything, for a message."""
    text = str(folder)
    return text if text.isprintable() else ascii(text)


# ---- Helper networks -----------------------------------------------------------------------------


def _merge_fits(folder: Path, store: Store, report: MergeReport) -> None:
    """Copy the helper networks that only the other store has, and that are not damaged."""
    for path in _fits(folder):
        target = store.root / "fits" / path.name
        # A damaged one is not needed: a run that uses it trains it again.
        if os.path.lexists(target) or path.is_symlink() or state_files.damage_of(path):
            continue
        if not report.dry_run:
            try:
                _copy(path, target)
            except _LeftOut:
                # It was replaced since it was looked at.
                continue
        report.fits += 1


def _fits(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*.pt")):
        if _KEY.fullmatch(path.stem):
            yield path
