"""Lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 150.0  # a lock of another host whose heartbeat is older than this is taken over


@contextlib.contextmanager
def hold(path: Path, leftovers: str = "") -> Iterator[bool]:
    """Hold the lock file `path`: flock on this host, a heartbeat across hosts and where flock is not to be had.

    Args:
        leftovers: a pattern of temporary files beside it, removed once the lock is held.
    Yields False at once when somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    me = f"{socket.gethostname()} {os.getpid()}"
    with open(path, "a+") as file:
        flocked = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without flock: the heartbeat alone decides, on this host too
            flocked = False
        file.seek(0)
        holder = file.read().strip()
        age = time.time() - os.fstat(file.fileno()).st_mtime
        elsewhere = holder.partition(" ")[0] != socket.gethostname() if flocked else holder != me
        if holder and elsewhere and age < STALE_SECONDS:
            yield False
            return
        file.truncate(0)
        file.write(f"{me}\n")
        file.flush()
        for left in path.parent.glob(leftovers) if leftovers else ():
            left.unlink(missing_ok=True)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            file.truncate(0)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        os.utime(path)
