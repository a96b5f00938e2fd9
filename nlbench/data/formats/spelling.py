"""Find the file that a list means when it spells the name otherwise."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

# A folder of millions of files would take minutes to list.
_MOST_FILES = 200_000


def other_spelling(root: Path, name: str) -> str:
    """Return in words which file below `root` the name stands for, and how its spelling differs.

    Returns: a text to follow the name in a message, such as "; there is im/00.png: write / in place
        of a backslash"; "" where no file, or more than one, is like it.
    """
    wanted = _parts(name)
    found = [path for path in _alike(root).get(_key(name), []) if _agree(wanted, _parts(path))]

    # Of a.jpg and a.png, the one with the same suffix is meant.
    same_suffix = [path for path in found if _parts(path)[-1] == wanted[-1]]
    found = same_suffix or found
    if len(found) != 1 or found[0] == name:
        return ""
    return f"; there is {found[0]!r}: {_difference(name, found[0])}"


def same_letters(name: str) -> str:
    """Return a name with composed letters, so that é is one letter however it was written."""
    return unicodedata.normalize("NFC", name)


def _difference(name: str, there: str) -> str:
    """Say how a name must be changed to be that of the file."""
    slashes = name.replace("\\", "/")
    if slashes == there:
        return "write / in place of \\"
    if same_letters(slashes) == same_letters(there):
        return "its accents are encoded in another way (composed or decomposed letters)"
    if slashes.strip() == there.strip():
        return "its spaces differ"
    if same_letters(slashes).casefold() == same_letters(there).casefold():
        return "write it with the same upper and lower case"
    if there.endswith("/" + slashes):
        return "write the folder before the name; names are relative to the folder of the list"
    if slashes.endswith("/" + there):
        return "leave the folder out; names are relative to the folder of the list"
    if there.startswith(slashes + ".") or os.path.basename(there).startswith(slashes + "."):
        return "write the whole name of the file, with its folder and its suffix"
    return "write its whole name"


def _parts(name: str) -> list[str]:
    return same_letters(name).casefold().replace("\\", "/").split("/")


def _agree(one: list[str], other: list[str]) -> bool:
    """Return whether the folders of two paths are the same, as far as both have some."""
    shared = min(len(one), len(other)) - 1
    return shared == 0 or one[-1 - shared : -1] == other[-1 - shared : -1]


def _key(name: str) -> str:
    """Return the name of a file without folders, suffix, case and spaces around it."""
    base = _parts(name)[-1].strip()
    return re.sub(r"\.[a-z][a-z0-9]{1,4}$", "", base)


def _alike(root: Path) -> dict[str, list[str]]:
    """Return the names of the files below a folder by what `_key` makes of them."""
    found: dict[str, list[str]] = {}
    count = 0
    for folder, _, files in os.walk(root):
        for file in files:
            path = os.path.relpath(os.path.join(folder, file), root)
            found.setdefault(_key(path), []).append(path)
        count += len(files)
        if count > _MOST_FILES:
            break
    return found
