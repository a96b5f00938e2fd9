"""Signals that end the command `nlbench`: one line, the right exit status, no traceback.

This module imports little, because it has to be there before everything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import types
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

# A shell reports a process that a signal ended with 128 and the signal's number.
INTERRUPTED = "interrupted; everything finished is kept, and the same command continues from here"

_SHOW_CURSOR = "\x1b[?25h"


class _Stage(Enum):
    """How far the command is: what a signal does depends on it."""

    # Modules are being imported. There is nothing to clean up.
    STARTING = auto()
    # The command does its work, and cleans up when an exception ends it.
    WORKING = auto()
    # It has been interrupted, or is done.
    ENDING = auto()


class _Command:
    """The process, if it is that of a command."""

    stage = _Stage.STARTING
    taken = False
    keeps = True


def take_over() -> None:
    """Handle the signals from now on, if this process is that of the command `nlbench`."""
    if Path(sys.argv[0]).name not in ("nlbench", "nlbench.exe"):
        return
    _Command.taken = True
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        # What was started to ignore a signal, for example by nohup, goes on to ignore it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _end_where_nothing_can_be_raised


def begin_work() -> None:
    """Have the next signal raise an exception, so that the command can clean up."""
    _Command.stage, _Command.keeps = _Stage.WORKING, True


def keep_nothing() -> None:
    """Say of an interrupted command no longer that it can be continued: it stores nothing."""
    _Command.keeps = False


def end() -> None:
    """Have every signal end the process without a word: the command is over."""
    _Command.stage = _Stage.ENDING


def line_for(number: int) -> str:
    """Return what is printed when a signal ends the command."""
    line = INTERRUPTED if _Command.keeps else INTERRUPTED.partition(";")[0]
    if number == signal.SIGINT:
        return line
    return line.replace("interrupted", f"ended by {signal.Signals(number).name}", 1)


def status_of(number: int) -> int:
    """Return the exit status of a command that a signal has ended.

    SIGUSR1 announces SIGTERM, as Slurm uses it, so a job script need not tell the two apart.
    """
    return 128 + (signal.SIGTERM if number == signal.SIGUSR1 else number)


def leave(number: int) -> None:
    """End the process with the exit status of a signal, if it is that of the command.

    Interpreter and libraries are not unloaded, so that a further signal has nothing to disturb.
    """
    if not _Command.taken:
        return
    for stream in (sys.stdout, sys.stderr):
        # The reader of a pipe may have ended before.
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status_of(number))


def _handle(number: int, frame: types.FrameType | None) -> None:
    # An exception must not go through the import of a compiled module, which may abort.
    if _Command.stage is _Stage.WORKING and not _is_importing(frame):
        _Command.stage = _Stage.ENDING
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # Imported here, because this module has to be there before others.
        from nlbench.errors import Terminated

        raise Terminated(signal.Signals(number))
    _end_now(number, say=_Command.stage is not _Stage.ENDING)


def _end_where_nothing_can_be_raised(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process if a signal came where Python drops exceptions, such as in a `__del__`."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _end_now(getattr(unraisable.exc_value, "signal", signal.SIGINT), say=True)
    sys.__unraisablehook__(unraisable)


def _is_importing(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_now(number: int, *, say: bool) -> NoReturn:
    text = f"{line_for(number)}\n" if say else ""
    # A live display that is not ended has hidden the cursor.
    if os.isatty(2):
        text = f"{_SHOW_CURSOR}{text}"
    # Not print: the signal may have come while something is printed.
    try:
        os.write(2, text.encode())
    finally:
        os._exit(status_of(number))
