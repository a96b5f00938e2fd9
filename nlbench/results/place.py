"""Which folder a path names: the one that a sweep has begun with, or another by now."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path

from nlbench.errors import StoreError


@dataclass(frozen=True)
class Place:
    """A folder, remembered by what the file system calls it.

    It can be sent to another process of the same host.

    Attributes:
        path: where it was.
        device, number: the file system's names of it. Another folder of the same path has others.
    """

    path: Path
    device: int
    number: int

    @classmethod
    def of(cls, path: Path) -> Place:
        """Remember a folder, which must be there."""
        handle = os.open(path, os.O_RDONLY)
        found = os.fstat(handle)
        place = cls(path, found.st_dev, found.st_ino)
        # Some network file systems give a folder another number after nobody had it open.
        weakref.finalize(place, os.close, handle)
        return place

    def require(self) -> None:
        """Raise StoreError where the path does not name this folder any more."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            what = "was removed or renamed"
        except OSError as error:
            what = f"cannot be reached any more ({error.strerror})"
        else:
            if (found.st_dev, found.st_ino) == (self.device, self.number):
                return
            what = "was replaced by another folder"
        raise StoreError(
            f"{self.path}: {what} while runs were going on, so no further result is written there. "
            "Put the folder back, and the same command goes on; without it, all runs begin anew"
        )
