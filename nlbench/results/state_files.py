"""The files of a stopped training: are they those that were written? Read without torch.

A checkpoint and a helper network are zip archives of torch, in which a comment may follow after
everything else. torch does not compare the archive's own checksums with its content, so the comment
holds one of the whole file.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from nlbench.files import crc32, open_regular

_COMMENT = b"nlbench crc32 "
_COMMENT_BYTES = len(_COMMENT) + 8

# The last thing of an archive without a comment is the comment's length.
_NO_COMMENT = bytes(2)


class _Summed:
    """Passes on what is written to a file, and sums it up."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.value = 0

    def write(self, part: bytes) -> int:
        self.value = zlib.crc32(part, self.value)
        return self._file.write(part)

    def flush(self) -> None:
        self._file.flush()


def write_with_checksum(file: IO[bytes], save: Callable[[object], object]) -> None:
    """Write an archive with its checksum as the comment.

    Args:
        save: writes the archive to what it is given, by `write` and `flush` alone.
    """
    summed = _Summed(file)
    save(summed)
    comment = _COMMENT + b"%08x" % summed.value
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(len(comment).to_bytes(2, "little") + comment)


def damage_of(path: Path) -> str:
    """Return why a file is not one that `write_with_checksum` wrote; else an empty string."""
    tail = len(_NO_COMMENT) + _COMMENT_BYTES
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < tail:
                return "it is cut off"
            file.seek(size - tail)
            length, comment = file.read(2), file.read()
            if length != _COMMENT_BYTES.to_bytes(2, "little") or not comment.startswith(_COMMENT):
                return "it has no checksum, so it is damaged or of an earlier version"
            file.seek(0)
            found = zlib.crc32(_NO_COMMENT, crc32(file, size - tail))
    except OSError as error:
        return f"it {error.strerror}" if error.errno == errno.EINVAL else str(error.strerror)
    if comment != _COMMENT + b"%08x" % found:
        return "it is damaged, its checksum does not fit"
    return ""
