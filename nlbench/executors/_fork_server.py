"""Start the fork server, see `_server`, from the process of the sweep: at once or ahead of time.

Importing torch takes the server seconds. While a command checks its suite, which takes seconds as
well, a server that was started ahead does that on another core. This module imports little,
because it has to be there before torch is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

# The fork server ignores these. It ends when its parent does.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

# Before the message of `prepare`: the number of its bytes.
_SIZE = struct.Struct("q")


class ForkServer:
    """A fork server and the connection to it. It imports torch, and then waits for `prepare`.

    Attributes:
        control: the connection, for requests and replies.
        pid: the id of the process.
    """

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        code = (
            # As early as possible, see `_server.serve`.
            f"import signal; [signal.signal(n, signal.SIG_IGN) for n in {tuple(map(int, IGNORED))}]"
            f"; import sys; sys.path[:] = {sys.path!r}; from nlbench.executors import _fork_server"
            f"; _fork_server.become({theirs.fileno()}, {os.getpid()})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            # The parent's standard output is for its table, so runs write to standard error.
            stdout=2,
            pass_fds=[theirs.fileno()],
            # Ctrl-C in a terminal must not reach the runs: this process tells them to stop.
            start_new_session=True,
        )
        self.pid = self._process.pid
        theirs.close()

    def prepare(self, modules: Sequence[str], decoders: int) -> None:
        """Let the server import what its runs need. It then replies that it is ready.

        Args:
            modules: what methods and datasets import.
            decoders: the number of processes that decode images for each run. Where NLBENCH_WORKERS
                is set, it says that number.
        """
        message = {"modules": list(modules), "decoders": decoders, "path": sys.path}
        text = json.dumps(message).encode()
        # If the server has died, whoever waits for its replies finds out.
        with contextlib.suppress(OSError):
            self.control.sendall(_SIZE.pack(len(text)) + text)

    def wait(self) -> int:
        """Wait until the server has ended, and return its exit code."""
        return self._process.wait()

    def end(self) -> None:
        """End the server at once. With it the processes end that it has made."""
        self.control.close()
        # It ignores other signals.
        self._process.kill()
        self._process.wait()


def become(handle: int, parent: int) -> None:
    """Turn this process, which is new, into the fork server.

    Args:
        handle: the socket of requests and replies.
        parent: the id of the process that has started this one.
    """
    import gc

    from nlbench.child import end_with_parent

    # Before the imports that take seconds: the parent may be killed meanwhile.
    end_with_parent(parent)
    # The garbage collector looks for unused objects again and again while modules are imported, and
    # finds next to none. Without it the imports take a fifth less time.
    gc.disable()
    from nlbench.executors import _server

    _server.serve(handle, parent)


def told_to_prepare(control: socket.socket) -> tuple[list[str], int]:
    """Wait in the server for the message of `prepare`, and return its modules and decoders.

    This process ends if its parent does meanwhile, or needs no server.
    """
    (size,) = _SIZE.unpack(_read(control, _SIZE.size))
    message = json.loads(_read(control, size))
    sys.path[:] = message["path"]
    return message["modules"], message["decoders"]


def _read(control: socket.socket, size: int) -> bytes:
    """Return so many bytes. Ends this process where the other end is closed."""
    data = b""
    while len(data) < size:
        try:
            part = control.recv(size - len(data))
        except ConnectionResetError:
            part = b""
        if not part:
            os._exit(0)
        data += part
    return data


# ---- Ahead of time -------------------------------------------------------------------------------


class _Ahead(threading.local):
    """The server that a thread has started ahead, until a sweep of that thread takes it.

    Other threads may have sweeps of their own. A server also ends with the thread that has started
    it, see `child.end_with_parent`.
    """

    server: ForkServer | None = None


_ahead = _Ahead()


@contextlib.contextmanager
def started_ahead() -> Iterator[None]:
    """Start a server for this thread's next sweep. At the end of the `with` block none is left."""
    end_ahead()
    _ahead.server = ForkServer()
    try:
        yield
    finally:
        end_ahead()


def end_ahead() -> None:
    """End the server that this thread has started ahead, unless it was taken."""
    server, _ahead.server = _ahead.server, None
    if server is not None:
        server.end()


def take() -> ForkServer:
    """Return the server that this thread has started ahead, or else a new one."""
    server, _ahead.server = _ahead.server, None
    return server or ForkServer()
