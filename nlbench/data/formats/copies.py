"""Find files of the same bytes, such as one picture in the training and in the test part."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from nlbench.data.cache import read_json, write_json
from nlbench.files import short_hash

# Files that differ, differ nearly always here. So few of them are read as a whole.
_SAMPLE = 4096


def groups_of_copies(paths: Sequence[str], cache_dir: Path) -> list[list[int]]:
    """Return the positions of files with the same bytes, in groups of two or more, in order.

    Only files of the same size are opened. The result is kept in `cache_dir` until the name, size
    or time of a file changes. Files that cannot be read are copies of nothing.
    """
    sizes, state = sizes_and_state(paths)
    entry = cache_dir / f"copies-{state}.json"
    try:
        return [[int(i) for i in group] for group in read_json(entry)]
    except (OSError, ValueError, TypeError):
        groups = _by_size(paths, sizes)

    # The result saves time and nothing else, so a cache that cannot be written is no error.
    with contextlib.suppress(OSError):
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_json(entry, groups)
    return groups


def sizes_and_state(paths: Sequence[str]) -> tuple[list[int], str]:
    """Return each file's size (-1 where it is not there), and a hash of names, sizes and times."""
    sizes, facts = [], []
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            sizes.append(-1)
            continue
        sizes.append(found.st_size)
        facts.append(f"{path}\0{found.st_size}\0{found.st_mtime_ns}")
    return sizes, short_hash("\n".join(facts).encode("utf-8", "surrogateescape"))


def _by_size(paths: Sequence[str], sizes: Sequence[int]) -> list[list[int]]:
    same_size: dict[object, list[int]] = {}
    for i, size in enumerate(sizes):
        # Empty files are no pictures, and so no copies of one.
        if size > 0:
            same_size.setdefault(size, []).append(i)

    groups = []
    for candidates in _several(same_size):
        by_sample: dict[object, list[int]] = {}
        for i in candidates:
            by_sample.setdefault(_sample(paths[i], sizes[i]), []).append(i)
        for alike in _several(by_sample):
            by_content: dict[object, list[int]] = {}
            for i in alike:
                by_content.setdefault(_content(paths[i]), []).append(i)
            groups += _several(by_content)
    return sorted(groups)


def _several(groups: dict[object, list[int]]) -> list[list[int]]:
    """Return the groups of two or more. What could not be read has the key None."""
    return [group for key, group in groups.items() if key is not None and len(group) > 1]


def _sample(path: str, size: int) -> bytes | None:
    """Return a part of a file's bytes from its end, where pictures of one size differ."""
    try:
        with open(path, "rb") as file:
            file.seek(max(size - _SAMPLE, 0))
            return hashlib.sha256(file.read(_SAMPLE)).digest()
    except OSError:
        return None


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
