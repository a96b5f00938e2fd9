"""The processes that train the runs of a sweep, and the messages that they send.

They are made by a fork server, see `_server`: an interpreter of its own, which inherits nothing
that the caller's process holds, such as threads, and does not run the caller's script again.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any

import torch

from nlbench import child
from nlbench.data import decode
from nlbench.errors import UserError
from nlbench.executors import _fork_server, _server
from nlbench.executors._deaths import TimedOut, WorkerDied, died, hang
from nlbench.executors._messages import Ended, Link, Message, OpenStore, Order
from nlbench.executors.base import Todo, age_of
from nlbench.executors.local import keep_or_write
from nlbench.results.place import Place
from nlbench.results.record import RunRecord
from nlbench.results.store import Store, Warn
from nlbench.training import memory
from nlbench.training.context import RunOptions
from nlbench.training.record import failed

# How long a process may live on after it has closed its connection.
CLOSED_SECONDS = 5.0


@dataclass
class Run:
    """A run that has a process.

    Attributes:
        number: names the run to the fork server.
        device: the device it is trained on.
        link: the connection to the process.
        waits: whether it waits for a helper network that another process trains.
        trace: a file in which a process that crashes says where its Python code was.
        pid: the id of the process, 0 before it is there.
        silent: seconds since its last sign of life.
        closed: whether it has closed the connection.
        kills: `memory.kills` when it began.
    """

    number: int
    todo: Todo
    device: torch.device
    link: Link
    trace: IO[bytes]
    waits: bool
    pid: int = 0
    silent: float = 0.0
    closed: bool = False
    kills: int = 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, and to all that it has started."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stack(self) -> str:
        """Return where its Python code was when it ended, or was asked by SIGUSR1."""
        return child.stack_in(self.trace)

    def place(self) -> str:
        """Return the innermost line of the method's file in `stack`, or nothing."""
        return child.place_in(self.stack(), self.todo.spec.method.replace("-", "_"))


