"""Lists of image files: reading them, and seeing what of them is there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nlbench.data.base import ImageFiles
from nlbench.errors import DataError
from nlbench.files import short_hash

MOST_MISSING = 0.01  # of the training images; an archive of which more is missing was not unpacked whole

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends. Raises DataError, naming the file."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would also split inside some names
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8; is this the list?") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def names_and_labels(path: Path, num_classes: int) -> tuple[list[str], np.ndarray, list[int]]:
    """A list whose lines are "name label", label being an integer from 0.

    Returns: names, labels (N,) int64, and the line that each stands in, from 1. Empty lines are passed over.
    Raises: DataError, naming file and line.
    """
    names, labels, lines = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(.*\S)[ \t]+(\d+)", line.strip())
        if not match:
            raise DataError(f"{path}:{number}: must be a file and a label from 0, got {line[:80]!r}")
        name, label = match.groups()
        if len(label) > 9 or int(label) >= num_classes:
            raise DataError(f"{path}:{number}: label {label[:20]} of {name} is not below the {num_classes} classes")
        names.append(name)
        labels.append(int(label))
        lines.append(number)
    return names, np.array(labels, np.int64), lines


def present(root: Path, names: Sequence[str]) -> np.ndarray:
    """(N,) bool: which files there are under `root`. Reads each folder once instead of asking for a million files."""
    folders: dict[str, set[str]] = {}
    found = np.zeros(len(names), bool)
    for i, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        if folder not in folders:
            try:
                folders[folder] = set(os.listdir(root / folder))
            except (FileNotFoundError, NotADirectoryError):
                folders[folder] = set()
        found[i] = file in folders[folder]
    return found


def require_whole(root: Path, names: Sequence[str], where: Path, lines: Sequence[int]) -> None:
    """Raises DataError, naming file and line, unless every listed image is there, once: tests must be whole."""
    found, new = present(root, names), _first_mentions(names)
    if not found.all():
        said = _first_of(~found, where, lines, lambda i: f"no image {root / names[i]}")
        raise DataError(f"{said}; every image of this part must be there")
    if not new.all():
        raise DataError(_first_of(~new, where, lines, lambda i: f"{names[i]} stands there already; keep one"))


def usable(root: Path, names: Sequence[str], where: Path, lines: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Training images: those that are listed but not there, and a second mention of one, are left out and counted.

    Copies lack some images; an image that is listed twice could be trained on and held out at once.

    Returns: (N,) bool, which to keep; warnings for the record.
    Raises: DataError when more than MOST_MISSING of them lack.
    """
    found, new = present(root, names), _first_mentions(names)
    warnings = []
    if not found.all():
        said = _first_of(~found, where, lines, lambda i: f"no image {root / names[i]}")
        if (~found).mean() > MOST_MISSING:
            raise DataError(f"{said}; more than {MOST_MISSING:.0%} are missing: was all of the archive unpacked?")
        warnings.append(f"{said}; left out")
    if not new.all():
        said = _first_of(~new, where, lines, lambda i: f"{names[i]} stands there already")
        warnings.append(f"{said}; left out")
    return found & new, tuple(warnings)


def _first_mentions(names: Sequence[str]) -> np.ndarray:
    """(N,) bool."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(name, i) == i for i, name in enumerate(names)], bool)


def at(where: Path, line: int) -> str:
    """file:line, or the file alone where it has no lines (0)."""
    return f"{where}:{line}" if line else str(where)


def _first_of(wrong: np.ndarray, where: Path, lines: Sequence[int], what: Callable[[int], str]) -> str:
    first, count = int(np.flatnonzero(wrong)[0]), int(wrong.sum())
    more = f" (the first of {count} of {len(wrong)})" if count > 1 else ""
    return f"{at(where, lines[first])}: {what(first)}{more}"


def image_files(root: Path, names: Sequence[str]) -> ImageFiles:
    """The images as a dataset holds them."""
    return ImageFiles(root, np.array([os.fsencode(name) for name in names], dtype="S"))


def list_fingerprint(*parts: tuple[Sequence[str], np.ndarray]) -> str:
    """16 hex digits over names and true or given labels, in order; pixels of so many files are not read for it."""
    content = []
    for names, labels in parts:
        content.append("\n".join(names).encode("utf-8", "surrogateescape"))
        content.append(labels.astype("<i8").tobytes())
    return short_hash(*content)
