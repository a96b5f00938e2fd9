"""Parquet files of images as Hugging Face writes them: find those of one part, and read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.data.formats.bounds import PictureBytes
from nlbench.data.formats.columns import (
    ChosenColumns,
    LabelColumns,
    is_label_column,
    is_no_class,
    require_class,
)
from nlbench.data.formats.split_column import may_be_split, says_a_part
from nlbench.errors import DataError, did_you_mean
from nlbench.files import digest, short_hash

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.parquet import ParquetFile

IMAGE_COLUMNS = ("image", "img")

# Names like train-00000-of-00003-0123456789abcdef.parquet, train.parquet and train_1.parquet.
_OF = re.compile(r"(?P<split>.+?)-(?P<number>\d+)-of-(?P<count>\d+)(?:-[0-9a-f]+)?")
_NUMBERED = re.compile(r"(?P<split>.*?[^\W\d])[-_.]?(?:part|shard)?[-_.]?(?P<number>\d+)")


@dataclass(frozen=True)
class ChosenAll(ChosenColumns):
    """The columns of images and labels that a suite names.

    Attributes:
        image: the column of the images; "" where names or the file's metadata tell.
    """

    image: str = ""

    @property
    def tag(self) -> str:
        """As `ChosenColumns.tag`; it differs for another column of images as well."""
        if not self.image:
            return super().tag
        return f"{super().tag}-{short_hash(self.image.encode())}"


# ---- Finding the files of a part -----------------------------------------------------------------


def split_of(file: Path) -> str:
    """Return the split that a file belongs to by its name: "train" for train-00000-of-00003."""
    match = _OF.fullmatch(file.stem) or _NUMBERED.fullmatch(file.stem)
    return match["split"] if match else file.stem


def all_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files in a folder and in its data/ by split, in order."""
    found: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        found.setdefault(split_of(file), []).append(file)
    return found


def require_one_copy(files: Sequence[Path], split: str) -> list[Path]:
    """Return the files of a split, after checking that all are there, and once.

    Raises: DataError, naming the files that are missing or too many.
    """
    folders = list(dict.fromkeys(file.parent for file in files))
    if len(folders) > 1:
        raise DataError(
            f"the part {split} is there twice: {files[0]} and {_first_in(folders[1], files)}; keep "
            f"one"
        )

    numbered: dict[tuple[int, int], Path] = {}
    for file in files:
        match = _OF.fullmatch(file.stem)
        plain = _NUMBERED.fullmatch(file.stem)
        if match:
            key = (int(match["count"]), int(match["number"]))
        elif plain:
            key = (0, int(plain["number"]))
        else:
            key = (-1, 0)
        if key in numbered:
            raise DataError(
                f"{file}: the same file as {numbered[key].name} by its number; keep one"
            )
        numbered[key] = file

    counts = sorted({count for count, _ in numbered})
    if len(counts) > 1:
        names = " and ".join(_first_of_count(numbered, count).name for count in counts[:2])
        raise DataError(f"{folders[0]}: {names} are two copies of the part {split}; keep one")
    _require_all(numbered, folders[0], split, counts[0])
    _require_different(files)
    return list(files)


def _require_all(
    numbered: Mapping[tuple[int, int], Path], folder: Path, split: str, count: int
) -> None:
    """Raise DataError for numbers that are missing."""
    numbers = {number for _, number in numbered}
    if count > 0:
        missing = [
            f"{split}-{i:05}-of-{count:05}.parquet" for i in range(count) if i not in numbers
        ]
        beyond = [number for number in numbers if number >= count]
        if beyond:
            raise DataError(f"{folder}: {split}-{beyond[0]:05} of {count} files; is it renamed?")
    elif count == 0:
        # Without a number of files, a gap is what can be noticed.
        whole = range(min(min(numbers), 1), max(numbers) + 1)
        missing = [f"{split} number {i}" for i in whole if i not in numbers]
    else:
        missing = []
    if missing:
        shown = ", ".join(missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"{folder}: of the part {split}, {shown}{more} is not there ({len(numbers)} of "
            f"{len(numbers) + len(missing)} files are); get the rest, or rename the files if these "
            f"are all"
        )


def _require_different(files: Sequence[Path]) -> None:
    """Raise DataError for two files of the same content."""
    by_size: dict[int, list[Path]] = {}
    for file in files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    for same_size in by_size.values():
        seen: dict[str, Path] = {}
        # Most files differ in size, and are then not read here.
        for file in same_size if len(same_size) > 1 else ():
            other = seen.setdefault(digest(file, "sha256"), file)
            if other is not file:
                raise DataError(f"{file}: has the same content as {other.name}; keep one")