class Runs:
    """The fork server, and the runs that have a process.

    Args:
        places: a device for each run that may go on at the same time.
        modules: what the fork server imports.
        open_store: opens the store in the process of a run. The default opens `store.root`.
    """

    def __init__(
        self,
        places: Sequence[torch.device],
        options: RunOptions,
        store: Store,
        modules: Sequence[str],
        open_store: OpenStore | None = None,
    ):
        self.serve(options, store, open_store)
        self.going: dict[int, Run] = {}
        self.free = collections.deque(places)
        self._places = len(places)
        self._modules = list(modules)
        self._count = 0
        self._start_server()

    # ---- Beginning and ending -------------------------------------------------------------------

    def serve(self, options: RunOptions, store: Store, open_store: OpenStore | None = None) -> None:
        """Begin runs with these options and this store from now on. None may be going."""
        self.options, self.store = options, store
        self._open_store = open_store or functools.partial(_open_again, store.root, store.place)
        # While the sweep stops, a process that ends is no failure.
        self.stopping = False

    def _start_server(self) -> None:
        # Runs share the machine, so each of them has a part of the processes that decode images.
        decoders = max(1, decode.workers() // self._places)
        self._server = _fork_server.take()
        self._control = self._server.control
        self._ready = False
        self._unread = b""
        self._server.prepare(self._modules, decoders)

    def begin(self, todo: Todo, wait: bool) -> None:
        """Have a process train a run, see `Trainer.attempt`. There must be a free place."""
        self._count += 1
        ours, theirs = socket.socketpair()
        trace = tempfile.TemporaryFile()  # noqa: SIM115
        device = self.free.popleft()
        run = Run(self._count, todo, device, Link(ours), trace, wait, kills=memory.kills())
        self.going[run.number] = run
        options = replace(self.options, devices=(run.device,))
        # If the server or the process has died, `messages` finds out.
        with contextlib.suppress(OSError):
            request = _server.REQUEST.pack(run.number)
            socket.send_fds(self._control, [request], [theirs.fileno(), trace.fileno()])
            run.link.send(Order(todo, wait, options, self._open_store))
        theirs.close()

    def finish(self, run: Run) -> None:
        """Forget a run. Its place is free again."""
        del self.going[run.number]
        run.link.close()
        run.trace.close()
        self.free.append(run.device)

    def end(self) -> None:
        """End all processes at once."""
        self._control.close()
        for run in list(self.going.values()):
            run.signal(signal.SIGKILL)
            if run.pid:
                self.store.release(run.todo.spec.key, run.pid)
            self.finish(run)
        # With the server the processes end that it has made.
        self._server.end()

    def stop(self) -> None:
        """Ask all runs to write a checkpoint and to end."""
        self.stopping = True
        for run in self.going.values():
            run.signal(signal.SIGTERM)

    def pause(self) -> None:
        """Let all processes stand still."""
        for run in self.going.values():
            run.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all processes go on."""
        for run in self.going.values():
            run.signal(signal.SIGCONT)

    # ---- Messages -------------------------------------------------------------------------------

    def messages(self, wake: int, seconds: float) -> Iterator[tuple[Run, Message]]:
        """Wait up to `seconds`, and yield what the runs have sent.

        A process that has died, or hangs, yields the end of its run.

        Args:
            wake: a file that ends the wait when something can be read from it.
        Raises: ServerDied.
        """
        began = time.monotonic()
        links = {run.link: run for run in self.going.values() if not run.closed}
        ready = _wait([*links, self._control, wake], seconds)
        # A computer that was asleep, or a sweep that was suspended, must not look like a run that
        # hangs. So at most the time that the wait may take counts.
        waited = min(time.monotonic() - began, seconds)
        if wake in ready:
            os.read(wake, 4096)

        for link, run in links.items():
            if link in ready:
                yield from self._received(run)
        if self._control in ready:
            yield from self._replies()
        for run in list(self.going.values()):
            if run.link not in ready:
                run.silent += waited
            yield from self._overdue(run)

    def _received(self, run: Run) -> Iterator[tuple[Run, Message]]:
        # A method may have written to the connection, so anything can arrive, and anything can be
        # raised by it.
        try:
            messages = run.link.receive()
        except Exception:
            run.closed = True
            return
        run.silent = 0.0
        for message in messages:
            if isinstance(message, Message):
                yield run, message

    def _replies(self) -> Iterator[tuple[Run, Message]]:
        """Read what the fork server has sent."""
        try:
            data = self._control.recv(4096)
        except OSError:
            data = b""
        if not data:
            raise ServerDied

        self._unread += data
        while len(self._unread) >= _server.REPLY.size:
            reply = _server.REPLY.unpack_from(self._unread)
            self._unread = self._unread[_server.REPLY.size :]
            kind, number, value, peak = reply
            run = self.going.get(number)
            if kind == _server.READY:
                self._ready = True
            elif run is None:
                # The run has ended before its process did.
                continue
            elif kind == _server.STARTED:
                # What passed before was the start of the server, and no sign of the run.
                run.pid, run.silent = value, 0.0
            else:
                yield from self._remaining(run)
                if run.number not in self.going:
                    continue
                if self.stopping:
                    yield run, Ended(None)
                else:
                    yield run, Ended(self.record_of_dead(run, died(run, kind, value, peak)))

    def _remaining(self, run: Run) -> Iterator[tuple[Run, Message]]:
        """Yield what a process has sent before it ended."""
        while run.number in self.going and not run.closed and _wait([run.link], 0):
            yield from self._received(run)

    def _overdue(self, run: Run) -> Iterator[tuple[Run, Message]]:
        """End a run that hangs, and one that can no longer say anything."""
        if run.number not in self.going or not run.pid or self.stopping:
            return
        timeout = self.options.timeout_seconds
        # Of a process that has ended the server tells how, on a busy machine after a while.
        if run.closed and run.silent > CLOSED_SECONDS and child.goes_on(run.pid):
            run.signal(signal.SIGKILL)
            error: Exception = WorkerDied("the method has closed the connection of its process")
        elif not run.closed and timeout and run.silent > timeout:
            run.signal(signal.SIGUSR1)
            # The process writes at once, also where its Python code stands still.
            child.wait_for_stack(run.trace)
            error = TimedOut(hang(run, timeout))
            run.signal(signal.SIGKILL)
        else:
            return
        yield run, Ended(self.record_of_dead(run, error))

    # ---- Processes that have died ---------------------------------------------------------------

    def restart(self) -> list[Run]:
        """Start another fork server in place of one that has died.

        Returns: the runs that have lost their processes with it, to be finished.
        Raises: UserError if it was never ready.
        """
        status = self._server.wait()
        if not self._ready:
            raise UserError(
                f"the process that is to start the runs {child.how_it_ended(status)} at its "
                "start; what it says above may tell why. NLBENCH_EXECUTOR=local trains without it."
            )
        lost = list(self.going.values())
        for run in lost:
            run.signal(signal.SIGKILL)
        self._control.close()
        self._start_server()
        return lost

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[bool]:
        """Hold the lock of a run whose process may need some moments to end."""
        deadline = time.monotonic() + CLOSED_SECONDS
        while True:
            with self.store.lock(key) as mine:
                if mine or time.monotonic() > deadline:
                    yield mine
                    return
            time.sleep(0.1)

    def record_of_dead(self, run: Run, error: Exception) -> RunRecord | None:
        """Return the record of a run whose process has ended before it could write one."""
        spec = run.todo.spec
        # The dead process could not clear its lock. On a file system without flock the run would
        # look held.
        self.store.release(spec.key, run.pid)
        with self._lock(spec.key) as mine:
            if not mine:
                return None

            # It may have died after its record was written.
            if age_of(self.store, spec.key) != run.todo.age:
                record = self.store.read(spec.key)
                if record is not None:
                    return record
            record = failed(spec, error, replace(self.options, devices=(run.device,)))
            if record.error is not None and (stack := run.stack()):
                record.error["traceback"] = stack
            keep_or_write(self.store, record)
            return record


def _wait(files: list[Any], seconds: float) -> list[Any]:
    """Return those files, or objects with a `fileno`, that can be read after at most `seconds`."""
    return connection.wait(files, seconds)


def _open_again(root: Path, place: Place | None, warn: Warn) -> Store:
    """Open a store, which must still be the folder that it was."""
    store = Store(root, warn)
    store.place = place
    return store


class ServerDied(Exception):
    """The fork server has ended."""
