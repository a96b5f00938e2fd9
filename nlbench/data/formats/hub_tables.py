"""Parquet files of the hub without images: texts, or numbers. Each part is joined into one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nlbench.data.cache import file_state
from nlbench.data.formats.columns import is_label_column
from nlbench.data.formats.image_parquet import has_images, read_schema
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.files import new_folder, sync, writing

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

Kind = Literal["images", "text", "features"]

# Rows that are copied at once.
_ROWS = 1024


def kind_of(file: Path, places: Places, text_names: Sequence[str]) -> Kind:
    """Return what a file holds: what a suite's keys say, else what its columns are.

    Args:
        text_names: the usual names of a column of texts.
    Raises: DataError where nothing tells.
    """
    schema = read_schema(file)
    if places.text:
        return "text"
    if places.table.features:
        return "features"
    if places.image_column or has_images(schema):
        return "images"
    if any(_is_vector(schema, name) for name in schema.names):
        return "features"
    if any(name.lower() in text_names for name in schema.names):
        return "text"
    raise DataError(
        f"{file}: has the columns {', '.join(schema.names)}, and none of them is known to hold the "
        f"examples; in the suite's dataset entry name that of images with `image: NAME`, that of "
        f"texts with `text: NAME`, or those of numbers with `features: [NAME, NAME]`"
    )


def _is_vector(schema: Schema, name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    is_list = types.is_list(kind) or types.is_fixed_size_list(kind) or types.is_large_list(kind)
    return is_list and types.is_floating(kind.value_type)


def label_of(file: Path, places: Places) -> str:
    """Return the column of the given labels; "" where only the dataset's own reader can tell."""
    columns = read_schema(file).names
    chosen = places.label_column or places.clean_column
    if chosen in columns:
        return chosen
    labels = [name for name in columns if is_label_column(name)]
    return labels[0] if len(labels) == 1 else ""


def joined(files: Mapping[str, Sequence[Path]], cache_dir: Path) -> Path:
    """Return a folder with one file for each part: train.parquet and test.parquet.

    Args:
        files: the files of each part, in order.
    Raises: DataError, naming a file that cannot be read, or has other columns than the first.
    """
    state = file_state([path for paths in files.values() for path in paths])
    folder = cache_dir / f"hub-{'-'.join(files)}-{state}"
    if folder.is_dir():
        return folder
    with new_folder(folder) as draft:
        for part, paths in files.items():
            _join(paths, draft / f"{part}.parquet")
    return folder


def _join(paths: Sequence[Path], to: Path) -> None:
    from pyarrow import parquet

    schema = read_schema(paths[0])
    with writing(to), parquet.ParquetWriter(to, schema) as writer:
        for path in paths:
            if not read_schema(path).equals(schema):
                raise DataError(f"{path}: has other columns than {paths[0].name}")
            for batch in _batches(path):
                writer.write_batch(batch)
    with to.open("rb") as file:
        sync(file)


def _batches(path: Path) -> Iterator[RecordBatch]:
    from pyarrow import parquet

    try:
        yield from parquet.ParquetFile(path).iter_batches(batch_size=_ROWS)
    # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
    except Exception as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from error
