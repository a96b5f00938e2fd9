"""Label arrays: checks, a hash, and the file formats that people keep them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from nlbench.data.base import Info
from nlbench.data.formats.columns import is_label_column, is_truth, label_columns
from nlbench.data.formats.numpy_files import read_npy
from nlbench.data.formats.safe_pickle import read_torch
from nlbench.data.formats.split_column import training_part
from nlbench.data.formats.text_table import TextTable, read_json, read_table
from nlbench.data.noise import label_values
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.row_order import Order, order_of
from nlbench.errors import DataError, did_you_mean, shown
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
    labels: np.ndarray,
    num_examples: int,
    num_classes: int,
    where: str | Path,
    num_test: int = 0,
) -> None:
    """Raise DataError unless each of `num_examples` has a label in [0, num_classes).

    Args:
        num_test: the number of test examples, by which a likely reason is found; 0 if unknown.
    """
    check_count(len(labels), num_examples, where, num_test)
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        why = _why_outside(labels, num_classes)
        raise DataError(
            f"{where}: labels must be in [0, {num_classes}), "
            f"got {labels[wrong[0]]} at position {wrong[0]}{more}{why}"
        )


def check_count(
    count: int, num_examples: int, where: str | Path, num_test: int = 0, what: str = "labels"
) -> None:
    """Raise DataError unless there are `num_examples` of what a file holds for each example."""
    if count != num_examples:
        raise DataError(
            f"{where}: {count} {what}, it must have one for each of {num_examples} training "
            f"examples{_why_so_many(count, num_examples, num_test)}"
        )


def _why_so_many(count: int, num_examples: int, num_test: int) -> str:
    """Return a likely reason for a wrong number of labels, if there is one, and what to do."""
    if num_test and count == num_examples + num_test:
        return (
            f": that is as many as training and test examples together; save those of the "
            f"{num_examples} training examples alone"
        )
    if num_test and count == num_test:
        return (
            ": that is the number of test examples; are these the labels of the test set? To train "
            "on those images, make a folder of them (see docs/noise.md)"
        )
    if count == num_examples + 1:
        return "; is the first one a header?"
    if num_examples and count % num_examples == 0 and count:
        return f": that is {count // num_examples} for each; keep one label for each example"

    # Published splits hold out 5 to 20 percent, of which 5,000 of 50,000 is the usual one.
    if 0.75 * num_examples < count < num_examples:
        return (
            ". Is a validation part left out of it? nlbench holds out its own, so the file needs "
            "all of them. If it has the labels of the first images, as PMD's files do, `rest: "
            "clean` in this noise gives the others their true labels"
        )
    return "; save one for each, in the order that docs/noise.md says"


def _why_outside(labels: np.ndarray, num_classes: int) -> str:
    """Return a likely reason for labels that are out of range, or where to look."""
    if labels.min() == 1 and labels.max() == num_classes:
        return "; are the classes numbered from 1? Subtract 1"
    if labels.min() < 0:
        return "; a negative number often says that there is no label, and every example needs one"
    return "; does the file have other classes? docs/noise.md lists those of each dataset"


def labels_hash(labels: np.ndarray) -> str:
    """Return the first 16 hex digits of the sha256 over the labels as little-endian int64."""
    return short_hash(np.ascontiguousarray(labels, "<i8").data)


# ---- Reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelFile:
    """What was read from a label file.

    Attributes:
        labels: (N,) int64, in the order of the training examples.
        column: the column of the labels; empty where the file has no columns.
        order: the column that put the rows in order, which may have an empty name; None where they
            are taken as they are.
        moved: whether versions before 0.2, which knew the columns `label` and `index` alone, read
            other labels from this file.
        truth: (N,) int64, the true labels that the file itself holds, in the same order; None where
            it holds none.
        truth_name: the column or entry of `truth`.
    """

    labels: np.ndarray
    column: str = ""
    order: str | None = None
    moved: bool = False
    truth: np.ndarray | None = None
    truth_name: str = ""

    def share_of_truth(self, clean: np.ndarray) -> float:
        """Return the share of the file's own true labels that are those of the dataset, or 1."""
        if self.truth is None or not len(self.truth):
            return 1.0
        return float((self.truth == clean[: len(self.truth)]).mean())

    def require_same_truth(self, clean: np.ndarray, where: str | Path) -> None:
        """Raise DataError where the file's own true labels are those of other images.

        A few may differ, because datasets are corrected later.
        """
        if self.truth is None:
            return
        others = np.flatnonzero(self.truth != clean[: len(self.truth)])
        if len(others) < max(_FEW_OTHERS, _OTHERS * len(self.truth)):
            return
        first = int(others[0])
        raise DataError(
            f"{where}: {100 * len(others) / len(self.truth):.2f}% of the true labels in its "
            f"{self.truth_name!r} are others than those of the dataset (the first one at position "
            f"{first}: {self.truth[first]}, and not {clean[first]}), so its rows belong to other "
            f"images. Put them in the order of the training images (see docs/noise.md); a column "
            f"'index' or 'path' does so"
        )


