"""Write features part by part, so that a killed process loses one part at most."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from nlbench.errors import DataError, SuiteError
from nlbench.files import flock, make_folder, remove, replacing, write_atomic

# What reading a part raises that was cut short or damaged.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Parts:
    """The folder FILE.parts beside the file that is to be written.

    Attributes:
        to: the file.
        plan: everything that decides about the features, as JSON has it. Parts of another plan are
            refused.
    """

    to: Path
    plan: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the parts."""
        return self.to.with_name(f"{self.to.name}.parts")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and hold it against other processes within a `with` block.

        Raises: SuiteError where another process holds it, or where it belongs to other features;
            NotWritten.
        """
        make_folder(self.folder)
        with (self.folder / "lock").open("ab") as lock:
            if flock(lock, wait=False) == "busy":
                raise SuiteError(f"{self.folder}: another process is writing {self.to.name}")
            self._check_plan()
            yield

    def _check_plan(self) -> None:
        file = self.folder / "plan.json"
        if not file.is_file():
            text = json.dumps(self.plan, indent=1)
            write_atomic(file, lambda stream: stream.write(text.encode()))
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        other = [name for name, value in self.plan.items() if found.get(name) != value]
        if other:
            raise SuiteError(
                f"{self.folder}: holds parts of other features: {', '.join(other)} differ. Remove "
                "this folder, or name another file"
            )

    def kept(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a part: those that were kept, or what `make()` returns.

        The array `seconds` () float64 is among them: how long `make()` has taken.

        Raises: NotWritten; what `make` raises.
        """
        found = self._read(name)
        if found is None:
            began = time.monotonic()
            found = make()
            found["seconds"] = np.array(time.monotonic() - began)
            # Made in memory, because np.savez would hide an error of the disk.
            stream = io.BytesIO()
            np.savez(stream, allow_pickle=False, **found)
            write_atomic(self._file(name), lambda file: file.write(stream.getbuffer()))
        return found

    def _read(self, name: str) -> Arrays | None:
        """Return the arrays of a part; None where it is not there, or damaged."""
        try:
            with np.load(self._file(name), allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        except _DAMAGE:
            return None

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def finish(
        self, features: Mapping[str, Sequence[str]], others: Mapping[str, np.ndarray]
    ) -> None:
        """Write the file, and remove the folder.

        Args:
            features: the parts of each array of features, in the order of the rows.
            others: the other arrays of the file.
        Raises: NotWritten. No half file is left then, and the parts stay.
        """
        with replacing(self.to) as stream, zipfile.ZipFile(stream, "w") as archive:
            for name, parts in features.items():
                self._join(archive, name, parts)
            for name, array in others.items():
                with _member(archive, name) as file:
                    npy.write_array(file, array, allow_pickle=False)
        remove(self.folder)

    def _join(self, archive: zipfile.ZipFile, name: str, parts: Sequence[str]) -> None:
        """Write the features of several parts as one array. One part at a time is in memory."""
        rows, dims = 0, 0
        for part in parts:
            rows += len(self._features(part))
            dims = self._features(part).shape[1]
        header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dims)}
        with _member(archive, name) as file:
            npy.write_array_header_1_0(file, header)
            for part in parts:
                file.write(self._features(part).astype("<f2").tobytes())

    def _features(self, part: str) -> np.ndarray:
        found = self._read(part)
        if found is None:
            raise DataError(
                f"{self._file(part)}: cannot be read back; the same command makes it again"
            )
        return found["features"]


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open a member of an archive for writing, as np.savez names it."""
    # Without the time of day, so that the same arrays are the same bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
