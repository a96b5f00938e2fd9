"""List the pictures of class folders, and say what was left out and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nlbench.errors import DataError

# A file of such a name is taken for a picture without opening it.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

# ---- Why something is left out -------------------------------------------------------------------

OTHER_PROGRAM = "of another program"
NO_PICTURE = "without a picture in it"
UNREAD = "of a kind that is not read (convert them to JPEG or PNG)"
UNFINISHED = "with the name of a backup or an unfinished download"
BESIDE = "beside the class folders"
HIDDEN = "whose names begin with a dot"
NO_FILE = "of a special kind, such as pipes and sockets"
LOOP = "to which a link leads again"
EMPTY = "without a picture, as no class"

# What is left out for a reason, where that is no file.
_WHAT = {UNREAD: "picture", BESIDE: "picture", HIDDEN: "picture"}
_WHAT |= {OTHER_PROGRAM: "folder", EMPTY: "folder", LOOP: "folder"}

# Folders that file managers, NAS devices, archives and notebooks make. Names with a dot or an @ in
# front are such folders as well.
_FOLDERS_OF_PROGRAMS = {
    "__macosx",
    "__pycache__",
    "$recycle.bin",
    "#recycle",
    "#snapshot",
    "lost+found",
    "recycler",
    "system volume information",
    "_cache",
    "_thumbs",
    "_thumbnails",
    "_gsdata_",
    "_vti_cnf",
}
_FILES_OF_PROGRAMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_BACKUPS = ("~", ".bak", ".tmp", ".part", ".partial", ".crdownload", ".download", ".swp", ".old")

# Raw files of cameras begin as TIFF files do, and hold a small preview in its place.
_RAW = ".cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw .raw"
_UNREAD = tuple(
    f"{_RAW} .heic .heif .avif .jp2 .j2k .jxl .svg .psd .dcm .tga .ico .ppm .pgm .pbm .pnm .exr "
    ".hdr .npy .fits .nii .xcf".split()
)

# Never pictures. There may be one for each picture, and opening all of them takes time.
_TEXT = (".txt", ".xml", ".json", ".csv", ".md", ".yaml", ".yml", ".html", ".py")


@dataclass
class Listing:
    """The pictures of a folder with their classes, in the order of classes and names.

    Attributes:
        names: relative to the folder.
        labels: the name of the class folder of each.
        left_out: why -> names, relative to the folder.
        levels: class -> the folders inside it, for classes that hold pictures in several folders
            and none beside these. Their names might be the classes that are meant.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    levels: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, name: str, why: str) -> None:
        """Note that a file or folder is not taken."""
        self.left_out.setdefault(why, []).append(name)


def class_folders(folder: Path) -> Listing:
    """List CLASS/FILE, also in folders inside a class's and behind links.

    A file is a picture by its name, or else by its first bytes. Links to nothing are listed, so
    that they are counted as missing.

    Raises: DataError for a folder that cannot be read.
    """
    listing = Listing()
    folders, files = _entries(folder)
    for entry in files:
        _note_beside(listing, entry)

    for entry in folders:
        if is_of_program(entry.name):
            listing.leave_out(entry.name, OTHER_PROGRAM)
            continue
        before = len(listing.names)
        _list_class(listing, folder, entry.name)
        if len(listing.names) == before:
            listing.leave_out(entry.name, EMPTY)
    return listing


def is_of_program(folder: str) -> bool:
    """Tell whether a folder's name is one that programs make for themselves."""
    return folder.startswith((".", "@")) or folder.lower() in _FOLDERS_OF_PROGRAMS


def pictures_in(folder: Path, most: int = 10_000) -> int:
    """Count the files below a folder that are pictures by their name, up to `most`."""
    count = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_of_program(name)]
        count += sum(name.lower().endswith(SUFFIXES) for name in files)
        if count >= most:
            return most
    return count


def in_words(source: Path, left_out: dict[str, list[str]]) -> list[str]:
    """Return a line for each reason why something of `source` was left out."""
    lines = []
    for why, names in left_out.items():
        what = counted(len(names), _WHAT.get(why, "file"))
        shown = ", ".join(names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"{source}: left out {what} {why}: {shown}{more}")
    return lines