# The true labels that a file itself holds may differ from the dataset's in fewer examples than the
# larger one of this number and this share.
_FEW_OTHERS = 10
_OTHERS = 0.05


def completed(found: LabelFile, clean: np.ndarray) -> np.ndarray:
    """Return the labels of a file of the first examples, followed by the others' true labels."""
    return np.concatenate([found.labels, clean[len(found.labels) :]])


def read_labels(path: Path, key: str = "", examples: Examples | None = None) -> np.ndarray:
    """Read labels (N,) int64, as `read_label_file` does."""
    return read_label_file(path, key, examples).labels


def read_label_file(path: Path, key: str = "", examples: Examples | None = None) -> LabelFile:
    """Read labels in the order of the training examples; the suffix of the file decides how.

    - .npy: an array of integers. .npz: one of its arrays, named by `key`.
    - .pt, .pth, .pkl, .pickle: an array, list or tensor, or one under `key` in a dict.
    - .csv, .tsv, .txt: a table with a column of labels (see `columns.label_columns`, or `key`) and
      possibly one that says which image a row is about (see `row_order`); or one column of numbers
      without a header.
    - .json: a list of labels, as DivideMix saves its noise; a mapping from image to label; a list
      of mappings, which are the rows of a table; or lists by name, of which `key` names one.

    Args:
        examples: the training examples. Without them, rows cannot be ordered by names of images,
            and names of classes are not known.
    Raises: DataError, naming the file, when it cannot be read or holds anything else.
    """
    content = read_content(path)
    if isinstance(content, TextTable):
        return _from_table(content, key, examples)
    if isinstance(content, dict) and not key and _is_by_image(content):
        return _by_image(content, path, examples)

    labels = _values(entry(content, key, path), path, examples)
    truth_name = _truth_beside(content, key)
    if not truth_name:
        return LabelFile(labels)
    truth = _if_readable(lambda: _values(content[truth_name], path, examples))
    return LabelFile(labels, truth=truth, truth_name=truth_name)


_HOW_TO_SAVE = "numpy.save('labels.npy', labels) writes integers (N,)"


