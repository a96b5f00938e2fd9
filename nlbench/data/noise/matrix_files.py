"""Read transition matrices from files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nlbench.data.formats.numpy_files import read_npy
from nlbench.data.formats.safe_pickle import read_torch
from nlbench.data.formats.text_table import is_number, read_json, read_table
from nlbench.errors import DataError, shown

# How far each row of a matrix may be from adding up to 1, for example one of float32.
_CLOSE = 1e-5

# What rounding may add up to in a row at worst.
_SMALL = 1e-3

# A row that is nearer to 1 is not divided by its sum, so that its last digits stay.
_EXACT = 1e-6

_SAVE = "numpy.save('T.npy', T)"


def read_matrix(path: Path, num_classes: int, *, unrelated: bool = True) -> np.ndarray:
    """Read T (C, C) float64, T[i, j] = P(noisy j | clean i).

    The suffix decides: .npy, .json (a list of lists), .csv, .tsv, .txt (one line for each row), or
    .pt, .pth, .pkl, .pickle (an array, list or tensor).

    A matrix that was rounded to two or more decimals need not add up to 1 exactly: its rows are
    divided by their sums if these are off by no more than rounding explains.

    Args:
        unrelated: whether labels may have nothing to do with the true ones. If not, a matrix is
            refused that moves most labels of every class, which one with the noise rate on its
            diagonal does.
    Raises: DataError, naming the file, unless it is square of the right size, not negative, and
        each row of it adds up to 1.
    """
    T = _numbers(path)
    if T.shape != (num_classes, num_classes):
        raise DataError(f"{path}: {_wrong_shape(T, num_classes)}")
    if not np.isfinite(T).all():
        raise DataError(f"{path}: T holds probabilities, and not {T[~np.isfinite(T)][0]}")
    if (T < 0).any():
        raise DataError(
            f"{path}: T holds probabilities, from 0 to 1; its smallest entry is {T.min():g}"
        )

    sums = T.sum(1)
    if not _adds_up(T, sums):
        worst = int(abs(sums - 1).argmax())
        raise DataError(
            f"{path}: each row of T must add up to 1, row {worst} adds up to {sums[worst]:.8g}"
            f"{_why_not_one(T, sums)}"
        )
    if not unrelated and num_classes > 1:
        _require_diagonal(T, path)

    # Dividing an exact matrix would change its last digits.
    if abs(sums - 1).max() > _EXACT:
        T = T / sums[:, None]
    return T


def matrix_warnings(path: Path, num_classes: int) -> tuple[str, ...]:
    """Return what a user should know about a matrix that `read_matrix` accepts."""
    T = _numbers(path)
    off = abs(T.sum(1) - 1).max()
    words = []
    if off > _CLOSE:
        words.append(
            f"{path.name}: T is rounded to {_decimals(T)} decimals, and its rows add up to 1 "
            f"within {off:.3g}; they were divided by their sums"
        )
    if np.array_equal(T, np.eye(num_classes)):
        words.append(f"{path.name}: T is the identity matrix, so no label is changed")
    return tuple(words)


# ---- Checks --------------------------------------------------------------------------------------


def _adds_up(T: np.ndarray, sums: np.ndarray) -> bool:
    """Return whether sums are 1, up to what rounding to the given decimals explains."""
    off = abs(sums - 1).max()
    if off <= _CLOSE:
        return True

    # The error of one entry is uniform within half a unit of the last decimal, with a deviation of
    # a unit / sqrt(12). Four deviations of their sum do not happen in a row by accident. Where it
    # is small, the largest sum of errors that can be is allowed, since equal entries have equal
    # errors.
    decimals = _decimals(T)
    if decimals is None or decimals < 2:
        return False
    unit = 10.0**-decimals
    likely = max(4 * unit * math.sqrt(T.shape[1] / 12), unit)
    possible = min(unit * T.shape[1] / 2, _SMALL)
    return off <= max(likely, possible) + 1e-9


def _decimals(T: np.ndarray) -> int | None:
    """Return how many decimals the entries have; None for more than six."""
    for decimals in range(7):
        if np.allclose(T, np.round(T, decimals), rtol=0, atol=1e-9):
            return decimals
    return None


def _wrong_shape(T: np.ndarray, num_classes: int) -> str:
    message = f"T must be {num_classes} x {num_classes}, got shape {T.shape}"
    if T.ndim != 2:
        return message
    rows, columns = T.shape
    more = [num_classes, num_classes + 1]
    if (rows, columns) != (num_classes, num_classes) and rows in more and columns in more:
        counted = "its first row" if rows > num_classes else "its first column"
        if rows > num_classes and columns > num_classes:
            counted = "its first row and column"
        return f"{message}; leave out {counted} if the classes are numbered there"
    return message


def _why_not_one(T: np.ndarray, sums: np.ndarray) -> str:
    """Return a likely reason why rows do not add up to 1, and what to do; "" if none is known."""
    if _adds_up(T.T, T.sum(0)):
        return (
            "; its columns do, so it is transposed: T[i, j] must be P(noisy j | clean i), with a "
            "row for each true class. Save T.T"
        )
    if _adds_up(T / 100, sums / 100):
        return "; its entries are percentages: divide it by 100"
    if np.array_equal(T, np.round(T)) and (sums > 1).all():
        return "; its entries are counts: divide each row by its sum, T / T.sum(1, keepdims=True)"
    if abs(T.sum() - 1) < 1e-3:
        return (
            "; all of it does, so it holds joint probabilities: divide each row by its sum, "
            "T / T.sum(1, keepdims=True)"
        )
    if abs(sums - 1).max() < 0.2:
        return (
            "; rounding does not explain that. If it is meant, divide each row by its sum: "
            "T / T.sum(1, keepdims=True)"
        )
    return ""


def _require_diagonal(T: np.ndarray, path: Path) -> None:
    """Raise DataError for a matrix that moves most labels of every class."""
    off = T - np.diag(np.diag(T))
    if not (off.max(1) >= np.diag(T) - 1e-12).all():
        return
    what = "no class keeps its label more often than it gets another one"
    raise DataError(
        f"{path}: {what}: T[0, 0] is {T[0, 0]:g}, and the largest other entry of row 0 is "
        f"{off[0].max():g}. T[i, i] is the share that stays right, and not the noise rate. If this "
        f"is meant, add `unrelated: true` to this noise in the suite"
    )


# ---- Reading -------------------------------------------------------------------------------------


def _numbers(path: Path) -> np.ndarray:
    """Return what a file holds as float64. Raises DataError unless these are numbers."""
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise DataError(
            f"{path}: a matrix is read from {', '.join(_READERS)}, "
            f"not from {path.suffix or 'such files'!r}; {_SAVE} writes one"
        )
    content = reader(path)
    if isinstance(content, dict):
        names = ", ".join(map(str, content))
        raise DataError(f"{path}: holds several things by name ({names}); save T alone: {_SAVE}")
    try:
        numbers = np.asarray(content)
        if numbers.dtype.kind == "c":
            raise ValueError("its numbers are complex")
        return numbers.astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path}: not a matrix of numbers ({error}): {shown(content)}; {_SAVE} writes one"
        ) from None


def _read_table(path: Path) -> list[list[str]]:
    table = read_table(path, header=False, spaces=path.suffix.lower() == ".txt")
    if table.names:
        raise DataError(
            f"{path}:1: a line of numbers must be here, a row of T for class 0, got "
            f"{shown(table.separator.join(table.names))}; leave names of classes out, and keep the "
            f"classes in the dataset's order"
        )
    width = len(table.rows[0]) if table.rows else 0
    for cells, line in zip(table.rows, table.lines, strict=True):
        _require_numbers(cells, f"{path}:{line}", table.separator)
        if len(cells) != width:
            raise DataError(
                f"{path}:{line}: not a matrix of numbers: this row of T has {len(cells)} entries, "
                f"the first one {width}"
            )
    return table.rows


def _require_numbers(cells: Sequence[str], where: str, separator: str) -> None:
    for i, cell in enumerate(cells):
        if is_number(cell):
            continue
        fix = ""
        if is_number(cell.replace(",", ".")) and separator != ",":
            fix = "; write a point in place of the decimal comma"
        elif i == 0:
            fix = "; leave names of classes out, and keep the classes in the dataset's order"
        raise DataError(f"{where}: not a matrix of numbers: {cell!r} is none{fix}")


_READERS: dict[str, Callable[[Path], object]] = {
    ".npy": read_npy,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".txt": _read_table,
    ".json": read_json,
    ".pt": read_torch,
    ".pth": read_torch,
    ".pkl": read_torch,
    ".pickle": read_torch,
}

# The suffixes of files that a matrix is read from.
SUFFIXES = tuple(_READERS)
