"""`nlbench repair`: set aside what is damaged, remove what was left, and say what to run again.

No result is ever deleted: a file that is set aside has another name beside the old one. Each run is
looked at again while its lock is held, so that a run which a process trains stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlbench.errors import StoreError
from nlbench.results import state_files
from nlbench.results.findings import Finding, Remedy, Trouble
from nlbench.results.integrity import FILES, RECORD
from nlbench.results.leftovers import tidy_rest, tidy_run
from nlbench.results.lock import hold
from nlbench.results.plan_file import command_of
from nlbench.results.store import Store
from nlbench.results.verify import check_files, verify


@dataclass
class Repaired:
    """What a repair has done, or would do.

    Attributes:
        set_aside: damaged files, with the reasons.
        removed: the leftovers, with what they were.
        held: the runs that another process trains, and of which nothing was touched.
        left: what a repair cannot mend, or mends with --again alone.
        again: the runs to be trained again, by key.
    """

    set_aside: list[tuple[Path, str]] = field(default_factory=list)
    removed: list[tuple[Path, str]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def repair(
    store: Store,
    *,
    again: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Repaired:
    """Set aside what is damaged in a store, and remove leftovers. Repeating it changes nothing.

    Args:
        again: also set aside the runs whose records can be used, but not what lies beside them.
        dry_run: only say what would be done.
        progress: as of `verify`.
    Raises: StoreError for a store that cannot be read or written.
    """
    report = verify(store, progress)
    done = Repaired()
    by_run: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_run.setdefault(finding.key, []).append(finding)
    others = by_run.pop("", [])

    if dry_run:
        for key, findings in by_run.items():
            _note(done, key, _steps(store, key, findings, again))
        _note(done, "", _steps(store, "", others, again))
        return done
    try:
        for key in by_run:
            _repair_run(store, key, again, done)
        _repair_others(store, others, done)
    except OSError as error:
        raise StoreError(
            f"{error.filename or store.root}: cannot be repaired ({error.strerror})"
        ) from None
    return done


def commands(store: Store, keys: Sequence[str]) -> dict[str, tuple[list[str], str]]:
    """Return which of these runs each suite has, in words, and the command that trains them."""
    found = {}
    wanted = set(keys)
    for name in store.plan_names() if keys else ():
        try:
            plan = store.plan(name)
        except StoreError:
            continue
        runs = {}
        for cell in plan["cells"] if plan else ():
            if cell["key"] in wanted:
                runs[cell["key"]] = f"{cell['row']}, seed {cell['seed']} [{cell['key']}]"
        if plan and runs:
            found[name] = list(runs.values()), command_of(plan, store.root)
    return found


# ---- What is to be done --------------------------------------------------------------------------


@dataclass
class _Steps:
    """What is to be done with one run, or with the rest of the store."""

    set_aside: dict[Path, str] = field(default_factory=dict)
    remove: list[tuple[Path, str]] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    again: bool = False


def _steps(store: Store, key: str, findings: Sequence[Finding], again: bool) -> _Steps:
    steps = _Steps()
    wholly = {Remedy.RUN, Remedy.AGAIN, Remedy.FILE_OR_RUN} if again else {Remedy.RUN}
    for finding in findings:
        if finding.remedy is Remedy.REMOVE:
            steps.remove.append((finding.path, finding.reason))
        elif finding.remedy in wholly:
            steps.again = True
            steps.set_aside[finding.path] = finding.reason
        elif finding.remedy in (Remedy.FILE, Remedy.FILE_OR_RUN):
            steps.set_aside[finding.path] = finding.reason
        else:
            steps.left.append(finding)
    if steps.again:
        for name in (RECORD, *FILES):
            steps.set_aside.setdefault(store.run_dir(key) / name, "it belongs to that run")
    # A file that is missing cannot be set aside. The record comes last: a process that is killed
    # here leaves a run that is found again.
    paths = sorted(steps.set_aside, key=lambda path: path.name == RECORD)
    steps.set_aside = {p: steps.set_aside[p] for p in paths if os.path.lexists(p)}
    return steps


def _note(done: Repaired, key: str, steps: _Steps) -> None:
    done.set_aside += steps.set_aside.items()
    done.removed += steps.remove
    done.left += steps.left
    if steps.again:
        done.again.append(key)


# ---- To do it ------------------------------------------------------------------------------------


def _repair_run(store: Store, key: str, again: bool, done: Repaired) -> None:
    """Do what is to be done with one run, as it is found when its lock is held."""
    removed: list[tuple[Path, str]] = []
    free = tidy_run(store, key, lambda one: removed.append((one.path, one.what)))
    done.removed += removed
    with store.lock(key) if free else contextlib.nullcontext(False) as mine:
        if not mine:
            done.held.append(key)
            return
        findings = check_files(store.root, key).findings
        # The lock names this process now.
        findings = [one for one in findings if one.trouble is not Trouble.LEFTOVER]
        steps = _steps(store, key, findings, again)
        for path, reason in steps.set_aside.items():
            store.set_aside(path, reason)
        _note(done, key, steps)


def _repair_others(store: Store, findings: Iterable[Finding], done: Repaired) -> None:
    """Set aside damaged helper networks and plans, and remove leftovers beside the runs."""
    tidy_rest(store, lambda one: done.removed.append((one.path, one.what)))
    for finding in findings:
        if finding.remedy is Remedy.UPDATE:
            done.left.append(finding)
        if finding.remedy is not Remedy.FILE:
            continue
        if finding.path.parent.name == "fits":
            lock = finding.path.with_name(f"{finding.path.name.partition('.')[0]}.lock")
            with hold(lock, warn=store.warn) as mine:
                # A process may have set it aside meanwhile, and made it anew.
                if mine and state_files.damage_of(finding.path):
                    store.set_aside(finding.path, finding.reason)
                    done.set_aside.append((finding.path, finding.reason))
        elif os.path.lexists(finding.path):
            store.set_aside(finding.path, finding.reason)
            done.set_aside.append((finding.path, finding.reason))
