"""The fork server: a process that makes a new process for each run.

It has imported what runs need, so that a new process is there within milliseconds. It never trains,
loads no method file, and does not touch a GPU or the threads of torch, which do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import warnings
from collections.abc import Sequence

import torch

from nlbench import code_hash, process_state
from nlbench.child import end_with_parent, watch_exits
from nlbench.data import decode
from nlbench.executors import _child
from nlbench.executors._fork_server import IGNORED, told_to_prepare
from nlbench.training import memory

# A request holds the number of a run; with it come its connection and its file for traces.
REQUEST = struct.Struct("q")

# A reply holds one of the kinds below, the number of a run, and two values.
REPLY = struct.Struct("qqqq")
# The server is ready.
READY = 0
# The first value is the id of the new process.
STARTED = 1
# The values are how the process has ended, as os.waitpid gives it, and the most memory that it had,
# in bytes.
ENDED = 2
# The first value is the errno for which no process could be made.
REFUSED = 3

# The module that is named to a server whose runs may decode images.
DECODES = "nlbench.data.decode"


def serve(handle: int, parent: int) -> None:
    """Make a process for each request, until the parent ends.

    Args:
        handle: the socket of requests and replies.
        parent: the id of the process that has started this one.
    """
    end_with_parent(parent)
    # A batch system may send its signals to all processes of a job. This one must outlive them,
    # because the runs end with it. It ends when its parent does.
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    watch_exits()
    # torch imports some 900 modules when the first optimiser is made.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, fused=True)

    control = socket.socket(fileno=handle)
    modules, decoders = told_to_prepare(control)
    os.environ.setdefault("NLBENCH_WORKERS", str(decoders))
    _preload(modules)
    if DECODES in modules:
        # One for all runs, and in the group of this process: it has to outlive a run that is
        # killed together with its group, or the semaphores of that run would stay for good.
        decode.start_tracker()
    _Server(control).serve()


def _preload(modules: Sequence[str]) -> None:
    """Import what methods and datasets import, once for all runs."""
    for name in modules:
        # A module that is missing or broken is an error only of the run that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    process_state.remember_code()
    # The garbage collector would write to the pages that all processes share. As the documentation
    # of `gc.freeze` advises, nothing is collected before: that would leave holes in those pages.
    gc.freeze()
    gc.enable()
    # OpenBLAS has threads from its import on, and knows how to go through a fork with them.
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)


class _Server:
    """Forks and waits.

    Args:
        control: the socket of requests and replies.
    """

    def __init__(self, control: socket.socket):
        self._control = control
        # Numbers of the runs by the ids of their processes.
        self._numbers: dict[int, int] = {}
        # Whether a process has ended.
        self._has_ended = False
        # A signal writes a byte into this pipe, so that `select` returns when a process ends.
        self._wake, self._woken = os.pipe()

    def serve(self) -> None:
        """Handle requests until the other end is closed."""
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wake, selectors.EVENT_READ)
        self._reply(READY)
        remembers = False
        while True:
            # One run has ended, so that there are probably more. Each later one is spared a quarter
            # of a second. Before, the first run and this process would take time from each other.
            can_remember = self._has_ended and not remembers
            events = selector.select(0 if can_remember else None)
            if not events:
                # A file that cannot be read is an error only of the run that needs it.
                with contextlib.suppress(Exception):
                    code_hash.remember_loaded()
                remembers = True
            for key, _ in events:
                if key.fileobj is self._control:
                    request, handles = self._receive()
                    if not request:
                        self._end_all()
                        return
                    self._start(*REQUEST.unpack(request), *handles)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
            self._collect()

    def _receive(self) -> tuple[bytes, list[int]]:
        """Return a request with its files. It is empty if the other end is closed."""
        try:
            request, handles, *_ = socket.recv_fds(self._control, REQUEST.size, 2)
        except ConnectionResetError:
            # The sweep was killed, and has not read all replies.
            return b"", []
        return request, handles

    def _start(self, number: int, link: int, trace: int) -> None:
        """Make the process of a run."""
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._reply(REFUSED, number, error.errno or 0)
        else:
            if pid == 0:
                self._become_child(link, trace, server)
            self._numbers[pid] = number
            self._reply(STARTED, number, pid)
        os.close(link)
        os.close(trace)

    def _become_child(self, link: int, trace: int, server: int) -> None:
        # Whatever happens, this process must never go on as a second server.
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake)
            os.close(self._woken)
            _child.train_one(link, trace, server)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _child.leave(1)

    def _collect(self) -> None:
        """Report the processes that have ended."""
        while self._numbers:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            self._has_ended = True
            # Nor may anything go on that a method has started.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            if (number := self._numbers.pop(pid, None)) is not None:
                self._reply(ENDED, number, status, memory.bytes_of(used.ru_maxrss))

    def _end_all(self) -> None:
        for pid in self._numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _reply(self, kind: int, number: int = 0, value: int = 0, peak: int = 0) -> None:
        # If the parent has ended, the next `recv_fds` finds out.
        with contextlib.suppress(OSError):
            self._control.sendall(REPLY.pack(kind, number, value, peak))
