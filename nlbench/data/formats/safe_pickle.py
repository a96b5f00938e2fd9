"""Read other people's pickles without running anything in them.

A pickle is a program that may call any function it can name. Here it can name the dozen of
`_GLOBALS` and nothing else, and none of those is the real function: each stand-in checks its
arguments and builds plain NumPy arrays of numbers. So not even NumPy's own unpickling code, which
is written for trusted input, sees the file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.formats.bounds import require_modest_zip
from nlbench.data.formats.recognise import PICKLE, ZIP, require_kind
from nlbench.errors import DataError

# The codes of dtypes that are read: bool, signed, unsigned, float.
_NUMBER = re.compile("[<>=|]?[biuf][1248]")

_TORCH_STORAGES = {
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
}

# Operations that write to a pickle's memo.
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")

# What a pickle may have copied, for each of its bytes, by the functions that it names.
_MOST_COPIED = 4

# No label or pixel needs more. Among larger integers anybody can find thousands of one hash, and a
# mapping with such keys takes hours.
_LARGEST_INTEGER = 1 << 64

# The first object in a file of torch.save before version 1.6.
_OLD_TORCH = 0x1950A86A20F9469CFC6C


# ---- Stand-ins for what a pickle may name --------------------------------------------------------


class _Call:
    """Stand in for a function that the pickle calls.

    It has no __dict__, so that the pickle cannot change it.
    """

    __slots__ = ("_function",)
    _function: Callable[..., object]

    def __init__(self, function: Callable[..., object]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"the pickle tries to set {name}")


class _Dtype:
    """Stand in for numpy.dtype: a type of numbers from its code, such as "i8".

    The byte order arrives later, as its state.
    """

    __slots__ = ("dtype",)

    def __init__(self, code: str | bytes, align: bool = False, copy: bool = True):
        # A mapping that numpy.save wrote is an array of a single object.
        self.dtype = np.dtype(object) if _text(code) == "O8" else _number_type(_text(code))

    def __setstate__(self, state: tuple[object, str | bytes, *tuple[object, ...]]) -> None:
        if self.dtype.kind != "O":
            self.dtype = _number_type(_text(state[1]) + self.dtype.str[1:])


class _Array:
    """Stand in for numpy.ndarray: empty at first, its content arrives as its state.

    Of an array of objects the only object is kept, in place of the array.
    """

    __slots__ = ("array",)
    array: Any

    def __setstate__(
        self, state: tuple[object, tuple[int, ...], _Dtype, bool, bytes | list[object]]
    ) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            if shape != () or dtype.dtype.kind != "O" or len(content) != 1:
                raise pickle.UnpicklingError("an array of several objects")
            if isinstance(content[0], _Array):
                raise pickle.UnpicklingError("an array of arrays")
            self.array = content[0]
            return
        self.array = _array(content, dtype, shape, "F" if fortran else "C")


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _number_type(code: str) -> np.dtype:
    if not _NUMBER.fullmatch(code):
        raise pickle.UnpicklingError(f"dtype {code!r}: only arrays of numbers are read")
    return np.dtype(code)


def _array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    """Return the content as a read-only array in the byte order that it has.

    Nothing is copied, because a pickle of a megabyte may ask for the same array a million times.
    """
    if not _is_shape(shape) or dtype.dtype.kind == "O":
        raise pickle.UnpicklingError(f"impossible array of shape {shape!r}")

    # Python's integers do not overflow, so that no shape can claim memory beyond the content.
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(content)} bytes")

    values = np.frombuffer(content, dtype.dtype)
    return values.reshape(shape, order="F" if order == "F" else "C")


def _is_shape(shape: object) -> bool:
    """Tell whether a value can be the shape of an array. Long integers would take long to multiply.

    NumPy has no array of more than 64 dimensions.
    """
    if not isinstance(shape, tuple) or len(shape) > 64:
        return False
    return all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape)


def _reconstruct(*ignored: object) -> _Array:
    # The arguments are a class and an empty shape. Shape and content arrive as the state.
    return _Array()


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return _array(content, dtype, shape, order)


def _scalar(dtype: _Dtype, content: bytes) -> int | float | bool:
    return _array(content, dtype, ()).item()


def _no_bytes() -> bytes:
    return b""


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> np.ndarray:
    """Return a tensor that is a whole storage, or a contiguous part of one, as an array."""
    if not _is_shape(size):
        raise pickle.UnpicklingError("impossible tensor size")
    # Only the strides of an array without gaps: nothing may reach outside the storage.
    dense = tuple(math.prod(size[i + 1 :]) for i in range(len(size)))
    length = math.prod(size)
    if tuple(stride) != dense or offset < 0 or offset + length > len(storage):
        raise pickle.UnpicklingError(
            "a tensor that is a view of another: save it again with tensor.clone()"
        )
    return storage[offset : offset + length].reshape(size)


# Everything that a pickle may name, by module and name, but for the two functions that copy, which
# belong to an unpickler.
_GLOBALS: dict[tuple[str, str], _Call | str] = {
    # Only ever an argument of _reconstruct.
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Call(_Dtype),
    # Python 3 writes b"" for Python 2 as a call of bytes().
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
}
# NumPy 1 and 2.
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _Call(_scalar)
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _Call(_from_buffer)
for _name, _code in _TORCH_STORAGES.items():
    _GLOBALS["torch", _name] = _code


# ---- Reading -------------------------------------------------------------------------------------


class _Forbidden(Exception):
    """The pickle names a global that is not allowed."""


# Called as storages(key, dtype, length).
_Storages = Callable[[str, np.dtype, int], np.ndarray]


class _Unpickler(pickle.Unpickler):
    """Unpickle with the stand-ins.

    Args:
        storages: returns a torch storage by its key, type and length. Without it a pickle may not
            refer to storages.
    """

    def __init__(self, content: bytes, storages: _Storages | None = None):
        # Pixels in a pickle of Python 2 are its kind of text, which must not be decoded.
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._storages = storages
        self._left = _MOST_COPIED * len(content) + 1000
        self._globals = {
            **_GLOBALS,
            ("_codecs", "encode"): _Call(self._encode),
            ("collections", "OrderedDict"): _Call(self._ordered_dict),
        }

    def find_class(self, module: str, name: str) -> _Call | str:
        try:
            return self._globals[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def _encode(self, text: str, encoding: str | bytes = "latin1") -> bytes:
        if _text(encoding) not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
        self._count(len(text))
        return text.encode("latin1")

    def _ordered_dict(self, items: Any = ()) -> dict[object, object]:
        self._count(len(items))
        return dict(items)

    def _count(self, copied: int) -> None:
        self._left -= copied
        if self._left < 0:
            raise pickle.UnpicklingError("it copies far more than its size allows")

    def persistent_load(self, reference: Any) -> np.ndarray:
        # torch refers to a storage by its kind, type, key, device and length. Before version 1.6
        # the part that is seen follows, which is None for the whole.
        kind, code, key, _, length, *part = reference
        known = _text(kind) == "storage" and code in _TORCH_STORAGES.values()
        if self._storages is None or not known or part not in ([], [None]):
            raise pickle.UnpicklingError(f"unexpected reference {reference!r}")
        dtype = np.dtype(code).newbyteorder("<")
        return self._storages(_text(key), dtype, length)


def read_pickle(content: bytes, where: str | Path) -> object:
    """Read a pickle of numbers, text, lists, dicts and NumPy arrays. Bytes stay bytes.

    Args:
        where: names the file in errors.
    Raises: DataError when the pickle is truncated, broken, or names anything else, which is never
        called.
    """
    return _read(content, where, None)


def read_torch(path: Path) -> object:
    """Read a file of torch.save, or a plain pickle, without torch. Tensors become NumPy arrays.

    Raises: DataError as read_pickle, for a file that cannot be read, and for one that is another
        thing than its name says.
    """
    require_kind(path, ZIP, PICKLE)
    try:
        # Since version 1.6 torch.save writes zip files.
        if not zipfile.is_zipfile(path):
            content = path.read_bytes()
            if content.startswith(pickle.dumps(_OLD_TORCH, 2)):
                return _read_old_torch(content, path)
            return _read(content, path, None)

        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)

            require_modest_zip(archive, path, "load it with torch and save it again")

            # Several tensors may share one storage, and a pickle may name one a million times.
            @functools.cache
            def bytes_of(key: str) -> bytes:
                return archive.read(f"{root}/data/{key}")

            def storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
                return np.frombuffer(bytes_of(key), dtype)

            return _read(archive.read(f"{root}/data.pkl"), path, storage)
    except DataError:
        raise
    # A damaged archive makes zipfile raise almost anything, and so does one of a version,
    # compression or encryption that it does not know.
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error}); get the file again") from None


def _root(archive: zipfile.ZipFile, path: Path) -> str:
    """Return the one folder in a torch file, named after the file as it was first saved."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError(f"{path}: is a zip file, but not one of torch.save (no data.pkl in it)")
    root = pickles[0].removesuffix("/data.pkl")

    order = f"{root}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise DataError(f"{path}: was saved on a big-endian machine; save it again as .npy")
    return root


