"""What a training could go on from if it ended now: kept in memory, and written when it is time.

A checkpoint holds the state at the beginning of an epoch and, under "within", a later state of the
same epoch, if there is one. It is written at the ends of epochs and in long epochs from time to
time, as the options say, and when the training is to stop.
"""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Any

from nlbench.training import held
from nlbench.training.checkpoint import Checkpoint
from nlbench.training.context import Listener, RunOptions
from nlbench.training.pulse import Pulse, Stopped
from nlbench.training.within import EpochPlace, Unlike, on_host

# Between two checkpoints within an epoch there are at least so many seconds, and so many times the
# seconds that writing one took. So writing takes at most a thirtieth of the time.
WITHIN_SECONDS = 10.0
_TIMES_OF_WRITING = 30.0

# If no state within an epoch can be taken, a training that is to stop first ends its epoch, unless
# that would take longer than this.
END_SECONDS = 4.0

# An evaluation that is going on when the training is to stop may take so long to end.
EVALUATION_SECONDS = 2.0

# When the training is to stop and one step takes longer than this, another thread writes what is
# there.
RESCUE_SECONDS = 2.0

# After the steps of an epoch that took longer than this, their state is kept in memory, so that the
# evaluation can be stopped without a loss.
_LONG_EPOCH_SECONDS = 30.0


class BeginAgain(BaseException):
    """The state within an epoch cannot be restored, and the training has to begin anew.

    Its checkpoint then holds the beginning of the epoch alone. It is no Exception, so that a method
    with `except Exception` does not catch it.
    """


class _Current:
    """The innermost saver in use in this process, if any."""

    saver: Saver | None = None


def is_saving() -> bool:
    """Return whether a training of this process has something that is worth saving."""
    return _Current.saver is not None


def rescue() -> None:
    """Write what the trainings of this process could go on from, from any thread."""
    saver = _Current.saver
    while saver is not None:
        # The training itself reports a full disk, when it writes again at its end.
        with contextlib.suppress(Exception):
            saver.write()
        saver = saver.outer


