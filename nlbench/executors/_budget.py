"""The time that a user gives a sweep: which runs are still begun, and when all must stop."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nlbench.plan.spec import RunSpec

# Before the end of the time, the runs have this part of it to write their checkpoints; at least and
# at most so many seconds.
_MARGIN = 0.1
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 15.0


class Budget:
    """The time until `ends`, on the monotonic clock; endless if that is infinite.

    A run is begun if one of its epochs fits into the time that is left. How long that takes is
    known from the runs before it: from a run's start to the end of its first epoch.

    Attributes:
        was_of_use: whether a run has ended since, or has got further, or other processes have held
            all that were left.
    """

    def __init__(self, ends: float):
        self.was_of_use = False
        self._ends = ends
        margin = max(_MARGIN * self.seconds_left(), _LEAST_SECONDS)
        self._stops = ends - min(margin, _MOST_SECONDS)
        # When runs have begun, until their first epoch is done, by key.
        self._began: dict[str, float] = {}
        # The longest time from a start to the end of the first epoch, by method.
        self._first_epochs: dict[str, float] = {}
        self._has_begun = False

    def seconds_left(self) -> float:
        """Return the seconds until the end of the time."""
        return max(0.0, self._ends - time.monotonic())

    def must_stop(self) -> bool:
        """Return whether the runs must write their checkpoints now."""
        return time.monotonic() >= self._stops

    def allows(self, spec: RunSpec) -> bool:
        """Return whether a run is still begun. The first one is, whatever it takes."""
        known = self._first_epochs
        needed = known.get(spec.method, max(known.values(), default=0.0))
        return not self._has_begun or time.monotonic() + needed <= self._stops

    @contextlib.contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call a function from another thread within a `with` block, when the runs must stop."""
        if math.isinf(self._stops):
            yield
            return
        timer = threading.Timer(max(0.0, self._stops - time.monotonic()), stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    # ---- What the runs report -------------------------------------------------------------------

    def begun(self, spec: RunSpec) -> None:
        """Note that a run is begun."""
        self._has_begun = True
        self._began[spec.key] = time.monotonic()

    def waited(self) -> None:
        """Note that nothing could be done but wait for other processes, which get further."""
        self.was_of_use = True

    def note(self, spec: RunSpec, hook: str, values: tuple[Any, ...]) -> None:
        """Note what a run has reported by a hook of its listener."""
        if hook == "on_start":
            # Where runs wait in a queue, they begin later than they were given to it.
            self._has_begun = True
            self._began.setdefault(spec.key, time.monotonic())
        elif hook == "on_epoch":
            self.was_of_use = True
            if (began := self._began.pop(spec.key, None)) is not None:
                seconds = time.monotonic() - began
                longest = self._first_epochs.get(spec.method, 0.0)
                self._first_epochs[spec.method] = max(longest, seconds)
        elif hook == "on_fit" or (hook == "on_stopped" and values[2] > 0):
            self.was_of_use = True

    def ended(self, spec: RunSpec) -> None:
        """Note that a run has ended with a record."""
        self.was_of_use = True
        self._began.pop(spec.key, None)
