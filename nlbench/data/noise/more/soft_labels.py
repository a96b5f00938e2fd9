"""One label for each example, drawn from its soft label in a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nlbench.data.base import Info
from nlbench.data.formats.text_table import TextTable
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kind import KEY, PATH, UNRELATED, Array, Rng, kind
from nlbench.data.noise.label_files import (
    entry,
    in_order,
    order_of_table,
    read_content,
    training_rows,
)
from nlbench.data.noise.more._rows import by_image, chosen, require_count
from nlbench.data.noise.relation import require_related
from nlbench.errors import DataError, shown

# A soft label that was rounded to two decimals adds up to 1 within this.
_ROUNDED = 0.01


def check(examples: Examples, *, path: str, key: str, unrelated: bool) -> None:
    """Raise DataError unless each training example has a soft label over the dataset's classes."""
    probs = read_soft_labels(Path(path), key, examples)
    if examples.clean is not None and not unrelated:
        require_related(examples.clean, probs.argmax(1), examples.info.num_classes, path)


@kind(
    "soft-labels",
    PATH,
    KEY,
    UNRELATED,
    source="human soft labels, as in Peterson et al., ICCV 2019 (CIFAR-10H)",
    needs_examples=True,
    check=check,
)
def draw(
    rng: Rng,
    clean: Array,
    C: int,
    *,
    path: str,
    key: str,
    unrelated: bool,
    examples: Examples,
) -> Array:
    """Draw one label for each example from its soft label, or from its counts, in a file.

    The examples are drawn independently, anew for each seed.
    """
    cumulated = read_soft_labels(Path(path), key, examples).cumsum(1)
    # The last class takes what the others leave, so that no rounding can lead out of range.
    cumulated /= cumulated[:, -1:]
    return (rng.random(len(clean))[:, None] >= cumulated[:, :-1]).sum(1)


# ---- Reading -------------------------------------------------------------------------------------


def read_soft_labels(path: Path, key: str, examples: Examples) -> np.ndarray:
    """Return soft labels (N, C) float64 in the order of the training examples. Rows add up to 1.

    A file holds an array (N, C), or (N, A, C) with those of A annotators, whose mean is taken; a
    table with a column for each class; or a mapping from image to one soft label or to a list of
    those of its annotators. Counts are divided by their sum.

    Raises: DataError, naming the file and what is wrong in it.
    """
    content = read_content(path)
    info = examples.info
    if isinstance(content, TextTable):
        values = _from_table(content, key, examples)
    else:
        if isinstance(content, dict) and not key and _is_by_image(content, info):
            content = by_image(content, path, examples)
        values = _as_array(entry(content, key, path), path, info.num_classes)

    require_count(len(values), examples, path, "soft labels")
    if values.shape[-1] != info.num_classes:
        raise DataError(
            f"{path}: has soft labels of {values.shape[-1]} classes, and {info.title} has "
            f"{info.num_classes}: one number for each class, in the order of the classes"
        )
    return _normalised(values, path)


def _from_table(table: TextTable, key: str, examples: Examples) -> np.ndarray:
    table = training_rows(table, examples)
    if not table.names:
        return _as_array(table.rows, table.path, examples.info.num_classes)
    columns = _class_columns(table, key, examples.info)
    values = np.array([table.column(name) for name in columns]).T
    order = order_of_table(_without(table, columns), "", examples)
    return in_order(_as_array(values.tolist(), table.path, len(columns)), order)


def _class_columns(table: TextTable, key: str, info: Info) -> list[str]:
    """Return the column of each class, in the order of the classes."""
    names = chosen(key, table.names, table.path) if key else list(table.names)
    if info.class_names and set(info.class_names) <= set(names):
        return list(info.class_names)

    # Numbers at the end of the names, as in prob_0 to prob_9.
    of: dict[int, list[str]] = {}
    for name in names:
        number = re.search(r"\d+$", name)
        if number:
            of.setdefault(int(number[0]), []).append(name)
    found = [of.get(c, []) for c in range(info.num_classes)]
    if all(len(names) == 1 for names in found):
        return [names[0] for names in found]
    raise DataError(
        f"{table.path}:1: must have a column for each of the {info.num_classes} classes, called as "
        f"the classes of the dataset are, or with their numbers from 0 at the end (prob_0, prob_1, "
        f"...); it has {', '.join(table.names[:20])}. `key` chooses some, as in key: 'prob_*'"
    )


