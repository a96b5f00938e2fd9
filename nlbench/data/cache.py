"""Keep decoded data per user: decode it once, and map it into memory afterwards.

An entry has checksums. They are compared when a process first opens it, so that a changed pixel or
label never trains a network. A damaged entry is set aside and made again from its source.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nlbench.data.formats.numpy_files import DAMAGE
from nlbench.errors import DataError, NlbenchWarning
from nlbench.files import (
    NotWritten,
    crc32,
    flock,
    is_abandoned,
    is_temporary,
    make_folder,
    new_folder,
    not_written,
    open_regular,
    read_regular,
    remove,
    replacing,
    short_hash,
    without_waiting,
    writing,
)

# The version of the entries. A higher number decodes everything again. From 2 on they have
# checksums.
_FORMAT = 2

Arrays = Mapping[str, np.ndarray]
Facts = dict[str, Any]
T = TypeVar("T")

# The files whose content this process has checked, with their state at that time. A process that
# is forked from this one need not check them again.
_checked: dict[Path, object] = {}

# The entries that this process has opened, and whether it has made them.
_used: dict[Path, bool] = {}


class CacheNotWritten(DataError):
    """The disk does not take the decoded data. Other runs would meet the same."""


class _Damaged(Exception):
    """An entry is there, but it is not the one that was written. The message says why."""


def cached(
    cache_dir: Path, name: str, files: Sequence[Path], decode: Callable[[], tuple[Arrays, Facts]]
) -> tuple[Arrays, Facts]:
    """Return what `decode()` returns, from the cache where `files` have not changed since.

    An entry belongs to the paths, sizes and modification times of `files`. It appears whole or not
    at all. A second process that needs it waits for the first one.

    Args:
        name: of the entry, for people who look into the cache.
        decode: returns arrays by name, and facts, which must be JSON.
    Returns: memory-mapped read-only arrays, and the facts.
    Raises: DataError when the cache cannot be written; what `decode` raises. Warns with
        NlbenchWarning of an entry that is damaged, which is then made again.
    """
    entry = cache_dir / f"{name}-{file_state(files, _FORMAT)}"

    def write() -> None:
        arrays, facts = decode()
        _write(entry, arrays, facts)

    return _opened(entry, _open, write)


def cached_files(
    entry: Path, write: Callable[[Path], list[list[str]]], needed: int = 0
) -> list[list[str]]:
    """Return the list of the files that `write(folder)` writes, which is called once.

    Args:
        needed: about as many bytes as the files have, for the message of a full disk.
        entry: the folder in the cache that holds the files.
        write: returns a line for each file. A line begins with the file's name, which ends in
            "-" and the `short_hash` of its content.
    Raises and warns: as `cached`.
    """

    def write_entry() -> None:
        with _named_as(entry, needed), new_folder(entry) as folder:
            write_json(folder / "list.json", write(folder))

    return _opened(entry, _open_files, write_entry)


def _opened(entry: Path, read: Callable[[Path], T], write: Callable[[], None]) -> T:
    """Return what `read(entry)` returns, after `write()` where the entry is missing or damaged."""
    _used.setdefault(entry, False)
    try:
        if entry.is_dir():
            # What is damaged is looked at again below, where no other process makes it anew.
            with suppress(_Damaged):
                return read(entry)

        make_folder(entry.parent)
        # Jobs that are started together need the same entry at the same time.
        with _lock(entry.parent / f"{entry.name}.lock"):
            if os.path.lexists(entry):
                # Another process may have written it while this one waited.
                try:
                    return read(entry)
                except _Damaged as error:
                    _set_aside(entry, str(error))
            _remove_leftovers(entry.parent)
            write()
            _used[entry] = True
            try:
                return read(entry)
            except _Damaged as error:
                raise OSError(f"{entry} was written and cannot be read back: {error}") from None
    except NotWritten as error:
        raise CacheNotWritten(
            f"{error}. Or set NLBENCH_CACHE to a folder that can be written"
        ) from error
    except OSError as error:
        raise DataError(
            f"{entry.parent}: the decoded data cannot be kept there ({error}); set NLBENCH_CACHE "
            "to a folder that can be written"
        ) from error


def used_entries() -> dict[Path, bool]:
    """Return the entries that this process has opened, and whether it has made each of them."""
    return dict(_used)


def file_state(files: Sequence[Path], version: int | None = None) -> str:
    """Return 16 hex digits that change with the path, size or modification time of a file.

    Args:
        version: of what is made from the files; another one gives other digits.
    """
    stats = []
    for path in files:
        stat = path.stat()

        # Nanoseconds, since a file can be replaced within the same second.
        stats.append((str(path.resolve()), stat.st_size, stat.st_mtime_ns))
    value = stats if version is None else [version, stats]
    return short_hash(json.dumps(value).encode())


# ---- JSON with a checksum ------------------------------------------------------------------------


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON with its checksum. The folder must be there."""
    content = {"checksum": _checksum(value), "value": value}
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def read_json(path: Path) -> Any:
    """Return the value that `write_json` wrote.

    Raises: OSError, and ValueError where it is damaged.
    """
    try:
        content = json.loads(read_regular(path))
        value = content["value"]
        if content["checksum"] == _checksum(value):
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path.name} is not the text that was written") from None
    raise ValueError(f"{path.name} was changed after it was written (its checksum does not fit)")


