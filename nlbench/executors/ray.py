"""Train each run as a task of Ray: on a cluster, or on a Ray of this machine alone.

Ray finds a node with free CPUs or a part of a GPU, and `_node` trains the run there, in a process
of its own. This process holds the locks of the runs that Ray has, and writes their records. If it
ends, Ray ends its tasks, so that no record comes later than from the next call.
"""

from __future__ import annotations

import collections
import contextlib
import math
import pickle
import secrets
import select
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from nlbench.errors import BudgetSpent, UserError
from nlbench.executors import _node, _ray_cluster, _ray_task
from nlbench.executors._budget import Budget
from nlbench.executors._deaths import WorkerDied
from nlbench.executors._sent_files import SentFiles
from nlbench.executors._stopping import StopSignals
from nlbench.executors._sweep import CTRL_C_SECONDS, STOP_SECONDS, announced
from nlbench.executors.base import Listener, RunOptions, Todo, age_of
from nlbench.executors.local import POLL_SECONDS, keep_or_write
from nlbench.executors.workers import preloaded
from nlbench.files import flock, short_hash, sync, write_atomic, writing
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.record import code_of, failed
from nlbench.training.weights import FILE as WEIGHTS

# Between two looks at what the tasks have sent.
_LOOK_SECONDS = 0.25

# Between two requests to stop.
_ASK_SECONDS = 1.0

# How long the sweep waits for the mailbox of reports: before the first run, and at each look. When
# a task has ended it looks several times, because nobody asks for the reports of that task later.
_MAILBOX_SECONDS = 30.0
_LETTERS_SECONDS = 1.0
_LAST_LOOKS = 10

# Nodes come and go. A count of them is used for this long.
_COUNT_SECONDS = 5.0

# A run that has lost its node so often is recorded as failed: it may be what ends the nodes. The
# process in which Ray calls a task ends more rarely.
_MOST_NODES_LOST = 10
_MOST_PROCESSES_LOST = 3


def execute(todo: Sequence[Todo], options: RunOptions, store: Store, listener: Listener) -> None:
    """Train `todo` on Ray, begun in this order. See `base.Executor`.

    `options.address` is the cluster; without it, Ray is started on this machine for this call, and
    reached from this machine alone. At most `options.jobs` runs go on at the same time, and as many
    as there is room for if it is 0.

    Raises: UserError if Ray is not installed or does not answer, or if no node can train the runs;
        KeyboardInterrupt after Ctrl-C, Terminated after another signal, BudgetSpent at the end of
        the time. The runs have then had some seconds to write a checkpoint.
    """
    if not todo:
        return

    owner = short_hash(f"{socket.gethostname()} {store.root.absolute()}".encode())
    most_threads = max(run.spec.protocol.threads for run in todo)
    with _ray_cluster.connected(options, most_threads) as ray, _token(store.root) as token:
        tasks = _Tasks(ray, options, todo, _Home(store.root.absolute(), token, owner))
        try:
            # A sweep that the terminal suspends leaves its tasks alone: they are not its children.
            with StopSignals() as signals:
                _Sweep(todo, tasks, store, signals, Budget(options.ends), listener).share_out()
            tasks.forget()
        finally:
            tasks.end()


@contextlib.contextmanager
def _token(root: Path) -> Iterator[str]:
    """Write a file into the store by which a node knows it, and yield the file's name."""
    for other in root.glob(".ray-*.tmp"):
        # Of a process that was killed. One that goes on holds the lock of its file.
        with contextlib.suppress(OSError), open(other, "rb") as file:
            if flock(file, wait=False) == "held":
                other.unlink()

    path = root / f".ray-{secrets.token_hex(8)}.tmp"
    with writing(path):
        # Closed below.
        own = open(path, "xb")  # noqa: SIM115
    with own:
        flock(own, wait=False)
        with writing(path):
            own.write(b"A node that finds this file sees the folder of the sweep.\n")
            sync(own)
        try:
            yield path.name
        finally:
            # The folder may be gone, and then the file is, too.
            with contextlib.suppress(OSError):
                path.unlink()


# ---- The tasks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Home:
    """The store as the tasks are told of it. See `_node.Task`."""

    root: Path
    token: str
    owner: str


