"""CIFAR as its home page publishes it: Python pickles of pixels, in a folder or in the tar file."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

import numpy as np

from nlbench.data.formats.safe_pickle import read_pickle
from nlbench.data.noise.label_files import as_labels
from nlbench.errors import DataError

# ---- The files' contents -------------------------------------------------------------------------


def from_folder(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the files' contents by name."""
    return {path.name: path.read_bytes() for path in paths}


def from_archive(path: Path, folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of the members `folder/name` by name. Nothing is written to the disk.

    The archive is read to its end, where gzip keeps the checksum of all of it.

    Raises: DataError when the archive is damaged, is no archive of CIFAR, or lacks a member.
    """
    wanted = {f"{folder}/{name}": name for name in names}
    contents: dict[str, bytes] = {}
    try:
        with path.open("rb") as packed, _unpacked(packed) as file:
            source = _Bounded(file)
            # "r|" reads on and on, and never goes back.
            with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
                for number, member in enumerate(archive):
                    if number == _MOST_MEMBERS:
                        raise _NotCifar(f"holds more than {_MOST_MEMBERS} files")
                    # A link with the name of a member is not followed.
                    if member.name in wanted and member.isreg() and not member.issparse():
                        name = wanted[member.name]
                        if name in contents:
                            raise _NotCifar(f"holds {member.name} twice")
                        content = archive.extractfile(member)
                        contents[name] = content.read() if content is not None else b""
            while source.read(_CHUNK_BYTES):
                pass
    except _NotCifar as error:
        raise DataError(f"{path}: {error}, which CIFAR's does not; get the file again") from None
    # The headers of a damaged archive make tarfile raise almost anything.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read, truncated or damaged ({error}); get the file again"
        ) from error

    missing = [member for member, name in wanted.items() if name not in contents]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)} in it; get the file again")
    return contents


# CIFAR's archives unpack to 186 MB, and hold about ten files.
_MOST_BYTES = 1 << 30
_MOST_MEMBERS = 1000
_CHUNK_BYTES = 1 << 20


class _NotCifar(Exception):
    """An archive is not one of CIFAR's. The message goes on after the file's name."""


class _Bounded:
    """Reads from a file, and raises _NotCifar once that has given more than CIFAR has."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, _MOST_BYTES

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        self._left -= size
        if self._left < 0:
            raise _NotCifar(f"unpacks to more than {_MOST_BYTES >> 30} GB")
        content = self._file.read(size)
        self._left += size - len(content)
        return content


def _unpacked(packed: IO[bytes]) -> IO[bytes]:
    """Return a file of what is packed by gzip, or the file itself where nothing is."""
    start = packed.read(2)
    packed.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if start == b"\x1f\x8b" else packed


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
