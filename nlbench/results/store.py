"""The record store: one folder of finished runs, shared by suites.

    OUT/runs/<key>/record.json       present as soon as the run has ended, and not before
    OUT/runs/<key>/history.csv       the metrics of each epoch
    OUT/runs/<key>/predictions.npz
    OUT/runs/<key>/checkpoint.pt     while the run is going
    OUT/runs/<key>/lock              likewise
    OUT/suites/<name>.json           the plan that `nlbench table` reads
    OUT/fits/<key>.pt                helper networks that several methods share

A file appears whole or not at all, and nothing that was finished is ever deleted.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nlbench.errors import StoreError
from nlbench.files import write_atomic
from nlbench.plan.spec import key_of
from nlbench.results.lock import hold
from nlbench.results.record import RunRecord

if TYPE_CHECKING:
    import numpy as np

Warn = Callable[[str], None]

# What tables and other commands read of a plan. A plan that lacks one of them is of another
# version.
_PLAN_KEYS = (
    "cells",
    "conditions",
    "notes",
    "protocol",
    "rows",
    "seeds",
    "suite",
    "track",
    "tries",
)


def _json_bytes(value: Mapping[str, object]) -> bytes:
    # With sorted keys, equal values give equal bytes. NaN is refused, because JSON has none.
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()


class Store:
    """The folder OUT. Reading needs no preparation; before writing, call `require_writable`.

    Args:
        root: the folder; it need not exist.
        warn: called with one line for each corrupt file.
    """

    def __init__(self, root: str | Path, warn: Warn = lambda line: None) -> None:
        self.root = Path(root)
        self.warn = warn
        self._reported: set[Path] = set()

    def require(self) -> None:
        """Raise StoreError for a folder that is not there or holds no records."""
        if (self.root / "runs").is_dir():
            return
        if not self.root.exists():
            raise StoreError(f"{self.root}: there is no such folder; out is the folder of records")
        if not self.root.is_dir():
            raise StoreError(f"{self.root}: is a file; out is the folder of records")

        hint = ""
        inner = sorted(folder.parent for folder in self.root.glob("*/runs") if folder.is_dir())
        if self.root.name == "runs":
            hint = f" Did you mean {str(self.root.parent)!r}?"
        elif inner:
            hint = f" Did you mean {str(inner[0])!r}?"
        raise StoreError(f"{self.root}: holds no records, because it has no folder `runs`.{hint}")

    def require_writable(self) -> None:
        """Make the folders and write a file for a try. Raises StoreError."""
        # Called before the first run, so that no training is lost to a folder that is read only.
        probe = self.root / "runs" / ".probe"
        try:
            for name in ("runs", "suites", "fits"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            write_atomic(probe, lambda file: None)
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"{self.root}: cannot write the records there ({error.strerror}): "
                "choose another folder with --out"
            ) from None

    # ---- Runs -----------------------------------------------------------------------------------

    def run_dir(self, key: str) -> Path:
        """Return the folder of one run."""
        return self.root / "runs" / key

    def run_keys(self) -> list[str]:
        """Return the keys of all runs that ended."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/record.json"))

    def read(self, key: str) -> RunRecord | None:
        """Return a record; None for one that is missing or corrupt.

        A corrupt record is reported once. It stays where it is until `write` renames it.

        Raises: StoreError for a store that cannot be read, or a record of a later version.
        """
        path = self.run_dir(key) / "record.json"
        try:
            record = RunRecord.from_json(path.read_bytes())
            # A folder that was renamed or a spec that was edited would give another run's result.
            if record.key != key or key_of(record.spec) != key:
                raise ValueError(f"it describes the run {key_of(record.spec)}, not {key}")
            return record
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(
                f"{self.root}: cannot be read as a record store ({error.strerror})"
            ) from None
        except ValidationError as error:
            self._report_corrupt(path, error.errors()[0]["msg"])
        except ValueError as error:
            self._report_corrupt(path, str(error))
        return None

    def _report_corrupt(self, path: Path, reason: str) -> None:
        if path in self._reported:
            return
        self._reported.add(path)
        self.warn(
            f"{path}: corrupt record: {reason}; it counts as missing, "
            "and its run will be trained again"
        )

    def write(
        self,
        record: RunRecord,
        history: Sequence[Mapping[str, object]],
        predictions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write a run that ended. The file record.json comes last, because it marks the end.

        Args:
            history: the metrics of each epoch; all have the keys of the first.
            predictions: arrays by name, for predictions.npz.
        """
        folder = self.run_dir(record.key)
        # Nothing is ever deleted, not even a record that cannot be read.
        if (folder / "record.json").exists() and self.read(record.key) is None:
            self.set_aside(folder / "record.json", "corrupt record")

        if history:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(history[0]))
            writer.writeheader()
            writer.writerows(history)
            write_atomic(folder / "history.csv", lambda file: file.write(text.getvalue().encode()))

        if predictions is not None:
            # Imported here, because tables read records and do without NumPy.
            import numpy as np

            # The stubs of numpy take a keyword for one of the options.
            arrays: dict[str, Any] = dict(predictions)
            write_atomic(
                folder / "predictions.npz", lambda file: np.savez_compressed(file, **arrays)
            )

        # Last: a process that is killed before this line leaves a run that is not done.
        payload = _json_bytes(record.as_json())
        write_atomic(folder / "record.json", lambda file: file.write(payload))

        # A run that failed, for example because the disk was full, continues from its checkpoint.
        if record.status != "failed":
            (folder / "checkpoint.pt").unlink(missing_ok=True)

    def set_aside(self, path: Path, reason: str) -> None:
        """Rename a file that cannot be used, so that it is kept and its run can be done again."""
        # The first number that is free: an earlier file of this name is kept, too.
        for number in range(1, 1000):
            other = path.with_name(f"{path.name}.corrupt-{number}")
            if not other.exists():
                break
        os.replace(path, other)
        self.warn(f"{path}: {reason}; set aside as {other.name}")

    # ---- Plans ----------------------------------------------------------------------------------

    def write_plan(self, plan: Mapping[str, object]) -> None:
        """Write the plan of a suite, in place of an older one of the same name."""
        payload = _json_bytes(plan)
        path = self.root / "suites" / f"{plan['suite']}.json"
        write_atomic(path, lambda file: file.write(payload))

    def plan(self, name: str) -> dict[str, Any] | None:
        """Return the plan of one suite; None where there is none. Raises StoreError."""
        path = self.root / "suites" / f"{name}.json"
        try:
            plan = json.loads(path.read_bytes())
            if not isinstance(plan, dict) or not plan.keys() >= set(_PLAN_KEYS):
                raise ValueError(
                    f"not a plan of this version of nlbench, with {', '.join(_PLAN_KEYS)}"
                )
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(
                f"{path}: not readable ({error}); remove it and run the suite again"
            ) from None
        return plan

    def plans(self) -> dict[str, dict[str, Any]]:
        """Return the plan of every suite that was run into this store, by name.

        Raises: StoreError when there is none, or when one cannot be read.
        """
        plans = {}
        for path in sorted(self.root.glob("suites/*.json")):
            plan = self.plan(path.stem)
            if plan is not None:
                plans[path.stem] = plan

        if not plans:
            raise StoreError(
                f"{self.root}: has no results of any suite; "
                f"`nlbench run SUITE --out {self.root}` makes them"
            )
        return plans

    # ---- Locks ----------------------------------------------------------------------------------

    def lock(self, key: str) -> contextlib.AbstractContextManager[bool]:
        """Hold the run `key` against other processes; see `hold`.

        Removes the temporary files that a killed process left in the run's folder.
        """
        return hold(self.run_dir(key) / "lock", leftovers=".*.tmp")

    def release(self, key: str, pid: int) -> None:
        """Clear the lock that the dead process `pid` of this host left.

        On a file system without flock it would otherwise be valid until its heartbeat is too old.
        """
        lock = self.run_dir(key) / "lock"
        if lock.exists() and lock.read_text().split() == [socket.gethostname(), str(pid)]:
            lock.write_text("")
