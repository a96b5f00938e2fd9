"""What a node of a cluster does for one run: it trains, and the result goes back to the sweep.

The sweep's own process holds the lock of the run and writes its record. A node writes to the store
only where it sees the sweep's folder, and there only checkpoints, helper networks and weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pickle
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlbench import code_hash, models
from nlbench.data import decode, places
from nlbench.data.cache import CacheNotWritten
from nlbench.data.places import Places
from nlbench.errors import UserError
from nlbench.executors._deaths import WorkerDied, is_of_the_store
from nlbench.executors._messages import Ended, Raised, Reported, Warned
from nlbench.executors._processes import Runs, ServerDied
from nlbench.executors._sent_files import SentFiles
from nlbench.executors._stopping import StopSignals
from nlbench.executors._sweep import STOP_SECONDS
from nlbench.executors.base import Listener, RunOptions, Todo
from nlbench.executors.local import POLL_SECONDS
from nlbench.files import flock, write_atomic
from nlbench.plan.conditions import read_fingerprints
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results.place import Place
from nlbench.results.record import RunRecord
from nlbench.results.store import Store, Warn
from nlbench.training.weights import FILE as WEIGHTS

# Marks the folder of a run that has ended, where the store is not shared. After this time the sweep
# has written the record, or has failed to.
_ENDED = "ended"
_CLEAR_SECONDS = 60.0

# What a run tells the sweep meanwhile: the name of a listener's hook, and its arguments after the
# spec; or "warn" and a line.
Report = Callable[[str, tuple[Any, ...]], None]


@dataclass(frozen=True)
class Task:
    """One run for a node. It is plain data.

    Attributes:
        wait: wait for a helper network that another run trains.
        root: the store, as the sweep's process names it.
        token: the name of a file in it. A node that finds the file sees the same folder.
        owner: names the store among those of all sweeps that use the node.
        code: the hash of the code that the run has to be trained with.
        modules: what the processes of runs import ahead.
        slots: how many runs of this kind fit on the node, for the record.
    """

    todo: Todo
    wait: bool
    options: RunOptions
    root: Path
    token: str
    owner: str
    code: str
    modules: tuple[str, ...]
    files: SentFiles
    slots: int = 1


@dataclass(frozen=True)
class Result:
    """What a run has left: what `Store.write` takes, and the file of weights if there is one."""

    record: RunRecord
    history: list[Mapping[str, object]]
    predictions: dict[str, np.ndarray] | None
    weights: bytes | None = None


class Refused(Exception):
    """This node cannot train the run, and another one may. The message says what to mend here."""


def name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


# ---- The run -------------------------------------------------------------------------------------


def train(task: Task, fetch: Callable[[str], bytes], report: Report) -> Result | None:
    """Train a run in a process of its own, and return what it has left.

    Args:
        fetch: returns the content of a file of the sweep's machine.
    Returns: None if another run trains the helper network that this one needs.
    Raises: Refused; KeyboardInterrupt if the run was asked to stop; OSError or UserError of a
        store that all nodes share.
    """
    shared = (task.root / task.token).is_file()
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(scratch(task.owner))
            _clear(own)
            todo, options = _on_this_node(task, own, fetch)
            _require_same(todo.spec, task.code, options)
            outbox = Path(tempfile.mkdtemp(prefix="result-", dir=own))
            stack.callback(shutil.rmtree, outbox, ignore_errors=True)
        except (OSError, UserError) as error:
            raise Refused(str(error)) from None

        root = task.root if shared else own
        open_store = functools.partial(NodeStore, root, outbox, Place.of(root))
        store = open_store(lambda line: report("warn", (line,)))
        try:
            runs = _kept_runs(task, options, store, open_store)
            record = _in_its_process(runs, todo, task.wait, _Reporting(report))
            return None if record is None else _result(store, record, shared=shared)
        except (OSError, UserError) as error:
            # Where all nodes write to one folder, another node would meet the same error. The cache
            # is each node's own.
            if shared and not isinstance(error, CacheNotWritten):
                raise
            raise Refused(str(error)) from None


def forget(owner: str) -> None:
    """Remove what a sweep's runs have left on this node, unless one of them still goes on."""
    folder = _own_folder()
    with open(folder / f"{owner}.lock", "ab") as lock:
        if flock(lock, wait=False) == "held":
            shutil.rmtree(folder / owner, ignore_errors=True)


