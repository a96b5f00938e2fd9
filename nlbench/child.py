"""Run a function in a process of its own, and say how that process ended.

For code that may do anything, such as a method's file when it is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import os
import pickle
import re
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

T = TypeVar("T")

# Loading a method's file and building the method takes seconds.
SECONDS = 120.0

# Before each value: the number of its bytes.
_SIZE = struct.Struct("Q")

# Linux's number of the prctl option that sends a signal when the parent ends.
_PR_SET_PDEATHSIG = 1


class ChildEnded(Exception):
    """The process has ended before the function did. The message says how."""


def run_apart(function: Callable[[], T], seconds: float = SECONDS, about: str = "") -> T:
    """Return what `function` returns in a process that is forked for it.

    Args and Raises: as `stream_apart`.
    """
    for value in stream_apart(lambda: iter((function(),)), seconds, about):
        return value
    raise ChildEnded("has returned nothing")


def stream_apart(
    function: Callable[[], Iterable[T]],
    seconds: float = SECONDS,
    about: str = "",
    passed: tuple[type[Exception], ...] = (),
) -> Iterator[T]:
    """Yield what `function` yields in a process that is forked for it.

    What it prints goes to standard error. Where processes cannot be forked it is called here.

    Args:
        function: yields something that can be pickled.
        seconds: the process is ended if it yields nothing for so long.
        about: a file; the message names the last line of it that was executed, if it is known.
        passed: errors that are raised here as they are.
    Raises: ChildEnded if the process ends, raises or takes too long.
    """
    if not hasattr(os, "fork"):
        yield from function()
        return

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as trace, os.fdopen(reading, "rb", buffering=0) as answer:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _answer(
                functools.partial(_write_all, function, passed), writing, trace.fileno(), parent
            )
        os.close(writing)

        problem: str | None = ""
        try:
            for kind, value in _frames(answer, seconds):
                if kind == "value":
                    yield value
                elif kind == "passed":
                    raise value
                else:
                    # None after the last value.
                    problem = value
        except TimeoutError:
            # The process writes at once, also where its Python code stands still.
            os.kill(pid, signal.SIGUSR1)
            wait_for_stack(trace)
            problem = f"does not end within {seconds:g} seconds"
        finally:
            # A process that has ended is given the time to be seen as such.
            status = _end(pid, wait=problem == "")
        if problem is not None:
            problem = problem or how_it_ended(status)
            raise ChildEnded(f"{problem}{place_in(stack_in(trace), about)}")


def _end(pid: int, *, wait: bool) -> int:
    """End a process and all that it has started. Return its exit code."""
    ended = 0
    deadline = time.monotonic() + 1.0
    while wait and not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def how_it_ended(status: int) -> str:
    """Return how a process ended, in words, from its exit code; a signal's is negative."""
    if status >= 0:
        return f"ended its process with status {status}"
    # A signal without a name is one of the real-time signals.
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"


def goes_on(pid: int) -> bool:
    """Tell whether a process goes on. One that has ended and is still listed does not."""
    try:
        listed = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        # Not on Linux, or there is no such process.
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    # The state follows the name, which stands in brackets and may hold some itself.
    return listed.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_for_stack(trace: IO[bytes], seconds: float = 5.0) -> None:
    """Wait until faulthandler has written to a file, which takes longer on a busy machine."""
    deadline = time.monotonic() + seconds
    while os.fstat(trace.fileno()).st_size == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    # The first line is written before the others.
    time.sleep(0.5)


def stack_in(trace: IO[bytes]) -> str:
    """Return where the Python code of a process was, as faulthandler has written it to a file."""
    trace.seek(0)
    text = trace.read().decode("utf-8", "replace")
    # What follows lists the compiled modules, and the calls of C.
    return re.split(r"\n\n(?:Extension modules|Current thread's C stack)", text)[0].strip()


