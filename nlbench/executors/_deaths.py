"""Why a run has ended without a record: the errors, and the words for them."""

from __future__ import annotations

import errno
import os
import signal
from typing import Protocol

from nlbench import child
from nlbench.errors import UserError
from nlbench.executors import _server
from nlbench.executors._child import CONNECTION_CLOSED
from nlbench.executors.base import Todo
from nlbench.files import NotWritten
from nlbench.training import memory

# Errors that no method makes, and that the next run would meet as well.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


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


class DeadRun(Protocol):
    """A run whose process has ended."""

    @property
    def todo(self) -> Todo:
        """The run."""

    @property
    def kills(self) -> int:
        """`memory.kills` when it began."""

    def place(self) -> str:
        """Return the line of the method's file where it was, or nothing."""


def died(run: DeadRun, kind: int, value: int, peak: int) -> Exception:
    """Return the error of a run whose process has ended, or could not be made.

    Args:
        value, peak: see `_server`.
    """
    if kind == _server.REFUSED:
        return WorkerDied(f"no process could be started for it: {os.strerror(value)}")

    status = os.waitstatus_to_exitcode(value)
    if status == CONNECTION_CLOSED:
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


def hang(run: DeadRun, timeout: float) -> str:
    """Return the message for a run without a sign of life, with the place if it is known."""
    minutes = f"{timeout / 60:g}"
    unit = "minute" if minutes == "1" else "minutes"
    return (
        f"no sign of life for {minutes} {unit}{run.place()}: the run was ended. "
        "--timeout MINUTES sets another limit"
    )


def is_of_the_store(error: OSError | UserError) -> bool:
    """Tell whether the next run would meet the same error, which no method makes."""
    return isinstance(error, UserError | NotWritten) or error.errno in _OF_THE_DISK
