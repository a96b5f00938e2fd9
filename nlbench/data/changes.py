"""Files that a run reads while it trains: are they still those that it has begun with?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, ImageFiles
from nlbench.errors import DataError

# Of the time between two checks, so much may be spent on looking at image files.
_SHARE = 0.02


# Number, size and time of a file.
State = tuple[int, int, int]


class DataChanged(DataError):
    """The data of a run is not that of its key any more."""


@dataclass
class Watched:
    """The files of a run's images, with their states when it began."""

    _mapped: dict[str, State | None] = field(default_factory=dict)
    _files: dict[str, State | None] = field(default_factory=dict)
    _next: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, parts: Iterable[object]) -> Watched:
        """Watch images as a dataset has them. What is in memory alone cannot change."""
        self = cls()
        for part in parts:
            if isinstance(part, ImageFiles):
                for i in range(len(part)):
                    path = part.path(i)
                    self._files[path] = _state(path)
            elif (mapped := _file_of(part)) is not None:
                self._mapped[mapped] = _state(mapped)
        return self

    @property
    def sees_all(self) -> bool:
        """Whether every check looks at all files."""
        return not self._files

    def require_same(self, final: bool) -> None:
        """Raise DataChanged, naming the file, if one of them has changed.

        Args:
            final: look at all files. Else a million image files are not looked at each time.
        """
        for path, state in self._mapped.items():
            # What was mapped stays as it was if its name is gone, or names another file by now.
            found = _state(path)
            if found is not None and state is not None and found[0] == state[0]:
                _require(path, state, found)
        now = time.monotonic()
        if self._files and (final or now >= self._next):
            for path, state in self._files.items():
                _require(path, state, _state(path))
            self._next = time.monotonic() + (time.monotonic() - now) / _SHARE


def _require(path: str, state: State | None, now: State | None) -> None:
    if now == state:
        return
    what = "was changed" if now else "is not there any more: it was removed or renamed"
    raise DataChanged(
        f"{path}: {what} while a run was trained on it, so the run is not kept. Put the file "
        "back, or leave it as it is now; then the same command goes on"
    )


def _state(path: str) -> State | None:
    """Return what changes when a file is changed or replaced; None for one that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _file_of(part: object) -> str | None:
    """Return the file that an array is mapped from, if it is."""
    while isinstance(part, np.ndarray):
        name = getattr(part, "filename", None)
        if name is not None:
            return os.fspath(name)
        part = part.base
    return None


# ---- Between the planning of a suite and a run ---------------------------------------------------


def since_planned(
    dataset: Dataset, found: str, planned: str, files: Iterable[Path], folder: str
) -> DataChanged:
    """Return the error for data that is not the data which the suite was planned with.

    Args:
        found, planned: the fingerprints.
        files: what the dataset was read from.
        folder: the folder that a suite names; else "".
    """
    last = _changed_last([*files, *_below(folder)])
    where = f"; changed last: {last}" if last else ""
    return DataChanged(
        f"{folder or dataset.info.title}: the data was changed since the suite was planned "
        f"(fingerprint {found}, planned {planned}){where}. Put it back, or start the same command "
        "again, which plans the suite with the data as it is now"
    )


def _below(folder: str) -> Iterable[Path]:
    for place, _, names in os.walk(folder) if folder else ():
        yield Path(place)
        yield from (Path(place, name) for name in names)


def _changed_last(paths: Iterable[Path]) -> Path | None:
    times = {}
    for path in paths:
        try:
            times[path] = path.stat().st_ctime_ns
        except OSError:
            # It was removed meanwhile.
            continue
    return max(times, key=lambda path: (times[path], path.is_file())) if times else None