def _first_in(folder: Path, files: Sequence[Path]) -> Path:
    return next(file for file in files if file.parent == folder)


def _first_of_count(numbered: Mapping[tuple[int, int], Path], count: int) -> Path:
    return next(numbered[key] for key in sorted(numbered) if key[0] == count)


# ---- Reading them --------------------------------------------------------------------------------


def images(files: Sequence[Path], chosen: ChosenAll) -> Iterator[tuple[bytes, list[str]]]:
    """Yield each image's bytes and its labels: the given one, then the true one where known.

    Raises: DataError, naming file and row.
    """
    from pyarrow import parquet

    first = ""
    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            schema = opened.schema_arrow
            image, found = _columns(file, schema, chosen)
            columns = [found.given, found.clean] if found.clean else [found.given]
            first = first or found.given
            if found.given != first:
                raise DataError(
                    f"{file}: its labels are {found.given!r}, and {files[0]} has {first!r}; give "
                    f"all files the same columns"
                )
            # True labels mostly have the names of the given ones.
            default = _class_names(schema, columns[0])
            names = [_class_names(schema, label) or default for label in columns]

            unpacked = PictureBytes(file, opened.metadata.num_rows)
            number = 0
            for batch in opened.iter_batches(batch_size=256, columns=[image, *columns]):
                for cells in batch.to_pylist():
                    where = f"{file}: row {number} (from 0)"
                    content = _bytes(cells[image], image, where)
                    unpacked.add(content)
                    labels = []
                    for column, known in zip(columns, names, strict=True):
                        # The true label of an image may be unknown.
                        if column != columns[0] and _is_unknown(cells[column]):
                            labels.append("")
                        else:
                            more = ""
                            if _is_unknown(cells[column]):
                                more = _how_many_unknown(opened, column)
                            labels.append(_label(cells[column], known, column, where, more))
                    yield content, labels
                    number += 1
        except DataError:
            raise
        # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
        except Exception as error:
            raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    first_line = str(error).partition("\n")[0] or type(error).__name__
    return DataError(f"{file}: cannot be read as parquet ({first_line})")


def _how_many_unknown(opened: ParquetFile, column: str) -> str:
    """Say how many cells of a file's column hold no label; nothing for one."""
    cells = opened.read(columns=[column]).column(0).to_pylist()
    count = sum(_is_unknown(cell) for cell in cells)
    return f" (the first of {count} of {len(cells)} rows of this file)" if count > 1 else ""


def _is_unknown(value: object) -> bool:
    return value is None or is_no_class(str(value))


def hidden_labels(files: Sequence[Path], label: str) -> int:
    """Return how many labels are -1, which hides a label on the Hugging Face hub.

    Args:
        label: the column; a file without it has none.
    Raises: DataError, naming the file.
    """
    import pyarrow
    from pyarrow import compute, parquet

    count = 0
    for file in files:
        schema = read_schema(file)
        if label not in schema.names or not pyarrow.types.is_integer(schema.field(label).type):
            continue
        try:
            cells = parquet.ParquetFile(file).read(columns=[label]).column(0)
        # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
        except Exception as error:
            raise _unreadable(file, error) from error
        count += compute.sum(compute.equal(cells, -1)).as_py() or 0
    return count


def about_columns(file: Path, chosen: ChosenAll) -> list[str]:
    """Return in words which columns of labels were taken for what, unless they have usual names."""
    from pyarrow import parquet

    found = _columns(file, parquet.read_schema(file), chosen)[1]
    # One column for both says that its labels are true.
    return [] if found.given == found.clean else found.notes(file)


def splitting_columns(files: Sequence[Path], chosen: ChosenAll) -> dict[str, list[object]]:
    """Return the columns that may say which part a row belongs to, over all files.

    They are known by their names, or by a first row that names a part.
    Raises: DataError, naming the file.
    """
    from pyarrow import parquet

    found: dict[str, list[object]] = {}
    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            schema = opened.schema_arrow
            image, labels = _columns(file, schema, chosen)
            for column in schema.names:
                if column not in (image, labels.given, labels.clean):
                    cells = _split_cells(opened, column)
                    found.setdefault(column, []).extend(cells)
        except DataError:
            raise
        # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
        except Exception as error:
            raise _unreadable(file, error) from error
    return found


