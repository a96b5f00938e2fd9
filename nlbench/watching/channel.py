"""The way of the news to one logger, in a thread. No training waits for it, or ends by it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nlbench.errors import UserError
from nlbench.watching.base import Logger, Metrics, WatchedRun

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord

# A logger that needs longer for one call is switched off. A tracker on the network may need some
# seconds when it begins or ends a run.
CALL_SECONDS = 120.0

# How long the sweep waits for a logger to begin, before anything is trained.
OPEN_SECONDS = 60.0


class Channel:
    """Passes what happens to runs on to one logger, in order.

    Attributes:
        name: what messages call the logger.
        trouble: why the logger is switched off; empty while it is not.

    Args:
        make: returns the logger; called in the thread.
        kill: ends whatever the logger hangs in, as far as that can be done.
    """

    def __init__(
        self, name: str, make: Callable[[], Logger], kill: Callable[[], None] = lambda: None
    ):
        self.name = name
        self.trouble = ""
        self._make = make
        self._kill = kill
        self._logger: Logger | None = None
        # Of each run that is going on, the epochs that the logger has.
        self._known: dict[str, set[int]] = {}

        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # When the call has begun that the thread is in; None between calls.
        self._since: float | None = None
        self._opened = threading.Event()
        self._refusal: UserError | None = None
        # A daemon, so that a logger that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)

    # ---- Called by the sweep --------------------------------------------------------------------

    def start(self) -> None:
        """Let the logger begin, and do not wait for it."""
        self._thread.start()

    def wait_until_open(self) -> None:
        """Wait until the logger has begun. Raises UserError for what the user can mend."""
        if not self._opened.wait(OPEN_SECONDS):
            self.switch_off(f"it has not begun within {OPEN_SECONDS:g} s")
        if self._refusal is not None:
            raise self._refusal

    def begin(self, run: WatchedRun, fresh: bool) -> None:
        """Pass on that a run is being trained."""
        self._put(lambda: self._begin(run, fresh))

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """Pass on the metrics of an epoch."""
        self._put(lambda: self._epoch(run, epoch, metrics))

    def ended(self, run: WatchedRun, record: RunRecord, history: Iterable[Metrics]) -> None:
        """Pass on the end of a run, after those epochs of its history that the logger lacks."""
        self._put(lambda: self._ended(run, record, history))

    def check(self) -> None:
        """Switch the logger off if it hangs."""
        since = self._since
        if not self.trouble and since is not None and time.monotonic() - since > CALL_SECONDS:
            self.switch_off(f"it has not answered for {CALL_SECONDS:g} s")

    def close(self, seconds: float) -> None:
        """Let the logger write what is waiting, and wait up to `seconds` for it."""
        self._put(self._close)
        self._waiting.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.switch_off(f"it has not written everything within {seconds:g} s")

    def switch_off(self, trouble: str) -> None:
        """Pass nothing on from now on."""
        if not self.trouble:
            self.trouble = trouble
            self._kill()

    # ---- In the thread --------------------------------------------------------------------------

    def _put(self, call: Callable[[], None]) -> None:
        if not self.trouble:
            self._waiting.put(call)

    def _work(self) -> None:
        try:
            self._logger = self._make()
        except UserError as error:
            self._refusal = error
            self.trouble = str(error)
        except BaseException as error:
            self.trouble = in_words(error)
        self._opened.set()

        while (call := self._waiting.get()) is not None:
            if self.trouble:
                continue
            self._since = time.monotonic()
            try:
                call()
            # Also SystemExit, with which a library may want to end its process.
            except BaseException as error:
                self.switch_off(in_words(error))
            self._since = None

    @property
    def _open(self) -> Logger:
        if self._logger is None:
            raise RuntimeError("the logger is not there")
        return self._logger

    def _begin(self, run: WatchedRun, fresh: bool) -> None:
        self._known[run.key] = set(self._open.begin(run, fresh) or ())

    def _epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        known = self._known.setdefault(run.key, set())
        if epoch in known:
            return
        self._open.epoch(run, epoch, metrics)
        known.add(epoch)

    def _ended(self, run: WatchedRun, record: RunRecord, history: Iterable[Metrics]) -> None:
        for number, metrics in enumerate(history):
            self._epoch(run, number, metrics)
        self._known.pop(run.key, None)
        self._open.ended(run, record)

    def _close(self) -> None:
        self._open.close()


def in_words(error: BaseException) -> str:
    """Return an error on one line, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
