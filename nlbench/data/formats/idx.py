"""Read MNIST's idx files, packed with gzip or not.

A file has a head of big-endian int32: the number 0x0800 + d, for d dimensions of bytes, and then
their sizes. The bytes follow.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from nlbench.errors import DataError

_BYTES = 0x0800
# What the file is by its number of dimensions.
_WHAT = {1: "labels", 3: "images"}


def read_idx(path: Path, dimensions: int, most: int) -> np.ndarray:
    """Read an array of bytes, uint8 of so many dimensions.

    Args:
        path: packed with gzip if its name ends in .gz.
        most: the largest number of bytes that it may hold. No more is unpacked.
    Raises: DataError, naming the file.
    """
    wanted = _WHAT[dimensions]
    head = 4 * (1 + dimensions)
    content = _content(path, head + most + 1)
    if len(content) < head:
        raise DataError(f"{path}: {len(content)} bytes are no idx file; get the file again")

    magic, *shape = np.frombuffer(content, ">i4", 1 + dimensions).tolist()
    if magic != _BYTES + dimensions:
        found = _WHAT.get(magic - _BYTES)
        what = f"holds {found}" if found else f"begins with {magic}"
        raise DataError(
            f"{path}: {what}, and an idx file of {wanted} begins with {_BYTES + dimensions}; is it "
            "another file under this name?"
        )
    size = 1
    for length in shape:
        size *= max(length, 0)
    if size == 0 or size > most:
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path}: says that it holds {sizes} bytes; 1 to {most} are allowed")
    if len(content) != head + size:
        more = "ends too early" if len(content) < head + size else "goes on after its end"
        raise DataError(f"{path}: {more}: its head says {size} bytes; get the file again")
    return np.frombuffer(content, np.uint8, size, head).reshape(shape)


def _content(path: Path, most: int) -> bytes:
    """Return the first `most` bytes of a file, unpacked."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read, truncated or damaged ({error}); get the file again"
        ) from None
