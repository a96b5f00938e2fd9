"""Guess from the names of a store's files whether a suite has runs left to train.

For what is worth doing before the suite has been read. Nothing else may rely on it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path


def seems_done(
    root: Path,
    suite: str,
    *,
    overridden: bool = False,
    rows: Collection[str] | None = None,
    seeds: Collection[int] | None = None,
) -> bool:
    """Return whether a store has a record of each run that its plans of a suite name.

    Args:
        root: the store's folder, which need not exist.
        suite: the suite's name.
        overridden: values of the protocol are overridden. The plan then has a longer name.
        rows, seeds: look at these alone; None for all of them.
    Returns: False where no such plan is there, or one cannot be read.
    """
    found = False
    for path in root.glob("suites/*.json"):
        name, plus, _ = path.stem.partition("+")
        if name != suite or bool(plus) != overridden:
            continue
        try:
            cells = json.loads(path.read_bytes())["cells"]
            for cell in cells:
                if rows is not None and cell["row"] not in rows:
                    continue
                if seeds is not None and cell["seed"] not in seeds:
                    continue
                if not (root / "runs" / cell["key"] / "record.json").exists():
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        found = True
    return found
