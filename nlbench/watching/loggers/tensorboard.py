"""TensorBoard: a folder of event files for each run."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.watching.base import Logger, Metrics, WatchedRun, numbers

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord

PACKAGE = "tensorboard"

# Where the event files are, within the store.
FOLDER = "tensorboard"

# The longest part of a folder's name that comes from a row or a condition.
_LONGEST = 60


def open_logger(value: str, out: Path) -> Logger:
    """Return the logger. `value` is the folder of its event files; empty for one in the store."""
    return TensorBoard(Path(value) if value else out / FOLDER)


class TensorBoard:
    """Writes event files. Every metric of history.csv is a scalar of the same name."""

    def __init__(self, folder: Path):
        # Imported now, so that an installation that is broken is seen before anything is trained.
        from torch.utils.tensorboard import SummaryWriter

        self._make_writer = SummaryWriter
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._writers: dict[str, Any] = {}

    def begin(self, run: WatchedRun, fresh: bool) -> Collection[int]:
        """See Logger."""
        self._close_one(run)
        folder = self._folder_of(run)
        known = set() if fresh else _epochs_in(folder)
        # TensorBoard shows nothing of an earlier training that is written before a purge.
        purge = 0 if fresh and folder.exists() else None
        writer = self._make_writer(str(folder), purge_step=purge)
        self._writers[run.key] = writer
        if not known:
            writer.add_text("run", _as_text(run), 0)
        writer.flush()
        return known

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """See Logger."""
        writer = self._writers[run.key]
        for name, value in numbers(metrics).items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def ended(self, run: WatchedRun, record: RunRecord) -> None:
        """See Logger."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writers[run.key]
        results = {f"result/{name}": value for name, value in numbers(record.metrics).items()}
        for name, value in results.items():
            writer.add_scalar(name, value, run.epochs)
        if record.status != "done":
            writer.add_text("status", f"{record.status}: {record.error_message}", run.epochs)
        # `add_hparams` would write them to a folder of its own, which looks like another run.
        for summary in hparams(run.flat(), results):
            writer.file_writer.add_summary(summary)
        self._close_one(run)

    def close(self) -> None:
        """See Logger."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _close_one(self, run: WatchedRun) -> None:
        writer = self._writers.pop(run.key, None)
        if writer is not None:
            writer.close()

    def _folder_of(self, run: WatchedRun) -> Path:
        """Return the folder of a run: the one that it has already, or a new name with its key."""
        for folder in sorted(self._folder.glob(f"*/*/*-{run.key}")):
            return folder
        names = (_as_name(run.row), _as_name(run.condition), f"seed-{run.seed}-{run.key}")
        return self._folder.joinpath(*names)


def _epochs_in(folder: Path) -> set[int]:
    """Return the epochs that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import (
        SCALARS,
        EventAccumulator,
    )

    if not folder.is_dir():
        return set()
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    if "loss" not in events.Tags()[SCALARS]:
        return set()
    return {event.step for event in events.Scalars("loss")}


def _as_name(text: str) -> str:
    """Return a text as the name of a folder, whatever is in it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[:_LONGEST].strip("-.") or "-"


def _as_text(run: WatchedRun) -> str:
    """Return a run's name and settings in Markdown, as TensorBoard shows texts."""
    lines = [f"    {name}: {value}" for name, value in run.flat().items()]
    # An indented block, in which no character has a meaning.
    return "\n".join([f"    {run.name}", f"    key: {run.key}", *lines])
