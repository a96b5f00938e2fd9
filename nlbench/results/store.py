"""Records: one content-addressed store on disk, shared by suites. Whole or not there; nothing finished is ever lost.

OUT/runs/<key>/record.json, history.csv, predictions.npz; checkpoint.pt and lock while a run is going
OUT/suites/<name>.json, the plan that `table` reads
OUT/fits/<key>.pt, helper networks that several methods share
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from nlbench.errors import StoreError
from nlbench.files import write_atomic
from nlbench.plan.spec import key_of
from nlbench.results.lock import hold

Warn = Callable[[str], None]


class RunRecord(BaseModel):
    """One finished run: done, diverged (a loss that is not finite) or failed (an error, with its traceback)."""

    model_config = ConfigDict(extra="ignore")  # a later version's record may hold more

    key: str
    status: Literal["done", "diverged", "failed"]
    spec: dict[str, Any]  # RunSpec.identity()
    metrics: dict[str, Any]  # accuracies in [0, 1]; empty unless done
    noise: dict[str, Any]  # measured rates, hash of the given labels, counts
    timing: dict[str, Any]  # seconds
    environment: dict[str, Any]  # versions, device, threads, backend
    method: dict[str, Any]  # told, networks, forward passes a step, what it estimated
    code: str  # hash of the code the numbers depend on
    warnings: list[str] = []
    error: dict[str, Any] | None = None  # of a run that is not done: epoch, step, message, traceback


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


_PLAN_KEYS = {"suite", "track", "protocol", "notes", "tries", "rows", "conditions", "seeds", "cells"}


class Store:
    """The folder OUT. Reading needs nothing; writing needs `require_writable` first.

    Args:
        root: the folder; it need not exist.
        warn: called with a line about each corrupt file that was set aside.
    """

    def __init__(self, root: str | Path, warn: Warn = lambda line: None):
        self.root, self.warn = Path(root), warn
        self._said = set[Path]()

    def require_writable(self) -> None:
        """Make the folders and try to write. Raises StoreError."""
        try:
            for name in ("runs", "suites", "fits"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            write_atomic(self.root / "runs" / ".probe", lambda file: None)
            (self.root / "runs" / ".probe").unlink()
        except OSError as error:
            raise StoreError(
                f"{self.root}: cannot write the records there ({error.strerror}): choose another folder with --out"
            ) from None

    def run_dir(self, key: str) -> Path:
        return self.root / "runs" / key

    def read(self, key: str) -> RunRecord | None:
        """The record, or None. A corrupt one is said once and counts as not there; `write` sets it aside."""
        path = self.run_dir(key) / "record.json"
        try:
            record = RunRecord.model_validate_json(path.read_bytes())
            if record.key != key or key_of(record.spec) != key:
                raise ValueError(f"it describes the run {key_of(record.spec)}, not {key}")
            return record
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.root}: cannot be read as a record store ({error.strerror})") from None
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            if path not in self._said:
                self._said.add(path)
                self.warn(f"{path}: corrupt record: {reason}; it counts as missing, and that run is to be done again")
            return None

    def set_aside(self, path: Path, reason: str) -> None:
        """Rename a file that cannot be used, so that nothing is lost and its run is done again."""
        for number in range(1, 1000):
            other = path.with_name(f"{path.name}.corrupt-{number}")
            if not other.exists():
                break
        os.replace(path, other)
        self.warn(f"{path}: {reason}; set aside as {other.name}")

    def write(
        self, record: RunRecord, history: Sequence[dict[str, Any]], predictions: dict[str, Any] | None = None
    ) -> None:
        """Write a finished run; record.json comes last, its presence is what makes the run finished."""
        folder = self.run_dir(record.key)
        if (folder / "record.json").exists() and self.read(record.key) is None:
            self.set_aside(folder / "record.json", "corrupt record")
        if history:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)
            write_atomic(folder / "history.csv", lambda file: file.write(text.getvalue().encode()))
        if predictions is not None:
            import numpy as np

            write_atomic(folder / "predictions.npz", lambda file: np.savez_compressed(file, **predictions))
        payload = _json_bytes(record.model_dump())
        write_atomic(folder / "record.json", lambda file: file.write(payload))
        if record.status != "failed":  # after an error from outside, such as a full disk, the next try goes on from it
            (folder / "checkpoint.pt").unlink(missing_ok=True)

    def run_keys(self) -> list[str]:
        """Keys of all finished runs."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/record.json"))

    def write_plan(self, plan: dict[str, Any]) -> None:
        payload = _json_bytes(plan)
        write_atomic(self.root / "suites" / f"{plan['suite']}.json", lambda file: file.write(payload))

    def plan(self, name: str) -> dict[str, Any] | None:
        """The plan of one suite, or None. Raises StoreError when it is not readable."""
        path = self.root / "suites" / f"{name}.json"
        try:
            plan = json.loads(path.read_bytes())
            if not isinstance(plan, dict) or not plan.keys() >= _PLAN_KEYS:
                raise ValueError(f"not a plan of this version of nlbench, with {', '.join(sorted(_PLAN_KEYS))}")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{path}: not readable ({error}); remove it and run the suite again") from None
        return plan

    def plans(self) -> dict[str, dict[str, Any]]:
        """Every suite run into this store, by name. Raises StoreError when there is none, or one is not readable."""
        names = [path.stem for path in sorted(self.root.glob("suites/*.json"))]
        plans = {name: plan for name in names if (plan := self.plan(name)) is not None}
        if not plans:
            raise StoreError(f"{self.root}: holds no suite's results; `nlbench run SUITE --out {self.root}` makes them")
        return plans

    def release(self, key: str, pid: int) -> None:
        """Undo the lock that process `pid` of this host, which has ended, left: without flock it would count on."""
        lock = self.run_dir(key) / "lock"
        if lock.exists() and lock.read_text().split() == [socket.gethostname(), str(pid)]:
            lock.write_text("")

    def lock(self, key: str) -> contextlib.AbstractContextManager[bool]:
        """Hold the run `key` against other processes; see `hold`. Removes what a killed process left half written."""
        return hold(self.run_dir(key) / "lock", leftovers=".*.tmp")
