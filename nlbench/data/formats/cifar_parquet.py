"""CIFAR in the Hugging Face layout: encoded images and labels in parquet files, `train-00000-of-00001.parquet`."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.noise.label_files import as_labels
from nlbench.errors import DataError

_SHARD = re.compile(r"(?P<part>train|test)-(?P<number>\d+)-of-(?P<count>\d+).*\.parquet")
_IMAGE_COLUMNS = ("img", "image")


def shards(folder: Path, part: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The part's files in order, and in words those that their own numbering says are missing."""
    found = [(match, path) for path in folder.glob(f"{part}-*.parquet") if (match := _SHARD.fullmatch(path.name))]
    numbered = sorted((int(match["number"]), path) for match, path in found)
    count = max((int(match["count"]) for match, _ in found), default=1)
    numbers = {number for number, _ in numbered}
    missing = [f"{part}-{i:05d}-of-{count:05d}.parquet" for i in range(count) if i not in numbers]
    return tuple(path for _, path in numbered), tuple(f"{name} in {folder}" for name in missing)


def has_column(path: Path, column: str) -> bool:
    """Whether a file can be this dataset's; a damaged one can, so that reading it names the damage."""
    import pyarrow
    import pyarrow.parquet

    try:
        return column in pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError, ValueError):
        return True


def decode(
    paths: Sequence[Path], label_columns: Sequence[str], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The images of all files, one after the other, and their labels.

    Args:
        label_columns: the first of these that a file has is read.
        shape: (H, W, 3) that every image must have.
    Returns: images (N, H, W, 3) uint8, labels (N,) int64, and whether any image is a JPEG, so not the official pixels.
    Raises: DataError for a damaged file, a missing column, and an image of another size, mode or format.
    """
    images, labels, jpeg = [], [], False
    for path in paths:
        encoded, shard_labels = _read(path, label_columns)
        pixels, lossy = _pixels(encoded, path, shape)
        images.append(pixels)
        labels.append(shard_labels)
        jpeg |= lossy
    return np.concatenate(images), np.concatenate(labels), jpeg


def _read(path: Path, label_columns: Sequence[str]) -> tuple[list[bytes | None], np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = _choose(names, _IMAGE_COLUMNS, path)
            label = _choose(names, label_columns, path)
            table = file.read(columns=[image, label])
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read, truncated or damaged ({error}); get the file again") from error
    return _bytes(table.column(image), path), as_labels(table.column(label).to_pylist(), f"{path}: {label!r}")


def _choose(names: Sequence[str], wanted: Sequence[str], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(f"{path}: has no column {' or '.join(wanted)}, only {', '.join(names)}; is this the right dataset?")


def _bytes(column: Any, path: Path) -> list[bytes | None]:
    """From a column of bytes, or of struct<bytes, path>."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind):
        return [row and row["bytes"] for row in column.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.to_pylist()
    raise DataError(f"{path}: images must be bytes or struct<bytes, path>, got {kind}")


def _pixels(encoded: Sequence[bytes | None], path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    from PIL import Image

    height, width, channels = shape
    pixels = np.empty((len(encoded), height, width, channels), np.uint8)
    jpeg = False
    for i, content in enumerate(encoded):
        if content is None:
            raise DataError(f"{path}: image {i} has no bytes in the file; get a copy that holds the images themselves")
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.mode != "RGB" or image.size != (width, height):
                    raise DataError(
                        f"{path}: image {i} is {image.mode} {image.width}x{image.height}, it must be RGB "
                        f"{width}x{height}; is this the right dataset?"
                    )
                pixels[i] = np.asarray(image)
                jpeg |= image.format == "JPEG"
        except (OSError, ValueError, SyntaxError) as error:  # PIL reports broken PNG files as SyntaxError
            raise DataError(f"{path}: image {i} cannot be decoded ({error}); get the file again") from error
    return pixels, jpeg
