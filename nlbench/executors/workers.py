"""Train several runs at the same time, each in a worker process. The numbers are the same.

A worker is a new interpreter that runs `serve`. So it does not inherit what the caller's process
holds, such as threads, or run the caller's script again. Workers open decoded data from the same
cache files, whose pages the system shares between them.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from nlbench import hardware
from nlbench.data import decode
from nlbench.errors import SuiteError, UserError
from nlbench.executors.base import Todo, age_of
from nlbench.executors.local import POLL_SECONDS, Trainer
from nlbench.plan.options import Jobs
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.context import EpochMetrics, Listener, RunOptions
from nlbench.training.record import failed


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
    """Train `todo` in workers, `options.jobs` on each device, begun in this order.

    If a worker process dies, for example because memory is short, its run gets a record with status
    "failed". See `base.Executor`.
    """
    # Device by device, so that with few runs each device gets one before any gets a second.
    places = [device for _ in range(options.jobs) for device in options.devices]
    places = places[: len(todo)]
    workers: list[Worker] = []
    try:
        for device in places:
            own = replace(options, devices=(device,))
            workers.append(Worker(own, store.root, len(places)))
        share_out(todo, workers, store, listener)
    finally:
        # Also after Ctrl-C or an error: no worker may outlive this process's sweep.
        for worker in workers:
            worker.end()


def share_out(
    todo: Sequence[Todo], workers: Sequence[Worker], store: Store, listener: Listener
) -> None:
    """Give the runs to idle workers, and pass on their reports, until all runs have ended."""
    ready = collections.deque(todo)
    # Runs that other processes hold, and when they were last tried while nothing else was left.
    held: list[Todo] = []
    asked = 0.0

    while True:
        idle = [worker for worker in workers if worker.todo is None]
        if held and not ready and idle and time.monotonic() - asked >= POLL_SECONDS:
            ready.extend(held)
            held, asked = [], time.monotonic()
        while ready and idle:
            # While other runs are left, a worker need not wait for a helper network.
            following = ready.popleft()
            idle.pop(0).begin(following, wait=not ready)

        busy = [worker for worker in workers if worker.todo is not None]
        if not busy and not held:
            return
        if not busy:
            listener.on_wait(len(held))

        # With a time limit, because runs that are held have to be tried again.
        links = connection.wait([worker.link for worker in busy], POLL_SECONDS)
        for worker in busy:
            if worker.link not in links:
                continue
            run = worker.current
            message = worker.receive(store)
            if isinstance(message, Warned):
                store.warn(message.line)
            elif isinstance(message, Reported):
                # By name, because the caller's listener overrides the hook that the worker named.
                hook = getattr(listener, message.hook.__name__)
                hook(run.spec, *message.values)
            elif message.record is None:
                held.append(run)
            else:
                listener.on_finish(run.spec, message.record)
                # The runs that are held may have waited for what this one has made.
                ready.extendleft(reversed(held))
                held = []


# ---- Messages of a worker -----------------------------------------------------------------------


@dataclass(frozen=True)
class Reported:
    """A call of a Listener's hook for the worker's run.

    `values` are the arguments after the spec.
    """

    hook: Callable[..., None]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Warned:
    """A warning of the store."""

    line: str


@dataclass(frozen=True)
class Ended:
    """The end of the worker's run. The record is None if another process holds the run."""

    record: RunRecord | None


@dataclass(frozen=True)
class Raised:
    """An error that is not the run's own: of the store, or of the disk."""

    error: OSError | UserError


# ---- In the process that started the workers ----------------------------------------------------


class WorkerDied(Exception):
    """The process that trained a run has ended before the run."""