class Saver:
    """Keeps and writes what one training goes on from, within a `with` block.

    If the block ends because the training is to stop, it is written.

    Attributes:
        reached: the epoch that the checkpoint on disk continues, and the step within it.
        outer: the saver of the training within which this one goes on, such as a run's own.

    Args:
        pulse: says how much of an epoch is left.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: RunOptions,
        listener: Listener,
        pulse: Pulse,
    ):
        self._earlier_seconds = 0.0
        self.outer: Saver | None = None
        self.reached = 0, 0
        self._checkpoint, self._listener, self._pulse = checkpoint, listener, pulse
        self._every_epochs = options.checkpoint_epochs
        self._every_seconds = max(options.checkpoint_seconds, WITHIN_SECONDS)

        # What the next checkpoint holds, and whether the one on disk holds it already.
        self._begin: dict[str, Any] | None = None
        self._within: dict[str, Any] | None = None
        self._is_written = False
        # The rescue writes from another thread.
        self._lock = threading.Lock()
        self._closed = False

        self._epoch = 0
        self._epochs_since = 0
        self._began = time.monotonic()
        self._write_seconds = 0.0
        # Whether a state within an epoch could not be taken, which is then not tried again.
        self._refused = False
        # Whether the training ends its epoch before it stops.
        self._is_ending = False
        self._noticed: float | None = None

    def __enter__(self) -> Saver:
        self.outer, _Current.saver = _Current.saver, self
        self._pulse.stop = self.stop_soon
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # While a sweep stops, another error may come from processes that were ended, too.
            if error is not None and self._listener.stopping:
                self.write()
        finally:
            _Current.saver = self.outer

    # ---- What the training reports --------------------------------------------------------------

    def load(self) -> dict[str, Any] | None:
        """Return the state from which an epoch begins, or None if there is no checkpoint.

        The training then goes on within that epoch, if the checkpoint was written within it.
        """
        saved = self._checkpoint.load()
        if saved is not None:
            self._within, self._is_written = saved.pop("within", None), True
        return saved

    def begin_epoch(self, epoch: int, state: dict[str, Any]) -> None:
        """Keep a copy of `state`, from which `epoch` begins, and write it if it is time.

        Raises: Stopped.
        """
        first = self._begin is None
        with self._lock:
            self._begin = on_host(state)
            self._epoch, self._began = epoch, time.monotonic()
            if first:
                self._note_reached()
            else:
                self._within, self._is_written = None, False
                self._epochs_since += 1

        by_epochs = 0 < self._every_epochs <= self._epochs_since
        if not first and (by_epochs or self._checkpoint.is_due()):
            self.write()
        if self._listener.stopping:
            raise Stopped

    def go_on(self, place: EpochPlace) -> None:
        """Go on within the epoch that has just begun, if the checkpoint was from within it.

        Raises: BeginAgain.
        """
        if self._within is None:
            return
        try:
            place.go_on(self._within)
            self._earlier_seconds = self._within["seconds"]
        except (Unlike, KeyError):
            with self._lock:
                self._checkpoint.save({**(self._begin or {}), "within": None})
            raise BeginAgain from None

    def after_step(self, place: EpochPlace) -> None:
        """Write a checkpoint if it is time, or if the training is to stop. Raises Stopped."""
        if self._listener.stopping:
            if not self._is_ending:
                self._stop_at(place)
        elif not self._refused and self._is_due_within():
            began = time.monotonic()
            if self._take(place):
                self.write()
                self._write_seconds = time.monotonic() - began

    def after_steps(self, place: EpochPlace) -> None:
        """Keep the state after the last step of a long epoch, before its evaluation."""
        place.ended = True
        if time.monotonic() - self._began >= _LONG_EPOCH_SECONDS and not self._refused:
            self._take(place)

    def stop_soon(self) -> None:
        """Raise Stopped in what is no step, such as an evaluation, if that takes too long."""
        now = time.monotonic()
        if self._noticed is None:
            self._noticed = now
        if not self._is_ending and now - self._noticed > EVALUATION_SECONDS:
            raise Stopped

    def take_earlier_seconds(self) -> float:
        """Return what this epoch's steps took before a resume within it, and forget it."""
        seconds, self._earlier_seconds = self._earlier_seconds, 0.0
        return seconds

    def close(self) -> None:
        """Write nothing any more: the result of the training follows."""
        with self._lock:
            self._closed = True

    # ---- Taking and writing ---------------------------------------------------------------------

    def _stop_at(self, place: EpochPlace) -> None:
        """Take the state after this step and raise Stopped, or let the epoch end."""
        if not self._take(place) and self._pulse.seconds_left(place.done) <= END_SECONDS:
            self._is_ending = True
            return
        raise Stopped

    def _take(self, place: EpochPlace) -> bool:
        """Keep the state after the last step, if that can be done."""
        try:
            within = place.take()
        except held.Unseen:
            self._refused = True
            return False
        within["seconds"] = time.monotonic() - self._began + self._earlier_seconds
        with self._lock:
            self._within, self._is_written = within, False
        return True

    def _is_due_within(self) -> bool:
        pause = max(self._every_seconds, _TIMES_OF_WRITING * self._write_seconds)
        return self._checkpoint.age() >= pause

    def write(self) -> None:
        """Write what is kept, unless it is on disk already or holds no work."""
        with self._lock:
            if self._closed or self._is_written or self._begin is None:
                return
            # Before the first step of a training nothing is lost.
            if self._epoch == 0 and self._within is None:
                return
            self._checkpoint.save({**self._begin, "within": self._within})
            self._is_written, self._epochs_since = True, 0
            self._note_reached()

    def _note_reached(self) -> None:
        self.reached = self._epoch, self._within["done"] if self._within else 0