def place_in(stack: str, stem_or_path: str) -> str:
    """Return ", last seen in ..." with the innermost line of a file in a stack, or nothing.

    faulthandler writes the innermost call first: `File "hang.py", line 3 in loss`.

    Args:
        stem_or_path: the file, or its name without folder and suffix.
    """
    for line in stack.splitlines():
        text = line.strip().removeprefix("File ")
        name = text.partition(",")[0].strip('"')
        if stem_or_path and stem_or_path in (name, Path(name).stem):
            return f", last seen in {text}"
    return ""


# ---- In the process ------------------------------------------------------------------------------


def end_with_parent(parent: int) -> None:
    """Have the system end this process when its parent ends, however that happens.

    Args:
        parent: the id of the parent. If that has ended already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def is_importing(frame: types.FrameType | None) -> bool:
    """Return whether a signal has interrupted the import of a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def note_places(handle: int) -> None:
    """Write to an open file where the Python code is: at a crash, at SIGUSR1 and at os._exit."""
    faulthandler.enable(handle, all_threads=False)
    faulthandler.register(signal.SIGUSR1, handle, all_threads=False)
    _Exit.handle = handle


class _Exit:
    """os._exit as it was, and the file that is told where it is called from."""

    original = staticmethod(os._exit)
    handle = -1


def _exit_with_place(status: int) -> NoReturn:
    """Do what os._exit does, after a note of the place to the file of `note_places`."""
    with contextlib.suppress(OSError, ValueError):
        faulthandler.dump_traceback(_Exit.handle, all_threads=False)
    _Exit.original(status)


def watch_exits() -> None:
    """Let os._exit say where it was called from. Call it before `note_places`."""
    os._exit = _exit_with_place


def _answer(
    write_all: Callable[[IO[bytes]], None], writing: int, trace: int, parent: int
) -> NoReturn:
    """Write all that is asked for, and end this process."""
    # Whatever happens, this process must never go on as a second parent.
    try:
        os.setpgid(0, 0)
        end_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watch_exits()
        note_places(trace)
        # The parent's standard output is for its table.
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        _use_one_thread()
        with os.fdopen(writing, "wb") as file:
            write_all(file)
    finally:
        _Exit.original(0)


def _write_all(
    function: Callable[[], Iterable[object]],
    passed: tuple[type[Exception], ...],
    file: IO[bytes],
) -> None:
    """Write what the function yields, and how it ended."""

    def write(kind: str, value: object) -> None:
        data = pickle.dumps((kind, value))
        file.write(_SIZE.pack(len(data)) + data)
        file.flush()

    try:
        for value in function():
            write("value", value)
        write("end", None)
    except passed as error:
        write("passed", error)
    except BaseException as error:
        write("end", f"raises {_in_words(error)}")


def _use_one_thread() -> None:
    # The threads of torch do not survive a fork; with one thread none are asked for.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _in_words(error: BaseException) -> str:
    # The code of an exception class may do anything, too.
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        frames = traceback.extract_tb(error.__traceback__)
        return f"{text} ({frames[-1].filename}:{frames[-1].lineno})"
    except BaseException:
        return type(error).__name__


def _frames(answer: IO[bytes], seconds: float) -> Iterator[tuple[str, Any]]:
    """Yield what `_write_all` has written, as far as it is whole.

    Raises: TimeoutError if nothing comes for `seconds`.
    """
    data = b""
    while True:
        if not select.select([answer], [], [], seconds)[0]:
            raise TimeoutError
        piece = answer.read(1 << 16)
        if not piece:
            return
        data += piece
        while len(data) >= _SIZE.size:
            end = _SIZE.size + _SIZE.unpack_from(data)[0]
            if len(data) < end:
                break
            # A method may have written to any open file, so this can raise anything.
            try:
                kind, value = pickle.loads(data[_SIZE.size : end])
            except Exception:
                return
            yield kind, value
            data = data[end:]
