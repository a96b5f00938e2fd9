"""Show progress on standard error.

A terminal gets a live line for the suite and one for each run; anything else gets plain lines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from nlbench.errors import DataError, printable
from nlbench.executors.base import At, EpochMetrics, Listener
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord

# A terminal with fewer columns has no room for bars beside the numbers.
LEAST_COLUMNS_FOR_BARS = 100

# Of a run, before its end is estimated.
STEPS_BEFORE_ESTIMATE = 10

# A sweep that takes longer by the first epochs of its runs is announced, with what would make it
# faster.
LONG_SECONDS = 600.0


class Progress(Listener):
    """Show the progress of a sweep within a `with` block.

    Args:
        total: number of runs to train.
        warnings: whether to print the warnings of records, each once.
        told: warnings that were printed already.
        faster: what would make the sweep take less time, a line for each way.
    """

    def __init__(
        self,
        total: int,
        *,
        warnings: bool = True,
        told: Iterable[str] = (),
        faster: Iterable[str] = (),
    ):
        self._total = total
        self._warnings = warnings
        self._done = 0
        # The bars of the runs that are being trained, by key.
        self._runs: dict[str, TaskID] = {}
        # Every record repeats the warnings of its data. Each is printed once.
        self._warned: set[str] = set(told)
        self._wait_reported = False
        self._faster = tuple(faster)
        # The seconds that whole runs take by their first epochs here, by key.
        self._estimates: dict[str, float] = {}
        # Whether it was printed how long the sweep takes, and when its first step was reported.
        self._announced = False
        self._began: float | None = None

        # What the last epoch of each run has reached, in words, by key.
        self._reached: dict[str, str] = {}
        # How fast each run goes that is being trained, by key, and how long finished ones took.
        self._paces: dict[str, _Pace] = {}
        self._durations: list[float] = []

        self._console = _console()
        self._live = self._console.is_terminal
        # The time comes first, so that a narrow terminal cuts off something else.
        columns: list[ProgressColumn] = [_Left(), _Line("{task.description}")]
        if self._console.width >= LEAST_COLUMNS_FOR_BARS:
            columns.append(BarColumn(bar_width=20))
        columns.append(_Line("{task.fields[note]}"))
        # transient, so that no live line is left in the terminal at the end.
        self._bars = Bars(*columns, console=self._console, transient=True, disable=not self._live)
        self._suite = self._bars.add_task(
            "suite",
            total=max(total, 1),
            note=f"0 of {total} runs · starting",
            ends=None,
            visible=total > 0,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    # ---- Reports of the executor -----------------------------------------------------------------

    def on_start(self, spec: RunSpec) -> None:
        # A run that has lost its process starts again.
        self._remove(spec)
        short = f"{spec.row} · seed {spec.seed}"
        self._runs[spec.key] = self._bars.add_task(
            short, total=spec.protocol.epochs, note="", ends=None
        )
        self._paces[spec.key] = _Pace()
        self._update_suite(spec)

    def on_phase(self, spec: RunSpec, phase: str) -> None:
        self._show(spec, note=phase)

    def on_step(self, spec: RunSpec, at: At) -> None:
        # A method with a plan of its own may take more steps than the default plan.
        of = f"/{at.steps}" if at.step <= at.steps else ""
        where = f"epoch {at.epoch + 1}/{at.epochs}  step {at.step}{of}"
        if at.part == "predicting":
            note = (
                f"epoch {at.epoch + 1}/{at.epochs}  predicting {at.step:,} of {at.steps:,} images"
            )
            self._show(spec, note=note)
            return
        if at.part != "run":
            self._show(spec, note=f"{at.part}, {where}")
            return

        pace = self._paces.get(spec.key)
        if pace is not None and pace.trains_since is None:
            pace.trains_since = time.monotonic()
            self._began = self._began or pace.trains_since
        reached = self._reached.get(spec.key, "")
        done = at.epoch + min(at.step / max(at.steps, 1), 1.0)
        # The first steps of a run take longer than those after them.
        known = at.epoch > 0 or at.step >= STEPS_BEFORE_ESTIMATE
        self._advance(spec, done, at.epochs, f"{where}  {reached}", known=known)

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        accuracy = 100 * (metrics["test_accuracy"] or 0.0)
        reached = (
            f"loss {metrics['loss']:.3f}  test {accuracy:.2f}%  "
            f"{metrics['images_per_second']:,.0f} images/s"
        )
        self._reached[spec.key] = reached
        self._advance(spec, epoch + 1, epochs, f"epoch {epoch + 1}/{epochs}  {reached}")

        pace = self._paces.get(spec.key)
        if pace is not None and pace.continues:
            # An earlier process may have begun this epoch, on a busy or sleeping machine. Its
            # seconds count those, so the next epoch is the first one to estimate by.
            pace.continues = False
            pace.trains_since = time.monotonic()
        elif pace is not None and not pace.has_epoch:
            pace.has_epoch = True
            seconds = pace.since(metrics.get("seconds") or 0.0)
            self._estimates[spec.key] = seconds * epochs
            self._announce(spec, epochs, seconds)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        # The bar stays where it is, because a helper network's epochs are not those of the run.
        self._show(
            spec, note=f"helper network, epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.3f}"
        )

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        self._print(f"{_name(spec)}: continues at epoch {epoch + 1} of {epochs}")
        # What an earlier process has trained tells nothing about the time that is left.
        self._paces[spec.key] = _Pace(epoch / epochs, continues=True)

    def on_stopped(self, spec: RunSpec, epoch: int, epochs: int, step: int) -> None:
        after = f", after step {step}" if step else ""
        self._print(f"{_name(spec)}: continues in epoch {epoch + 1} of {epochs}{after}")

    def on_postpone(self, spec: RunSpec) -> None:
        # The run needs what another one is training. It starts again later, with a new bar.
        self._remove(spec)

    def on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        self._done += 1
        if spec.key in self._paces and record.status == "done":
            self._durations.append(time.monotonic() - self._paces[spec.key].began)
        self._remove(spec)
        self._update_suite(spec)

        self._print(f"[{self._done}/{self._total}] {_name(spec)}: {_result(record)}")
        for warning in record.warnings:
            if self._warnings and warning not in self._warned:
                self._print(f"warning: {warning}")
        self._warned.update(record.warnings)

        if record.status == "failed":
            self._print_trace(record)

    def _print_trace(self, record: RunRecord) -> None:
        # The message of a DataError says everything, and so does one that names the method's line
        # or the fix.
        # `nlbench show` has their tracebacks, too.
        trace = record.error.get("traceback", "") if record.error else ""
        said = record.error_type == DataError.__name__ or _says_enough(record)
        if trace and not said:
            self._print(trace)

    def on_wait(self, count: int) -> None:
        note = f"waiting for {count} run{'s' * (count != 1)} that another process holds"
        self._bars.update(self._suite, note=note)
        # Reported again and again while it lasts; plain output has it once.
        if not self._live and not self._wait_reported:
            self._wait_reported = True
            self._print(note)

    def on_stop(self, line: str) -> None:
        self._print(line)

    def _announce(self, spec: RunSpec, epochs: int, seconds: float) -> None:
        """Print once how long the sweep takes by the first epochs of its runs, if that is long.

        What it has taken so far counts, too.

        Args:
            seconds: the time that the first epoch of the run has taken.
        """
        at_once = len(self._paces)
        left = self._seconds_left(at_once)
        spent = seconds
        if self._began is not None:
            spent = max(seconds, time.monotonic() - self._began)
        if spent + left <= LONG_SECONDS or self._announced:
            return

        self._announced = True
        count = self._total - self._done
        those_left = f"the {count} runs left take" if count > 1 else "the run left takes"
        all_of_them = f"{count} runs take" if count > 1 else "1 run takes"
        why = (
            f"all are like this one: an epoch of {spec.row} took {_seconds(seconds)}, a run has "
            f"{epochs}"
        )
        begun = len(self._estimates)
        if begun > 1:
            mean = _duration(sum(self._estimates.values()) / begun)
            why = f"the others are like the {begun} begun so far: a run takes {mean} on average"
        lines = [
            f"estimate: {those_left if self._done else all_of_them} about {_duration(left)} from "
            f"now, if {why}, and {at_once} {'is' if at_once == 1 else 'are'} trained at a time"
        ]
        lines += ["it would take less time with:"] if self._faster else []
        for line in (*lines, *(f"  {way}" for way in self._faster)):
            self._print(line)

    def _seconds_left(self, at_once: int) -> float:
        """Estimate the seconds until the last run ends.

        Runs without an epoch so far are taken to be like the mean of those with one.

        Args:
            at_once: the number of runs that are trained at the same time.
        """
        mean = sum(self._estimates.values()) / len(self._estimates)
        of_runs = [mean] * max(0, self._total - self._done - len(self._paces))
        for key, pace in self._paces.items():
            of_runs.append(self._estimates.get(key, mean) * (1 - pace.finished))
        # Processes share the runs, but not a single run.
        return max(sum(of_runs) / at_once, max(of_runs))

    # ---- Printing --------------------------------------------------------------------------------

    def _show(self, spec: RunSpec, **fields: Any) -> None:
        """Change the line of a run, if it has one."""
        if spec.key in self._runs:
            self._bars.update(self._runs[spec.key], **fields)

    def _advance(
        self, spec: RunSpec, done: float, epochs: int, note: str, *, known: bool = True
    ) -> None:
        """Move the bar of a run to `done` epochs.

        Args:
            known: whether enough is done to estimate when it ends.
        """
        pace = self._paces.get(spec.key)
        if pace is not None:
            pace.finished = done / epochs
        ends = pace.end(done / epochs) if pace is not None and known else None
        if pace is not None and ends is not None:
            pace.duration = ends - pace.began
        self._show(spec, completed=done, total=epochs, note=note, ends=ends)
        self._update_suite(spec)

    def _remove(self, spec: RunSpec) -> None:
        # A run that another process has trained has no line here.
        if spec.key in self._runs:
            self._bars.remove_task(self._runs.pop(spec.key))
        self._reached.pop(spec.key, None)
        self._paces.pop(spec.key, None)

    def _update_suite(self, spec: RunSpec) -> None:
        """Move the bar of the suite; the finished part of each run in training counts as well."""
        going = self._runs.values()
        parts = sum(task.percentage / 100 for task in self._bars.tasks if task.id in going)
        completed = self._done + parts
        note = f"{self._done} of {self._total} runs · {spec.condition.title}"
        self._bars.update(self._suite, completed=completed, note=note, ends=self._end())

    def _end(self) -> float | None:
        """Estimate when the sweep ends, from the runs that are finished and those that go on."""
        durations = list(self._durations)
        left = 0.0
        now = time.monotonic()
        paces = self._paces.values()
        durations += [pace.duration for pace in paces if pace.duration is not None]
        if not durations:
            return None

        mean = sum(durations) / len(durations)
        for pace in paces:
            duration = mean if pace.duration is None else pace.duration
            left += max(0.0, pace.began + duration - now)
        left += mean * (self._total - self._done - len(paces))
        # As many runs as there are now go on at the same time.
        return now + left / max(1, len(paces))

    def _print(self, line: str) -> None:
        # rich would read square brackets in names and messages as its markup.
        self._console.print(printable(line), markup=False, soft_wrap=True)


class _Pace:
    """Estimates when something ends, from the time that its finished part has taken.

    Attributes:
        began: when it began, on the monotonic clock.
        trains_since: when its first step was reported; None before.
        duration: the seconds that it will have taken, as far as they are known.
        finished: the part that is finished, in [0, 1].
        has_epoch: whether the time of an epoch is known.
        continues: whether the epoch under way may have been begun by an earlier process.

    Args:
        first: the finished part at the beginning, in [0, 1].
        continues: whether an earlier process has trained that part.
    """

    def __init__(self, first: float = 0.0, *, continues: bool = False):
        self._first = first
        self.continues = continues
        self.began = time.monotonic()
        self.trains_since: float | None = None
        self.duration: float | None = None
        self.finished = first
        self.has_epoch = False

    def since(self, least: float) -> float:
        """Return the seconds since the first step, as far as they are known, or at least these."""
        if self.trains_since is None:
            return least
        return max(least, time.monotonic() - self.trains_since)

    def end(self, done: float) -> float | None:
        """Return the end on the monotonic clock if the part `done` is finished; None at 0."""
        now = time.monotonic()
        if done <= self._first:
            return None
        return now + (now - self.began) * (1 - done) / (done - self._first)


class _Left(ProgressColumn):
    """The time that is left, as of the task's field `ends`."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, min_width=len("-:--:--")))

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if ends is None:
            return Text("-:--:--", style="progress.remaining")
        seconds = round(max(0.0, ends - time.monotonic()))
        return Text(str(timedelta(seconds=seconds)), style="progress.remaining")


