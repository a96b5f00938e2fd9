"""Progress on standard error: a live line for the suite and one for the run; plain lines where it is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from nlbench.executors.local import Listener
from nlbench.records import RunRecord
from nlbench.suite import RunSpec


class Progress:
    """A context manager; `listener()` is what an executor reports to.

    Args:
        total: runs to do.
        titles: condition -> how it is printed.
    """

    def __init__(self, total: int, titles: dict[tuple[str, str, str], str]):
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._titles, self._total, self._done = titles, total, 0
        self._started = time.monotonic()
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(), console=self._console, transient=True, disable=not self._live,
        )  # fmt: skip
        self._suite = self._bars.add_task("suite", total=max(total, 1), note="", visible=total > 0)
        self._run = self._bars.add_task("run", total=1, note="", visible=False)
        self._name = ""

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bars.stop()

    def listener(self) -> Listener:
        return Listener(
            on_start=self._on_start,
            on_epoch=self._on_epoch,
            on_fit=self._on_fit,
            on_resume=self._on_resume,
            on_finish=self._on_finish,
            on_wait=self._on_wait,
        )

    def _on_start(self, spec: RunSpec, number: int, total: int) -> None:
        self._name = f"{spec.row} · {self._titles[spec.condition]} · seed {spec.seed}"
        self._run_started = time.monotonic()
        self._bars.update(self._suite, note=f"{number - 1} of {total} runs")
        self._bars.reset(self._run, total=spec.protocol["epochs"], description=self._name, note="", visible=True)

    def _on_epoch(self, epoch: int, epochs: int, row: dict[str, Any]) -> None:
        note = (
            f"epoch {epoch + 1}/{epochs}  loss {row['loss']:.3f}  test {100 * row['test_accuracy']:.2f}%  "
            f"{row['images_per_second']:,.0f} images/s"
        )
        self._bars.update(self._run, completed=epoch + 1, total=epochs, note=note)

    def _on_fit(self, epoch: int, epochs: int, row: dict[str, Any]) -> None:
        note = f"helper network, epoch {epoch + 1}/{epochs}  loss {row['loss']:.3f}"
        self._bars.update(self._run, completed=epoch + 1, total=epochs, note=note)

    def _on_resume(self, epoch: int, epochs: int) -> None:
        self._console.print(f"{self._name}: goes on at epoch {epoch + 1} of {epochs}", markup=False, soft_wrap=True)

    def _on_finish(self, spec: RunSpec, record: RunRecord) -> None:
        self._done += 1
        self._bars.update(self._suite, completed=self._done, note=f"{self._done} of {self._total} runs")
        name = f"{spec.row} · {self._titles[spec.condition]} · seed {spec.seed}"
        if record.status == "done":
            seconds = record.timing["train"] + record.timing["evaluate"]
            result = f"{100 * record.metrics['last']:.2f}% ({seconds:.1f} s)"
        else:
            result = f"{record.status}: {(record.error or {}).get('message', '')}"
        self._console.print(f"[{self._done}/{self._total}] {name}: {result}", markup=False, soft_wrap=True)
        if record.status == "failed" and record.error:
            self._console.print(record.error["traceback"], markup=False, soft_wrap=True)

    def _on_wait(self, count: int) -> None:
        note = f"waiting for {count} runs that another process holds"
        self._bars.update(self._suite, note=note)
        if not self._live and not getattr(self, "_said_wait", False):
            self._said_wait = True
            self._console.print(note, markup=False)


@contextlib.contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for a download; yields update(done_bytes, total_bytes)."""
    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)