def _without(table: TextTable, columns: list[str]) -> TextTable:
    """Return a table without some of its columns."""
    kept = [i for i, name in enumerate(table.names) if name not in columns]
    rows = [[row[i] for i in kept] for row in table.rows]
    return TextTable(
        table.path, tuple(table.names[i] for i in kept), rows, table.lines, table.separator
    )


def _is_by_image(content: dict[object, Any], info: Info) -> bool:
    """Return whether a mapping has a soft label for each image, and not several arrays by name."""
    for values in content.values():
        if not isinstance(values, list | tuple | np.ndarray) or not len(values):
            return False
        if len(values) == info.num_train and info.num_train != info.num_classes:
            return False
    return True


def _as_array(content: object, path: Path, num_classes: int) -> np.ndarray:
    """Return an array or nested lists as (N, C) float64, the mean over annotators in it taken."""
    if isinstance(content, np.ndarray):
        values: Any = content
    elif isinstance(content, list | tuple):
        # Images may have been seen by different numbers of annotators.
        values = np.array([_mean(row, i, path, num_classes) for i, row in enumerate(content)])
    else:
        raise DataError(f"{path}: must hold an array (N, C) of soft labels, got {shown(content)}")

    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3):
        raise DataError(
            f"{path}: soft labels must be numbers of shape (N, C), got {values.dtype} of shape "
            f"{values.shape}{_how_else(values)}"
        )
    values = values.astype(np.float64)
    return _normalised(values, path).mean(1) if values.ndim == 3 else values


def _mean(row: object, position: int, path: Path, num_classes: int) -> np.ndarray:
    """Return the mean soft label (C,) of an image's annotators, or its only one as it is."""
    where = f"{path}: the soft label at position {position}"
    try:
        values = np.array(row, np.float64)
    except (ValueError, TypeError):
        raise DataError(f"{where} must be {num_classes} numbers, got {shown(row)}") from None
    if values.ndim not in (1, 2) or values.shape[-1] != num_classes or not len(values):
        raise DataError(
            f"{where} has the shape {values.shape}, expected ({num_classes},): one number for each "
            f"class"
        )
    return _normalised(values, where).mean(0) if values.ndim == 2 else values


def _normalised(values: np.ndarray, where: str | Path) -> np.ndarray:
    """Return soft labels or counts (..., C) divided by their sums.

    Raises: DataError for a row that is neither.
    """
    flat = values.reshape(-1, values.shape[-1])
    _require(~np.isfinite(flat).all(1), where, flat, "holds NaN or infinity")
    _require(
        (flat < 0).any(1), where, flat, "holds negative numbers; of logits save the softmax instead"
    )
    sums = flat.sum(1)
    _require(sums == 0, where, flat, "holds nothing but zeros, so that it has no label")

    counts = (flat == np.floor(flat)).all(1)
    wrong = ~counts & (abs(sums - 1) > _ROUNDED)
    _require(wrong, where, flat, "does not add up to 1, and holds no counts")
    return values / values.sum(-1, keepdims=True)


def _require(wrong: ArrayLike, where: str | Path, rows: np.ndarray, what: str) -> None:
    places = np.flatnonzero(wrong)
    if len(places):
        first = places[0]
        more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        row = np.array2string(rows[first], precision=4, threshold=6)
        raise DataError(f"{where}: row {first}{more} {what}: {row}")


def _how_else(values: np.ndarray) -> str:
    if values.ndim == 1 and values.dtype.kind in "iu":
        return "; labels without probabilities are read by {kind: file, path: ...}"
    return ""
