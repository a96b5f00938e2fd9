"""A lock file that one process holds at a time, also across hosts that share a file system."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nlbench.files import flock

HEARTBEAT_SECONDS = 30.0

# The lock of another host is taken over when its last heartbeat is older than this.
STALE_SECONDS = 150.0


@contextlib.contextmanager
def hold(path: Path, leftovers: str = "") -> Iterator[bool]:
    """Hold the lock file `path`. Yields False at once when another process holds it.

    On one host flock decides. Across hosts, and on a file system without flock, the holder writes
    its name into the file and touches the file every HEARTBEAT_SECONDS.

    Args:
        leftovers: a pattern of temporary files in the same folder, which are removed once the lock
            is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened without emptying it, because it may hold the name of another process.
    with open(path, "a+") as file:
        state = flock(file, wait=False)
        if state == "busy":
            yield False
            return

        if _held_by_another(file, flocked=state == "held"):
            yield False
            return

        file.truncate(0)
        file.write(f"{_own_name()}\n")
        file.flush()

        # Nobody else writes here while the lock is held, so processes that were killed left these.
        if leftovers:
            for leftover in path.parent.glob(leftovers):
                leftover.unlink(missing_ok=True)

        stop = threading.Event()
        heartbeat = threading.Thread(target=_touch_until, args=(stop, path), daemon=True)
        heartbeat.start()
        try:
            yield True
        finally:
            stop.set()
            heartbeat.join()
            # An empty file is a lock that nobody holds. The file stays.
            file.truncate(0)


def _own_name() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _held_by_another(file: IO[str], flocked: bool) -> bool:
    """Tell from the file's content and age whether another process holds the lock."""
    file.seek(0)
    holder = file.read().strip()
    if not holder:
        return False

    # The holder had flock on this host, which is free again: the holder has ended.
    if flocked and holder.partition(" ")[0] == socket.gethostname():
        return False
    age = time.time() - os.fstat(file.fileno()).st_mtime
    return holder != _own_name() and age < STALE_SECONDS


def _touch_until(stop: threading.Event, path: Path) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        os.utime(path)
