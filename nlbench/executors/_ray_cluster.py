"""Connect to a Ray cluster, or start a Ray of this machine alone. Say in words what Ray lost."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from nlbench import hardware
from nlbench.errors import UserError
from nlbench.training.context import RunOptions

# Results are small. Ray's least is 75 MiB.
_OBJECT_STORE_BYTES = 100 << 20

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# How long a cluster may take to answer.
_ANSWER_SECONDS = 5.0

# The folder in which this process has found nlbench.
_IMPORTED_FROM = Path(hardware.__file__).parents[1]


@contextlib.contextmanager
def connected(options: RunOptions, threads: int) -> Iterator[ModuleType]:
    """Yield the module `ray`, connected to `options.address`, or to a Ray that is started here.

    What this call has started or opened is ended afterwards. A connection that the caller's program
    has already is used as it is.

    Args:
        threads: what the largest run needs. A Ray that is started here has at least as many CPUs.
    Raises: UserError if Ray is not installed or does not answer.
    """
    with contextlib.ExitStack() as stack:
        with _handlers_kept(), _environment(_settings(options.address)):
            ray = import_ray()
            if not ray.is_initialized():
                if options.address:
                    given = {"address": _answering(options.address)}
                else:
                    given = _alone(stack.enter_context(_short_folder()), threads)
                stack.enter_context(_silent(ray))
                stack.callback(ray.shutdown)
                _init(ray, given)
        yield ray


def import_ray() -> ModuleType:
    """Return the package `ray`. Raises UserError if it is not installed."""
    try:
        # An absolute name: this is the package, and not the module beside this one.
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"the executor ray needs the package ray, which cannot be imported ({error}): "
            "pip install 'nlbench[ray]'"
        ) from None


def _settings(address: str) -> dict[str, str]:
    """Return what Ray reads from the environment, and what processes that it starts inherit."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Otherwise Ray announces that a later version will leave CUDA_VISIBLE_DEVICES alone.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if address:
        # Tries, of which each takes most of a minute.
        settings["RAY_gcs_server_port_wait_time_s"] = "1"
    if not address or _host(address) in _LOOPBACK:
        # Otherwise Ray replaces the loopback address by one that other machines can reach. The
        # variable is named after the systems on which Ray does not do so.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return settings


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _alone(folder: str, threads: int) -> dict[str, Any]:
    """Return the arguments of `ray.init` for a Ray of this machine."""
    return {
        "address": "local",
        "num_cpus": max(hardware.cores(), threads),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        # So no other machine can reach it; see `_settings`.
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
        # When memory is short, the system ends the run that needs it, as it does without Ray.
        "_system_config": {"memory_monitor_refresh_ms": 0},
    }


def _init(ray: ModuleType, given: dict[str, Any]) -> None:
    where = f"--address {given['address']}"
    try:
        # Ray's processes import first from the folder that is the current one here. In a checkout
        # of nlbench they would take its sources in place of the installed package.
        with contextlib.chdir(_IMPORTED_FROM):
            ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
    # Ray raises many kinds of errors here, of which no list is documented.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{where}: Ray cannot be started or joined there: {reason[:500]}\n"
            "The command has to run on a machine of the cluster, with the Ray, the Python and the "
            "token (RAY_AUTH_TOKEN) of its other machines"
        ) from None


def _answering(address: str) -> str:
    """Return an address that Ray can join. Raises UserError if nobody answers there."""
    if address == "auto":
        return address
    if "://" in address:
        raise UserError(
            f"--address {address}: Ray's client protocol is not supported. Start the command on a "
            "machine of the cluster, with --address auto"
        )
    host, port = _host(address), address.rpartition(":")[2]
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"--address {address}: write HOST:PORT as `ray start --head` prints it, or auto"
        )
    # Ray itself would try for a minute.
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nobody answers there ({error.strerror or error}). Is the head "
            "of the cluster running (`ray start --head`), and does its port allow connections?"
        ) from None
    return address


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """Yield a folder for Ray's sockets and logs, and remove it afterwards."""
    # The name of a socket has at most 107 characters, and Ray adds some 75 to the folder's.
    usual, short = tempfile.gettempdir(), "/tmp"
    base = short if len(usual) > len("/var/tmp") and os.access(short, os.W_OK) else usual
    for other in Path(base).glob("nlb-*-*"):
        # Of a process that was killed.
        if _is_left(other):
            shutil.rmtree(other, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"nlb-{os.getpid()}-", dir=base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Tell whether the process is gone that has made a folder, which its name holds."""
    number = folder.name.split("-")[1]
    try:
        return (
            number.isdecimal()
            and folder.lstat().st_uid == os.getuid()
            and not Path(f"/proc/{number}").exists()
            and Path("/proc/self").exists()
        )
    except OSError:
        return False


@contextlib.contextmanager
def _silent(ray: ModuleType) -> Iterator[None]:
    """Keep Ray from printing to standard output, which is for the table.

    Without `log_to_driver`, too, it prints that a node is gone. There is no public switch for this,
    so the one is used that Ray's debugger uses.
    """
    worker = ray._private.worker
    before = getattr(worker, "_worker_logs_enabled", True)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, within a `with` block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# ---- What Ray has lost ---------------------------------------------------------------------------


def reason_of_loss(errors: Any, error: Exception, node: str) -> tuple[str, bool, bool]:
    """Say why a task of Ray has ended without a reply.

    Args:
        errors: the module `ray.exceptions`.
        node: the name of the machine that it was on, or an empty text.
    Returns: the reason in words, whether the whole node is gone, and whether to try again.
    """
    where = f"the node {node}" if node else "its node"
    if isinstance(error, errors.OutOfMemoryError):
        reason = (
            f"Ray has ended it because the memory of {where} was short; fewer runs at a time "
            "(--jobs, --gpus-per-run) need less"
        )
        return reason, False, False
    gone = (errors.NodeDiedError, errors.ObjectLostError, errors.LocalRayletDiedError)
    if isinstance(error, gone):
        return f"{where} is gone", True, True
    if isinstance(error, errors.WorkerCrashedError | errors.TaskCancelledError):
        return f"its process on {where} was ended", False, True
    if isinstance(error, errors.RayTaskError):
        cause = error.cause
        if isinstance(cause, KeyboardInterrupt):
            return f"its process on {where} was asked to end", False, True
        return f"on {where}: {type(cause).__name__}: {cause}", False, False
    return f"on {where}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", False, True