def _result(store: NodeStore, record: RunRecord, *, shared: bool) -> Result:
    """Return what the run has left. What only this node sees of it is removed."""
    result = store.result(record.key) or Result(record, [], None)
    if shared:
        return result
    folder = store.run_dir(record.key)
    weights = folder / WEIGHTS
    if weights.is_file():
        result = replace(result, weights=weights.read_bytes())
        weights.unlink()
    # A run that failed goes on from its checkpoint when it is tried again.
    if record.status != "failed":
        (folder / _ENDED).touch()
    return result


def _clear(scratch: Path) -> None:
    """Remove the checkpoints of runs whose records have been written since."""
    for mark in scratch.glob(f"runs/*/{_ENDED}"):
        with contextlib.suppress(OSError):
            if time.time() - mark.stat().st_mtime > _CLEAR_SECONDS:
                shutil.rmtree(mark.parent, ignore_errors=True)


class NodeStore(Store):
    """The store as a node has it. A record goes to a folder of its own, the outbox.

    The run's lock is held by the sweep's process.
    """

    def __init__(
        self, root: str | Path, outbox: Path, place: Place, warn: Warn = lambda line: None
    ) -> None:
        super().__init__(root, warn)
        self.place = place
        self._outbox = outbox

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[bool]:
        """Make the run's folder. There is nothing to hold."""
        self.run_dir(key).mkdir(parents=True, exist_ok=True)
        yield True

    def release(self, key: str, pid: int) -> None:
        """Do nothing: no process of a node holds a lock of a run."""

    def record_path(self, key: str) -> Path:
        """Return the place of the result."""
        return self._outbox / key

    def read(self, key: str) -> RunRecord | None:
        """Return the record that this run has left."""
        result = self.result(key)
        return None if result is None else result.record

    def write(
        self,
        record: RunRecord,
        history: Sequence[Mapping[str, object]],
        predictions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep the result for the sweep's process."""
        arrays = None if predictions is None else dict(predictions)
        result = Result(record, list(history), arrays)
        write_atomic(self.record_path(record.key), lambda file: pickle.dump(result, file))

    def result(self, key: str) -> Result | None:
        """Return what `write` has kept."""
        path = self.record_path(key)
        if not path.exists():
            return None
        result: Result = pickle.loads(path.read_bytes())
        return result


# ---- The process of the run ----------------------------------------------------------------------


class _Kept:
    """The fork server of this process, which one run after the other uses."""

    runs: Runs | None = None
    made_for: object = None


def _kept_runs(
    task: Task, options: RunOptions, store: Store, open_store: Callable[[Warn], Store]
) -> Runs:
    """Return a fork server that is ready for a run: that of the run before, if it fits."""
    # The processes of runs inherit the environment of the fork server, and Ray assigns GPUs in it.
    made_for = task.modules, options.device, os.environ.get("CUDA_VISIBLE_DEVICES")
    if _Kept.runs is not None and _Kept.made_for != made_for:
        _Kept.runs.end()
        _Kept.runs = None
    if _Kept.runs is None:
        # Other runs on this node decode images, too.
        decoders = max(1, decode.workers() // max(1, task.slots))
        os.environ.setdefault("NLBENCH_WORKERS", str(decoders))
        # Ray starts its processes with Ctrl-C blocked. A method may send it to itself.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        places = [options.device]
        _Kept.runs = Runs(places, options, store, task.modules, open_store)
        _Kept.made_for = made_for
    _Kept.runs.serve(options, store, open_store)
    return _Kept.runs


def _in_its_process(runs: Runs, todo: Todo, wait: bool, listener: Listener) -> RunRecord | None:
    """Train a run, and pass on its reports. See `train`."""
    # Whoever stops the run calls Python's handler of Ctrl-C, or sends SIGTERM. If the command was
    # started to ignore Ctrl-C, as in the background of a script, Ray's processes ignore it, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopSignals(runs.pause, runs.resume) as signals:
            return _attempt(runs, todo, wait, listener, signals)
    finally:
        for run in list(runs.going.values()):
            run.signal(signal.SIGKILL)
            runs.finish(run)


def _attempt(
    runs: Runs, todo: Todo, wait: bool, listener: Listener, signals: StopSignals
) -> RunRecord | None:
    lost_before = False
    runs.begin(todo, wait)
    while signals.asked is None:
        try:
            for run, message in runs.messages(signals.wake, POLL_SECONDS):
                if isinstance(message, Warned):
                    runs.store.warn(message.line)
                elif isinstance(message, Reported):
                    # By name, as the run has named the hook.
                    getattr(listener, message.hook)(todo.spec, *message.values)
                elif isinstance(message, Ended):
                    runs.finish(run)
                    return message.record
                elif isinstance(message, Raised):
                    if is_of_the_store(message.error):
                        raise message.error
                    return runs.record_of_dead(run, message.error)
        except ServerDied:
            for run in runs.restart():
                if lost_before:
                    error = WorkerDied(
                        f"the method {todo.spec.method} has twice ended the process that starts "
                        "the runs, its parent"
                    )
                    return runs.record_of_dead(run, error)
                runs.finish(run)
            lost_before = True
            runs.begin(todo, wait)
    return _stop(runs, listener, signals)


def _stop(runs: Runs, listener: Listener, signals: StopSignals) -> RunRecord:
    """Let the run write a checkpoint. Raises KeyboardInterrupt, unless it ends with a record."""
    runs.stop()
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and any(run.pid for run in runs.going.values()):
        try:
            for run, message in runs.messages(signals.wake, 0.1):
                if isinstance(message, Reported) and message.hook == "on_stopped":
                    getattr(listener, message.hook)(run.todo.spec, *message.values)
                if isinstance(message, Ended):
                    runs.finish(run)
                    # A run that was ended by the signal has not failed.
                    if message.record is not None and message.record.status != "failed":
                        return message.record
        except ServerDied:
            break
    raise KeyboardInterrupt


class _Reporting(Listener):
    """Passes on the reports of a run."""

    def __init__(self, report: Report):
        for hook in ("start", "resume", "phase", "step", "epoch", "fit", "stopped", "postpone"):
            setattr(self, f"on_{hook}", functools.partial(self._pass_on, report, f"on_{hook}"))

    @staticmethod
    def _pass_on(report: Report, hook: str, spec: RunSpec, *values: Any) -> None:
        report(hook, values)


# ---- What this node has --------------------------------------------------------------------------


@contextlib.contextmanager
def scratch(owner: str) -> Iterator[Path]:
    """Yield the folder for what stays on this node. `forget` leaves it alone meanwhile."""
    folder = _own_folder()
    with open(folder / f"{owner}.lock", "ab") as lock:
        # Shared with the other runs on this node. Without locks nothing is ever removed.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        (folder / owner).mkdir(exist_ok=True)
        yield folder / owner


def _own_folder() -> Path:
    """Return the folder of this user. Raises OSError if another user owns it."""
    folder = Path(tempfile.gettempdir()) / f"nlbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    # Everybody may write to the folder around it.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user; set TMPDIR to another folder")
    return folder


def _on_this_node(
    task: Task, scratch: Path, fetch: Callable[[str], bytes]
) -> tuple[Todo, RunOptions]:
    """Return run and options with the paths of this node.

    Raises: Refused, OSError or UserError.
    """
    options = task.options
    if options.device.type == "cuda" and torch.cuda.device_count() == 0:
        raise Refused("Ray has a GPU there, and torch sees none: is it a torch without CUDA?")
    # What the sweep's machine calls its data folder may not exist here.
    data_dir = options.data_dir if options.data_dir.is_dir() else places.data_dir()
    spec, methods = task.files.on_this_node(task.todo.spec, options.methods, scratch, fetch)
    options = replace(options, data_dir=data_dir, methods=methods, jobs=task.slots)
    models.fetch_weights(spec.protocol.model, spec.protocol.weights)
    # The sweep has compared the record's age while it held the run's lock.
    return Todo(spec, age=None), options


def _require_same(spec: RunSpec, code: str, options: RunOptions) -> None:
    """Raise Refused where this node has other code or other data than the sweep's machine."""
    method_file = options.methods[spec.method].path
    own = code_hash.code_hash(
        method_file, spec.protocol.model, spec.condition.dataset, spec.condition.noise_kind
    )
    if own != code:
        raise Refused(
            f"its nlbench {version('nlbench')} computes with other code ({own}) than the machine "
            f"of the sweep ({code}): install the same sources, with or without the compiled "
            "kernels, on both"
        )
    found = _fingerprint(spec.condition, options.data_dir)
    if found != spec.fingerprint:
        raise Refused(
            f"its data of {spec.condition.dataset} are others than those of the machine of the "
            f"sweep (fingerprint {found}, and not {spec.fingerprint}): copy the files of "
            f"{spec.condition.data_path or options.data_dir} there"
        )


# By dataset, label set and folders.
_fingerprints: dict[object, str] = {}


def _fingerprint(condition: Condition, data_dir: Path) -> str:
    """Return the fingerprint of this node's data. Raises DataMissing or DataError."""
    where = condition.data_path, condition.folder_options, data_dir
    known = (condition.dataset, condition.labels, *where)
    if known not in _fingerprints:
        found, _ = read_fingerprints([condition], Places.of_user(data_dir))
        _fingerprints[known] = found[condition.dataset, condition.labels]
    return _fingerprints[known]
