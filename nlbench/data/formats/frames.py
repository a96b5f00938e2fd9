"""Read tables of features by their columns: .csv, .npz, .npy, .parquet and .arrow.

A column is a vector of numbers, a matrix with a row for each example, or a list of texts. Arrays of
.npy files and of Arrow files are mapped, so that only those parts are read that are asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlbench.data.formats.columns import is_label_column
from nlbench.data.formats.numpy_files import DAMAGE, read_npy
from nlbench.data.formats.recognise import NUMPY, require_kind
from nlbench.data.formats.text_table import read_table
from nlbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_SUFFIXES = (".csv", ".tsv")
ARROW_SUFFIXES = (".arrow", ".feather")
SUFFIXES = (*TEXT_SUFFIXES, ".npz", ".npy", ".parquet", *ARROW_SUFFIXES)

# What programs write into an empty cell, in lower case.
_MISSING = {"", "nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nat", "?"}

# A part at the beginning or the end of an array's name: X_train, test_labels.
_PART = r"train|training|test|val|valid|validation"
_NAMED_PART = re.compile(
    rf"(?:(?P<before>{_PART})[_.-])?(?P<base>.+?)(?:[_.-](?P<after>{_PART}))?", re.IGNORECASE
)

# The array with the names of the classes by number, which has no row for each example.
_CLASS_NAMES = "class_names"

# (N,) or (N, D) numbers; or texts, None where a cell is empty.
Column = np.ndarray | list[str | None]


def shape_of(column: Column) -> tuple[int, ...]:
    """Return the shape of a column in one row: () for a single value, (D,) for a row of numbers."""
    return () if isinstance(column, list) else column.shape[1:]


@dataclass(frozen=True)
class Frame:
    """A table of N rows, or the rows of one part.

    Attributes:
        path: the file, or the folder of the arrays.
        lines: the line of each row in its file, from 1; empty where rows are no lines.
        named: the classes of columns whose numbers stand for classes with names.
        unread: the type of each column that is neither numbers nor texts, such as a date.
    """

    path: Path
    columns: Mapping[str, Column]
    lines: Sequence[int] = ()
    named: Mapping[str, list[str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    def at(self, row: int) -> str:
        """Return where a row is, for the beginning of a message."""
        return f"{self.path}:{self.lines[row]}" if self.lines else f"{self.path}: row {row}"

    def __len__(self) -> int:
        return max((len(column) for column in self.columns.values()), default=0)


def read_parts(path: Path) -> dict[str, Frame]:
    """Read a file, or a folder with a file for each part.

    Returns: the frames by part, "train", "test" and others; {"": frame} for a table whose name
        tells no part.
    Raises: DataError, naming the file.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".npy":
        return _of_arrays(path, _mapped_arrays(files_of(path)))
    return _read_file(path)


def files_of(path: Path) -> list[Path]:
    """Return the files that are read for `path`. Raises DataError where there are none."""
    if path.suffix.lower() == ".npy" and path.is_file():
        # Labels are arrays of their own, which lie beside the features.
        return sorted(path.parent.glob("*.npy"))
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{path}: holds no table ({', '.join(SUFFIXES)})")
    return found


def _read_folder(path: Path) -> dict[str, Frame]:
    """Read train.csv and test.csv, or what else the parts are called; or arrays in .npy files."""
    files = files_of(path)
    if all(file.suffix.lower() == ".npy" for file in files):
        return _of_arrays(path, _mapped_arrays(files))

    parts: dict[str, Frame] = {}
    for file in files:
        part = _part_of(file.stem)[0] or file.stem
        if part in parts:
            raise DataError(
                f"{path}: {parts[part].path.name} and {file.name} are both the part {part}; name "
                "one file as the path, or take one away"
            )
        read = _read_file(file)
        if list(read) != [""]:
            raise DataError(f"{file}: holds several parts; name this file as the path")
        parts[part] = read[""]
    return parts


def _read_file(path: Path) -> dict[str, Frame]:
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return {"": _read_text(path)}
    if suffix == ".npz":
        arrays = read_npy(path)
        assert isinstance(arrays, dict)
        return _of_arrays(path, arrays)
    if suffix == ".parquet" or suffix in ARROW_SUFFIXES:
        return {"": _read_arrow(path)}
    raise DataError(
        f"{path}: must be one of {', '.join(SUFFIXES)}, or a folder with train.csv and test.csv"
    )


# ---- Text ----------------------------------------------------------------------------------------


def _read_text(path: Path) -> Frame:
    table = read_table(path)
    columns: dict[str, Column] = {}
    for name in table.names:
        columns[name] = numbers_or_texts(table.column(name))
    return Frame(path, columns, table.lines)


def numbers_or_texts(cells: Sequence[str]) -> Column:
    """Return a column as texts, or as (N,) float64 or bool if its cells are numbers or bools.

    An empty cell among numbers is NaN.
    """
    texts = [None if is_missing(cell) else cell for cell in cells]
    if cells and {str(text).lower() for text in texts} <= {"true", "false"}:
        return np.array([str(text).lower() == "true" for text in texts])
    # Python reads 1_000 as a number, and no other program does.
    if any("_" in text for text in texts if text):
        return texts
    try:
        return np.array(["nan" if text is None else text for text in texts], np.float64)
    except ValueError:
        return texts


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value, as an empty cell or NaN does."""
    return cell.strip().lower() in _MISSING


# ---- Arrays --------------------------------------------------------------------------------------


def _mapped_arrays(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Map the arrays of .npy files into memory, by the names of the files."""
    arrays = {}
    for file in files:
        require_kind(file, NUMPY)
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
        except DAMAGE as error:
            words = " ".join(str(error).split())
            raise DataError(
                f"{file}: is no array of numbers or texts that NumPy reads ({words[:120]}); save "
                "it again with numpy.save"
            ) from None
    return arrays


