"""The listener that passes the reports of a sweep on to loggers, as well as to another listener."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nlbench.errors import UserError
from nlbench.plan.spec import Plan, RunSpec
from nlbench.results.consistency import read_history
from nlbench.results.integrity import HISTORY, located
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training.context import At, EpochMetrics, Listener
from nlbench.watching import choice
from nlbench.watching.base import Logger, Metrics, WatchedRun
from nlbench.watching.channel import Channel

# How long loggers may take for what is waiting: at the end of a sweep, and where the sweep was
# stopped and the user, or a batch system, waits.
END_SECONDS = 60.0
STOP_SECONDS = 3.0


class Watching:
    """The loggers of a command. Used within `watching`.

    Args:
        warn: gets a line about each logger that is switched off.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._channels: list[Channel] = []
        self._warn = warn
        self._named: set[Channel] = set()

    def open(self, channels: Iterable[Channel]) -> None:
        """Start loggers, all at the same time. Raises UserError for what the user can mend."""
        for channel in channels:
            self._channels.append(channel)
            channel.start()
        for channel in self._channels:
            try:
                channel.wait_until_open()
            except UserError:
                # The command ends with this error, and nothing is trained without the logger.
                self._named.add(channel)
                raise
        self.name_troubles()

    def listener(self, plan: Plan, store: Store, inner: Listener | None) -> Listener:
        """Return a listener for the sweep of a plan, which also reports to `inner`."""
        inner = inner or Listener()
        if not self._channels:
            return inner
        return Feed(inner, plan, store, self)

    def each(self) -> Iterator[Channel]:
        """Yield the loggers that work, after the others have been named."""
        for channel in self._channels:
            channel.check()
            if not channel.trouble:
                yield channel
        self.name_troubles()

    def name_troubles(self) -> None:
        """Say once which loggers are switched off, and why."""
        for channel in self._channels:
            if channel.trouble and channel not in self._named:
                self._named.add(channel)
                self._warn(
                    f"the logger {channel.name} is switched off and the training goes on without "
                    f"it: {channel.trouble}"
                )

    def close(self, seconds: float) -> None:
        """Let all loggers end."""
        for channel in self._channels:
            channel.close(seconds)
        self.name_troubles()


@contextlib.contextmanager
def watching(
    loggers: Iterable[str | Logger], out: str | Path, warn: Callable[[str], None]
) -> Iterator[Watching]:
    """Open loggers for a `with` block.

    Args:
        loggers: texts as `choice.parse` takes them, and objects with the methods of Logger.
        out: the store. Loggers that write files write them there, if they are told no other place.
    Raises: UserError for a logger that cannot be used, with the fix.
    """
    channels = [choice.channel_of(logger, Path(out)) for logger in loggers]
    watch = Watching(warn)
    seconds = STOP_SECONDS
    try:
        watch.open(channels)
        yield watch
        seconds = END_SECONDS
    finally:
        watch.close(seconds)


class Feed(Listener):
    """Passes reports on to another listener and to loggers.

    A run is logged by the process that trains it. Runs that other processes train are reported too,
    at their end, and are left to those.
    """

    def __init__(self, inner: Listener, plan: Plan, store: Store, watch: Watching):
        self._inner = inner
        self._plan = plan
        self._store = store
        self._watch = watch
        # The runs that are trained here, by key; those of which loggers know; and those that go on
        # from a checkpoint.
        self._runs: dict[str, WatchedRun] = {}
        self._begun: set[str] = set()
        self._resumed: set[str] = set()

    # ---- What loggers learn ---------------------------------------------------------------------

    def on_start(self, spec: RunSpec) -> None:
        self._inner.on_start(spec)
        protocol = self._plan.suite.protocol
        self._runs[spec.key] = WatchedRun.of_spec(spec, self._plan.name, protocol)
        # It may have lost its process, and then begins again from its checkpoint or from nothing.
        self._begun.discard(spec.key)
        self._resumed.discard(spec.key)

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        self._inner.on_resume(spec, epoch, epochs)
        if epoch > 0:
            self._resumed.add(spec.key)

    def on_step(self, spec: RunSpec, at: At) -> None:
        self._inner.on_step(spec, at)
        # A helper network trains before the checkpoint of the run is looked for.
        if at.part == "run":
            self._begin(spec)
        self._watch.name_troubles()

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._inner.on_epoch(spec, epoch, epochs, metrics)
        run = self._begin(spec)
        if run is None:
            return
        for channel in self._watch.each():
            channel.epoch(run, epoch, dict(metrics))

    def on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        self._inner.on_finish(spec, record)
        run = self._begin(spec)
        if run is None:
            return
        history = self._history(record)
        for channel in self._watch.each():
            channel.ended(run, record, history)
        self._forget(spec)

    def on_postpone(self, spec: RunSpec) -> None:
        self._inner.on_postpone(spec)
        self._forget(spec)

    def _begin(self, spec: RunSpec) -> WatchedRun | None:
        """Tell loggers of a run, unless they know it; return None for one of another process."""
        run = self._runs.get(spec.key)
        if run is not None and run.key not in self._begun:
            self._begun.add(run.key)
            for channel in self._watch.each():
                channel.begin(run, run.key not in self._resumed)
        return run

    def _history(self, record: RunRecord) -> list[Metrics]:
        """Return the metrics of all epochs: some may not have been reported, or not to loggers."""
        # A run that failed has none, and the file may be that of an older result.
        if record.status == "failed":
            return []
        try:
            return [*read_history(located(self._store.run_dir(record.key), HISTORY))]
        # A run that diverged in its first epoch has no such file. `nlbench verify` finds damage.
        except (OSError, ValueError):
            return []

    def _forget(self, spec: RunSpec) -> None:
        self._runs.pop(spec.key, None)
        self._begun.discard(spec.key)
        self._resumed.discard(spec.key)

    # ---- What is for the other listener alone ---------------------------------------------------

    def on_phase(self, spec: RunSpec, phase: str) -> None:
        self._inner.on_phase(spec, phase)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        self._inner.on_fit(spec, epoch, epochs, metrics)

    def on_stopped(self, spec: RunSpec, epoch: int, epochs: int, step: int) -> None:
        self._inner.on_stopped(spec, epoch, epochs, step)

    def on_wait(self, count: int) -> None:
        self._inner.on_wait(count)

    def on_stop(self, line: str) -> None:
        self._inner.on_stop(line)
