"""Show progress on standard error.

A terminal gets a live line for the suite and one for each run; anything else gets plain lines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from nlbench.errors import DataError
from nlbench.executors.base import EpochMetrics, Listener
from nlbench.plan.spec import RunSpec
from nlbench.results.record import RunRecord

# A terminal with fewer columns has no room for bars beside the numbers.
LEAST_COLUMNS_FOR_BARS = 100


class Progress(Listener):
    """Show the progress of a sweep within a `with` block.

    Args:
        total: number of runs to train.
        warnings: whether to print the warnings of records, each once.
        told: warnings that were printed already.
    """

    def __init__(self, total: int, *, warnings: bool = True, told: Iterable[str] = ()):
        self._total = total
        self._warnings = warnings
        self._done = 0
        # The bars of the runs that are being trained, by key.
        self._runs: dict[str, TaskID] = {}
        # Every record repeats the warnings of its data. Each is printed once.
        self._warned: set[str] = set(told)
        self._wait_reported = False

        self._console = _console()
        self._live = self._console.is_terminal
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
        if self._console.width >= LEAST_COLUMNS_FOR_BARS:
            columns.append(BarColumn(bar_width=20))
        columns += [TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn()]
        # transient, so that no live line is left in the terminal at the end.
        self._bars = Bars(*columns, console=self._console, transient=True, disable=not self._live)
        self._suite = self._bars.add_task("suite", total=max(total, 1), note="", visible=total > 0)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    # ---- Reports of the executor -----------------------------------------------------------------

    def on_start(self, spec: RunSpec) -> None:
        short = f"{spec.row} · seed {spec.seed}"
        self._runs[spec.key] = self._bars.add_task(short, total=spec.protocol.epochs, note="")
        self._update_suite(spec)

    def on_epoch(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        accuracy = 100 * (metrics["test_accuracy"] or 0.0)
        note = (
            f"epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.3f}  test {accuracy:.2f}%  "
            f"{metrics['images_per_second']:,.0f} images/s"
        )
        self._bars.update(self._runs[spec.key], completed=epoch + 1, total=epochs, note=note)
        self._update_suite(spec)

    def on_fit(self, spec: RunSpec, epoch: int, epochs: int, metrics: EpochMetrics) -> None:
        # The bar stays where it is, because a helper network's epochs are not those of the run.
        note = f"helper network, epoch {epoch + 1}/{epochs}  loss {metrics['loss']:.3f}"
        self._bars.update(self._runs[spec.key], note=note)

    def on_resume(self, spec: RunSpec, epoch: int, epochs: int) -> None:
        self._print(f"{_name(spec)}: continues at epoch {epoch + 1} of {epochs}")

    def on_postpone(self, spec: RunSpec) -> None:
        # The run needs what another one is training. It starts again later, with a new bar.
        self._bars.remove_task(self._runs.pop(spec.key))

    def on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        self._done += 1
        # A run that another process has trained has no bar here.
        if spec.key in self._runs:
            self._bars.remove_task(self._runs.pop(spec.key))
        self._update_suite(spec)

        self._print(f"[{self._done}/{self._total}] {_name(spec)}: {_result(record)}")
        for warning in record.warnings:
            if self._warnings and warning not in self._warned:
                self._print(f"warning: {warning}")
        self._warned.update(record.warnings)

        # The message of a DataError says everything. `nlbench show` has its traceback, too.
        trace = record.error.get("traceback", "") if record.error else ""
        if record.status == "failed" and trace and record.error_type != DataError.__name__:
            self._print(trace)

    def on_wait(self, count: int) -> None:
        note = f"waiting for {count} run{'s' * (count != 1)} that another process holds"
        self._bars.update(self._suite, note=note)
        # Reported again and again while it lasts; plain output has it once.
        if not self._live and not self._wait_reported:
            self._wait_reported = True
            self._print(note)

    # ---- Printing --------------------------------------------------------------------------------

    def _update_suite(self, spec: RunSpec) -> None:
        """Move the bar of the suite; the finished part of each run in training counts as well."""
        going = self._runs.values()
        parts = sum(task.percentage / 100 for task in self._bars.tasks if task.id in going)
        note = f"{self._done} of {self._total} runs · {spec.condition.title}"
        self._bars.update(self._suite, completed=self._done + parts, note=note)

    def _print(self, line: str) -> None:
        # rich would read square brackets in names and messages as its markup.
        self._console.print(line, markup=False, soft_wrap=True)


def _name(spec: RunSpec) -> str:
    return f"{spec.row} · {spec.condition.title} · seed {spec.seed}"


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