def _of_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Frame]:
    """Return arrays as frames, by the parts that their names tell: X_train, y_train, X_test."""
    parts: dict[str, dict[str, Column]] = {}
    rows = max((len(array) for array in arrays.values() if array.ndim), default=0)
    for name, array in arrays.items():
        if name == _CLASS_NAMES and array.shape[:1] != (rows,):
            continue
        part, base = _part_of(name)
        column = _of_array(array)
        # A single value, such as a version, is no column.
        if column is not None:
            parts.setdefault(part, {})[base] = column
    if not parts:
        raise DataError(f"{path}: holds no array with a row for each example")

    if {"train", "test"} <= set(parts):
        # Beside both parts, an array that belongs to none has no row for each example.
        parts.pop("", None)
    else:
        # Without both parts, names such as X_train tell nothing.
        parts = {"": {name: column for part in parts.values() for name, column in part.items()}}

    frames = {}
    for part, columns in parts.items():
        frames[part] = Frame(path, columns, named=_named_labels(columns, arrays.get(_CLASS_NAMES)))
    return frames


def _named_labels(columns: Mapping[str, Column], names: np.ndarray | None) -> dict[str, list[str]]:
    """Return the class names of each column of whole numbers that is called label or the like.

    Args:
        names: the array `class_names` of the file, where it has one.
    """
    if names is None or names.ndim != 1 or names.dtype.kind not in "US":
        return {}
    texts = [str(name) for name in names.astype(np.str_)]
    named = {}
    for name, column in columns.items():
        numbers = isinstance(column, np.ndarray) and column.dtype.kind in "iu"
        if numbers and ("label" in name or is_label_column(name)):
            named[name] = texts
    return named


def _of_array(array: np.ndarray) -> Column | None:
    """Return an array as a column; None for one without rows."""
    if array.ndim == 0:
        return None
    if array.dtype.kind in "US":
        flat = array.reshape(len(array), -1)[:, 0]
        texts = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in flat]
        return [None if is_missing(text) else text for text in texts]
    # Features in a form (H, W) of their own are a row of numbers for a table.
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _part_of(name: str) -> tuple[str, str]:
    """Return the part that an array's or file's name tells, else "", and the name without it."""
    if re.fullmatch(_PART, name, re.IGNORECASE):
        return _plain_part(name), name
    match = _NAMED_PART.fullmatch(name)
    if match is None:
        return "", name
    return _plain_part(match["before"] or match["after"] or ""), match["base"]


def _plain_part(name: str) -> str:
    name = name.lower()
    return {"training": "train", "valid": "val", "validation": "val"}.get(name, name)


# ---- Arrow and parquet ---------------------------------------------------------------------------


def _read_arrow(path: Path) -> Frame:
    """Read an Arrow file, which is mapped, or a parquet file, which is unpacked into memory."""
    require_kind(path, "a parquet file")
    try:
        table = _arrow_table(path)
        if len(set(table.column_names)) < table.num_columns:
            twice = [name for name in table.column_names if table.column_names.count(name) > 1]
            raise DataError(f"{path}: two columns are called {twice[0]!r}; rename one")
        columns: dict[str, Column] = {}
        unread = {}
        for name in table.column_names:
            column = _of_arrow(table.column(name), f"{path}: the column {name!r}")
            if column is None:
                unread[name] = str(table.column(name).type)
            else:
                columns[name] = column
        return Frame(path, columns, named=class_names_of(table.schema), unread=unread)
    except DataError:
        raise
    # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
    except Exception as error:
        first_line = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as a table ({first_line})") from error


def _arrow_table(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    if path.suffix.lower() == ".parquet":
        return parquet.read_table(path)
    source = pa.memory_map(str(path))
    # The library `datasets` writes streams, and pandas writes files.
    try:
        return ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return ipc.open_stream(source).read_all()


def _of_arrow(column: pa.ChunkedArray, where: str) -> Column | None:
    """Return a column of an Arrow table; None for one that is neither numbers nor texts."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if _is_list(kind):
        return _vectors(column, where)
    if types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if types.is_boolean(kind):
        if not column.null_count:
            return np.array(column.to_pylist(), bool)
        column, kind = column.cast(pa.int8()), pa.int8()
    if types.is_integer(kind) or types.is_floating(kind):
        # Empty cells become NaN.
        return np.asarray(column.to_numpy())
    if types.is_string(kind) or types.is_large_string(kind):
        cells = column.to_pylist()
        return [None if cell is None or is_missing(cell) else cell for cell in cells]
    return None


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not lists:
        return False
    inner = kind.value_type
    return bool(types.is_integer(inner) or types.is_floating(inner) or _is_list(inner))


def _vectors(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """Return a column of lists of numbers as a matrix (N, D).

    Raises: DataError for an empty cell, and for lists of different lengths.
    """
    import pyarrow.compute as pc

    if column.null_count:
        raise DataError(f"{where} has {column.null_count} empty cells; take these rows out")
    if _is_list(column.type.value_type):
        raise DataError(f"{where} holds lists of lists; flatten each into one list of numbers")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1:
        shown = ", ".join(map(str, sorted(lengths)[:5]))
        raise DataError(f"{where} holds lists of different lengths ({shown}); they must be equal")

    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values.reshape(-1, lengths[0])


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes by column, which Hugging Face keeps in the schema's metadata."""
    try:
        metadata: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(metadata["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}
    names = {}
    for column, feature in features.items():
        if isinstance(feature, dict) and isinstance(feature.get("names"), list):
            names[str(column)] = [str(name) for name in feature["names"]]
    return names
