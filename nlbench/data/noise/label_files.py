"""Label arrays: checks, a hash, and the file formats that people keep them in."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from nlbench.data.formats.safe_pickle import read_torch
from nlbench.errors import DataError, did_you_mean
from nlbench.files import replacing, short_hash

# ---- Checks and a hash ---------------------------------------------------------------------------


def as_labels(values: object, where: str | Path) -> np.ndarray:
    """Return integers of any type, an array or a list, as (N,) int64.

    Raises: DataError, naming `where`.
    """
    try:
        labels = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where}: labels must be one integer per example ({error})") from None

    # Floats are refused, because probabilities would silently become zeros.
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels must be integers of shape (N,), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64)


def check_labels(
    labels: np.ndarray, num_examples: int, num_classes: int, where: str | Path
) -> None:
    """Raise DataError unless each of `num_examples` has a label in [0, num_classes)."""
    if len(labels) != num_examples:
        raise DataError(
            f"{where}: {len(labels)} labels, it must have one for each of {num_examples} training "
            f"examples"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DataError(
            f"{where}: labels must be in [0, {num_classes}), "
            f"got {labels[wrong[0]]} at position {wrong[0]}{more}"
        )


def labels_hash(labels: np.ndarray) -> str:
    """Return the first 16 hex digits of the sha256 over the labels as little-endian int64."""
    return short_hash(np.ascontiguousarray(labels, "<i8").data)


# ---- Reading -------------------------------------------------------------------------------------


def read_labels(path: Path, key: str = "") -> np.ndarray:
    """Read labels (N,) int64; the suffix of the file decides how.

    - .npy: an array of integers.
    - .pt: an array, list or tensor, or one under `key` in a dict.
    - .csv: a column `label`, and possibly `index` with each position 0..N-1 once; or one column of
      numbers without a header.
    - .json: a plain list of integers, as DivideMix saves its noise.

    Raises: DataError, naming the file, when it cannot be read or holds anything else.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(
            f"{path}: labels are read from {', '.join(_READERS)}, "
            f"not from {path.suffix or 'such files'!r}"
        )
    try:
        content = reader(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return as_labels(_entry(content, key, path), path)


def _entry(content: object, key: str, path: Path) -> object:
    """Return content[key] where the content is a dict, else the content itself."""
    if not isinstance(content, dict):
        if key:
            raise DataError(
                f"{path}: key {key!r} was asked for, but the file holds labels alone; "
                f"leave the key out"
            )
        return content

    if key not in content:
        known = [str(name) for name in content]
        problem = f"has no key {key!r}" if key else "holds several things by name"
        raise DataError(
            f"{path}: {problem}; set key to one of: {', '.join(known)}.{did_you_mean(key, known)}"
        )
    return content[key]


def _read_npy(path: Path) -> np.ndarray:
    # A pickled array could run code.
    labels = np.load(path, allow_pickle=False)
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{path}: is an archive of arrays; save the labels alone, with numpy.save")
    return labels


def _read_json(path: Path) -> list[object]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise DataError(
            f"{path}: must be a plain list of integers, got a JSON {type(content).__name__}"
        )
    return content


def _read_csv(path: Path) -> np.ndarray:
    lines = _csv_cells(path)

    # A first line of numbers is no header: then the file is one column of labels.
    names = ["label"]
    if lines and not all(_is_number(cell) for cell in lines[0]):
        names = lines.pop(0)
    if "label" not in names:
        raise DataError(f"{path}: has no column 'label', only {', '.join(map(repr, names))}")

    labels = _column(lines, names, "label", path)
    if "index" not in names:
        return labels

    # A file in any order is put in order by its index.
    index = _column(lines, names, "index", path)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        raise DataError(
            f"{path}: 'index' must hold every position 0..{len(index) - 1} exactly once"
        )
    ordered = np.empty_like(labels)
    ordered[index] = labels
    return ordered


def _csv_cells(path: Path) -> list[list[str]]:
    """Read the lines that are not empty, without spaces around a cell."""
    lines = []
    for line in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))):
        cells = [cell.strip() for cell in line]

        # Spreadsheets leave empty lines at the end.
        if any(cells):
            lines.append(cells)
    return lines


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(
    lines: Sequence[Sequence[str]], names: Sequence[str], name: str, path: Path
) -> np.ndarray:
    """Return one column as int64. Raises DataError, naming the line by its number from 0."""
    place = names.index(name)
    values = np.empty(len(lines), np.int64)
    for i, cells in enumerate(lines):
        if len(cells) != len(names):
            raise DataError(
                f"{path}: row {i} has {len(cells)} columns, "
                f"expected {len(names)}: {', '.join(names)}"
            )
        try:
            # int() refuses 1.5 and nan, which NumPy would turn into integers.
            values[i] = int(cells[place])
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}: {name} in row {i} must be an integer, got {cells[place]!r}"
            ) from None
    return values


_READERS: dict[str, Callable[[Path], object]] = {
    ".npy": _read_npy,
    ".pt": read_torch,
    ".csv": _read_csv,
    ".json": _read_json,
}


# ---- Writing -------------------------------------------------------------------------------------


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels (N,) for other people's code, whole or not at all; the suffix decides how.

    - .npy: int64.
    - .csv: the columns index and label.
    - .json: a plain list, as DivideMix reads its noise file.
    - .pt: an int64 tensor that torch.load(weights_only=True) reads.

    Raises: ValueError for another suffix; DataError when the file cannot be written.
    """
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise ValueError(
            f"{path}: labels are written as {', '.join(_WRITERS)}, "
            f"not as {path.suffix or 'such files'!r}"
        )
    try:
        with replacing(path) as file:
            writer(file, as_labels(labels, "labels"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _write_npy(file: IO[bytes], labels: np.ndarray) -> None:
    np.save(file, labels)


def _write_csv(file: IO[bytes], labels: np.ndarray) -> None:
    file.write(b"index,label\n")
    for i, label in enumerate(labels):
        file.write(b"%d,%d\n" % (i, label))


def _write_json(file: IO[bytes], labels: np.ndarray) -> None:
    file.write(json.dumps(labels.tolist()).encode())


def _write_pt(file: IO[bytes], labels: np.ndarray) -> None:
    # Imported here, because reading and the other forms do without torch.
    import torch

    torch.save(torch.from_numpy(labels), file)


_WRITERS: dict[str, Callable[[IO[bytes], np.ndarray], None]] = {
    ".npy": _write_npy,
    ".pt": _write_pt,
    ".csv": _write_csv,
    ".json": _write_json,
}