def counted(count: int, what: str) -> str:
    """Return "1 picture" or "2 pictures"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def starts_as_picture(path: str) -> bool:
    """Tell by its first bytes whether a file is a usual picture. Raises DataError if unreadable."""
    return _by_content(path) is None


# ---- Walking -------------------------------------------------------------------------------------


def _entries(folder: Path | str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return the folders, and everything else, in the order of their names. Links are followed."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    folders = [entry for entry in entries if entry.is_dir()]
    return folders, [entry for entry in entries if not entry.is_dir()]


def _list_class(listing: Listing, root: Path, label: str) -> None:
    """Add the pictures of one class, those of a folder before those of the folders inside it."""
    seen: set[tuple[int, int]] = set()
    own, inside = False, []
    waiting = [label]
    while waiting:
        inner = waiting.pop()
        # A link may lead to a folder above it, or to one that was listed.
        found = os.stat(root / inner)
        if (found.st_dev, found.st_ino) in seen:
            listing.leave_out(inner, LOOP)
            continue
        seen.add((found.st_dev, found.st_ino))

        folders, files = _entries(root / inner)
        taken = list(_pictures(listing, inner, files))
        listing.names += taken
        listing.labels += [label] * len(taken)
        own = own or (inner == label and bool(taken))
        if inner != label and taken:
            inside.append(os.path.relpath(inner, label).split(os.sep)[0])

        for entry in reversed(folders):
            name = os.path.join(inner, entry.name)
            if is_of_program(entry.name):
                listing.leave_out(name, OTHER_PROGRAM)
            else:
                waiting.append(name)

    levels = list(dict.fromkeys(inside))
    if not own and len(levels) > 1:
        listing.levels[label] = levels


def _pictures(listing: Listing, inner: str, files: list[os.DirEntry[str]]) -> Iterator[str]:
    """Yield the files of one folder that are pictures, and note the others."""
    for entry in files:
        name = os.path.join(inner, entry.name)
        why = _why_not(entry)
        if why is None:
            yield name
        elif why:
            listing.leave_out(name, why)


def _note_beside(listing: Listing, entry: os.DirEntry[str]) -> None:
    """Note a file that lies beside the class folders."""
    why = _why_not(entry)
    if why is None:
        why = BESIDE
    if why:
        listing.leave_out(entry.name, why)


# ---- One file ------------------------------------------------------------------------------------


def _why_not(entry: os.DirEntry[str]) -> str | None:
    """Return why a file is no picture: None for a picture, "" where nobody takes it for one."""
    name = entry.name.lower()
    if name in _FILES_OF_PROGRAMS or name.startswith("._") or name == ".ds_store":
        return ""
    if name.startswith("."):
        return HIDDEN if name.endswith(SUFFIXES) else ""
    if name.endswith(_BACKUPS):
        return UNFINISHED
    if not entry.is_file():
        return _why_no_file(entry)
    if name.endswith(SUFFIXES):
        return None
    if name.endswith(_UNREAD):
        return UNREAD
    if name.endswith(_TEXT):
        return NO_PICTURE
    return _by_content(entry.path)


def _why_no_file(entry: os.DirEntry[str]) -> str | None:
    # A link to nothing is listed, so that it is counted as missing.
    if entry.is_symlink() and not os.path.exists(entry.path):
        return None if entry.name.lower().endswith(SUFFIXES) else NO_PICTURE
    return NO_FILE


def _by_content(path: str) -> str | None:
    """Return why the first bytes of a file are those of no picture that is read, or None."""
    try:
        # A pipe would be waited for. `_why_not` asks before, but a link may change.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            start = os.read(descriptor, 32) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return None
    if start.startswith((b"II*\0", b"MM\0*")) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return None
    # Two letters alone could begin a text.
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return None
    heif = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"msf1")
    if heif or start.startswith((b"\0\0\0\x0cjP  ", b"8BPS", b"\xff\x0a", b"II+\0")):
        return UNREAD
    return NO_PICTURE
