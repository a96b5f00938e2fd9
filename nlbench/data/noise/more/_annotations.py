"""Read files with the labels of several annotators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.formats.columns import is_no_class
from nlbench.data.formats.text_table import TextTable
from nlbench.data.noise import label_values
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kind import Param
from nlbench.data.noise.label_files import (
    in_order,
    order_of_table,
    read_content,
    training_rows,
)
from nlbench.data.noise.more._rows import by_image, chosen, require_count
from nlbench.errors import DataError, shown

ANNOTATORS = Param(
    "key",
    str,
    "the columns or entries of the annotators, with commas between them, as in 'label_*'",
    default="",
)

# What stands for a label that an annotator did not give.
MISSING = -1

_ANSWER = "set key to those of the annotators, as in {kind: annotators, path: ..., key: 'label_*'}"


@dataclass(frozen=True)
class Annotations:
    """The labels of several annotators.

    Attributes:
        labels: (N, A) int64 in the order of the training examples, MISSING where an annotator gave
            no label. Each example has at least one.
        named: whether each column belongs to one annotator. Lists of different lengths do not say
            whose label is whose.
    """

    labels: np.ndarray
    named: bool = True

    @property
    def there(self) -> np.ndarray:
        """(N, A) bool, the labels that were given."""
        return self.labels != MISSING


def read_annotations(path: Path, key: str, examples: Examples) -> Annotations:
    """Return the labels of all annotators in a file.

    It holds an array (N, A); a table with a column for each annotator, which `key` names; arrays or
    lists of N labels by name, of which `key` names several; or a list of labels for each image, in
    order or as a mapping from the image. An empty cell, NaN and -1 stand for no label.

    Raises: DataError, naming the file and what is wrong in it.
    """
    content = read_content(path)
    named = True
    if isinstance(content, TextTable):
        labels = _from_table(content, key, examples)
    elif isinstance(content, dict) and (key or not _is_by_image(content, examples)):
        columns = _columns(key, [str(name) for name in content], path)
        labels = _side_by_side([_column(content[name], path, examples) for name in columns], path)
    else:
        if isinstance(content, dict):
            content = by_image(content, path, examples)
        named = isinstance(content, np.ndarray) or len({len(row) for row in _lists(content)}) == 1
        labels = _from_rows(content, path, examples)

    _check(labels, path, examples)
    return Annotations(labels, named)


# ---- Forms of files ------------------------------------------------------------------------------


def _from_table(table: TextTable, key: str, examples: Examples) -> np.ndarray:
    table = training_rows(table, examples)
    if not table.names:
        return _from_rows(table.rows, table.path, examples)
    columns = _columns(key, table.names, table.path)
    labels = [_of_cells(table.column(name), table, name, examples) for name in columns]
    others = [i for i, name in enumerate(table.names) if name not in columns]
    rest = TextTable(
        table.path,
        tuple(table.names[i] for i in others),
        [[row[i] for i in others] for row in table.rows],
        table.lines,
        table.separator,
    )
    return in_order(_side_by_side(labels, table.path), order_of_table(rest, "", examples))


def _columns(key: str, names: Any, path: Path) -> list[str]:
    """Return the annotators' columns. Raises DataError where the key does not name several."""
    columns = chosen(key, names, path)
    if len(columns) < 2:
        problem = f"the key {key!r} names one annotator" if columns else "holds labels by name"
        raise DataError(f"{path}: {problem}; {_ANSWER}. It has: {', '.join(list(names)[:20])}")
    return columns


def _of_cells(cells: list[str], table: TextTable, name: str, examples: Examples) -> np.ndarray:
    """Return a column of text as (M,) int64, with MISSING for cells without a class."""
    labels = np.full(len(cells), MISSING, np.int64)
    there = [i for i, cell in enumerate(cells) if not is_no_class(cell)]
    lines = [table.lines[i] for i in there] if table.lines else []
    given = [cells[i] for i in there]
    labels[there] = label_values.from_cells(given, lines, table.path, name, examples.info)
    return labels


