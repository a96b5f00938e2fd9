"""Several runs at once, each in a worker process, where it is trained as it would be alone: the numbers are the same.

A worker is a fresh interpreter that runs `serve`, so that nothing which the caller holds, its threads or its script,
gets into it. It opens the decoded data from the cache files that the others have open, whose pages the system shares.
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
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import connection
from typing import Any, Literal

import torch

from nlbench import hardware
from nlbench.data import decode
from nlbench.errors import SuiteError, UserError
from nlbench.executors.base import Listener, age_of
from nlbench.executors.local import POLL_SECONDS, Setting, Trainer
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.record import failed

Jobs = int | Literal["auto"]

# A worker says: hooks of a Listener by name, without the run, and these.
_HOOKS = ("on_start", "on_epoch", "on_fit", "on_resume", "on_postpone")
_ENDED, _RAISED, _WARNED = "ended", "raised", "warned"


class WorkerDied(Exception):
    """The process that trained a run has ended before the run."""


def count_jobs(jobs: Jobs, todo: Sequence[RunSpec], devices: Sequence[torch.device]) -> int:
    """Runs at once on each device. "auto" is one on a GPU; on CPU cores as many as have the threads of a run each.

    Raises: SuiteError for less than one.
    """
    if jobs == "auto":
        threads = max((spec.protocol.threads for spec in todo), default=1)
        return 1 if devices[0].type == "cuda" else max(1, hardware.cores() // threads)
    if jobs < 1:
        raise SuiteError(f"--jobs {jobs}: must be at least 1, or auto")
    return jobs


def execute(
    todo: Sequence[RunSpec],
    ages: dict[str, int | None],
    setting: Setting,
    store: Store,
    listener: Listener,
    devices: Sequence[torch.device],
) -> None:
    """As `local.execute`, with `setting.jobs` runs at once on each of `devices`, begun in the order of `todo`.

    A run whose process dies, as the system kills it for want of memory, gets a record with status "failed".
    """
    where = [device for _ in range(setting.jobs) for device in devices][: len(todo)]
    workers = list[_Worker]()
    try:
        workers += (_Worker(replace(setting, device=device), len(where)) for device in where)
        _share_out(collections.deque(todo), ages, workers, store, listener)
    finally:
        for worker in workers:
            worker.end()


def _share_out(
    ready: collections.deque[RunSpec],
    ages: dict[str, int | None],
    workers: list[_Worker],
    store: Store,
    listener: Listener,
) -> None:
    """Give the workers the runs and hear them until all runs have ended."""
    held, asked = list[RunSpec](), 0.0  # elsewhere, and when they were last tried for want of others
    while True:
        idle = [worker for worker in workers if worker.spec is None]
        if held and not ready and idle and time.monotonic() - asked >= POLL_SECONDS:
            ready.extend(held)
            held, asked = [], time.monotonic()
        while ready and idle:
            following = ready.popleft()
            idle.pop(0).begin(following, ages[following.key], wait=not ready)
        busy = [worker for worker in workers if worker.spec is not None]
        if not busy and not held:
            return
        if not busy:
            listener.on_wait(len(held))
        for worker in _heard(busy):
            assert worker.spec is not None
            spec, (kind, *what) = worker.spec, worker.hear(store)
            if kind == _WARNED:
                store.warn(*what)
            elif kind != _ENDED:
                getattr(listener, kind)(spec, *what)
            elif (record := what[0]) is None:
                held.append(spec)
            else:
                listener.on_finish(spec, record)
                ready.extendleft(reversed(held))  # what they wait for may have ended with it
                held = []


def _heard(workers: list[_Worker]) -> list[_Worker]:
    """Those that have said something, after some time perhaps none."""
    links = connection.wait([worker.link for worker in workers], POLL_SECONDS)
    return [worker for worker in workers if worker.link in links]


class _Worker:
    """A process that trains the runs it is told, one after the other. `spec` is the one it is at."""

    def __init__(self, setting: Setting, among: int):
        self.setting, self._among = setting, among
        self.spec: RunSpec | None = None
        self._start()

    def _start(self) -> None:
        self.link, theirs = connection.Pipe()
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # a Ctrl-C is for the parent
            f"sys.path[:] = {sys.path!r}; from nlbench.executors import workers; workers.serve({theirs.fileno()})"
        )
        decoding = {"NLBENCH_WORKERS": str(max(1, decode.workers() // self._among)), **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output is the table's
            pass_fds=[theirs.fileno()],
            env=decoding,
        )
        theirs.close()
        self._tell(self.setting)

    def begin(self, spec: RunSpec, age: int | None, wait: bool) -> None:
        """See Trainer.attempt."""
        if self._process.poll() is not None:  # died while it had nothing to do
            self.link.close()
            self._start()
        self.spec, self._age = spec, age
        self._tell((spec, age, wait))

    def _tell(self, what: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # that it has died is heard next
            self.link.send(what)

    def hear(self, store: Store) -> tuple[Any, ...]:
        """What it says next: a hook of a Listener with its arguments, or that its run has ended, with the record."""
        try:
            said: tuple[Any, ...] = self.link.recv()
        except (EOFError, ConnectionResetError):
            said = _ENDED, self._died(store)
            self._start()
        if said[0] == _RAISED:
            raise said[1]
        if said[0] == _ENDED:
            self.spec = None
        return said

    def _died(self, store: Store) -> RunRecord | None:
        spec, code = self.spec, self._process.wait()
        assert spec is not None
        store.release(spec.key, self._process.pid)
        with store.lock(spec.key) as mine:
            if not mine:
                return None
            if age_of(store, spec.key) != self._age and (record := store.read(spec.key)):
                return record
            record = failed(spec, WorkerDied(_reason(code)), self.setting.context(store))
            store.write(record, [])
            return record

    def end(self) -> None:
        """At once: what it has finished is on disk, whole, and the rest is not there."""
        self._process.terminate()
        self._process.wait()
        self.link.close()


def _reason(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code}, and may have said why on standard error"
    name = signal.Signals(-code).name
    memory = "; when memory is short the system does that, and fewer --jobs need less" * (name == "SIGKILL")
    return f"its process was ended by {name}{memory}"


def serve(handle: int) -> None:
    """A worker: train what comes through the connection with that handle, until the parent ends."""
    link = connection.Connection(handle)
    orders = queue.SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(link, orders), daemon=True).start()

    def say(*what: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent has gone: `_listen` ends this process
            link.send(what)

    setting: Setting = orders.get()
    store = Store(setting.root, lambda line: say(_WARNED, line))
    hooks: dict[str, Any] = {name: lambda spec, *what, name=name: say(name, *what) for name in _HOOKS}
    trainer = Trainer(setting, store, Listener(**hooks))
    while True:
        try:
            say(_ENDED, trainer.attempt(*orders.get()))
        except (OSError, UserError) as error:  # not the run's own, which would be in its record: the store's
            say(_RAISED, error)


def _listen(link: connection.Connection, orders: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            orders.put(link.recv())
    except (EOFError, OSError):  # so the parent has gone, however it went
        os._exit(1)