@dataclass
class _Flight:
    """A run that Ray has.

    Attributes:
        number: tells its reports from those of an earlier task of the run.
        hold: holds the run's lock.
        node: the name of the machine that trains it, once it is known.
    """

    todo: Todo
    number: int
    hold: contextlib.ExitStack
    node: str = ""


class _Tasks:
    """Ray's side of a sweep: the tasks that it has, and the nodes that may train.

    Attributes:
        going: the runs that Ray has, by the reference to the result.
    """

    def __init__(
        self, ray: ModuleType, options: RunOptions, todo: Sequence[Todo], home: _Home
    ) -> None:
        self.going: dict[Any, _Flight] = {}
        self._ray, self._options, self._home = ray, options, home
        self._modules = tuple(preloaded(todo, options))
        self._version = version("nlbench")
        self._count = 0
        # What runs name, and nodes may lack; see `_sent`.
        self._contents: dict[str, Any] = {}
        self._refused: dict[str, str] = {}
        self._used: set[str] = set()

        self.gpus = options.gpus_per_run if options.device.type == "cuda" else 0.0
        self._threads = max(run.spec.protocol.threads for run in todo)
        self._slots: dict[str, int] = {}
        self._counted = 0.0

        # The task trains in a process of its own, so that Ray's can serve the next one, also after
        # it had a GPU.
        self._function = ray.remote(max_calls=0)(_ray_task.make_function())
        here = ray.get_runtime_context().get_node_id()
        self._mailbox = (
            ray.remote(_ray_task.make_mailbox())
            .options(num_cpus=0, max_restarts=-1, scheduling_strategy=_on_node(ray, here))
            .remote()
        )
        # What the mailbox has been asked for and has not yet given.
        self._asked: Any = None
        # On a busy machine it starts more slowly than a short run ends.
        self._wait_for_letters(_MAILBOX_SECONDS)

    # ---- Room -----------------------------------------------------------------------------------

    def room(self) -> int:
        """Return how many more runs Ray is to have."""
        if time.monotonic() - self._counted > _COUNT_SECONDS:
            self.count()
        slots = sum(count for node, count in self._slots.items() if node not in self._refused)
        # Some more than there is room for: none has to wait for this process, and a cluster that
        # grows with its tasks sees that there are more.
        most = slots + max(2, slots)
        return min(most, self._options.jobs or most) - len(self.going)

    def count(self) -> None:
        """Count for how many runs each node has room in all."""
        self._counted = time.monotonic()
        self._slots = {}
        for node in self._ray.nodes():
            if not node["Alive"]:
                continue
            resources = node["Resources"]
            slots = int(resources.get("CPU", 0) // self._threads)
            if self.gpus:
                slots = min(slots, int(resources.get("GPU", 0) / self.gpus + 1e-6))
            self._slots[node["NodeID"]] = slots

    def lacking(self) -> str:
        """Return what no node has that a run needs, or an empty text."""
        if any(self._slots.values()):
            return ""
        need = f"{self._threads} CPU{'s' * (self._threads > 1)}"
        return f"{need} and {self.gpus:g} of a GPU" if self.gpus else need

    def _shares(self) -> dict[str, int]:
        """Return how many runs may share a device, by node."""
        found = {}
        for node, slots in self._slots.items():
            each = int(1 / self.gpus + 1e-6) if self.gpus else slots
            found[node] = max(1, min(each, self._options.jobs or each))
        return found

    # ---- Beginning and ending -------------------------------------------------------------------

    def begin(self, todo: Todo, wait: bool, hold: contextlib.ExitStack) -> None:
        """Give a run to Ray, and take over what holds its lock."""
        self._count += 1
        options, spec = self._options, todo.spec
        method = options.methods[spec.method]
        files = SentFiles.of(spec, options.methods)
        task = _node.Task(
            todo=todo,
            wait=wait,
            options=replace(
                options,
                data_dir=options.data_dir.absolute(),
                methods={spec.method: method},
                # By the clock of this machine.
                ends=math.inf,
            ),
            root=self._home.root,
            token=self._home.token,
            owner=self._home.owner,
            code=code_of(spec, options),
            modules=self._modules,
            files=files,
        )
        wanted: dict[str, Any] = {
            "num_cpus": spec.protocol.threads,
            "num_gpus": self.gpus,
            # This process decides what is tried again.
            "max_retries": 0,
            "name": f"{spec.row} seed {spec.seed} [{spec.key}]",
        }
        if self._refused:
            wanted["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._refused)})"}
        ref = self._function.options(**wanted).remote(
            self._version,
            pickle.dumps(task),
            self._shares(),
            {path: self._sent(path) for path in files.digests},
            self._mailbox,
            self._count,
        )
        self.going[ref] = _Flight(todo, self._count, hold.pop_all())

    def _sent(self, path: str) -> Any:
        """Return a reference to the content of a file, which a node that lacks it asks for."""
        # On this machine every node has the file.
        if path not in self._contents and self._options.address:
            self._contents[path] = self._ray.put(Path(path).read_bytes())
        return self._contents.get(path)

    def ready(self, seconds: float) -> list[Any]:
        """Wait up to `seconds` for a task that has ended, and return all that have."""
        refs = list(self.going)
        done, _ = self._ray.wait(refs, timeout=seconds)
        if done:
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return list(done)

    def result(self, ref: Any) -> tuple[tuple[str, str], str, Any]:
        """Return node, kind and value of a task's reply. Raises RayError, or what it raised."""
        reply: tuple[tuple[str, str], str, Any] = self._ray.get(ref)
        self._used.add(reply[0][0])
        return reply

    def letters(self, looks: int = 1) -> list[tuple[int, str, tuple[Any, ...]]]:
        """Return what the tasks have reported since the last call, as far as it is there.

        Args:
            looks: how often to wait for a mailbox that does not answer at once.
        """
        found: list[tuple[int, str, tuple[Any, ...]]] = []
        while True:
            # The answer to an earlier question may lack the last reports of a task that has ended.
            is_new = self._asked is None
            if not any(self._wait_for_letters(_LETTERS_SECONDS) for _ in range(looks)):
                return found
            asked, self._asked = self._asked, None
            try:
                found += [pickle.loads(letter) for letter in self._ray.get(asked)]
            except self._ray.exceptions.RayError:
                # No record depends on them, and the next ones will come.
                return found
            if is_new:
                return found

    def _wait_for_letters(self, seconds: float) -> bool:
        """Return whether the mailbox has answered, after at most `seconds`."""
        # It gives each letter once. A second question would lose the answer to the first one.
        if self._asked is None:
            self._asked = self._mailbox.take.remote()
        done, _ = self._ray.wait([self._asked], timeout=seconds)
        return bool(done)

    def reason_of_loss(self, error: Exception, node: str) -> tuple[str, bool, bool]:
        """Say why a task has ended without a reply, see `_ray_cluster.reason_of_loss`."""
        return _ray_cluster.reason_of_loss(self._ray.exceptions, error, node)

    def refuse(self, node: str, reason: str) -> bool:
        """Give no more runs to a node. Returns False if that is known already.

        Raises: UserError if no node is left.
        """
        known = node in self._refused
        self._refused[node] = reason
        self.count()
        if not any(slots for node, slots in self._slots.items() if node not in self._refused):
            reasons = "\n  ".join(dict.fromkeys(self._refused.values()))
            raise UserError(f"no node of the Ray cluster can train the runs:\n  {reasons}")
        return not known

    def options_here(self) -> RunOptions:
        """Return the options for a record that is made in this process."""
        # The device is that of a node, and need not exist here.
        return replace(self._options, devices=(torch.device("cpu"),), jobs=1)

    def cancel(self) -> None:
        """Ask all tasks to stop."""
        for ref in self.going:
            self._ray.cancel(ref, force=False, recursive=False)

    def forget(self) -> None:
        """Remove what the runs have left on the nodes that trained them."""
        done = []
        function = self._ray.remote(_ray_task.make_forgetting())
        for node in self._used:
            strategy = _on_node(self._ray, node)
            there = function.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
            done.append(there.remote(self._home.owner))
        if done:
            self._ray.wait(done, num_returns=len(done), timeout=5)

    def end(self) -> None:
        """End all tasks at once, and release the locks of their runs."""
        for ref, flight in self.going.items():
            with contextlib.suppress(Exception):
                self._ray.cancel(ref, force=True, recursive=False)
            flight.hold.close()
        self.going.clear()


def _on_node(ray: ModuleType, node: str) -> Any:
    """Return Ray's strategy of a task that belongs on this node, if it is there."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)


# ---- The sweep -----------------------------------------------------------------------------------


class _Sweep:
    """Gives runs to Ray, and writes their records, until all have ended."""

    def __init__(
        self,
        todo: Sequence[Todo],
        tasks: _Tasks,
        store: Store,
        signals: StopSignals,
        budget: Budget,
        listener: Listener,
    ):
        self._ready = collections.deque(todo)
        # Runs that other processes hold or that wait for a helper network, and when they were last
        # tried while nothing else was left.
        self._held: list[Todo] = []
        self._asked = 0.0
        # By key, how often a run has lost its node, and the process that Ray called it in.
        self._lost: dict[tuple[str, bool], int] = collections.defaultdict(int)

        self._tasks, self._store = tasks, store
        self._signals, self._budget, self._listener = signals, budget, listener
        # Number of runs that have ended because all are to stop.
        self._stopped = 0

    def share_out(self) -> None:
        """Have the runs trained, and pass on their reports, until all have ended.

        Raises: KeyboardInterrupt, Terminated or BudgetSpent, when the runs have stopped.
        """
        tasks = self._tasks
        tasks.count()
        if lacking := tasks.lacking():
            self._store.warn(f"no node of the Ray cluster has {lacking}; the runs wait for one")
        while self._signals.asked is None and not self._budget.must_stop():
            self._begin()
            if not (tasks.going or self._held or self._ready):
                return
            if not tasks.going and self._ready and not self._budget.allows(self._ready[0].spec):
                # There is too little time.
                break
            if not tasks.going and not self._ready:
                self._budget.waited()
                self._listener.on_wait(len(self._held))
                self._store.warn_of_holders([todo.spec.key for todo in self._held])
            self._handle(min(_LOOK_SECONDS, self._budget.seconds_left()))
        self._stop()

    def _begin(self) -> None:
        waited = time.monotonic() - self._asked
        if self._held and not self._ready and waited >= POLL_SECONDS:
            self._ready.extend(self._held)
            self._held, self._asked = [], time.monotonic()
        for _ in range(self._tasks.room()):
            if not self._ready or not self._budget.allows(self._ready[0].spec):
                return
            self._begin_one(self._ready.popleft())

    def _begin_one(self, todo: Todo) -> None:
        """Give a run to Ray, unless another process has it or has trained it."""
        key = todo.spec.key
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(self._store.lock(key)):
                self._held.append(todo)
                return
            if age_of(self._store, key) != todo.age and (record := self._store.read(key)):
                self._report(todo, record)
                return
            # While other runs are left, none need wait for a helper network.
            self._tasks.begin(todo, not self._ready, stack)

    def _handle(self, seconds: float) -> None:
        """Wait up to `seconds` for the end of a task, and handle what has come."""
        if not self._tasks.going:
            select.select([self._signals.wake], [], [], seconds)
            return
        done = self._tasks.ready(seconds)
        self._pass_on(looks=_LAST_LOOKS if done else 1)
        for ref in done:
            self._handle_end(ref)

    def _pass_on(self, only: str = "", looks: int = 1) -> None:
        """Pass on what the tasks have reported.

        Args:
            only: the one hook that still matters.
            looks: see `_Tasks.letters`.
        """
        flights = {flight.number: flight for flight in self._tasks.going.values()}
        for number, hook, values in self._tasks.letters(looks):
            flight = flights.get(number)
            if flight is None:
                # Of a task that has ended, or has lost its node.
                continue
            if hook == "at":
                (flight.node,) = values
            elif hook == "warn":
                self._store.warn(f"node {flight.node}: {values[0]}")
            elif not only or hook == only:
                self._budget.note(flight.todo.spec, hook, values)
                # By name, because the caller's listener overrides the hook that the run named.
                getattr(self._listener, hook)(flight.todo.spec, *values)

    def _handle_end(self, ref: Any) -> None:
        flight = self._tasks.going[ref]
        try:
            (node, host), kind, value = self._tasks.result(ref)
        except Exception as error:
            self._handle_loss(ref, flight, error)
            return

        if kind == "error":
            raise value
        if kind == "refused":
            self._give_back(ref)
            self._ready.appendleft(flight.todo)
            if self._tasks.refuse(node, f"{host}: {value}"):
                self._store.warn(f"node {host} gets no more runs of this sweep: {value}")
        elif value is None:
            self._give_back(ref)
            self._held.append(flight.todo)
        else:
            record = self._write(value, host)
            self._give_back(ref)
            self._report(flight.todo, record)

    def _give_back(self, ref: Any) -> None:
        """Forget a task, and release the lock of its run."""
        self._tasks.going.pop(ref).hold.close()

    def _write(self, result: _node.Result, host: str) -> RunRecord:
        """Write the record of a run whose lock is held, and return it."""
        environment: dict[str, Any] = {**result.record.environment, "node": host}
        record = result.record.model_copy(update={"environment": environment})
        if record.status == "failed":
            keep_or_write(self._store, record)
            return record
        if (weights := result.weights) is not None:
            path = self._store.run_dir(record.key) / WEIGHTS
            write_atomic(path, lambda file: file.write(weights))
        self._store.write(record, result.history, result.predictions)
        return record

    def _report(self, todo: Todo, record: RunRecord) -> None:
        self._budget.ended(todo.spec)
        self._store.ended[todo.spec.key] = record
        self._listener.on_finish(todo.spec, record)
        # The runs that are held may have waited for what this one has made.
        self._ready.extendleft(reversed(self._held))
        self._held = []

    # ---- Tasks that Ray has lost ----------------------------------------------------------------

    def _handle_loss(self, ref: Any, flight: _Flight, error: Exception) -> None:
        """Try a run again whose task has not ended by itself, or record it as failed."""
        spec = flight.todo.spec
        reason, of_node, again = self._tasks.reason_of_loss(error, flight.node)
        self._lost[spec.key, of_node] += 1
        most = _MOST_NODES_LOST if of_node else _MOST_PROCESSES_LOST
        if again and self._lost[spec.key, of_node] < most:
            self._give_back(ref)
            self._ready.appendleft(flight.todo)
            self._tasks.count()
            self._store.warn(
                f"{spec.row} seed {spec.seed}: {reason}; it begins again, from its last checkpoint "
                f"where the next node sees {self._store.root}"
            )
            return

        times = self._lost[spec.key, of_node]
        if times > 1:
            reason += f", as {times - 1} time{'s' * (times > 2)} before"
        record = failed(spec, WorkerDied(reason), self._tasks.options_here())
        keep_or_write(self._store, record)
        self._give_back(ref)
        self._report(flight.todo, record)

    # ---- Stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Let the runs write a checkpoint, as far as the time allows, and raise what was asked."""
        asked = self._signals.asked
        seconds = CTRL_C_SECONDS if asked is signal.SIGINT else STOP_SECONDS
        if asked is None:
            seconds = min(seconds, self._budget.seconds_left())
        if asked is not None or self._tasks.going:
            self._listener.on_stop(announced(asked))

        deadline = time.monotonic() + seconds
        asked_at = -math.inf
        while self._tasks.going and not self._signals.again and time.monotonic() < deadline:
            # A task that is only being started does not hear it.
            if time.monotonic() - asked_at > _ASK_SECONDS:
                self._tasks.cancel()
                asked_at = time.monotonic()
            done = self._tasks.ready(0.1)
            self._pass_on(only="on_stopped")
            for ref in done:
                self._handle_last(ref)
        self._signals.raise_if_asked()

        waiting = len(self._held) + len(self._ready)
        left = waiting + len(self._tasks.going) + self._stopped
        if left:
            raise BudgetSpent(left, self._budget.was_of_use)

    def _handle_last(self, ref: Any) -> None:
        flight = self._tasks.going[ref]
        try:
            (_, host), kind, value = self._tasks.result(ref)
        except Exception:
            # Cancelled, as it should be.
            kind, value = "", None
        # A run that was ended by the signal has not failed.
        if kind == "ended" and value is not None and value.record.status != "failed":
            self._report(flight.todo, self._write(value, host))
        else:
            self._stopped += 1
        self._give_back(ref)
