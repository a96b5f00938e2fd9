"""`nlbench verify`: is everything in a store as it was written, and what is not there?

    damage          a file that is not the one that was written
    disagreements   files that say different things about one run
    leftovers       what a process that was killed has left
    missing runs    and failed, diverged and running ones are facts, and nothing is wrong with them

Nothing is changed. The runs are looked at in several processes, because a store may have a hundred
thousand of them.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nlbench.errors import StoreError
from nlbench.files import is_temporary, open_regular
from nlbench.results import parallel, state_files
from nlbench.results.consistency import disagreements
from nlbench.results.findings import (
    Condition,
    Finding,
    Remedy,
    Report,
    RunReport,
    SuiteReport,
    Trouble,
)
from nlbench.results.integrity import FILES, NEW, RECORD, Kind, check_run
from nlbench.results.leftovers import (
    CHECKPOINT,
    GOING,
    LOCK,
    PROBE,
    Leftover,
    abandoned,
    is_spent,
    of_fits,
    of_run,
)
from nlbench.results.lock import is_held
from nlbench.results.plan_file import Origin, command_of, origin_of, wrong_cell
from nlbench.results.record import RunRecord
from nlbench.results.reproduced import NOTE, read_note
from nlbench.results.schema import LaterVersion
from nlbench.results.store import Store

WEIGHTS = "weights.pt"

_KEY = re.compile("[0-9a-f]{16}")
# Damaged files, and those in whose place `nlbench merge` has put others.
_SET_ASIDE = re.compile(r".+\.(corrupt|replaced)-\d+")
_FORGOTTEN = re.compile(r".+\.json\.forgotten-\d+")

# Names in the folder of a run, and in the store itself.
_OF_A_RUN = {RECORD, *FILES, CHECKPOINT, LOCK, NEW, WEIGHTS, NOTE}
# The last two are of `nlbench run --tensorboard` and `--wandb`.
_OF_A_STORE = {"runs", "suites", "fits", "tensorboard", "wandb"}


Progress = Callable[[int, int], None]


def verify(store: Store, progress: Progress = lambda done, total: None) -> Report:
    """Check every file of a store.

    Args:
        progress: called now and then with the number of runs that were checked, and of all.
    Raises: StoreError for a folder that is no store, or cannot be read.
    """
    store.require()
    report = Report(store.root)
    origins: dict[str, Origin | None] = {}
    conditions: dict[str, Condition] = {}
    try:
        keys = _run_folders(store, report)
        for found in parallel.over(keys, check_one, store.root, progress):
            report.findings += found.findings
            report.set_aside += found.set_aside
            report.unknown += found.unknown
            report.conditions[found.condition] += 1
            report.unchecked += not found.checked
            conditions[found.key], origins[found.key] = found.condition, found.origin

        _check_plans(store, report, origins, conditions)
        _check_helpers(store, report)
        _check_names(store, report)
    except OSError as error:
        raise StoreError(
            f"{error.filename or store.root}: cannot be read ({error.strerror})"
        ) from None
    return report


def _run_folders(store: Store, report: Report) -> list[str]:
    """Return the keys of the runs, and note what else lies beside their folders."""
    keys = []
    with os.scandir(store.root / "runs") as entries:
        for entry in entries:
            if _KEY.fullmatch(entry.name) and entry.is_dir():
                keys.append(entry.name)
            elif not is_temporary(entry.name) and entry.name != PROBE:
                report.unknown.append(Path(entry.path))
    return sorted(keys)


# ---- One run -------------------------------------------------------------------------------------


def check_one(root: Path, key: str) -> RunReport:
    """Check the folder of one run."""
    folder = root / "runs" / key
    if is_held(folder / LOCK):
        return RunReport(key, Condition.RUNNING)
    found = check_files(root, key)
    # A process may have begun to train the run meanwhile, and what it has half written is no
    # damage.
    if found.findings and is_held(folder / LOCK):
        return RunReport(key, Condition.RUNNING)
    return found


def check_files(root: Path, key: str) -> RunReport:
    """Check the folder of one run that no other process trains."""
    folder = root / "runs" / key
    names = os.listdir(folder) if folder.is_dir() else []
    begun = CHECKPOINT in names
    report = RunReport(key, Condition.BEGUN if begun else Condition.MISSING)
    report.set_aside = [folder / name for name in names if _SET_ASIDE.fullmatch(name)]
    report.unknown = [folder / name for name in names if _is_unknown(name, _OF_A_RUN)]

    found = report.findings
    record = None
    try:
        files = check_run(folder, key)
    except StoreError as error:
        report.condition = Condition.UNUSABLE
        reason = str(error).removesuffix("; update nlbench")
        found.append(Finding(Trouble.DAMAGE, folder / RECORD, reason, Remedy.UPDATE, key))
        files = None
    else:
        if files is None:
            reason = "there is no record beside it"
            found += [_damage(folder / name, reason, key) for name in FILES if name in names]
    if files is not None:
        record, report.checked = files.record, files.checked
        report.condition = Condition(record.status) if record else Condition.UNUSABLE
        for one in files.damage:
            remedy = _remedy(one.kind) if record else Remedy.RUN
            found.append(Finding(Trouble.DAMAGE, one.path, one.reason, remedy, key))
    if record is not None:
        report.origin = origin_of(record)
        # Of a file that was changed it is known already that it does not agree.
        damaged = {finding.path.name for finding in found}
        for name, reason in disagreements(record, folder, damaged):
            place = folder / name
            found.append(Finding(Trouble.DISAGREEMENT, place, reason, Remedy.AGAIN, key))

    if NOTE in names:
        found += _of_note(folder, key)
    found += _of_states(folder, key, names, record)
    found += [_leftover(one, key) for one in of_run(folder, names, record)]
    return report


def _remedy(kind: Kind) -> Remedy:
    """Return what to do about damage beside a record that can be used."""
    if kind in (Kind.MISSING_FILE, Kind.INCOMPLETE):
        return Remedy.AGAIN
    return Remedy.FILE if kind is Kind.FOREIGN_FILE else Remedy.FILE_OR_RUN


def _of_note(folder: Path, key: str) -> Iterator[Finding]:
    """Yield damage of the note that the run was reproduced."""
    try:
        read_note(folder, key)
    except ValueError as error:
        yield _damage(folder / NOTE, str(error), key)


def _of_states(
    folder: Path, key: str, names: Sequence[str], record: RunRecord | None
) -> Iterator[Finding]:
    """Yield damage of the checkpoint and of the weights."""
    if CHECKPOINT in names and not is_spent(folder, record):
        reason = state_files.damage_of(folder / CHECKPOINT)
        if reason:
            yield _damage(folder / CHECKPOINT, reason, key)
    if WEIGHTS in names:
        reason = _damage_of_weights(folder / WEIGHTS)
        if reason:
            yield _damage(folder / WEIGHTS, reason, key)


def _damage_of_weights(path: Path) -> str:
    # A damaged archive makes zipfile raise almost any exception.
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except Exception as error:
        return f"it is no file of weights ({type(error).__name__})"
    return "" if broken is None else "it is damaged (its checksum does not fit)"


# ---- Plans, helper networks and names ------------------------------------------------------------


def _check_plans(
    store: Store,
    report: Report,
    origins: Mapping[str, Origin | None],
    conditions: Mapping[str, Condition],
) -> None:
    planned: set[str] = set()
    for name in store.plan_names():
        path = store.plan_path(name)
        try:
            plan = store.plan(name)
        except StoreError as error:
            later = isinstance(error, LaterVersion)
            reason = str(error).removeprefix(f"{path}: ").removesuffix("; update nlbench")
            remedy = Remedy.UPDATE if later else Remedy.FILE
            report.findings.append(Finding(Trouble.DAMAGE, path, reason, remedy))
            continue
        if plan is None:
            continue

        keys = {cell["key"] for cell in plan["cells"]}
        planned |= keys
        found = Counter(conditions[key] for key in keys if key in conditions)
        command = command_of(plan, store.root)
        report.suites.append(SuiteReport(name, len(keys), found, command))
        wrong = wrong_cell(plan, origins.get)
        if wrong:
            report.findings.append(Finding(Trouble.DISAGREEMENT, path, wrong, Remedy.FILE))

    with_record = (key for key, origin in origins.items() if origin is not None)
    report.in_no_suite = sum(key not in planned for key in with_record)


def _check_helpers(store: Store, report: Report) -> None:
    folder = store.root / "fits"
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    leftovers = [one for found in of_fits(folder).values() for one in found]
    report.findings += [_leftover(one) for one in leftovers]

    left = {one.path.name for one in leftovers}
    for name in sorted(names - left):
        if not name.endswith(".pt") or is_temporary(name):
            continue
        if name.endswith(GOING):
            report.helpers_begun += 1
        else:
            report.helpers += 1
        held = is_held(folder / f"{name.partition('.')[0]}.lock")
        reason = "" if held else state_files.damage_of(folder / name)
        if reason:
            report.findings.append(_damage(folder / name, reason))


def _check_names(store: Store, report: Report) -> None:
    """Note files that were set aside, temporary ones, and those that are not nlbench's."""
    for folder in ("runs", "suites", "fits"):
        report.findings += [
            _leftover(one)
            for one in abandoned(store.root / folder)
            if all(one.path != finding.path for finding in report.findings)
        ]
    report.unknown += _unknown_in(store.root, _OF_A_STORE, ())
    report.unknown += _unknown_in(store.root / "suites", (), (".json",))
    report.unknown += _unknown_in(store.root / "fits", (), (".pt", ".lock"))
    for folder in ("suites", "fits"):
        if (store.root / folder).is_dir():
            names = sorted(os.listdir(store.root / folder))
            report.set_aside += [
                store.root / folder / name for name in names if _SET_ASIDE.fullmatch(name)
            ]


def _unknown_in(folder: Path, known: Iterable[str], endings: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        return []
    names = sorted(os.listdir(folder))
    return [folder / n for n in names if not n.endswith(endings) and _is_unknown(n, known)]


def _is_unknown(name: str, known: Iterable[str]) -> bool:
    of_nlbench = is_temporary(name) or _SET_ASIDE.fullmatch(name) or _FORGOTTEN.fullmatch(name)
    return name not in known and not of_nlbench


# ---- Findings ------------------------------------------------------------------------------------


def _damage(path: Path, reason: str, key: str = "") -> Finding:
    return Finding(Trouble.DAMAGE, path, reason, Remedy.FILE, key)


def _leftover(found: Leftover, key: str = "") -> Finding:
    return Finding(Trouble.LEFTOVER, found.path, found.what, Remedy.REMOVE, key)
