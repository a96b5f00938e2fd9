"""Train each run in a process of its own, several at the same time if asked. Same numbers.

So a method that ends, blocks or changes its process does this to its own run alone. The processes
are made by a fork server, see `_server`: an interpreter of its own, which inherits nothing that the
caller's process holds, such as threads, and does not run the caller's script again. Runs open
decoded data from the same cache files, whose pages the system shares between them.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import errno
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any

import torch

from nlbench import child, hardware
from nlbench.data import decode
from nlbench.errors import SuiteError, UserError
from nlbench.executors import _child, _server
from nlbench.executors._messages import (
    Ended,
    Link,
    Message,
    OpenStore,
    Order,
    Raised,
    Reported,
    Warned,
)
from nlbench.executors._stopping import StopSignals
from nlbench.executors.base import Todo, age_of
from nlbench.executors.local import POLL_SECONDS, keep_or_write
from nlbench.files import NotWritten
from nlbench.plan.options import Jobs
from nlbench.plan.spec import RunSpec
from nlbench.results.place import Place
from nlbench.results.record import RunRecord
from nlbench.results.store import Store, Warn
from nlbench.training import memory
from nlbench.training.context import Listener, RunOptions
from nlbench.training.record import failed

# After the first Ctrl-C the runs have so long to write a checkpoint.
STOP_SECONDS = 5.0

# So long a process may live on after it has closed its connection.
_CLOSED_SECONDS = 5.0

# Errors that no method makes, and that the next run would meet as well.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)

# Packages that the fork server may import ahead, because they start no threads that matter.
_PRELOADED = ("numpy", "scipy", "sklearn", "torch")


def count_jobs(jobs: Jobs, todo: Sequence[RunSpec], devices: Sequence[torch.device]) -> int:
    """Return the number of runs to train at the same time on each device.

    "auto" is 1 on a GPU. On a CPU it is as many as there are cores for the threads of each run.

    Raises: SuiteError for less than 1.
    """
    if jobs == "auto":
        threads = max((spec.protocol.threads for spec in todo), default=1)
        return 1 if devices[0].type == "cuda" else max(1, hardware.cores() // threads)
    if jobs < 1:
        raise SuiteError(f"--jobs {jobs}: must be at least 1, or auto")
    return jobs


def execute(todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener) -> None:
    """Train `todo` in processes, `options.jobs` on each device, begun in this order.

    If a process dies, for example because memory is short, or shows no sign of life for
    `options.timeout_seconds`, its run gets a record with status "failed". See `base.Executor`.

    Raises: KeyboardInterrupt after Ctrl-C, Terminated after SIGTERM. The runs have then had some
        seconds to write a checkpoint.
    """
    if not todo:
        return

    places = places_for(len(todo), options)
    runs = Runs(places, options, store, preloaded(todo, options))
    try:
        with StopSignals(runs.pause, runs.resume) as signals:
            _Sweep(todo, runs, signals, listener).share_out()
    finally:
        # Also after an error: no process may outlive this sweep.
        runs.end()


def places_for(count: int, options: RunOptions) -> list[torch.device]:
    """Return a device for each run that may go on at the same time, of `count` in all."""
    # Device by device, so that with few runs each device gets one before any gets a second.
    places = [device for _ in range(options.jobs) for device in options.devices]
    return places[:count]


def preloaded(todo: Sequence[Todo], options: RunOptions) -> list[str]:
    """Return the modules that the methods and datasets of these runs import, as far as it helps."""
    found = {"nlbench.training.train"}
    for name in {run.spec.method for run in todo}:
        found |= set(_imports(options.methods[name].path))
    # These two datasets are made by scikit-learn.
    if {run.spec.condition.dataset for run in todo} & {"digits", "gaussians"}:
        found.add("sklearn.datasets")
    return sorted(found)


def _imports(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        # Loading the method reports it.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in _PRELOADED)


# ---- The runs that go on -------------------------------------------------------------------------


class WorkerDied(Exception):
    """The process that trained a run has ended before the run.

    Attributes:
        peak_memory: the most memory that it had, in bytes, where that may be the reason; else 0.
    """

    def __init__(self, message: str, peak_memory: int = 0):
        super().__init__(message)
        self.peak_memory = peak_memory


class TimedOut(Exception):
    """A run has shown no sign of life for too long."""


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
        self._control, theirs = socket.socketpair()
        self._ready = False
        self._unread = b""
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from nlbench.executors import _server; "
            f"_server.serve({theirs.fileno()}, {os.getpid()}, {self._modules!r})"
        )
        # Runs share the machine, so each of them has a part of the processes that decode images.
        decoders = str(max(1, decode.workers() // self._places))
        self._server = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            # The parent's standard output is for its table, so runs write to standard error.
            stdout=2,
            pass_fds=[theirs.fileno()],
            env={"NLBENCH_WORKERS": decoders, **os.environ},
            # Ctrl-C in a terminal must not reach the runs: this process tells them to stop.
            start_new_session=True,
        )
        theirs.close()

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
            self.finish(run)
        # Without its other end the server ends, and so do the processes that it has made.
        self._server.terminate()
        self._server.wait()

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
                run.pid = value
            else:
                yield from self._remaining(run)
                if run.number not in self.going:
                    continue
                if self.stopping:
                    yield run, Ended(None)
                else:
                    yield run, Ended(self.record_of_dead(run, _died(run, kind, value, peak)))

    def _remaining(self, run: Run) -> Iterator[tuple[Run, Message]]:
        """Yield what a process has sent before it ended."""
        while run.number in self.going and not run.closed and _wait([run.link], 0):
            yield from self._received(run)

    def _overdue(self, run: Run) -> Iterator[tuple[Run, Message]]:
        """End a run that hangs, and one that can no longer say anything."""
        if run.number not in self.going or not run.pid or self.stopping:
            return
        timeout = self.options.timeout_seconds
        if run.closed and run.silent > _CLOSED_SECONDS:
            run.signal(signal.SIGKILL)
            error: Exception = WorkerDied("the method has closed the connection of its process")
        elif not run.closed and timeout and run.silent > timeout:
            run.signal(signal.SIGUSR1)
            # The process writes at once, also where its Python code stands still.
            child.wait_for_stack(run.trace)
            error = TimedOut(_hang(run, timeout))
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
        deadline = time.monotonic() + _CLOSED_SECONDS
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


def is_of_the_store(error: OSError | UserError) -> bool:
    """Tell whether the next run would meet the same error, which no method makes."""
    return isinstance(error, UserError | NotWritten) or error.errno in _OF_THE_DISK


class ServerDied(Exception):
    """The fork server has ended."""


def _died(run: Run, kind: int, value: int, peak: int) -> Exception:
    """Return the error of a run whose process has ended, or could not be made.

    Args:
        value, peak: see `_server`.
    """
    if kind == _server.REFUSED:
        return WorkerDied(f"no process could be started for it: {os.strerror(value)}")

    status = os.waitstatus_to_exitcode(value)
    if status == _child.CONNECTION_CLOSED:
        return WorkerDied(
            f"the method {run.todo.spec.method} has closed files of its process that nlbench needs"
        )
    if status >= 0:
        return WorkerDied(
            f"the method {run.todo.spec.method} {child.how_it_ended(status)} (as os._exit does)"
            f"{run.place()}; it may have said why on standard error"
        )
    reason = f"its process {child.how_it_ended(status)}{run.place()}"
    if status == -signal.SIGKILL:
        return WorkerDied(f"{reason}; {memory.why_killed(peak, memory.kills() > run.kills)}", peak)
    if status == -signal.SIGBUS:
        # A page of a file that is mapped into memory cannot be read any more.
        reason += "; a file of the cache was cut off or its disk is gone, which NLBENCH_CACHE names"
    return WorkerDied(reason)


def _hang(run: Run, timeout: float) -> str:
    """Return the message for a run without a sign of life, with the place if it is known."""
    minutes = f"{timeout / 60:g}"
    unit = "minute" if minutes == "1" else "minutes"
    return (
        f"no sign of life for {minutes} {unit}{run.place()}: the run was ended. "
        "--timeout MINUTES sets another limit"
    )


# ---- The sweep -----------------------------------------------------------------------------------


class _Sweep:
    """Gives runs to free places until all have ended."""

    def __init__(self, todo: Sequence[Todo], runs: Runs, signals: StopSignals, listener: Listener):
        self._ready = collections.deque(todo)
        # Runs that other processes hold, and when they were last tried while nothing else was left.
        self._held: list[Todo] = []
        self._asked = 0.0
        # Keys of the runs that were held when they were first tried.
        self._late: set[str] = set()
        # Runs that have lost their process together with the fork server, perhaps by their own
        # doing. Each is tried once more, with no other run beside it.
        self._suspects: collections.deque[Todo] = collections.deque()
        self._tried: set[str] = set()

        self._runs = runs
        self._signals = signals
        self._listener = listener

    def share_out(self) -> None:
        """Train the runs, and pass on their reports, until all have ended or a signal came."""
        runs = self._runs
        while self._signals.asked is None:
            self._begin()
            if not (runs.going or self._held or self._ready or self._suspects):
                return
            if not runs.going and not runs.options.leave_held:
                self._listener.on_wait(len(self._held))
                runs.store.warn_of_holders([todo.spec.key for todo in self._held])
            self._handle_messages(POLL_SECONDS)
        self._stop()

    def _begin(self) -> None:
        runs = self._runs
        if self._suspects:
            if not runs.going:
                runs.begin(self._suspects.popleft(), wait=True)
            return

        waited = time.monotonic() - self._asked
        if self._held and not self._ready and runs.free and waited >= POLL_SECONDS:
            self._ready.extend(self._held)
            self._held, self._asked = [], time.monotonic()
        while self._ready and runs.free:
            following = self._ready.popleft()
            if not self._is_done(following):
                runs.begin(following, wait=self._may_wait())

    def _is_done(self, todo: Todo) -> bool:
        """Report a run that another process has trained since the work was planned."""
        store, key = self._runs.store, todo.spec.key
        # The process of a run looks again, while it holds the run. This saves the process.
        if age_of(store, key) == todo.age or (record := store.read(key)) is None:
            return False
        store.ended[key] = record
        self._listener.on_finish(todo.spec, record)
        return True

    def _may_wait(self) -> bool:
        """Return whether the next run may wait for a helper network."""
        # While other runs are left, none need wait.
        if self._runs.options.leave_held:
            return all(todo.spec.key in self._late for todo in self._ready)
        return not self._ready

    def _handle_messages(self, seconds: float) -> None:
        # With a time limit, because runs that are held have to be tried again.
        try:
            for run, message in self._runs.messages(self._signals.wake, seconds):
                self._handle(run, message)
        except ServerDied:
            self._restart()

    def _handle(self, run: Run, message: Message) -> None:
        if isinstance(message, Warned):
            self._runs.store.warn(message.line)
        elif isinstance(message, Reported):
            # By name, because the caller's listener overrides the hook that the run named.
            hook: Callable[..., None] = getattr(self._listener, message.hook)
            hook(run.todo.spec, *message.values)
        elif isinstance(message, Raised):
            error = message.error
            if is_of_the_store(error):
                raise error
            # For example a method that has closed the files of its process.
            self._ended(run, self._runs.record_of_dead(run, error))
        else:
            self._ended(run, message.record)

    def _ended(self, run: Run, record: RunRecord | None) -> None:
        self._runs.finish(run)
        if record is None:
            # It has waited for its helper network, so another process holds the run itself.
            if run.waits and self._runs.options.leave_held:
                return
            self._late.add(run.todo.spec.key)
            self._held.append(run.todo)
            return
        self._runs.store.ended[run.todo.spec.key] = record
        self._listener.on_finish(run.todo.spec, record)
        # The runs that are held may have waited for what this one has made.
        self._ready.extendleft(reversed(self._held))
        self._held = []

    def _restart(self) -> None:
        """Go on with another fork server after one has died, perhaps by the doing of a run."""
        again = []
        for run in self._runs.restart():
            todo = run.todo
            if todo.spec.key in self._tried:
                error = WorkerDied(
                    f"the method {todo.spec.method} has twice ended the process that starts the "
                    "runs, its parent"
                )
                self._ended(run, self._runs.record_of_dead(run, error))
                continue
            self._runs.finish(run)
            self._tried.add(todo.spec.key)
            self._suspects.append(todo)
            again.append(f"{todo.spec.row} seed {todo.spec.seed}")
        if again:
            self._runs.store.warn(
                "the process that starts the runs was ended; each run that was going on is tried "
                f"once more, alone: {', '.join(again)}"
            )

    # ---- Stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let the runs write a checkpoint, as far as the time allows, and raise what was asked."""
        asked = self._signals.asked
        assert asked is not None
        line = "stopping; finished runs are kept."
        if asked is signal.SIGINT:
            line += " Press Ctrl-C again to stop at once."
        else:
            line = f"{asked.name} received: {line}"
        self._listener.on_stop(line)

        self._runs.stopping = True
        for run in self._runs.going.values():
            run.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while not self._signals.again and time.monotonic() < deadline:
            # Processes that are not there yet have nothing to write.
            if not any(run.pid for run in self._runs.going.values()):
                break
            try:
                for run, message in self._runs.messages(self._signals.wake, 0.1):
                    self._handle_last(run, message)
            except ServerDied:
                break
        self._signals.raise_if_asked()

    def _handle_last(self, run: Run, message: Message) -> None:
        if not isinstance(message, Ended):
            return
        self._runs.finish(run)
        # A run that was ended by the signal has not failed.
        if message.record is not None and message.record.status != "failed":
            self._runs.store.ended[run.todo.spec.key] = message.record
            self._listener.on_finish(run.todo.spec, message.record)