def _read_old_torch(content: bytes, path: Path) -> object:
    """Read a file of torch.save before version 1.6.

    It holds five pickles: a number, a version, facts about the machine, the object, and the keys of
    its storages. Behind them each storage follows in the order of the keys, after its length.
    """
    stream = io.BytesIO(content)
    with _named_failures(path):
        _, _, machine, saved, keys = (_next_pickle(stream, content) for _ in range(5))
        if _Unpickler(machine).load().get("little_endian") is not True:
            raise DataError(f"{path}: was saved on a big-endian machine; save it again as .npy")
        places = _places(_Unpickler(keys).load(), _sizes(saved, len(content)), stream.tell())

    def storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
        return np.frombuffer(content, dtype, length, places[key])

    return _read(saved, path, storage)


def _next_pickle(stream: io.BytesIO, content: bytes) -> bytes:
    """Return the pickle at the place of a stream, and move behind it."""
    start = stream.tell()
    for _ in pickletools.genops(stream):
        pass
    found = content[start : stream.tell()]
    _require_modest_steps(found)
    return found


def _sizes(saved: bytes, most: int) -> dict[str, tuple[int, int]]:
    """Return the length and the bytes of a value of each storage that a pickle refers to."""
    sizes: dict[str, tuple[int, int]] = {}

    def storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
        if not isinstance(length, int) or not 0 <= length * dtype.itemsize <= most:
            raise pickle.UnpicklingError(f"a storage of {length} values")
        sizes[key] = (length, dtype.itemsize)
        # It takes no memory: every value is the same one.
        return np.broadcast_to(np.zeros(1, dtype), length)

    _Unpickler(saved, storage).load()
    return sizes


