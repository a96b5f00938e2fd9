"""Bound the memory and the disk that a small file may fill when it is unpacked.

A file of other people may be made so that a few kilobytes become gigabytes. Every reader that
unpacks something asks here first, and so ends with a message in place of a full memory.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from nlbench.errors import DataError

# Bytes that a byte of a file may become. Labels that were zipped again take up to 50.
MOST_TIMES = 100

# What any computer has room for, however small the file is that it comes from.
ROOM = 1 << 28


def require_modest_zip(archive: zipfile.ZipFile, path: Path, fix: str, room: int = 0) -> None:
    """Raise DataError for a small archive whose members would fill the memory.

    Args:
        fix: what to do about it, for the message.
        room: bytes that the members may have in any case.
    """
    size = path.stat().st_size
    # zipfile reads no more of a member than the archive says that it has.
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(room, MOST_TIMES * size):
        raise DataError(f"{path}: {size:,} bytes that would become {unpacked:,}; {fix}")


class PictureBytes:
    """Counts the pictures of a file and their bytes.

    Args:
        path: the file that they are packed in.
        rows: the number of pictures that it claims to hold.
    Raises: DataError for more pictures than the file has bytes.
    """

    def __init__(self, path: Path, rows: int):
        self._path, self._size = path, path.stat().st_size
        self._most = max(ROOM, MOST_TIMES * self._size)
        self._count = 0
        # Columns of equal values take next to nothing, but no two pictures are the same.
        if rows > self._size:
            raise DataError(
                f"{path}: claims to hold {rows:,} pictures in {self._size:,} bytes; get the file "
                "again"
            )

    def add(self, picture: bytes | None) -> None:
        """Count a picture. Raises DataError when the pictures have far more bytes than the file."""
        self._count += len(picture or b"")
        if self._count > self._most:
            raise DataError(
                f"{self._path}: {self._size:,} bytes that would become more than {self._most:,}; "
                "get the file again"
            )
