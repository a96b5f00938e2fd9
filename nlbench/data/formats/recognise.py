"""Tell what a file really is when it is not what its name says."""

from __future__ import annotations

from pathlib import Path

from nlbench.errors import DataError

# The first bytes of a file -> what it is, and what to do about it.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which stands for the file",
        "get the file itself, with `git lfs pull` or the page's download button",
    ),
    (b"\x1f\x8b", "a gzip file", "unpack it first, with gunzip"),
    (b"BZh", "a bzip2 file", "unpack it first, with bunzip2"),
    (b"\xfd7zXZ", "an xz file", "unpack it first, with unxz"),
    (b"\x89HDF\r\n", "an HDF5 file (or a new .mat)", "save what is needed of it as .npy"),
    (b"MATLAB", "a MATLAB file", "save what is needed of it as .npy, after scipy.io.loadmat"),
    (b"\x93NUMPY", "a NumPy array", "give its name the end .npy"),
    (b"PAR1", "a parquet file", "save the labels as .csv, with pandas' to_csv"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"\x89PNG", "a PNG image", "name the file of the labels"),
    (b"\xff\xd8\xff", "a JPEG image", "name the file of the labels"),
    (b"%PDF", "a PDF document", "name the file of the labels"),
)

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml")

# What is known of a file's content by its beginning.
NUMPY, ZIP, PICKLE = "a NumPy array", "a zip archive", "a pickle"


def what_is_it(path: Path) -> tuple[str, str]:
    """Return what a file is by its first bytes, and what to do about it; empty texts if unknown.

    Raises: DataError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    if not start:
        return "empty", "it was perhaps not written to its end: make or get it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        advice = "download the file itself; on GitHub the button is called Raw"
        return "a web page (HTML), perhaps one about the file", advice
    for beginning, what, advice in _BEGINNINGS:
        if start.startswith(beginning):
            return what, advice
    if start.startswith(b"PK\x03\x04"):
        return ZIP, "unpack it first; an Excel workbook is one too: save it as CSV"

    # The protocol of a pickle is its second byte. Pickles of protocol 0 are text.
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return PICKLE, "give its name the end .pkl"
    return "", ""


def require_kind(path: Path, *allowed: str) -> None:
    """Raise DataError, saying what the file is and what to do, if it is a known other thing.

    Args:
        allowed: what it may be, as `what_is_it` says it. A file that is not recognised passes.
    """
    what, advice = what_is_it(path)
    if what == "empty":
        raise DataError(f"{path}: is empty; {advice}")
    if what and what not in allowed:
        raise DataError(f"{path}: is {what}, and not what its name says; {advice}")
