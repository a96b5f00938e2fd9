"""CIFAR and MNIST in the Hugging Face layout: encoded images and labels in parquet files.

Their names are like `train-00000-of-00001.parquet`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlbench.data import pixels
from nlbench.data.formats.bounds import PictureBytes
from nlbench.data.noise.label_files import as_labels
from nlbench.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from pyarrow import Array

_SHARD = re.compile(r"(?P<part>train|test)-(?P<number>\d+)-of-(?P<count>\d+).*\.parquet")
IMAGE_COLUMNS = ("img", "image")


# ---- Finding the files ---------------------------------------------------------------------------


def shards(folder: Path, part: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the files of a part in order, and in words those that their numbering lacks."""
    paths, count = {}, 1
    for path in folder.glob(f"{part}-*.parquet"):
        match = _SHARD.fullmatch(path.name)
        if match:
            paths[int(match["number"]), path] = path
            count = max(count, int(match["count"]))

    # Each name says how many files there are, so that one that is missing is noticed.
    numbers = {number for number, _ in paths}
    missing = []
    for number in range(count):
        if number not in numbers:
            missing.append(f"{part}-{number:05d}-of-{count:05d}.parquet in {folder}")
    return tuple(paths[key] for key in sorted(paths)), tuple(missing)


def has_column(path: Path, column: str) -> bool:
    """Tell whether a file has this column.

    True for a damaged file as well, so that reading it names the damage.
    """
    # Not at the top of the file: pyarrow loads slowly, and few datasets need it.
    import pyarrow
    import pyarrow.parquet

    try:
        return column in pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError, ValueError):
        return True


# ---- Reading them --------------------------------------------------------------------------------


def decode(
    paths: Sequence[Path],
    label_columns: Sequence[str],
    shape: tuple[int, ...],
    image_columns: Sequence[str] = IMAGE_COLUMNS,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Decode the images of all files, one after the other, with their labels.

    Args:
        label_columns, image_columns: the first of these that a file has is read.
        shape: (H, W, 3) that every image must have, or (H, W, 1) for grey ones.
    Returns: images (N, *shape) uint8, labels (N,) int64, and whether any image is a JPEG, so that
        the pixels are not the official ones.
    Raises: DataError for a damaged file, a missing column, and an image of another size, mode or
        format.
    """
    images, labels, jpeg = [], [], False
    for path in paths:
        encoded, shard_labels = _read(path, label_columns, image_columns)
        shard_images, lossy = _pixels(encoded, path, shape)
        images.append(shard_images)
        labels.append(shard_labels)
        jpeg |= lossy
    return np.concatenate(images), np.concatenate(labels), jpeg


def _read(
    path: Path, label_columns: Sequence[str], image_columns: Sequence[str]
) -> tuple[list[bytes | None], np.ndarray]:
    """Read the encoded images and the labels of one file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image = _choose(names, image_columns, path)
            label = _choose(names, label_columns, path)
            unpacked = PictureBytes(path, file.metadata.num_rows)
            encoded: list[bytes | None] = []
            labels: list[object] = []
            for batch in file.iter_batches(batch_size=1024, columns=[image, label]):
                pictures = _bytes(batch.column(image), path)
                for picture in pictures:
                    unpacked.add(picture)
                encoded += pictures
                labels += batch.column(label).to_pylist()
    except DataError:
        raise
    # A damaged file makes pyarrow raise almost anything.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read, truncated or damaged ({error}); get the file again"
        ) from error
    return encoded, as_labels(labels, f"{path}: {label!r}")


def _choose(names: Sequence[str], wanted: Sequence[str], path: Path) -> str:
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        f"{path}: has no column {' or '.join(wanted)}, only {', '.join(names)}; is this the right "
        f"dataset? `image` and `label` in the suite's dataset entry name other columns."
        f"{did_you_mean(wanted[0], names)}"
    )


def _bytes(column: Array, path: Path) -> list[bytes | None]:
    """Return the bytes in a column of bytes, or of struct<bytes, path>."""
    import pyarrow as pa

    kind = column.type

    # Hugging Face writes a path beside the bytes.
    if pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind):
        return [value and value["bytes"] for value in column.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.to_pylist()
    raise DataError(f"{path}: images must be bytes or struct<bytes, path>, got {kind}")


def _pixels(
    encoded: Sequence[bytes | None], path: Path, shape: tuple[int, ...]
) -> tuple[np.ndarray, bool]:
    """Decode the images of one file. Returns (n, *shape) uint8, and whether any is a JPEG."""
    from PIL import Image

    height, width, channels = shape
    mode = {1: "L", 3: "RGB"}[channels]
    decoded = np.empty((len(encoded), height, width, channels), np.uint8)
    jpeg = False
    for i, content in enumerate(encoded):
        if content is None:
            raise DataError(
                f"{path}: image {i} has no bytes in the file; get a copy that holds the images "
                f"themselves"
            )
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels.refuse_program(image)
                # Resizing silently would make another dataset of it.
                if image.mode != mode or image.size != (width, height):
                    raise DataError(
                        f"{path}: image {i} is {image.mode} {image.width}x{image.height}, it must "
                        f"be {mode} {width}x{height}; is this the right dataset?"
                    )
                decoded[i] = np.asarray(image).reshape(height, width, channels)
                jpeg |= image.format == "JPEG"
        except DataError:
            raise
        # Pillow raises errors of every kind for damaged pictures, and for those of too many pixels.
        except Exception as error:
            raise DataError(
                f"{path}: image {i} cannot be decoded ({error}); get the file again"
            ) from error
    return decoded, jpeg
