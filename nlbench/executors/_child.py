"""What the process of one run does, after the fork server has made it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any, NoReturn

from nlbench.child import end_with_parent, is_importing, note_places
from nlbench.data import decode
from nlbench.errors import UserError
from nlbench.executors._messages import Ended, Link, Message, Order, Raised, Reported, Warned
from nlbench.executors.local import Trainer
from nlbench.plan.spec import RunSpec
from nlbench.training import saver
from nlbench.training.context import At, EpochMetrics, Listener
from nlbench.training.pulse import Stopped

# The exit status of a process that can no longer report.
CONNECTION_CLOSED = 76

# When memory is short, Linux ends first the process with the highest of these, from 0 to 1000.
_MEMORY_SCORE = "700"

# How long the decoding processes may take to end.
_END_SECONDS = 2


def train_one(link_handle: int, trace_handle: int, server: int) -> NoReturn:
    """Train the run that arrives through the connection `link_handle`, and end this process.

    Args:
        trace_handle: an open file for `note_places`.
        server: the id of the parent.
    """
    # As a group of its own it can be ended together with the processes that a method starts. And a
    # method that signals its group does not reach the other runs.
    os.setpgid(0, 0)
    end_with_parent(server)
    # The run is what needs the memory, so it is what has to end when there is too little.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_MEMORY_SCORE)
    note_places(trace_handle)

    link = Link(socket.socket(fileno=link_handle))
    reporter = _Reporter(link)
    # Ctrl-C goes to the process of the sweep, which sends SIGTERM. SIGINT can only come from the
    # method, and is its error.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    try:
        signal.signal(signal.SIGTERM, reporter.stop)
        order: Order = link.receive_one()
        store = order.open_store(lambda line: reporter.send(Warned(line)))
        trainer = Trainer(order.options, store, reporter, alone=True)
        reporter.send(Ended(trainer.attempt(order.todo, order.wait)))
    except Stopped:
        # End by the signal that has asked for it. The process of the sweep waits for no message.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except (OSError, UserError) as error:
        # An error of the run would be in its record. This one is of the store.
        reporter.send(Raised(error))

    # The record is written. If a decoding process hangs, this process ends by the alarm.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_END_SECONDS)
    decode.end_workers()
    leave(0)


def leave(status: int) -> NoReturn:
    """End this process at once, whatever a method has left behind in it."""
    # A method may have closed or replaced them.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # Not sys.exit: it would wait for threads and call the functions of `atexit`.
    os._exit(status)


def _rescue() -> None:
    """Write what there is, if the run does not end its step in time."""
    time.sleep(saver.RESCUE_SECONDS)
    saver.rescue()


class _Reporter(Listener):
    """Sends the reports of a training to the process of the sweep."""

    def __init__(self, link: Link):
        self._link = link
        self._pid = os.getpid()

    def stop(self, number: int, frame: types.FrameType | None) -> None:
        """Handle the signal that asks the run to stop."""
        again, self.stopping = self.stopping, True
        if again:
            return
        if saver.is_saving():
            threading.Thread(target=_rescue, daemon=True).start()
        # There is nothing to save. An exception must not go through the import of a compiled
        # module, which may abort.
        elif is_importing(frame):
            leave(128 + number)
        else:
            raise Stopped

    def send(self, message: Message) -> None:
        """Send a message."""
        # A method has forked this process. There must not be two that train the same run.
        if os.getpid() != self._pid:
            os._exit(1)
        try:
            self._link.send(message)
        except OSError:
            # The process of the sweep has ended, or the method has closed the connection. Either
            # way nobody hears of this run any more.
            leave(CONNECTION_CLOSED)

    def _report(self, hook: str, *values: Any) -> None:
        self.send(Reported(hook, values))

    def on_start(self, spec: RunSpec) -> None:
        self._report("on_start")

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        self._report("on_resume", epoch, epochs)

    def on_phase(self, spec: RunSpec, phase: str) -> None:
        self._report("on_phase", phase)

    def on_step(self, spec: RunSpec, at: At) -> None:
        self._report("on_step", at)

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._report("on_epoch", epoch, epochs, metrics)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._report("on_fit", epoch, epochs, metrics)

    def on_stopped(self, spec: RunSpec, epoch: int, epochs: int, step: int) -> None:
        self._report("on_stopped", epoch, epochs, step)

    def on_postpone(self, spec: RunSpec) -> None:
        self._report("on_postpone")