def _places(keys: object, sizes: Mapping[str, tuple[int, int]], start: int) -> dict[str, int]:
    """Return where the values of each storage begin. The file has them in the order of the keys."""
    if not isinstance(keys, list):
        raise pickle.UnpicklingError("no list of storages")
    places: dict[str, int] = {}
    for key in keys:
        length, size = sizes[_text(key)]
        # The length stands before the values, in eight bytes.
        places[_text(key)] = start + 8
        start += 8 + length * size
    return places


def _read(content: bytes, where: str | Path, storages: _Storages | None) -> object:
    """Unpickle, with every failure as a DataError."""
    with _named_failures(where):
        _require_modest_steps(content)
        value = _unpacked(_Unpickler(content, storages).load(), 20 * len(content) + 1000)

    if isinstance(value, int) and value == _OLD_TORCH:
        raise DataError(
            f"{where}: is in the format torch used before 1.6; load and save it again with a newer "
            f"torch"
        )
    return value


@contextlib.contextmanager
def _named_failures(where: str | Path) -> Iterator[None]:
    """Turn every failure to unpickle into a DataError."""
    try:
        yield
    except DataError:
        raise
    except _Forbidden as error:
        raise DataError(
            f"{where}: refused, because its pickle asks for {error}, which data has no use for; "
            f"nothing in it was run. Get the file again from its home page; labels or a matrix of "
            f"your own: save them with numpy.save"
        ) from None
    # A pickle is a program, and a broken one can fail in any way.
    except Exception as error:
        raise DataError(
            f"{where}: not a readable pickle, truncated or damaged ({error}); get the file again"
        ) from None


def _require_modest_steps(content: bytes) -> None:
    """Raise UnpicklingError for numbers that no honest pickle needs.

    The memo is a list as long as its highest place, so that six bytes could claim gigabytes.
    """
    for operation, argument, _ in pickletools.genops(content):
        if not isinstance(argument, int):
            continue
        if operation.name in _MEMO and argument > len(content):
            raise pickle.UnpicklingError("a place in the memo beyond the file")
        if abs(argument) >= _LARGEST_INTEGER and argument != _OLD_TORCH:
            raise pickle.UnpicklingError("an integer of more than 64 bits")


def _unpacked(value: object, most: int) -> object:
    """Return the value with real arrays in place of stand-ins.

    A list may hold one other list a hundred times, which holds a third a hundred times, and so on.

    Args:
        most: the number of values that the whole may have if all are written out.
    """
    made: dict[int, tuple[object, int]] = {}
    turned = 0

    def in_own_order(array: np.ndarray) -> np.ndarray:
        """Return an array in this machine's byte order, which is a copy of one in another order."""
        nonlocal turned
        if array.dtype.isnative:
            return array
        turned += array.nbytes
        if turned > most:
            raise pickle.UnpicklingError("far larger arrays than its size allows")
        return array.astype(array.dtype.newbyteorder("="))

    def plain(value: object) -> tuple[object, int]:
        if isinstance(value, _Array):
            value = value.array
        if isinstance(value, np.ndarray):
            return in_own_order(value), 1
        if isinstance(value, _Call | _Dtype):
            raise pickle.UnpicklingError("holds a function or a type, not data")
        if not isinstance(value, Mapping | list | tuple):
            return value, 1

        # Once for each container, however often it occurs. The pickle keeps all of them alive.
        if id(value) not in made:
            items = list(value.values()) if isinstance(value, Mapping) else list(value)
            parts = [plain(item) for item in items]
            count = 1 + sum(size for _, size in parts)
            if count > most:
                raise pickle.UnpicklingError("far more values than its size allows")
            new = [part for part, _ in parts]
            if isinstance(value, Mapping):
                made[id(value)] = dict(zip(value, new, strict=True)), count
            else:
                made[id(value)] = type(value)(new), count
        return made[id(value)]

    return plain(value)[0]
