"""Take the plans of another store into this one: which runs belong to which suite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nlbench.errors import StoreError
from nlbench.files import move
from nlbench.plan.spec import differing_value
from nlbench.results.integrity import check_run
from nlbench.results.store import Store, free_name

# Names that a suite can have, with what `--set` and the tries of a tuned suite add.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=#-]{0,250}")

# What two plans must have in common, so that they are parts of one suite.
_COMMON = ("rows", "conditions", "track", "protocol", "tries")


class Outcome(StrEnum):
    """What became of a plan of the other store."""

    SAME = "same"
    TAKEN = "taken"
    KEPT = "kept"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Found:
    """What became of a plan, with a line for the reader where somebody should look at it."""

    outcome: Outcome
    line: str = ""


def merge(theirs: Store, store: Store, take: str, dry_run: bool) -> dict[str, Found]:
    """Take every plan of the store `theirs` into `store`, and return what became of each, by name.

    Of a suite that both have with the same rows, conditions and settings, the plan then has the
    seeds of both.

    Args:
        take: "ours", "newer" or "theirs": the plan to keep where the two are of different rows.
        dry_run: write nothing.
    """
    return {name: _merge_plan(name, theirs, store, take, dry_run) for name in theirs.plan_names()}


def _merge_plan(name: str, theirs: Store, store: Store, take: str, dry_run: bool) -> Found:
    path = theirs.plan_path(name)
    if not _NAME.fullmatch(name):
        return Found(Outcome.LEFT_OUT, f"{str(path)!a}: left out: its name is no suite's")
    if path.is_symlink():
        return Found(Outcome.LEFT_OUT, f"{path}: left out: it is a link, and is not followed")
    try:
        plan = theirs.plan(name)
    except StoreError as error:
        return Found(Outcome.LEFT_OUT, f"left out: {error}")
    if plan is None:
        return Found(Outcome.SAME)

    try:
        ours = store.plan(name)
    except StoreError:
        # Writing the other one keeps the damaged one under another name.
        ours = None
    if ours is None:
        return _written(plan, store, dry_run)
    why = _why_not_one(ours, plan)
    if not why:
        both = _union(ours, plan)
        if both == ours:
            return Found(Outcome.SAME)
        why = _other_settings(ours, store, plan, theirs)
        if not why:
            return _written(both, store, dry_run)

    own = store.plan_path(name)
    newer = path.stat().st_mtime > own.stat().st_mtime
    line = f"{path}: the suite {name!r} is another one there: {why}"
    if take == "ours" or (take == "newer" and not newer):
        return Found(Outcome.KEPT, f"{line}; ours stays, and all runs are in the store")
    if dry_run:
        return Found(Outcome.TAKEN, f"{line}; theirs would be taken")
    other = free_name(own, "replaced")
    move(own, other)
    return _written(plan, store, dry_run, f"{line}; theirs is taken, ours is kept as {other.name}")


def _written(plan: Mapping[str, Any], store: Store, dry_run: bool, line: str = "") -> Found:
    if not dry_run:
        store.write_plan(plan)
    return Found(Outcome.TAKEN, line)


def _why_not_one(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Say why two plans are not parts of one suite; nothing where they are."""
    for part in _COMMON:
        if ours[part] == theirs[part]:
            continue
        if part == "rows":
            names = [{row["row"] for row in plan["rows"]} for plan in (ours, theirs)]
            only = sorted(names[0] ^ names[1])
            return f"only one has the rows {', '.join(only)}" if only else "its rows differ"
        return f"its {part} differ" if part == "conditions" else f"another {part}"

    keys = {_place(cell): cell["key"] for cell in ours["cells"]}
    for cell in theirs["cells"]:
        if keys.get(_place(cell), cell["key"]) != cell["key"]:
            title = ours["conditions"][cell["condition"]]
            return (
                f"row {cell['row']!r}, {title!r}, seed {cell['seed']} is the run {cell['key']} "
                f"there and {keys[_place(cell)]} here, so parameters or data differ"
            )
    return ""


def _other_settings(
    ours: Mapping[str, Any], store: Store, theirs: Mapping[str, Any], other: Store
) -> str:
    """Say where the runs of a row differ in more than their seed; nothing where they do not.

    Two plans with other seeds have no run in common whose key would show that.
    """
    here, there = _specs(ours, store), _specs(theirs, other)
    for (row, condition), spec in here.items():
        name = differing_value(spec, there.get((row, condition), spec))
        if name:
            title = ours["conditions"][condition]
            return f"its runs of row {row!r}, {title!r}, have another {name}"
    return ""


def _specs(plan: Mapping[str, Any], store: Store) -> dict[tuple[str, int], dict[str, Any]]:
    """Return what the first run of each row and condition was asked to do, without its seed."""
    specs: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in plan["cells"]:
        place = cell["row"], cell["condition"]
        if place in specs:
            continue
        try:
            found = check_run(store.run_dir(cell["key"]), cell["key"])
        except (StoreError, PermissionError):
            # The run is left out, and the report says why.
            continue
        if found is not None and found.record is not None:
            spec = found.record.spec
            specs[place] = {name: value for name, value in spec.items() if name != "seed"}
    return specs


def _place(cell: Mapping[str, Any]) -> tuple[str, int, int]:
    return cell["row"], cell["condition"], cell["seed"]


def _union(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return our plan with the seeds of both."""
    places = {_place(cell) for cell in ours["cells"]}
    further = [cell for cell in theirs["cells"] if _place(cell) not in places]
    if not further:
        return dict(ours)
    # Seed by seed, as a plan of all these seeds lists them.
    cells = sorted([*ours["cells"], *further], key=lambda cell: cell["seed"])
    notes = [note for note in theirs["notes"] if note not in ours["notes"]]
    files = {**theirs.get("method_files", {}), **ours.get("method_files", {})}
    return {
        **ours,
        "cells": cells,
        "seeds": sorted({*ours["seeds"], *theirs["seeds"]}),
        "notes": [*ours["notes"], *notes],
        "method_files": files,
    }
