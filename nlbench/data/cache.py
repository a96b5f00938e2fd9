"""Keep decoded data per user: decode it once, and map it into memory afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.errors import DataError
from nlbench.files import flock, new_folder, short_hash, sync

# The version of the entries. A higher number decodes everything again.
_FORMAT = 1

Arrays = Mapping[str, np.ndarray]
Facts = dict[str, Any]


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
    Raises: DataError when the cache cannot be written; what `decode` raises.
    """
    entry = cache_dir / f"{name}-{file_state(files, _FORMAT)}"
    found = _open(entry)
    if found is not None:
        return found

    try:
        cache_dir.mkdir(parents=True, exist_ok=True)

        # Jobs that are started together need the same entry at the same time.
        with _lock(cache_dir / f"{entry.name}.lock"):
            # Another process may have written it while this one waited.
            return _open(entry) or _write(entry, *decode())
    except OSError as error:
        raise DataError(
            f"{cache_dir}: the decoded data cannot be kept there ({error}); set NLBENCH_CACHE to a "
            f"folder that can be written"
        ) from error


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


# ---- Entries on disk -----------------------------------------------------------------------------


def _open(entry: Path) -> tuple[Arrays, Facts] | None:
    """Map an entry into memory. Returns None where it is not there or not whole."""
    try:
        facts = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        names = facts.pop("arrays")

        # Mapped, so that runs on one machine share the memory, and start at once.
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in names}
    except (OSError, ValueError, KeyError):
        return None
    return arrays, facts


def _write(entry: Path, arrays: Arrays, facts: Facts) -> tuple[Arrays, Facts]:
    # An entry that is there now is damaged, or _open would have returned it.
    shutil.rmtree(entry, ignore_errors=True)
    with new_folder(entry) as folder:
        for name, array in arrays.items():
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                # On the disk before the folder gets its name, so that no entry looks whole that is
                # not.
                sync(file)
        with (folder / "meta.json").open("wb") as file:
            file.write(json.dumps({**facts, "arrays": list(arrays)}, indent=1).encode())
            sync(file)

    written = _open(entry)
    if written is None:
        raise OSError(f"{entry} was written and cannot be read back")
    return written


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time in. Without the lock two would decode, and entries stay whole."""
    with path.open("w") as file:
        flock(file, wait=True)
        yield