def _read_json(path: Path) -> Any:
    """Return the value that `write_json` wrote. Raises _Damaged."""
    try:
        return read_json(path)
    except OSError as error:
        raise _Damaged(f"{path.name}: {error.strerror}") from None
    except ValueError as error:
        raise _Damaged(str(error)) from None


def _checksum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- Entries of arrays ---------------------------------------------------------------------------


def _open(entry: Path) -> tuple[Arrays, Facts]:
    """Map an entry into memory. Raises _Damaged where it is not the one that was written."""
    meta = _read_json(entry / "meta.json")
    try:
        checksums, facts = dict(meta["arrays"]), dict(meta["facts"])
    except DAMAGE:
        raise _Damaged("meta.json is not the text that was written") from None

    arrays = {}
    for name, checksum in checksums.items():
        path = entry / f"{name}.npy"
        _check_array(path, checksum)
        try:
            # Mapped, so that runs on one machine share the memory, and start at once.
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        # The checksum is right where somebody has made the file so.
        except DAMAGE as error:
            raise _Damaged(f"{path.name} is no array that NumPy reads ({error})") from None
    return arrays, facts


def _check_array(path: Path, checksum: str) -> None:
    """Compare a file with its checksum, header and all. Raises _Damaged."""
    # The 184 MB of CIFAR-10 take 0.2 s. A file that has not changed since is not read again.
    try:
        with open_regular(path) as file:
            state = _state_of(os.fstat(file.fileno()))
            if _checked.get(path) == state:
                return
            found = f"{crc32(file):08x}"
    except OSError as error:
        raise _Damaged(f"{path.name}: {error.strerror}") from None
    if found != checksum:
        raise _Damaged(f"{path.name} was changed after it was written (its checksum does not fit)")
    _checked[path] = state


def _state_of(stat: os.stat_result) -> object:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _write(entry: Path, arrays: Arrays, facts: Facts) -> None:
    needed = sum(array.nbytes for array in arrays.values())
    with _named_as(entry, needed), new_folder(entry) as folder:
        checksums = {}
        for name, array in arrays.items():
            path = folder / f"{name}.npy"
            # On the disk before the folder gets its name, so that no entry looks whole that is not.
            with replacing(path) as file:
                np.save(file, array)
            with open_regular(path) as file:
                checksums[name] = f"{crc32(file):08x}"
        write_json(folder / "meta.json", {"arrays": checksums, "facts": facts})


@contextmanager
def _named_as(entry: Path, needed: int) -> Iterator[None]:
    """Have a NotWritten name the entry, and what all of it needs, and not one of its files."""
    try:
        yield
    except NotWritten as error:
        raise not_written(OSError(error.errno, ""), entry, needed) from None


# ---- Entries of files ----------------------------------------------------------------------------


def _open_files(entry: Path) -> list[list[str]]:
    """Return the list of an entry's files. Raises _Damaged where one is not what was written."""
    lines: list[list[str]] = _read_json(entry / "list.json")
    state = _state_of_files(entry, lines)
    # The content of a million files is read only when the state of one has changed.
    if _known_state(entry) == state:
        return lines

    for name, *_ in lines:
        try:
            content = read_regular(entry / name)
        except OSError as error:
            raise _Damaged(f"{name}: {error.strerror}") from None
        if short_hash(content) != name.rpartition("-")[2]:
            raise _Damaged(f"{name} was changed after it was written (its hash does not fit)")
    # The cache may be read only. Then the files are read by each process.
    with suppress(OSError):
        write_json(entry / "checked.json", state)
    return lines


def _state_of_files(entry: Path, lines: Sequence[Sequence[str]]) -> str:
    stats = hashlib.sha256()
    for name, *_ in lines:
        try:
            stat = (entry / name).stat()
        except OSError as error:
            raise _Damaged(f"{name}: {error.strerror}") from None
        stats.update(repr(_state_of(stat)).encode())
    return stats.hexdigest()


def _known_state(entry: Path) -> object:
    try:
        return _read_json(entry / "checked.json")
    except _Damaged:
        return None


# ---- Entries on disk -----------------------------------------------------------------------------


def _set_aside(entry: Path, reason: str) -> None:
    """Rename a damaged entry, and warn of it."""
    for number in range(1, 1000):
        other = entry.with_name(f"{entry.name}.damaged-{number}")
        if not os.path.lexists(other):
            break
    os.replace(entry, other)
    warnings.warn(
        f"{entry}: damaged entry of the cache: {reason}; set aside as {other.name}, and made again "
        "from its source",
        NlbenchWarning,
        stacklevel=2,
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had half written. An entry may have 185 MB."""
    for path in folder.glob(".*.tmp"):
        if is_temporary(path.name) and is_abandoned(path):
            remove(path)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time in. Without the lock two would decode, and entries stay whole."""
    with writing(path):
        file = open(path, "w", opener=without_waiting)  # noqa: SIM115
    with file:
        flock(file, wait=True)
        yield
