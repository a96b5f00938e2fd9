"""Transition matrices from files."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.errors import DataError


def read_matrix(path: Path, num_classes: int) -> np.ndarray:
    """T (C, C) float64, T[i, j] = P(noisy j | clean i), from .npy, .json (list of rows), .csv (commas), .txt (spaces).

    Raises: DataError, naming the file, unless it is square of the right size, not negative, and each row adds up to 1
    within 1e-6.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(
            f"{path}: a matrix is read from {', '.join(_READERS)}, not from {path.suffix or 'such files'!r}"
        )
    try:
        T = np.asarray(reader(path), np.float64)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a matrix of numbers ({error})") from error
    if T.shape != (num_classes, num_classes):
        raise DataError(f"{path}: T must be {num_classes} x {num_classes}, got shape {T.shape}")
    if not (T >= 0).all():  # NaN is not >= 0 either
        raise DataError(f"{path}: T holds probabilities, from 0 to 1; its smallest entry is {T.min()}")
    sums = T.sum(1)
    worst = int(abs(sums - 1).argmax())
    if not abs(sums[worst] - 1) <= 1e-6:
        raise DataError(f"{path}: each row of T must add up to 1, row {worst} adds up to {sums[worst]:.8g}")
    return T


def _read_csv(path: Path) -> list[list[str]]:
    return [row for row in csv.reader(path.read_text(encoding="utf-8-sig").splitlines()) if row]


def _read_txt(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".csv": _read_csv,
    ".txt": _read_txt,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
}