def _column(values: object, path: Path, examples: Examples) -> np.ndarray:
    """Return an entry of a mapping as (N,) int64, with MISSING for labels that were not given."""
    if isinstance(values, np.ndarray):
        return _of_array(values.ravel(), path, examples)
    if not isinstance(values, list | tuple):
        raise DataError(f"{path}: an annotator's labels must be a list, got {shown(values)}")
    return _of_list(list(values), path, examples)


def _of_list(values: list[object], path: Path, examples: Examples) -> np.ndarray:
    labels = np.full(len(values), MISSING, np.int64)
    there = [i for i, value in enumerate(values) if value is not None]
    there = [i for i in there if not is_no_class(str(values[i]))]
    given = [values[i] for i in there]
    labels[there] = label_values.from_cells(given, (), path, "label", examples.info)
    return labels


def _of_array(values: np.ndarray, path: Path, examples: Examples) -> np.ndarray:
    """Return an array (M,) with NaN and -1 for labels that were not given, as integers."""
    if values.dtype.kind not in "iuf":
        return _of_list(values.tolist(), path, examples)
    labels = np.full(len(values), MISSING, np.int64)
    there = np.isfinite(values)
    labels[there] = label_values.from_array(values[there], path, examples.info)
    return labels


def _side_by_side(columns: list[np.ndarray], path: Path) -> np.ndarray:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise DataError(f"{path}: the annotators have {sorted(lengths)} labels, not equally many")
    return np.stack(columns, axis=1)


def _is_by_image(content: dict[object, Any], examples: Examples) -> bool:
    """Return whether a mapping has a list of labels for each image, and not for each annotator."""
    if len(content) != examples.info.num_train:
        return False
    return all(isinstance(values, list | tuple | np.ndarray) for values in content.values())


def _lists(content: Any) -> list[Any]:
    """Return the lists of labels in a list. Raises no error: `_from_rows` does."""
    rows = content if isinstance(content, list | tuple) else []
    return [row for row in rows if isinstance(row, list | tuple | np.ndarray)]


def _from_rows(content: object, path: Path, examples: Examples) -> np.ndarray:
    """Return an array (N, A) or a list of lists, each with the labels of an image, as (N, A)."""
    if isinstance(content, np.ndarray):
        if content.ndim != 2 or content.shape[1] < 2:
            raise DataError(
                f"{path}: must have the shape (N, A), with a column for each annotator, got "
                f"{content.shape}; labels of one are read by {{kind: file, path: ...}}"
            )
        N = examples.info.num_train
        if content.shape[1] == N != content.shape[0]:
            raise DataError(f"{path}: has a row for each annotator; save array.T, of shape (N, A)")
        return _of_array(content.ravel(), path, examples).reshape(content.shape)

    rows = _lists(content)
    if not isinstance(content, list | tuple) or len(rows) != len(content) or not rows:
        raise DataError(f"{path}: must hold a list of labels for each image, got {shown(content)}")
    widest = max(len(row) for row in rows)
    # Lists may be of different lengths, and an empty one is refused when labels are counted.
    flat = [value for row in rows for value in [*row, *[None] * (widest - len(row))]]
    return _of_list(flat, path, examples).reshape(len(rows), widest)


# Where no number says that they are counted from 1.
_OTHER = "; does the file have other classes? docs/noise.md lists those of each dataset"


def _check(labels: np.ndarray, path: Path, examples: Examples) -> None:
    """Raise DataError unless each example has a label, and all are classes of the dataset."""
    info = examples.info
    require_count(len(labels), examples, path, "rows of labels")
    wrong = np.argwhere((labels != MISSING) & ((labels < 0) | (labels >= info.num_classes)))
    if len(wrong):
        row, column = wrong[0]
        one = "; are the classes numbered from 1? Subtract 1"
        largest = labels.max() == info.num_classes and labels[labels != MISSING].min() == 1
        raise DataError(
            f"{path}: labels must be in [0, {info.num_classes}), got {labels[row, column]} at "
            f"position {row}, annotator {column}{one if largest else _OTHER}"
        )
    empty = np.flatnonzero((labels == MISSING).all(1))
    if len(empty):
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise DataError(
            f"{path}: no annotator gave a label to the example at position {empty[0]}{more}; every "
            f"training example must have one"
        )
