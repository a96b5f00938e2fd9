"""Signs of life of a training: which step it is at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from nlbench.training.context import At, Listener

# Between two reports of a run.
INTERVAL_SECONDS = 0.5

# An epoch with so many times the steps of the default plan does not end, and so many may be had
# whatever the default plan is.
_MOST_PLANS = 100
_ALWAYS_ALLOWED = 10_000


class _Current:
    """The pulse of the training that goes on in this process, if any."""

    pulse: Pulse | None = None


@contextlib.contextmanager
def current(pulse: Pulse) -> Iterator[None]:
    """Let `predicted` report to this pulse within a `with` block."""
    before, _Current.pulse = _Current.pulse, pulse
    try:
        yield
    finally:
        _Current.pulse = before


def predicted(done: int, images: int) -> None:
    """Report that so many of the images are predicted, if a training asks for them."""
    if _Current.pulse is not None:
        _Current.pulse.predicted(done, images)


class Stopped(BaseException):
    """The sweep is to end, so this training ends before it is done.

    It is no Exception, so that a method with `except Exception` does not catch it.
    """


class Pulse:
    """Reports the steps of a training, at most twice a second.

    Attributes:
        stop: called between two parts of a prediction if the training is to stop. Does nothing
            until it is replaced.

    Args:
        part: what is trained; see `At`.
        report: gets the reports.
        listener: says whether the run is to stop.
        epochs: number of epochs.
    """

    def __init__(
        self,
        part: str = "run",
        report: Callable[[At], None] = lambda at: None,
        listener: Listener | None = None,
        epochs: int = 0,
    ):
        self._part = part
        self._report = report
        self._listener = listener or Listener()
        self._epochs = epochs
        self._epoch = 0
        self._steps = 0
        self._began = self._next = 0.0
        self.stop: Callable[[], None] = lambda: None

    def __deepcopy__(self, memo: dict[int, object]) -> Pulse:
        # A copy of a network, whose hooks may know the run, belongs to the same training.
        return self

    def begin_epoch(self, epoch: int, steps: int) -> None:
        """Begin an epoch, which has this number of steps by the default plan."""
        self._epoch, self._steps = epoch, steps
        self._began = time.monotonic()

    def step(self, done: int) -> None:
        """Report that so many steps of the epoch are done, if the last report is old enough.

        Raises: RuntimeError for an epoch that does not seem to end.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL_SECONDS

        if done > max(_ALWAYS_ALLOWED, _MOST_PLANS * self._steps):
            raise RuntimeError(
                f"batches() has yielded {done:,} batches in one epoch, and the default plan has "
                f"{self._steps:,}: does it ever end?"
            )
        self._report(At(self._part, self._epoch, self._epochs, done, self._steps))

    def seconds_left(self, done: int) -> float:
        """Estimate how long the epoch takes from here, where so many of its steps are done."""
        return (time.monotonic() - self._began) / done * (self._steps - done)

    def predicted(self, done: int, images: int) -> None:
        """Report that so many images are predicted, if the last report is old enough."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_SECONDS
            self._report(At("predicting", self._epoch, self._epochs, done, images))
        if self._listener.stopping:
            self.stop()
