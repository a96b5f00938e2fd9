"""A lock file that one process holds at a time, also across hosts that share a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from nlbench.errors import StoreError
from nlbench.files import flock, make_folder, remove, require_regular, without_waiting, writing
from nlbench.results.holder import Holder

HEARTBEAT_SECONDS = 30.0

# The lock of another host is taken over when its last heartbeat is older than this.
STALE_SECONDS = 150.0

# The name of a holder is shorter.
_LONGEST = 1000


@contextlib.contextmanager
def hold(
    path: Path, leftovers: str = "", warn: Callable[[str], None] = lambda line: None
) -> Iterator[bool]:
    """Hold the lock file `path`. Yields False at once when another process holds it.

    On one host flock decides, and whether the process lives that the file names. Across hosts the
    holder touches the file every HEARTBEAT_SECONDS.

    Args:
        leftovers: a pattern of temporary files and folders in the same folder, which are removed
            once the lock is held.
        warn: called with a line about a lock whose heartbeat lies in the future.
    Raises: StoreError where something that is no file has the name of the lock; NotWritten.
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

        own = Holder.here()
        with writing(path):
            file.truncate(0)
            file.write(own.line().encode())

        # Nobody else writes here while the lock is held, so processes that were killed left these.
        if leftovers:
            for leftover in path.parent.glob(leftovers):
                remove(leftover)

        stop = threading.Event()
        heartbeat = threading.Thread(target=_touch_until, args=(stop, file), daemon=True)
        heartbeat.start()
        try:
            yield True
        finally:
            stop.set()
            heartbeat.join()
            _let_go(file, own)


def _let_go(file: IO[bytes], own: Holder) -> None:
    """Empty the file: a lock that nobody holds. The file stays."""
    # A disk that fails here must not hide the result of the run. Others find out that the process
    # has ended.
    with contextlib.suppress(OSError):
        # Another host may have taken the lock over, if this one stood still for long.
        if _read(file) == own:
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Tell whether another process holds the lock file `path`. Nothing is changed."""
    try:
        require_regular(path)
        with open(path, "rb", buffering=0, opener=without_waiting) as file:
            state = flock(file, wait=False)
            holder = _read(file)
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return False
    if state == "busy" or holder is None:
        return state == "busy"
    lives = holder.lives(state == "held")
    if lives is not None:
        return lives
    # A heartbeat in the near future comes from a clock that goes wrong.
    return abs(age) < STALE_SECONDS


def holder_of(path: Path) -> str:
    """Describe who holds a lock, as "process 12 of the host a"; empty where nobody is named."""
    try:
        require_regular(path)
        with open(path, "rb", buffering=0, opener=without_waiting) as file:
            holder = _read(file)
    except OSError:
        return ""
    return "" if holder is None else str(holder)


def release(path: Path, pid: int) -> None:
    """Clear the lock that the process `pid` of this host left, which has ended.

    On a file system without flock it would otherwise be valid until its heartbeat is too old.
    """
    try:
        require_regular(path)
        with open(path, "rb+", buffering=0, opener=without_waiting) as file:
            holder = _read(file)
            if holder is not None and holder.is_process(pid):
                file.truncate(0)
    except OSError:
        # Then the next process that wants the lock finds out by itself.
        return


def _open(path: Path) -> IO[bytes]:
    # Opened without emptying it, because it may hold the name of another process. Unbuffered, so
    # that an error of the disk comes where it is handled.
    try:
        if os.path.lexists(path):
            require_regular(path)
            if path.is_symlink():
                what = "is a link, and the file that it leads to would be emptied"
                raise OSError(errno.ELOOP, what)
            return open(path, "ab+", buffering=0, opener=_without_following)
    except OSError as error:
        raise StoreError(
            f"{path}: the lock cannot be used ({error.strerror}); remove it, if no other process "
            "trains this run"
        ) from None
    with writing(path):
        return open(path, "ab+", buffering=0, opener=_without_following)


def _without_following(path: str, flags: int) -> int:
    """Open a file as `without_waiting`, but no link that another process has just put there."""
    return without_waiting(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _read(file: IO[bytes]) -> Holder | None:
    """Return the holder that a lock names; None for a lock that nobody holds."""
    file.seek(0)
    return Holder.parse(file.read(_LONGEST).decode("utf-8", "replace"))


def _held_by_another(
    file: IO[bytes], path: Path, flocked: bool, warn: Callable[[str], None]
) -> bool:
    """Tell from the file's content and age whether another process holds the lock.

    Args:
        flocked: this process has the flock of the file. On a file system whose flock does not reach
            other hosts, another one may have it there, too.
    """
    holder = _read(file)
    if holder is None:
        return False
    lives = holder.lives(flocked)
    if lives is not None:
        return lives

    # Nobody here can tell, so the heartbeat decides.
    age = _clock(path.parent) - os.fstat(file.fileno()).st_mtime
    if age < -HEARTBEAT_SECONDS:
        # A clock was set back, or the file was copied. The time from here on decides: a holder
        # that is alive touches the file again, and that of any other is stale in a while.
        with contextlib.suppress(OSError):
            os.utime(file.fileno())
        warn(
            f"{path}: the last heartbeat of {holder} lies {-age:,.0f} s in the future. If "
            f"no other follows, the lock is free in {STALE_SECONDS:.0f} s"
        )
        return True
    return age < STALE_SECONDS


def _clock(folder: Path) -> float:
    """Return the time of the folder's file system.

    The clocks of several hosts differ. Heartbeats have the time of the file system, too.
    """
    # On most systems the file has no name, so that a process which is killed here leaves nothing.
    try:
        with tempfile.TemporaryFile(prefix=".clock.", suffix=".tmp", dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        # A folder that is full or read only. The own clock is mostly the same.
        return time.time()


def _touch_until(stop: threading.Event, file: IO[bytes]) -> None:
    # By its number: another folder may have the path by now, and the lock in it another holder.
    while not stop.wait(HEARTBEAT_SECONDS):
        # On a disk that takes no heartbeat now, the next one may arrive.
        with contextlib.suppress(OSError):
            os.utime(file.fileno())