def _split_cells(opened: ParquetFile, column: str) -> list[object]:
    """Return the cells of a column that may say which part a row belongs to; else none."""
    from pyarrow import types

    schema = opened.schema_arrow
    kind = schema.field(column).type
    if types.is_nested(kind) or types.is_binary(kind):
        return []
    # Only the beginning of other texts is read: captions may be long.
    if not may_be_split(column):
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)):
            return []
        for batch in opened.iter_batches(batch_size=16, columns=[column]):
            if not all(says_a_part(cell) for cell in batch.column(0).to_pylist()):
                return []
            break

    names = _class_names(schema, column)
    cells: list[object] = []
    for cell in opened.read(columns=[column]).column(0).to_pylist():
        if cell is None:
            cells.append("")
        elif names and isinstance(cell, int) and 0 <= cell < len(names):
            cells.append(names[cell])
        else:
            cells.append(cell)
    return cells


def _columns(file: Path, schema: Schema, chosen: ChosenAll) -> tuple[str, LabelColumns]:
    """Return the column of the images, and those of the labels."""
    columns = schema.names
    if chosen.image and chosen.image in columns:
        image = chosen.image
        columns = [column for column in columns if column != image]
    elif chosen.image and chosen.must:
        raise DataError(
            f"{file}: has no column {chosen.image!r}, only {', '.join(columns)}."
            f"{did_you_mean(chosen.image, columns)}"
        )
    else:
        of_images = _of_type(schema, "Image")
        usual = [column for column in IMAGE_COLUMNS if column in columns]
        if not usual and len(of_images) != 1:
            raise DataError(
                f"{file}: needs a column image and a column label, has {', '.join(columns)}; if "
                f"another one holds the images, name it with `image: NAME` in the suite's dataset "
                f"entry"
            )
        image = [*usual, *of_images][0]
    labels = _of_type(schema, "ClassLabel")
    # For example "species". Only the metadata tells that it holds classes.
    if len(labels) == 1 and not chosen.given and not any(map(is_label_column, columns)):
        return image, LabelColumns(labels[0], chosen.clean)
    return image, chosen.among(columns, file)


def _bytes(content: object, column: str, where: str) -> bytes:
    """Return the bytes of an image, which Hugging Face keeps beside a path."""
    path = ""
    if isinstance(content, dict):
        path, content = str(content.get("path") or ""), content.get("bytes")
    if isinstance(content, bytes):
        return content
    if content is None and path:
        raise DataError(
            f"{where} is without image bytes: {column!r} has only the path {path}; get a copy that "
            f"holds the images themselves, or write a list train.csv (path,label)"
        )
    if content is None:
        raise DataError(f"{where} is without image bytes")
    raise DataError(
        f"{where} is without image bytes: {column!r} holds {type(content).__name__}; if these are "
        f"paths, write a list train.csv (path,label)"
    )


def _label(value: object, names: Sequence[str], column: str, where: str, more: str = "") -> str:
    """Return a label as text, by the name of its class where the file has names."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    require_class(value, f"{where}: {column}", more)
    if not names or isinstance(value, str):
        return str(value)
    # 1.0 and True are the class 1 as well.
    if isinstance(value, int | float) and value in range(len(names)):
        return names[int(value)]
    raise DataError(
        f"{where}: {column} is {value}, and the file names {len(names)} classes, from 0 "
        f"({names[0]}) to {len(names) - 1} ({names[-1]})"
    )


def read_schema(file: Path) -> Schema:
    """Return the columns of a file, with their metadata. Raises DataError, naming the file."""
    from pyarrow import parquet

    try:
        return parquet.read_schema(file)
    # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
    except Exception as error:
        raise _unreadable(file, error) from error


def has_images(schema: Schema) -> bool:
    """Return whether a file has a column of images, by its name or its metadata."""
    usual = any(column in schema.names for column in IMAGE_COLUMNS)
    return usual or bool(_of_type(schema, "Image"))


def label_of(file: Path, chosen: ChosenAll) -> str:
    """Return the column of the given labels. Raises DataError, naming the file."""
    return _columns(file, read_schema(file), chosen)[1].given


def class_names(file: Path, label: str) -> list[str]:
    """Return the names of the classes in their order, where the metadata of a file has them.

    Raises: DataError, naming the file.
    """
    return _class_names(read_schema(file), label)


def _class_names(schema: Schema, label: str) -> list[str]:
    """Return the names of the classes, which Hugging Face keeps in the schema's metadata."""
    try:
        return [str(name) for name in features(schema)[label]["names"]]
    except (KeyError, TypeError):
        return []


def _of_type(schema: Schema, kind: str) -> list[str]:
    """Return the columns that the metadata calls a feature of this type, such as "Image"."""
    known = features(schema).items()
    return [
        name
        for name, feature in known
        if isinstance(feature, dict) and feature.get("_type") == kind and name in schema.names
    ]


def features(schema: Schema) -> dict[str, Any]:
    """Return the features by column, which Hugging Face keeps in the schema's metadata."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(metadata["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}
