"""Read files with several values for each training example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nlbench.data.formats.text_table import TextTable
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.label_files import check_count, order_of_table
from nlbench.errors import DataError, did_you_mean


def chosen(key: str, names: Iterable[str], path: Path) -> list[str]:
    """Return the names that a key asks for, in the order of the key.

    Args:
        key: names with commas between them. A * stands for any letters, as in `label_*`.
    Raises: DataError for a part of the key that no name fits.
    """
    known = list(names)
    found: dict[str, None] = {}
    for pattern in filter(None, (part.strip() for part in key.split(","))):
        fitting = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise DataError(
                f"{path}: has no {pattern!r}; set key to some of: {', '.join(known[:20])}."
                f"{did_you_mean(pattern, known)}"
            )
        found |= dict.fromkeys(fitting)
    return list(found)


def require_count(count: int, examples: Examples, path: Path, what: str) -> None:
    """Raise DataError unless a file has a row for each training example.

    Args:
        what: the rows in words, for example "soft labels".
    """
    info = examples.info
    try:
        check_count(count, info.num_train, path, info.num_test, what)
    except DataError as error:
        # Its advice is for {kind: file}; no other kind takes `rest`.
        text, partial, _ = str(error).partition(" If it has the labels of the first images,")
        if not partial:
            raise
        raise DataError(
            f"{text} Add rows for the other {info.num_train - count}, for example with their true "
            "labels"
        ) from None


def by_image(content: Mapping[object, Any], path: Path, examples: Examples | None) -> list[Any]:
    """Return the values of a mapping from image to values, in the order of the training examples.

    Raises: DataError where its keys do not name each training example once.
    """
    table = TextTable(path, ("key",), [[str(name)] for name in content], [])
    positions = order_of_table(table, "", examples).positions
    ordered = list(content.values())
    for position, values in zip(positions, content.values(), strict=True):
        ordered[position] = values
    return ordered
