"""What a suite still lacks: how many runs are missing, and who trains some of them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlbench.results.lock import is_held

if TYPE_CHECKING:
    from nlbench.results.store import Store

# So many processes are named that train runs of the suite.
MOST_NAMED = 3


def note(plan: Mapping[str, Any], store: Store) -> list[str]:
    """Return a sentence on the runs of a plan that have no result, or none where all have one.

    A run that failed has a record and is marked in its cell. It counts here while it is being
    trained again.
    """
    # Two rows may be the same run, which is counted once.
    keys = dict.fromkeys(cell["key"] for cell in plan["cells"])
    missing, trained = 0, []
    for key in keys:
        files = store.check(key)
        record = files.record if files is not None else None
        if record is not None and record.status != "failed":
            continue
        missing += record is None
        if is_held(store.run_dir(key) / "lock"):
            trained.append(key)
    if not missing and not trained:
        return []

    runs = "run" if len(keys) == 1 else "runs"
    are = "is" if missing == 1 else "are"
    text = f"{missing} of the suite's {len(keys)} {runs} {are} missing"
    if trained:
        are = "1 run is" if len(trained) == 1 else f"{len(trained)} runs are"
        text += f"; {are} being trained now{_by_whom(trained, store)}"
    return [f"{text}."]


def _by_whom(keys: list[str], store: Store) -> str:
    """Return which processes hold these runs, where their locks name them."""
    holders = dict.fromkeys(store.holder(key) for key in keys)
    # A process that has just begun has not written its name yet.
    known = sorted(holder for holder in holders if holder)
    if not known:
        return ""
    more = len(known) - MOST_NAMED
    listed = ", ".join(known[:MOST_NAMED])
    return f", by {listed}" + (f" and {more} more" if more > 0 else "")