class Worker:
    """A process that trains the runs it is given, one after the other.

    Attributes:
        todo: the run that it trains now, or None.
        link: the connection to the process.
    """

    todo: Todo | None
    link: connection.Connection

    def __init__(self, options: RunOptions, root: Path, among: int):
        """Start a worker.

        Args:
            root: the folder of the store.
            among: number of workers that share the machine.
        """
        self._options = options
        self._root = root
        self._among = among
        self.todo = None
        self._start()

    @property
    def current(self) -> Todo:
        """Return the run of a worker that is busy."""
        assert self.todo is not None
        return self.todo

    def _start(self) -> None:
        self.link, theirs = connection.Pipe()
        # Ctrl-C reaches the whole process group. The parent handles it and ends the workers.
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"sys.path[:] = {sys.path!r}; "
            f"from nlbench.executors import workers; workers.serve({theirs.fileno()})"
        )
        # Workers share the machine, so each of them has a part of the processes that decode images.
        decoders = str(max(1, decode.workers() // self._among))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            # The parent's standard output is for its table, so workers write to standard error.
            stdout=2,
            pass_fds=[theirs.fileno()],
            env={"NLBENCH_WORKERS": decoders, **os.environ},
        )
        theirs.close()
        self._send((self._root, self._options))

    def begin(self, todo: Todo, wait: bool) -> None:
        """Have the worker train a run, see `Trainer.attempt`."""
        if self.process.poll() is not None:
            # It died while it had nothing to do.
            self.link.close()
            self._start()
        self.todo = todo
        self._send((todo, wait))

    def _send(self, message: Any) -> None:
        # If the process has died, the next `receive` finds out.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.link.send(message)

    def receive(self, store: Store) -> Reported | Warned | Ended:
        """Wait for the worker's next message. If the process has died, its run has ended.

        Raises: the error of a worker that could not use the store.
        """
        message: Reported | Warned | Ended | Raised
        try:
            message = self.link.recv()
        except (EOFError, ConnectionResetError):
            message = Ended(self._record_of_dead(store))
            self._start()

        if isinstance(message, Raised):
            raise message.error
        if isinstance(message, Ended):
            self.todo = None
        return message

    def _record_of_dead(self, store: Store) -> RunRecord | None:
        # The dead process could not clear its lock. On a file system without flock the run would
        # look held.
        spec, status = self.current.spec, self.process.wait()
        store.release(spec.key, self.process.pid)
        with store.lock(spec.key) as mine:
            if not mine:
                return None

            # It may have died after its record was written.
            if age_of(store, spec.key) != self.current.age and (record := store.read(spec.key)):
                return record
            record = failed(spec, WorkerDied(_reason(status)), self._options)
            store.write(record, [])
            return record

    def end(self) -> None:
        """End the process at once. Finished runs are on disk; nothing else is."""
        self.process.terminate()
        self.process.wait()
        self.link.close()


def _reason(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}, and may have said why on standard error"
    name = signal.Signals(-status).name
    reason = f"its process was ended by {name}"
    if name == "SIGKILL":
        reason += "; when memory is short the system does that, and fewer --jobs need less"
    return reason


# ---- In a worker process ------------------------------------------------------------------------


def serve(handle: int) -> None:
    """Train the runs that arrive through the connection `handle`, until the parent ends."""
    link = connection.Connection(handle)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # A thread of its own reads the connection, to notice the end of the parent during a training.
    threading.Thread(target=_receive_orders, args=(link, orders), daemon=True).start()

    def send(message: Reported | Warned | Ended | Raised) -> None:
        # If the parent has ended, `_receive_orders` ends this process.
        with contextlib.suppress(BrokenPipeError):
            link.send(message)

    root, options = orders.get()
    store = Store(root, lambda line: send(Warned(line)))
    trainer = Trainer(options, store, _Reporter(send))
    while True:
        todo, wait = orders.get()
        try:
            send(Ended(trainer.attempt(todo, wait)))
        except (OSError, UserError) as error:
            # An error of the run would be in its record. This one is of the store.
            send(Raised(error))


class _Reporter(Listener):
    """Sends the reports of a training to the parent process."""

    def __init__(self, send: Callable[[Reported], None]):
        self._send = send

    def on_start(self, spec: RunSpec) -> None:
        self._send(Reported(Listener.on_start, ()))

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        self._send(Reported(Listener.on_resume, (epoch, epochs)))

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._send(Reported(Listener.on_epoch, (epoch, epochs, metrics)))

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._send(Reported(Listener.on_fit, (epoch, epochs, metrics)))

    def on_postpone(self, spec: RunSpec) -> None:
        self._send(Reported(Listener.on_postpone, ()))


def _receive_orders(link: connection.Connection, orders: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            orders.put(link.recv())
    except (EOFError, OSError):
        # The parent has ended, however that happened. os._exit also ends a training that is going
        # on in the main thread. Its checkpoint is on disk.
        os._exit(1)
