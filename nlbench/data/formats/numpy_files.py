"""Read arrays of NumPy's own files without running anything in them."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nlbench.data.formats.bounds import ROOM, require_modest_zip
from nlbench.data.formats.recognise import NUMPY, ZIP, require_kind
from nlbench.data.formats.safe_pickle import read_pickle
from nlbench.errors import DataError

# What a damaged header or archive makes NumPy raise.
DAMAGE = (
    ValueError,
    TypeError,
    EOFError,
    SyntaxError,
    OverflowError,
    KeyError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npy(path: Path) -> object:
    """Read the array of a .npy file, or the arrays of a .npz file by name.

    numpy.save writes a mapping as an array of one object, which is read as the mapping.

    Raises: DataError, naming the file, when it is something else, damaged, or holds Python objects.
    """
    archive = path.suffix.lower() == ".npz"
    require_kind(path, ZIP if archive else NUMPY)
    try:
        if archive:
            with zipfile.ZipFile(path) as packed:
                fix = "make it again with numpy.savez, which does not compress"
                require_modest_zip(packed, path, fix, ROOM)
        # A pickled array could run code. Mapping a file checks its size before memory is asked for.
        content = np.load(path, mmap_mode=None if archive else "r", allow_pickle=False)
        if isinstance(content, np.ndarray):
            return np.array(content)
        with content:
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except DAMAGE as error:
        words = " ".join(str(error).split())
        alone = None if archive else _only_object(path)
        if alone is not None:
            return alone
        if "Object arrays" in words or "Python objects" in words or "object_" in words:
            raise DataError(
                f"{path}: holds Python objects, which could run code when they are read; save "
                f"numbers: numpy.save({path.name!r}, array.astype(int))"
            ) from None
        raise DataError(
            f"{path}: is no array that NumPy reads, truncated or damaged "
            f"({type(error).__name__}: {words[:120]}); make or get it again"
        ) from None


def _only_object(path: Path) -> object:
    """Return the object in a .npy file of a single one; None for any other file.

    Raises: DataError where the object is more than numbers, text, and lists and mappings of them.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_2_0
            if version == (1, 0):
                read = np.lib.format.read_array_header_1_0
            shape, _, dtype = read(file)
            content = file.read()
    except (OSError, *DAMAGE):
        return None
    return read_pickle(content, path) if dtype.kind == "O" and shape == () else None
