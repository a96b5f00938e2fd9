"""Ctrl-C, SIGTERM, SIGUSR1 and Ctrl-Z in the process of a sweep, while its runs are trained."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import types
from collections.abc import Callable

from nlbench.errors import Terminated

# The signals that ask a sweep to stop. Slurm sends SIGUSR1 with `--signal=USR1@60`.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """Notes the signals that ask a sweep to stop, within a `with` block.

    Afterwards the handlers are as before. In a thread that is not the main one nothing is noted,
    because Python handles signals in the main thread alone.

    Attributes:
        asked: the first signal, or None.
        again: whether there was another one after it.
        wake: a file that can be read from as soon as there was a signal.

    Args:
        pause, resume: called when the terminal suspends the sweep (Ctrl-Z), and when it goes on.
        stop: called after the first signal.
        insist: whether a second signal raises at once what `raise_if_asked` would.
    """

    def __init__(
        self,
        pause: Callable[[], None] = lambda: None,
        resume: Callable[[], None] = lambda: None,
        stop: Callable[[], None] = lambda: None,
        insist: bool = False,
    ):
        self.asked: signal.Signals | None = None
        self.again = False
        self._pause, self._resume, self._stop = pause, resume, stop
        self._insist = insist
        self.wake, self._woken = os.pipe()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (*STOPPING, signal.SIGTSTP):
            before = signal.getsignal(number)
            # What is ignored, for example by nohup, stays so. So does what another library handles.
            if before is signal.SIG_IGN or before is None:
                continue
            if number is signal.SIGTSTP and before is not signal.SIG_DFL:
                continue
            self._before[number] = before
            handler = self._suspend if number is signal.SIGTSTP else self._note
            signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        os.close(self.wake)
        os.close(self._woken)

    def raise_if_asked(self) -> None:
        """Raise KeyboardInterrupt after SIGINT, and Terminated after another signal."""
        if self.asked is signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked is not None:
            raise Terminated(self.asked)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked is None:
            self.asked = signal.Signals(number)
            self._stop()
        else:
            self.again = True
        # The byte ends the wait for messages. If the pipe is full, the wait has ended.
        with contextlib.suppress(OSError):
            os.write(self._woken, b".")
        if self.again and self._insist:
            self.raise_if_asked()

    def _suspend(self, number: int, frame: types.FrameType | None) -> None:
        # The processes of the runs are no part of the terminal's group, so they are told here.
        self._pause()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here the process stands still until it is continued.
        signal.signal(signal.SIGTSTP, self._suspend)
        self._resume()
