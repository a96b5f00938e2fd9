"""Which runs of a store are trained again?"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

from nlbench.errors import StoreError
from nlbench.results.store import Store

# So many keys are listed when one begins several.
_MOST_LISTED = 5


def choose(
    store: Store,
    keys: Sequence[str],
    *,
    sample: int | None,
    seed: int = 0,
    suite: str | None = None,
) -> list[str]:
    """Return the keys of the runs to train again.

    The runs are drawn in the order of a hash of seed and key. So the same runs are drawn on every
    machine, a larger sample contains a smaller one, and further runs in the store replace few.

    Args:
        keys: keys, or their first characters. Without any, runs are drawn.
        sample: how many to draw among those that are done or have diverged; None for all of them.
        suite: draws among the runs of this suite of the store.
    Raises: StoreError for a folder without finished runs and for a key that begins no run or
        several; SuiteError for an unknown suite.
    """
    store.require()
    known = store.run_keys()
    if keys:
        return list(dict.fromkeys(_key_of(text, known, store) for text in keys))
    if suite is not None:
        planned = {cell["key"] for cell in store.plan_of(suite)["cells"]}
        known = sorted(planned & set(known))

    drawn: list[str] = []
    for key in sorted(known, key=functools.partial(_place_in_draw, seed)):
        if len(drawn) == sample:
            break
        # Of a large store only the first runs are read.
        record = store.read(key)
        if record is not None and record.status != "failed":
            drawn.append(key)
    if not drawn:
        where = "" if suite is None else f" of the suite {suite!r}"
        raise StoreError(f"{store.root}: no run{where} is finished, so none can be trained again")
    return drawn


def _place_in_draw(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed} {key}".encode()).digest()


def _key_of(text: str, known: Sequence[str], store: Store) -> str:
    """Return the one key that begins with `text`."""
    found = [key for key in known if key.startswith(text)]
    if len(found) == 1 and text:
        return found[0]
    what = "begins no run"
    if found:
        listed = ", ".join(found[:_MOST_LISTED])
        what = f"begins {len(found)} runs, {listed}{', ...' * (len(found) > _MOST_LISTED)}"
    raise StoreError(
        f"key {text!r} {what} in {store.root}; nlbench.load({str(store.root)!r}) lists the keys"
    )