def read_content(path: Path) -> Any:
    """Return what a file of any kind holds: a table, an array, a list, or a mapping of these.

    Tensors are arrays, a list of mappings is a table, and several arrays in a list or tuple are a
    mapping from their places, "0", "1" and so on.

    Raises: DataError for a suffix that is not read, and for a file that cannot be.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(
            f"{path}: labels are read from {', '.join(_READERS)}, "
            f"not from {path.suffix or 'such files'!r}; {_HOW_TO_SAVE}"
        )
    if suffix in (".csv", ".tsv", ".txt"):
        return read_table(path, header=False, spaces=suffix == ".txt")

    content = _READERS[suffix](path)
    if _is_rows(content):
        return _as_table(content, path)
    if isinstance(content, list | tuple) and _is_several(content):
        return {str(place): part for place, part in enumerate(content)}
    return content


def _is_several(content: Sequence[object]) -> bool:
    """Return whether a list holds several arrays of one length, as pickles of (noisy, clean) do."""
    arrays = [part for part in content if isinstance(part, list | tuple | np.ndarray)]
    if len(content) < 2 or len(arrays) < len(content):
        return False
    lengths = {_length(part) for part in content}
    # More parts than values in each are the rows of one array.
    return len(lengths) == 1 and len(content) < min(lengths)


def _truth_beside(content: object, key: str) -> str:
    """Return the entry with the true labels beside the one that was asked for, or ""."""
    if not isinstance(content, dict):
        return ""
    others = [str(name) for name in content if isinstance(name, str) and name != key]
    found = [name for name in others if is_truth(name)]
    same = [name for name in found if _length(content[name]) == _length(content[key])]
    return same[0] if len(same) == 1 else ""


def _length(values: object) -> int:
    if isinstance(values, np.ndarray):
        return values.size
    return len(values) if isinstance(values, list | tuple) else 0


def _values(content: object, path: Path, examples: Examples | None) -> np.ndarray:
    """Return an array or a list as labels."""
    info = examples.info if examples else None
    if isinstance(content, np.ndarray):
        return label_values.from_array(content, path, info)
    if not isinstance(content, list | tuple):
        raise DataError(
            f"{path}: holds {_a(content)}, not a list or an array of labels; {_HOW_TO_SAVE}"
        )

    if content and all(_is_single(item) for item in content):
        content = [item.item() if isinstance(item, np.ndarray) else item[0] for item in content]
    nested = [item for item in content if isinstance(item, list | tuple | dict | np.ndarray)]
    if nested:
        raise DataError(
            f"{path}: labels must be one integer per example, got {shown(nested[0])} among them"
        )
    return label_values.from_cells(content, (), path, "label", info)


def _is_single(item: object) -> bool:
    """Return whether an item is an array or list of one value, as the rows of (N, 1) are."""
    return isinstance(item, list | tuple | np.ndarray) and _length(item) == 1


def _a(content: object) -> str:
    names = {"dict": "a mapping", "str": "a text", "int": "a number", "float": "a number"}
    kind = type(content).__name__
    return names.get(kind, f"a {kind}")


def entry(content: object, key: str, path: Path) -> object:
    """Return content[key] where the content is a dict, else the content itself.

    Raises: DataError for a key that is missing, unknown or not needed.
    """
    if not isinstance(content, dict):
        if key:
            raise DataError(
                f"{path}: key {key!r} was asked for, but the file holds labels alone; "
                f"leave the key out"
            )
        return content

    if key not in content:
        known = [str(name) for name in content]
        problem = f"has no key {key!r}" if key else "holds labels by name"
        raise DataError(
            f"{path}: {problem}; set key to one of: {', '.join(known[:20])}."
            f"{did_you_mean(key, known)}"
        )
    return content[key]


# ---- Tables --------------------------------------------------------------------------------------

_ANSWER = "say which with `key`, as in {kind: file, path: ..., key: COLUMN}"


def _from_table(table: TextTable, key: str, examples: Examples | None) -> LabelFile:
    """Return the labels of a table, its rows in order."""
    path = table.path
    info = examples.info if examples else None
    if not table.rows:
        raise DataError(f"{path}: holds no labels")
    if not table.names:
        widest = max(len(cells) for cells in table.rows)
        if widest > 1:
            raise DataError(
                f"{path}:{table.lines[0]}: must name the columns, for example index,label; this "
                f"file has {widest} columns without a header"
            )
        cells = [row[0] for row in table.rows]
        if key:
            raise DataError(f"{path}: has no columns by name, so leave the key {key!r} out")
        return LabelFile(label_values.from_cells(cells, table.lines, path, "label", info))

    where = f"{path}:1" if table.lines else path
    columns = label_columns(table.names, where, given=key, answer=_ANSWER)
    table = training_rows(table, examples)
    cells = table.column(columns.given)
    labels = label_values.from_cells(cells, table.lines, path, columns.given, info)
    truth = None
    if columns.clean:
        beside = table.column(columns.clean)
        truth = _if_readable(
            lambda: label_values.from_cells(beside, table.lines, path, columns.clean, info)
        )

    order = order_of_table(table, columns.given, examples)
    ordered = in_order(labels, order)
    return LabelFile(
        ordered,
        columns.given,
        order.column,
        moved=not key and _moved(table, ordered, info),
        truth=None if truth is None else in_order(truth, order),
        truth_name=columns.clean,
    )


def training_rows(table: TextTable, examples: Examples | None) -> TextTable:
    """Return a table without the rows that one of its columns says are of the test part.

    Imagenette's list has such a column, `is_valid`. A table with as many rows as there are training
    examples stays as it is.
    """
    if examples is None or len(table.rows) == examples.info.num_train:
        return table
    for name in dict.fromkeys(table.names):
        part = training_part(name, table.column(name))
        if part is not None:
            rows = [row for row, there in zip(table.rows, part, strict=True) if there]
            lines = table.lines
            if lines:
                lines = [line for line, there in zip(lines, part, strict=True) if there]
            return replace(table, rows=rows, lines=lines)
    return table


def order_of_table(table: TextTable, given: str, examples: Examples | None) -> Order:
    """Return the order of a table's rows, by the columns that hold no labels.

    Args:
        given: the column of the labels; empty where its columns are taken by another rule.
    """
    others = {}
    for name in dict.fromkeys(table.names):
        if name != given and not is_label_column(name):
            others[name] = table.column(name)
    return order_of(others, len(table.rows), table.lines, table.path, examples)


def in_order(values: np.ndarray, order: Order) -> np.ndarray:
    """Return rows (M, ...) of a file in the order of the training examples."""
    # Rows of other images are refused where the names are known; here their number is wrong.
    if len(values) != len(order.positions) or np.unique(order.positions).size != len(values):
        return values
    ordered = np.empty_like(values)
    ordered[order.positions] = values
    return ordered


def _if_readable(read: Callable[[], np.ndarray]) -> np.ndarray | None:
    """Return true labels; None where some are missing, since a file needs to have none."""
    try:
        return read()
    except DataError:
        return None


def _moved(table: TextTable, labels: np.ndarray, info: Info | None) -> bool:
    """Return whether versions before 0.2 read other labels from a table."""
    if table.separator != "," or "label" not in table.names:
        return False
    before = np.empty(len(table.rows), np.int64)
    try:
        values = [int(cell) for cell in table.column("label")]
        places = list(range(len(values)))
        if "index" in table.names:
            places = [int(cell) for cell in table.column("index")]
        before[places] = values
    except (ValueError, IndexError, OverflowError):
        return False
    return not np.array_equal(before, labels)


def _is_by_image(content: dict[object, object]) -> bool:
    """Return whether a mapping has a label for each image, and not a list for each name."""
    return bool(content) and all(
        isinstance(_number(value), int | float | str) for value in content.values()
    )


def _number(value: object) -> object:
    """Return the number of a tensor without dimensions, and anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _by_image(content: dict[object, object], path: Path, examples: Examples | None) -> LabelFile:
    rows = [[str(name), str(_number(label))] for name, label in content.items()]
    return _from_table(TextTable(path, ("key", "label"), rows, []), "", examples)


def _is_rows(content: object) -> bool:
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict)


def _as_table(content: object, path: Path) -> TextTable:
    """Return a list of mappings, which all have the same names, as a table."""
    assert isinstance(content, list)
    names = tuple(str(name) for name in content[0])
    if not names:
        raise DataError(f"{path}: entry 0 is an empty mapping, without a label")
    rows = []
    for i, mapping in enumerate(content):
        if not isinstance(mapping, dict) or tuple(map(str, mapping)) != names:
            raise DataError(f"{path}: entry {i} must have the names {', '.join(names)}, as entry 0")
        rows.append(["" if value is None else str(value) for value in mapping.values()])
    return TextTable(path, names, rows, [])


# ---- Other formats -------------------------------------------------------------------------------


_READERS: dict[str, Callable[[Path], object]] = {
    ".npy": read_npy,
    ".npz": read_npy,
    ".pt": read_torch,
    ".pth": read_torch,
    ".pkl": read_torch,
    ".pickle": read_torch,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
    ".json": read_json,
}


# The suffixes of files that labels are read from.
SUFFIXES = tuple(_READERS)


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
        raise DataError(str(error)) from error


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
