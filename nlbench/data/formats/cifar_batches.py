"""CIFAR as its home page publishes it: Python pickles of rows of pixels, in a folder or still in the tar file."""

import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nlbench.data.formats.safe_pickle import read_pickle
from nlbench.data.noise.label_files import as_labels
from nlbench.errors import DataError


def from_folder(paths: Iterable[Path]) -> dict[str, bytes]:
    """The files' contents by name."""
    return {path.name: path.read_bytes() for path in paths}


def from_archive(path: Path, folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of the members `folder/name`, read in place: nothing is unpacked.

    Raises: DataError when the archive is damaged or a member is not in it.
    """
    wanted = {f"{folder}/{name}": name for name in names}
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and member.name in wanted else None
                if file is not None:
                    contents[wanted[member.name]] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: cannot be read, truncated or damaged ({error}); get the file again") from error
    missing = [member for member, name in wanted.items() if name not in contents]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)} in it; get the file again")
    return contents


def decode(content: bytes, where: str, label_key: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """One batch file: images (n, H, W, 3) uint8 and labels (n,) int64, in its order.

    Args:
        where: names the file in errors.
        shape: (H, W, 3) of an image; the file holds each as a row, channel by channel.
    Raises: DataError for a pickle that is damaged or unsafe, and for anything but pixels and their labels.
    """
    batch = read_pickle(content, where)
    if not isinstance(batch, dict):
        raise DataError(f"{where}: holds a {type(batch).__name__}, not a batch of images; get the file again")
    fields = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    for key in ("data", label_key):
        if key not in fields:
            raise DataError(f"{where}: has no {key!r}, only {', '.join(map(repr, fields))}; is this the right file?")
    rows, (height, width, channels) = fields["data"], shape
    size = height * width * channels
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != size:
        got = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(f"{where}: 'data' must be uint8 (n, {size}), {height}x{width} pixels of colour, got {got}")
    labels = as_labels(fields[label_key], f"{where}: {label_key!r}")
    if len(labels) != len(rows):
        raise DataError(f"{where}: {len(rows)} images but {len(labels)} labels; get the file again")
    return rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), labels
