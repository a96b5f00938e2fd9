"""A lock file that one process holds at a time, also across hosts that share a file system."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from nlbench.errors import StoreError
from nlbench.files import flock, make_folder, remove, require_regular, without_waiting

HEARTBEAT_SECONDS = 30.0

# The lock of another host is taken over when its last heartbeat is older than this.
STALE_SECONDS = 150.0


@contextlib.contextmanager
def hold(
    path: Path, leftovers: str = "", warn: Callable[[str], None] = lambda line: None
) -> Iterator[bool]:
    """Hold the lock file `path`. Yields False at once when another process holds it.

    On one host flock decides. Across hosts, and on a file system without flock, the holder writes
    its name into the file and touches the file every HEARTBEAT_SECONDS.

    Args:
        leftovers: a pattern of temporary files and folders in the same folder, which are removed
            once the lock is held.
        warn: called with a line about a lock whose heartbeat lies in the future.
    Raises: StoreError where something that is no file has the name of the lock.
    """
    make_folder(path.parent)
    with _open(path) as file:
        state = flock(file, wait=False)
        if state == "busy":
            yield False
            return

        if _held_by_another(file, path, state == "held", warn):
            yield False
            return

        file.truncate(0)
        file.write(f"{_own_name()}\n")
        file.flush()

        # Nobody else writes here while the lock is held, so processes that were killed left these.
        if leftovers:
            for leftover in path.parent.glob(leftovers):
                remove(leftover)

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


def is_held(path: Path) -> bool:
    """Tell whether another process holds the lock file `path`. Nothing is changed."""
    try:
        require_regular(path)
        with open(path, errors="replace", opener=without_waiting) as file:
            state = flock(file, wait=False)
            holder = file.read(1000).strip()
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    if state == "busy" or not holder:
        return state == "busy"
    if state == "held" and _is_here(holder):
        return False
    # A heartbeat in the near future comes from a clock that goes wrong.
    return abs(age) < STALE_SECONDS


def _is_here(holder: str) -> bool:
    return holder.partition(" ")[0] == socket.gethostname()


def _own_name() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def holder_of(path: Path) -> str:
    """Describe who holds a lock, as "process 12 of the host a"; empty where nobody is named."""
    try:
        require_regular(path)
        with open(path, errors="replace", opener=without_waiting) as file:
            host, _, pid = file.read(1000).strip().partition(" ")
    except OSError:
        return ""
    return f"process {pid} of the host {host}" if pid else host


def _open(path: Path) -> IO[str]:
    try:
        if os.path.lexists(path):
            require_regular(path)
        # Opened without emptying it, because it may hold the name of another process.
        return open(path, "a+", errors="replace", opener=without_waiting)
    except OSError as error:
        raise StoreError(
            f"{path}: the lock cannot be used ({error.strerror}); remove it, if no other process "
            "trains this run"
        ) from None


def _held_by_another(file: IO[str], path: Path, flocked: bool, warn: Callable[[str], None]) -> bool:
    """Tell from the file's content and age whether another process holds the lock."""
    file.seek(0)
    holder = file.read(1000).strip()
    if not holder:
        return False

    # The holder had flock on this host, which is free again: the holder has ended.
    if flocked and _is_here(holder):
        return False
    if holder == _own_name():
        return False

    age = _clock(path.parent) - os.fstat(file.fileno()).st_mtime
    if age < -HEARTBEAT_SECONDS:
        # A clock was set back, or the file was copied. The time from here on decides: a holder
        # that is alive touches the file again, and that of any other is stale in a while.
        os.utime(path)
        warn(
            f"{path}: the last heartbeat of {holder_of(path)} lies {-age:,.0f} s in the future. If "
            f"no other follows, the lock is free in {STALE_SECONDS:.0f} s"
        )
        return True
    return age < STALE_SECONDS


def _clock(folder: Path) -> float:
    """Return the time of the folder's file system.

    The clocks of several hosts differ. Heartbeats have the time of the file system, too.
    """
    # On most systems the file has no name, so that a process which is killed here leaves nothing.
    with tempfile.TemporaryFile(prefix=".clock.", suffix=".tmp", dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _touch_until(stop: threading.Event, path: Path) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        os.utime(path)
