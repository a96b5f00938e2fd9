"""Do the same with many runs of a store, in several processes where that is faster."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# With fewer runs the processes would cost more time than they save.
_WORTHWHILE = 2000

_CHUNK = 200

# A disk is not faster with more of them.
_MOST_WORKERS = 8


def over(
    keys: Sequence[str],
    look: Callable[[Path, str], T],
    root: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[T]:
    """Yield `look(root, key)` for each key, in their order.

    Args:
        look: a function of a module, whose results can be pickled.
        progress: called now and then with the number of keys that are done, and of all.
    """
    chunks = [keys[first : first + _CHUNK] for first in range(0, len(keys), _CHUNK)]
    work = functools.partial(_look_at, root, look)
    done = 0
    if not is_faster(len(keys)):
        for chunk in chunks:
            yield from work(chunk)
            done += len(chunk)
            progress(done, len(keys))
        return

    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(_cores(), _MOST_WORKERS), mp_context=context) as pool:
        for found in pool.map(work, chunks):
            yield from found
            done += len(found)
            progress(done, len(keys))


def is_faster(count: int, cores: int = 2) -> bool:
    """Tell whether `over` so many keys takes several processes, on so many cores at least."""
    return count >= _WORTHWHILE and _cores() >= cores and _can_fork()


def _look_at(root: Path, look: Callable[[Path, str], T], keys: Sequence[str]) -> list[T]:
    return [look(root, key) for key in keys]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _can_fork() -> bool:
    # Forking is safe on Linux, and in a process without other threads. torch has some of its own.
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return sys.platform == "linux" and alone
