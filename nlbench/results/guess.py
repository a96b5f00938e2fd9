"""Guess from a store's files whether a suite has runs left to train.

For what is worth doing before the suite has been read. Nothing else may rely on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlbench.errors import SuiteError, place_of_condition
from nlbench.plan import shards
from nlbench.plan.shards import Shard
from nlbench.plan.suite_file import find_suite

# The name of a suite. Only this line is read, because `prepare` reads the whole file afterwards.
_NAME = re.compile(r"""^name:[ \t]+["']?([A-Za-z0-9][A-Za-z0-9._-]*)""", re.MULTILINE)


@dataclass(frozen=True)
class _Cell:
    """A run as a plan in a store has it, see `Plan.as_json`."""

    row: str
    condition: int
    seed: int
    key: str


def name_of_suite(suite: str | Path | Mapping[str, Any]) -> str:
    """Return the name that a suite seems to have, given as `nlbench.run` takes it.

    Returns: nothing where the suite's file is not there or has no such line.
    """
    if isinstance(suite, Mapping):
        return str(suite.get("name", ""))
    try:
        found = _NAME.search(find_suite(suite).read_text(encoding="utf-8"))
    except (SuiteError, OSError, ValueError):
        return ""
    return found[1] if found else ""


def seems_done(
    root: Path,
    plan: str,
    *,
    rows: Collection[str] | None = None,
    seeds: Collection[int] | None = None,
    conditions: Collection[str] | None = None,
    shard: Shard | None = None,
) -> bool:
    """Return whether a store has a record of each run that a plan in it names.

    Args:
        root: the store's folder, which need not exist.
        plan: the plan's name.
        rows, seeds, conditions: look at these alone; None for all of them. A condition is given by
            its title or a part of it.
        shard: look at what this shard trains alone; None for all runs.
    Returns: False where there is no such plan, it lacks one of the rows or seeds, or it cannot be
        read.
    """
    try:
        found = json.loads((root / "suites" / f"{plan}.json").read_bytes())
        places = None
        if conditions is not None:
            places = [place_of_condition(name, found["conditions"], plan) for name in conditions]
        asked = []
        for cell in found["cells"]:
            one = _Cell(cell["row"], cell["condition"], cell["seed"], cell["key"])
            if (
                (rows is None or one.row in rows)
                and (seeds is None or one.seed in seeds)
                and (places is None or one.condition in places)
            ):
                asked.append(one)
        if not {one.seed for one in asked}.issuperset(seeds or ()):
            return False
        if not {one.row for one in asked}.issuperset(rows or ()):
            return False
        # One with leftovers also trains what the other shards have not.
        if shard is not None and not shard.leftovers:
            asked = shards.divide(asked, shard.count)[shard.number - 1]
        return all((root / "runs" / one.key / "record.json").exists() for one in asked)
    except (OSError, ValueError, KeyError, TypeError, SuiteError):
        return False
