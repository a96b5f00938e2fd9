"""A logger in a process of its own.

The packages of trackers change the process that imports them: they set environment variables,
replace functions, start threads, and wait for the network when the process ends. In a process of
their own they cannot change a training, and can be ended.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.errors import UserError
from nlbench.watching.base import Logger, Metrics, WatchedRun

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord

# How long the process may take to end, once its logger is closed.
_END_SECONDS = 5.0

# Of what the process has printed, so many of the last characters are shown if it dies.
_TAIL = 300


class Apart:
    """Passes the calls of a logger on to another process, and waits for each.

    Args:
        name, value: as `choice.Choice`.
        out: the store.
    """

    def __init__(self, name: str, value: str, out: Path):
        self._told = (name, value, out)
        self._process: subprocess.Popen[bytes] | None = None
        # What the packages print would tear apart the lines of the progress.
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        # Packages leave folders behind that they remove only where their process ends by itself.
        self._scratch = tempfile.TemporaryDirectory(
            prefix="nlbench-logger-", ignore_cleanup_errors=True
        )

    def started(self) -> Logger:
        """Start the process, and return this object when its logger is there.

        Raises: UserError of the logger; RuntimeError for another error.
        """
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from nlbench.watching import serve; "
            "serve.main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**os.environ, "TMPDIR": self._scratch.name},
            # Ctrl-C in a terminal must not reach it: it still has to write what is waiting.
            start_new_session=True,
        )
        try:
            self._ask("open", *self._told)
        except BaseException:
            self.kill()
            raise
        return self

    def begin(self, run: WatchedRun, fresh: bool) -> Collection[int]:
        """See Logger."""
        known: Collection[int] = self._ask("begin", run, fresh)
        return known

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """See Logger."""
        self._ask("epoch", run, epoch, metrics)

    def ended(self, run: WatchedRun, record: RunRecord) -> None:
        """See Logger."""
        self._ask("ended", run, record)

    def close(self) -> None:
        """See Logger. The process ends."""
        self._ask("close")
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # The logger has said that everything is written.
            process.kill()
            process.wait()
        self._scratch.cleanup()

    def kill(self) -> None:
        """End the process at once. A call that waits for it then raises."""
        if self._process is not None:
            self._process.kill()
        self._scratch.cleanup()

    def _ask(self, call: str, *values: Any) -> Any:
        """Have the process call its logger, and return what that has returned."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the process of the logger was not started")
        try:
            pickle.dump((call, values), process.stdin)
            process.stdin.flush()
            kind, value = pickle.load(process.stdout)
        except (OSError, EOFError):
            raise RuntimeError(f"its process has ended{self._last_words()}") from None

        if kind == "refused":
            raise UserError(value)
        if kind == "error":
            raise RuntimeError(value)
        return value

    def _last_words(self) -> str:
        """Return the end of what the process has printed, after a colon; empty for nothing."""
        self._printed.seek(0)
        text = " ".join(self._printed.read().decode(errors="replace").split())
        return f": {text[-_TAIL:]}" if text else ""
