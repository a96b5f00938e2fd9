"""Decoded data, kept per user: decoded once, memory-mapped afterwards."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.errors import DataError
from nlbench.files import sync

_FORMAT = 1  # of the entries; raising it decodes everything again

Arrays = Mapping[str, np.ndarray]


def cached(
    cache_dir: Path, name: str, files: Sequence[Path], decode: Callable[[], tuple[Arrays, dict[str, Any]]]
) -> tuple[Arrays, dict[str, Any]]:
    """What `decode()` returns, from the cache where `files` have not changed since: arrays by name, and facts.

    An entry belongs to the paths, sizes and modification times of `files`. It appears whole or not at all; a second
    process that needs it waits for the first one.

    Returns: memory-mapped read-only arrays, and the facts, which must be JSON.
    Raises: DataError when the cache cannot be written; what `decode` raises.
    """
    entry = cache_dir / f"{name}-{_key(files)}"
    found = _open(entry)
    if found is None:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with _lock(cache_dir / f"{entry.name}.lock"):
                found = _open(entry) or _write(entry, *decode())
        except OSError as error:
            raise DataError(
                f"{cache_dir}: the decoded data cannot be kept there ({error}); set NLBENCH_CACHE to a folder that "
                f"can be written"
            ) from error
    return found


def _key(files: Sequence[Path]) -> str:
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([_FORMAT, stats]).encode()).hexdigest()[:16]


def _open(entry: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """None for an entry that is not there or not whole."""
    try:
        facts = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in facts.pop("arrays")}
    except (OSError, ValueError, KeyError):
        return None
    return arrays, facts


def _write(entry: Path, arrays: Arrays, facts: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                sync(file)
        with (temporary / "meta.json").open("wb") as file:
            file.write(json.dumps({**facts, "arrays": list(arrays)}, indent=1).encode())
            sync(file)
        shutil.rmtree(entry, ignore_errors=True)  # damaged, or it would have been opened
        os.rename(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    written = _open(entry)
    if written is None:
        raise OSError(f"{entry} was written and cannot be read back")
    return written


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time. Only saves double work: entries are whole without it."""
    import fcntl

    with path.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