class _Line(ProgressColumn):
    """A text on one line, cut off where the terminal ends."""

    def __init__(self, form: str) -> None:
        super().__init__(Column(no_wrap=False))
        self._form = form

    def render(self, task: Task) -> Text:
        text = printable(self._form.format(task=task))
        return Text(text, no_wrap=True, overflow="ellipsis")


def _duration(seconds: float) -> str:
    """Return a long time in words, in two figures."""
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 1.95 * length:
            return f"{float(f'{seconds / length:.2g}'):g} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _seconds(seconds: float) -> str:
    """Return a time in seconds with three figures, or a long one in words."""
    return f"{seconds:.3g} s" if seconds < 999.5 else _duration(seconds)


def _name(spec: RunSpec) -> str:
    return f"{spec.row} · {spec.condition.title} · seed {spec.seed}"


def _says_enough(record: RunRecord) -> bool:
    """Return whether the message of a failed run names the line of the method's file, or a fix."""
    return re.search(r"\.py:\d+|; fix: ", record.error_message) is not None


def _result(record: RunRecord) -> str:
    if record.status != "done":
        return f"{record.status}: {record.error_message}"
    seconds = record.timing["train"] + record.timing["evaluate"]
    accuracy = 100 * (record.metrics["last"] or 0.0)
    return f"{accuracy:.2f}% ({seconds:.1f} s)"


def _console() -> Console:
    """Return a console on standard error, with live lines in a terminal or a notebook."""
    # rich draws live lines in a notebook with ipywidgets, and without it draws nothing.
    notebook = Console().is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    # Without `force_terminal`, FORCE_COLOR would put live lines into a file.
    return Console(stderr=True, highlight=False, force_terminal=sys.stderr.isatty() or notebook)


# ---- Downloads -----------------------------------------------------------------------------------


@contextlib.contextmanager
def count_bar(what: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Show a progress bar for things that are counted.

    Yields a function that is called with their number, and returns one that is called with the
    number of those that are done since the last call.
    """
    console = _console()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        def start(total: int) -> Callable[[int], None]:
            if not console.is_terminal:
                console.print(f"{what}: {total:,}", markup=False)
            task = bars.add_task(what, total=total)
            return lambda done: bars.advance(task, done)

        yield start


@contextlib.contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for a download; yield a function of (bytes done, bytes in all)."""
    console = _console()
    columns = (
        TextColumn(name),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)
