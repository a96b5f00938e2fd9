"""CIFAR as its home page publishes it: Python pickles of pixels, in a folder or in the tar file."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nlbench.data.formats.safe_pickle import read_pickle
from nlbench.data.noise.label_files import as_labels
from nlbench.errors import DataError

# ---- The files' contents -------------------------------------------------------------------------


def from_folder(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the files' contents by name."""
    return {path.name: path.read_bytes() for path in paths}


def from_archive(path: Path, folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of the members `folder/name` by name. Nothing is unpacked.

    Raises: DataError when the archive is damaged or a member is not in it.
    """
    wanted = {f"{folder}/{name}": name for name in names}
    contents = {}
    try:
        with tarfile.open(path) as archive:
            # In the archive's order: to go back in a compressed file means to start again.
            for member in archive:
                if not member.isfile() or member.name not in wanted:
                    continue
                file = archive.extractfile(member)
                if file is not None:
                    contents[wanted[member.name]] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: cannot be read, truncated or damaged ({error}); get the file again"
        ) from error

    missing = [member for member, name in wanted.items() if name not in contents]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)} in it; get the file again")
    return contents


# ---- Decoding them -------------------------------------------------------------------------------


def decode(
    content: bytes, where: str, label_key: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode one batch file into images (n, H, W, 3) uint8 and labels (n,) int64, in its order.

    Args:
        where: names the file in errors.
        shape: (H, W, 3) of an image. The file holds each as one line, channel by channel.
    Raises: DataError for a pickle that is damaged or unsafe, and for anything but pixels and their
        labels.
    """
    fields = _fields(content, where)
    for key in ("data", label_key):
        if key not in fields:
            known = ", ".join(map(repr, fields))
            raise DataError(f"{where}: has no {key!r}, only {known}; is this the right file?")

    height, width, channels = shape
    pixels = _pixels(fields["data"], where, shape)
    labels = as_labels(fields[label_key], f"{where}: {label_key!r}")
    if len(labels) != len(pixels):
        raise DataError(
            f"{where}: {len(pixels)} images but {len(labels)} labels; get the file again"
        )

    # In the file an image is one colour after the other; here the colours come last.
    return pixels.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), labels


def _pixels(value: object, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the value, which must be (n, H * W * 3) uint8."""
    height, width, channels = shape
    size = height * width * channels
    got = type(value).__name__
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 2 and value.shape[1] == size:
            return value
        got = f"{value.dtype} {value.shape}"
    raise DataError(
        f"{where}: 'data' must be uint8 (n, {size}), {height}x{width} pixels of colour, got {got}"
    )


def _fields(content: bytes, where: str) -> dict[object, object]:
    """Return the dict in the pickle, its keys as text."""
    batch = read_pickle(content, where)
    if not isinstance(batch, dict):
        raise DataError(
            f"{where}: holds a {type(batch).__name__}, not a batch of images; get the file again"
        )
    fields = {}

    # The keys of Python 2's pickles are bytes in Python 3.
    for key, value in batch.items():
        fields[key.decode("latin1") if isinstance(key, bytes) else key] = value
    return fields
