"""Turn what a label file holds, cells of text or arrays of any type, into class numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlbench.data.base import Info
from nlbench.data.formats.columns import is_no_class
from nlbench.errors import DataError, did_you_mean, shown


def from_cells(
    cells: Sequence[object], lines: Sequence[int], where: Path, column: str, info: Info | None
) -> np.ndarray:
    """Return cells of text or numbers as (N,) int64.

    They are class numbers from 0, or names of the dataset's classes. Numbers that do not fit are
    names where the classes are called so, as in folders "1", "2" and "3".

    Args:
        lines: the line of each cell, for errors; empty where the file has none.
    Raises: DataError, naming the first cell that is neither.
    """
    place = _Place(where, column, lines)
    _require_labels(cells, place)

    names = info.class_names if info else ()
    number_of = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names)}
    by_name = [number_of.get(unicodedata.normalize("NFC", str(cell)), -1) for cell in cells]
    numbers = [_integer(cell) for cell in cells]

    if None not in numbers:
        labels = np.array(numbers, np.int64)
        fits = not len(labels) or info is None or 0 <= labels.min() <= labels.max() < len(names)
        if fits or -1 in by_name or not names:
            return labels
    if cells and -1 not in by_name:
        return np.array(by_name, np.int64)

    if names and any(number >= 0 for number in by_name):
        wrong = by_name.index(-1)
    else:
        wrong = numbers.index(None)
    raise place.error(wrong, f"{_what_it_must_be(names)}, got {shown(cells[wrong])}", names, cells)


def from_array(values: np.ndarray, where: Path, info: Info | None) -> np.ndarray:
    """Return an array of integers, or of floats without fractions, as (N,) int64.

    Arrays (N, 1) and (1, N) are taken as (N,).

    Raises: DataError, which says what the array holds and what to save in its place.
    """
    if values.ndim == 2 and 1 in values.shape and values.size > 1:
        values = values.ravel()
    if values.dtype.kind in "US":
        return from_cells(values.ravel().tolist(), (), where, "label", info)
    if values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind in "biuf":
        raise DataError(f"{where}: {_what_rows_are(values)}")
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        fix = "; save labels.astype(int)" if values.dtype.kind == "b" else ""
        raise DataError(
            f"{where}: labels must be integers of shape (N,), "
            f"got {values.dtype} of shape {values.shape}{fix}"
        )
    if values.dtype.kind != "f":
        return values.astype(np.int64)

    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{where}: the label at position {bad[0]} is {values[bad[0]]}{_and_more(len(bad))}, so "
            f"there is no label; every training example must have one"
        )
    fraction = np.flatnonzero(values != np.floor(values))
    if len(fraction) or (abs(values) >= 2**53).any():
        first = values[fraction[0]] if len(fraction) else abs(values).max()
        raise DataError(
            f"{where}: labels must be integers of shape (N,), got {values.dtype}, for example "
            f"{first:g}; probabilities of one class are no labels"
        )
    return values.astype(np.int64)


# ---- Cells ---------------------------------------------------------------------------------------


class _Place:
    """The place of a cell, for errors."""

    def __init__(self, where: Path, column: str, lines: Sequence[int]):
        self._where, self._column, self._lines = where, column, lines

    def error(
        self, row: int, message: str, names: Sequence[str] = (), cells: Sequence[object] = ()
    ) -> DataError:
        hint = did_you_mean(str(cells[row]), names) if names else ""
        if self._lines:
            text = f"{self._where}:{self._lines[row]}: {self._column} {message}"
        else:
            text = f"{self._where}: {self._column} at position {row} {message}"
        return DataError(f"{text}.{hint}" if hint else text)


def _require_labels(cells: Sequence[object], place: _Place) -> None:
    """Raise DataError for a cell that says that there is no label."""
    wrong = [i for i, cell in enumerate(cells) if cell is None or is_no_class(str(cell))]
    if not wrong:
        return
    first = cells[wrong[0]]
    holds = f"is {first}"
    if first is None or not str(first).strip():
        holds = "is empty"
    raise place.error(
        wrong[0],
        f"{holds}{_and_more(len(wrong))}, so there is no label; every training example must have "
        f"one: a class from 0",
    )


def _integer(cell: object) -> int | None:
    """Return a number without fraction as an integer: 3, "3", "3.0" or "3.000e+00"."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    # Beyond that a float is not exact, and nothing has so many classes.
    return int(value) if value == value // 1 and abs(value) < 2**53 else None


def _what_it_must_be(names: Sequence[str]) -> str:
    if not names:
        return "must be an integer"
    return f"must be an integer from 0, or a class ({', '.join(names[:10])})"


# ---- Arrays --------------------------------------------------------------------------------------


def _what_rows_are(values: np.ndarray) -> str:
    """Say what the rows of an array (N, C) seem to be, and what to save in its place."""
    N, C = values.shape
    if values.dtype.kind == "f" and np.isnan(values).any():
        return f"labels must be integers of shape (N,), got an array {values.shape} with NaN"
    if ((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all():
        return f"holds one-hot labels of shape {values.shape}; save labels.argmax(1) in their place"
    if values.dtype.kind == "f" and np.allclose(values.sum(1), 1, atol=1e-3):
        return (
            f"holds probabilities of {C} classes for each of {N} examples (soft labels); nlbench "
            f"trains on one label for each: save labels.argmax(1), or draw one by the run's seed "
            f"with {{kind: soft-labels, path: ...}}"
        )
    return (
        f"labels must be integers of shape (N,), got {values.dtype} of shape {values.shape}; save "
        f"the one column of labels, or take all columns as those of annotators, with "
        f"{{kind: annotators, path: ...}} or {{kind: vote, path: ...}}"
    )


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
