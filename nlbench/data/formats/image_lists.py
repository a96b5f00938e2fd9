"""Lists of image files: read them, and compare them with the files that are there."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import ImageFiles
from nlbench.data.formats import spelling
from nlbench.errors import DataError
from nlbench.files import short_hash

# The share of training images that may be missing. If more are, the archive was not unpacked whole.
MOST_MISSING = 0.01

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageList:
    """Images with labels, as a list file names them.

    Attributes:
        source: the list file, or the folder that was listed.
        names: N names, relative to `root`.
        labels: (N,) int64.
        lines: the line of each image in `source`, from 1; 0 in a folder, which has no lines.
        root: the folder of the images.
    """

    source: Path
    names: list[str]
    labels: np.ndarray
    lines: list[int]
    root: Path = Path()

    def select(self, mask: np.ndarray) -> ImageList:
        """Return the list of the images where `mask` (N,) bool is true."""
        index = np.flatnonzero(mask)
        names = [self.names[i] for i in index]
        lines = [self.lines[i] for i in index]
        return replace(self, names=names, labels=self.labels[index], lines=lines)

    def why_absent(self, i: int) -> str:
        """Say that image `i` is not there. A link to nothing is called what it is."""
        path = self.root / self.names[i]
        # A name that is too long or holds a NUL byte is no link.
        try:
            link = os.readlink(path)
        except (OSError, ValueError):
            link = ""
        if link:
            return f"{path} is a link to {link}, which is not there"

        hint = spelling.other_spelling(self.root, self.names[i])
        return f"no image {path}{hint}"

    def files(self) -> ImageFiles:
        """Return the images as a dataset holds them."""
        return image_files(self.root, self.names)


def image_files(root: Path, names: Sequence[str]) -> ImageFiles:
    """Return images of `root` as a dataset holds them."""
    # Bytes take a quarter of the memory of NumPy's text.
    return ImageFiles(root, np.array([os.fsencode(name) for name in names], dtype="S"))


def list_fingerprint(*parts: tuple[Sequence[str], np.ndarray]) -> str:
    """Return 16 hex digits over names and labels, in order.

    The pixels are not in it: to read those of a million files would take too long.
    """
    content = []
    for names, labels in parts:
        # The name of a file need not be UTF-8.
        content.append("\n".join(names).encode("utf-8", "surrogateescape"))
        content.append(labels.astype("<i8").tobytes())
    return short_hash(*content)


# ---- Reading -------------------------------------------------------------------------------------


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends. Raises DataError, naming the file."""
    try:
        # Not splitlines(), which would split inside some names as well.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8; is this the list?") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_list(path: Path, num_classes: int, root: Path = Path()) -> ImageList:
    """Read a list whose lines are "name label", where the label is an integer from 0.

    Empty lines are skipped.

    Raises: DataError, naming file and line.
    """
    names, labels, lines = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue

        # The name may hold spaces, so the label is the last word.
        match = re.fullmatch(r"(.*\S)[ \t]+(\d+)", line.strip())
        if not match:
            raise DataError(
                f"{path}:{number}: must be a file and a label from 0, got {line[:80]!r}"
            )

        # A label of more digits could be too large for int().
        name, label = match.groups()
        if len(label) > 9 or int(label) >= num_classes:
            raise DataError(
                f"{path}:{number}: label {label[:20]} of {name} is not below the "
                f"{num_classes} classes"
            )
        names.append(name)
        labels.append(int(label))
        lines.append(number)
    return ImageList(path, names, np.array(labels, np.int64), lines, root)


# ---- Checking ------------------------------------------------------------------------------------


def require_whole(images: ImageList) -> None:
    """Raise DataError, naming file and line, unless each image is there and listed once.

    Test parts must be whole.
    """
    absent, repeated = ~_present(images), _repeated(images.names)
    if absent.any():
        message = _first_of(absent, images, images.why_absent)
        raise DataError(f"{message}; every image of this part must be there")
    if repeated.any():
        message = _first_of(repeated, images, lambda i: f"{images.names[i]} is listed already")
        raise DataError(f"{message}; keep one")


def usable(images: ImageList) -> tuple[np.ndarray, tuple[str, ...]]:
    """Tell which training images to keep: those that are there, at their first mention.

    Copies lack some images. An image that is listed twice could be trained on and held out at once.

    Returns: (N,) bool, and warnings for the record.
    Raises: DataError when more than MOST_MISSING of them are absent.
    """
    absent, repeated = ~_present(images), _repeated(images.names)
    warnings = []
    if absent.any():
        message = _first_of(absent, images, images.why_absent)

        # Single images are lost in copies; more are a mistake that a warning would hide.
        if absent.mean() > MOST_MISSING:
            first = int(np.flatnonzero(absent)[0])
            # An image under another spelling was unpacked.
            unpacked = spelling.other_spelling(images.root, images.names[first])
            why = "mend the list" if unpacked else "was all of the archive unpacked?"
            raise DataError(f"{message}; more than {MOST_MISSING:.0%} are missing: {why}")
        warnings.append(f"{message}; left out")
    if repeated.any():
        message = _first_of(repeated, images, lambda i: f"{images.names[i]} is listed already")
        warnings.append(f"{message}; left out")
    return ~absent & ~repeated, tuple(warnings)


def at(source: Path, line: int) -> str:
    """Return file:line, or the file alone where it has no lines (0)."""
    return f"{source}:{line}" if line else str(source)


def _present(images: ImageList) -> np.ndarray:
    """Return (N,) bool: which files exist."""
    folders: dict[str, set[str]] = {}
    found = np.zeros(len(images.names), bool)
    for i, name in enumerate(images.names):
        folder, _, file = name.rpartition("/")
        # Each folder is listed once, because there may be a million files.
        if folder not in folders:
            try:
                folders[folder] = _files_in(images.root / folder)
            # Also for a name that is too long or holds a NUL byte.
            except (FileNotFoundError, NotADirectoryError, ValueError):
                folders[folder] = set()
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
                    raise
                folders[folder] = set()
        found[i] = file in folders[folder]
    return found


def _files_in(folder: Path) -> set[str]:
    """Return the names of the files in a folder. Links to nothing, pipes and folders are none."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def _repeated(names: Sequence[str]) -> np.ndarray:
    """Return (N,) bool: which names stand earlier in the list already."""
    seen: set[str] = set()
    repeated = np.zeros(len(names), bool)
    for i, name in enumerate(names):
        repeated[i] = name in seen
        seen.add(name)
    return repeated


def _first_of(wrong: np.ndarray, images: ImageList, describe: Callable[[int], str]) -> str:
    """Return a message about the first wrong image, with the number of them."""
    first, count = int(np.flatnonzero(wrong)[0]), int(wrong.sum())
    more = f" (the first of {count} of {len(wrong)})" if count > 1 else ""
    return f"{at(images.source, images.lines[first])}: {describe(first)}{more}"
