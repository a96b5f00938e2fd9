"""Weights & Biases: a run of the project for each run, whose id is the run key."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.errors import UserError
from nlbench.files import make_folder, write_atomic
from nlbench.watching.base import Logger, Metrics, WatchedRun, numbers

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord

PACKAGE = "wandb"

# The longest tag and the longest group that Weights & Biases takes.
_TAG, _GROUP = 64, 128


def open_logger(value: str, out: Path) -> Logger:
    """Return the logger of the project `value`.

    Raises: UserError without a project, and where nobody is logged in.
    """
    if not value:
        raise UserError("the logger wandb needs the name of a project: wandb:PROJECT")
    # Only what is logged is sent, unless the user wants otherwise.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return Wandb(value, Path(os.environ.get("WANDB_DIR") or out))


class Wandb:
    """Sends runs to Weights & Biases, or writes them below `folder` where WANDB_MODE is offline."""

    def __init__(self, project: str, folder: Path):
        import wandb

        settings = wandb.setup().settings
        if settings.mode == "online" and not settings.api_key:
            raise UserError(
                "the logger wandb: nobody is logged in to Weights & Biases here; type `wandb "
                "login`, or set WANDB_API_KEY, or WANDB_MODE=offline to send the runs later with "
                "`wandb sync`"
            )
        self._wandb = wandb
        self._project = project
        self._folder = folder
        self._offline = settings.mode != "online"
        make_folder(folder)
        self._runs: dict[str, Any] = {}
        # Of each run, the first epoch that was not sent yet.
        self._next: dict[str, int] = {}
        # Of each run, the second in which it had begun last.
        self._begun: dict[str, int] = {}

    def begin(self, run: WatchedRun, fresh: bool) -> Collection[int]:
        """See Logger."""
        self._finish(run, 0)
        self._wait_for_another_second(run)
        opened = self._wandb.init(
            project=self._project,
            id=run.key,
            name=run.name,
            dir=str(self._folder),
            group=f"{run.suite} · {run.condition}"[:_GROUP],
            job_type=run.row[:_TAG],
            tags=[tag[:_TAG] for tag in run.tags],
            config=dict(run.config),
            # With "allow" a run of this id goes on, and without it begins anew.
            resume=None if fresh else "allow",
            reinit="create_new",
            settings=self._settings(),
        )
        self._begun[run.key] = int(time.time())
        self._runs[run.key] = opened
        # Steps must rise. A server knows how far it has come; offline nobody does.
        done = 0 if fresh else max(opened.step, self._noted(run))
        self._next[run.key] = done
        return range(done)

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """See Logger."""
        if epoch < self._next[run.key]:
            return
        self._runs[run.key].log(numbers(metrics), step=epoch)
        self._next[run.key] = epoch + 1
        if self._offline:
            self._note(run)

    def ended(self, run: WatchedRun, record: RunRecord) -> None:
        """See Logger."""
        summary = self._runs[run.key].summary
        summary.update({f"result/{name}": v for name, v in numbers(record.metrics).items()})
        summary["status"] = record.status
        if record.error_message:
            summary["error"] = record.error_message
        self._finish(run, 0 if record.status == "done" else 1)

    def close(self) -> None:
        """See Logger. Runs that have not ended are marked as failed until they go on."""
        for opened in self._runs.values():
            opened.finish(exit_code=1)
        self._runs.clear()

    def _finish(self, run: WatchedRun, status: int) -> None:
        opened = self._runs.pop(run.key, None)
        if opened is not None:
            opened.finish(exit_code=status)

    def _wait_for_another_second(self, run: WatchedRun) -> None:
        """Wait until a folder of this run has another name than the one before.

        The folder is named by the second and the run. A run that begins twice in one second would
        write over its own first file.
        """
        while int(time.time()) == self._begun.get(run.key):
            time.sleep(0.01)

    def _settings(self) -> Any:
        """Return settings by which only what nlbench logs is sent: no code, no printed lines."""
        return self._wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )

    # ---- How far a run has come that is not sent yet --------------------------------------------

    def _note_path(self, run: WatchedRun) -> Path:
        return self._folder / "wandb" / "epochs" / run.key

    def _noted(self, run: WatchedRun) -> int:
        try:
            return int(self._note_path(run).read_text())
        except (OSError, ValueError):
            return 0

    def _note(self, run: WatchedRun) -> None:
        path = self._note_path(run)
        make_folder(path.parent)
        count = f"{self._next[run.key]}\n"
        write_atomic(path, lambda file: file.write(count.encode()))
