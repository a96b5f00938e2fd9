"""Read transition matrices from files."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nlbench.errors import DataError


def read_matrix(path: Path, num_classes: int) -> np.ndarray:
    """Read T (C, C) float64, T[i, j] = P(noisy j | clean i).

    The suffix decides: .npy, .json (a list of lists), .csv (commas) or .txt (spaces).

    Raises: DataError, naming the file, unless it is square of the right size, not negative, and
        each line of it adds up to 1 within 1e-6.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(
            f"{path}: a matrix is read from {', '.join(_READERS)}, "
            f"not from {path.suffix or 'such files'!r}"
        )
    try:
        T = np.asarray(reader(path), np.float64)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a matrix of numbers ({error})") from error

    if T.shape != (num_classes, num_classes):
        raise DataError(f"{path}: T must be {num_classes} x {num_classes}, got shape {T.shape}")
    # Written this way because a NaN is not >= 0 either.
    if not (T >= 0).all():
        raise DataError(
            f"{path}: T holds probabilities, from 0 to 1; its smallest entry is {T.min()}"
        )

    sums = T.sum(1)
    worst = int(abs(sums - 1).argmax())

    # Written with `not`, because every comparison with NaN is false.
    if not abs(sums[worst] - 1) <= 1e-6:
        raise DataError(
            f"{path}: each row of T must add up to 1, row {worst} adds up to {sums[worst]:.8g}"
        )
    return T


def _read_npy(path: Path) -> object:
    # A pickled array could run code.
    return np.load(path, allow_pickle=False)


def _read_csv(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [cells for cells in csv.reader(lines) if cells]


def _read_txt(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.split() for line in lines if line.strip()]


def _read_json(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


_READERS: dict[str, Callable[[Path], object]] = {
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".txt": _read_txt,
    ".json": _read_json,
}
