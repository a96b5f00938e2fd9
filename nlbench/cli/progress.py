"""Progress on standard error: a live line for the suite and one for each run; plain lines where it is no terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from nlbench.executors.base import EpochMetrics, Listener
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord


class Progress(Listener):
    """Show the progress of a sweep within a `with` block.

    Args:
        total: runs to do.
    """

    def __init__(self, total: int):
        self._console = _console()
        self._live = self._console.is_terminal
        self._total, self._done = total, 0
        bar = [BarColumn(bar_width=20)] if self._console.width >= 100 else []  # the numbers need the room
        self._bars = Bars(
            TextColumn("{task.description}", markup=False), *bar, TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(), console=self._console, transient=True, disable=not self._live,
        )  # fmt: skip
        self._suite = self._bars.add_task("suite", total=max(total, 1), note="", visible=total > 0)
        self._runs: dict[str, TaskID] = {}  # those going, by key
        self._said_wait = False
        self._warned: set[str] = set()  # said once, though every record holds them

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bars.stop()

    def on_start(self, spec: RunSpec) -> None:
        short = f"{spec.row} · seed {spec.seed}"
        self._runs[spec.key] = self._bars.add_task(short, total=spec.protocol.epochs, note="")
        self._tell(spec)

    def _tell(self, spec: RunSpec) -> None:
        """Where the suite stands, runs in part included, so that its time left moves."""
        parts = sum(task.percentage / 100 for task in self._bars.tasks if task.id in self._runs.values())
        note = f"{self._done} of {self._total} runs · {spec.condition.title}"
        self._bars.update(self._suite, completed=self._done + parts, note=note)

    def _named(self, spec: RunSpec) -> str:
        return f"{spec.row} · {spec.condition.title} · seed {spec.seed}"

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        note = (
            f"epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.3f}  test {100 * metrics['test_accuracy']:.2f}%  "
            f"{metrics['images_per_second']:,.0f} images/s"
        )
        self._bars.update(self._runs[spec.key], completed=epoch + 1, total=epochs, note=note)
        self._tell(spec)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        note = f"helper network, epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.3f}"
        self._bars.update(self._runs[spec.key], note=note)

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        name = self._named(spec)
        self._console.print(f"{name}: goes on at epoch {epoch + 1} of {epochs}", markup=False, soft_wrap=True)

    def on_postpone(self, spec: RunSpec) -> None:
        self._bars.remove_task(self._runs.pop(spec.key))

    def on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        self._done += 1
        if spec.key in self._runs:  # else another process has done it
            self._bars.remove_task(self._runs.pop(spec.key))
        self._tell(spec)
        if record.status == "done":
            seconds = record.timing["train"] + record.timing["evaluate"]
            result = f"{100 * record.metrics['last']:.2f}% ({seconds:.1f} s)"
        else:
            result = f"{record.status}: {(record.error or {}).get('message', '')}"
        self._console.print(
            f"[{self._done}/{self._total}] {self._named(spec)}: {result}",
            markup=False,
            soft_wrap=True,
        )
        for warning in record.warnings:
            if warning not in self._warned:
                self._console.print(f"warning: {warning}", markup=False, soft_wrap=True)
        self._warned.update(record.warnings)
        # What is wrong with the data its message says whole; `nlbench show` has the traceback of that, too.
        error = record.error or {}
        if record.status == "failed" and error["traceback"] and not error["message"].startswith("DataError: "):
            self._console.print(error["traceback"], markup=False, soft_wrap=True)

    def on_wait(self, count: int) -> None:
        note = f"waiting for {count} run{'s' * (count != 1)} that another process holds"
        self._bars.update(self._suite, note=note)
        if not self._live and not self._said_wait:
            self._said_wait = True
            self._console.print(note, markup=False)


def _console() -> Console:
    """On standard error. Whether that is a terminal is asked of it alone: FORCE_COLOR must not put bars into a file."""
    return Console(stderr=True, highlight=False, force_terminal=sys.stderr.isatty())


@contextlib.contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for a download; yields update(done_bytes, total_bytes)."""
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
