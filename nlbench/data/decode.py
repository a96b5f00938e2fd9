"""Decode image files, in worker processes where there are several cores.

The workers come from the standard library's pool and not from a DataLoader, because a DataLoader
owns the order of what it loads, while methods ask by index: batches of their own, several views,
one network's examples before the other's.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import context, forkserver, resource_tracker
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nlbench import hardware
from nlbench.data import jpeg, pixels
from nlbench.errors import DataError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

T = TypeVar("T")

_KILLED = (
    "a process that decodes images was killed, perhaps for want of memory: NLBENCH_WORKERS sets "
    "how many there are"
)

# Images a task, so that several workers decode one batch at once.
CHUNK = 16


class BrokenImage(DataError):
    """A file that should be an image and cannot be decoded."""


@dataclass(frozen=True)
class Geometry:
    """The steps from a file to a square (crop, crop, 3).

    Attributes:
        resize: pixels of the short side before the crop; 0 leaves the image as it is.
        crop: pixels of the square that is cut out.
        grey_bits: see `pixels.rgb`.
        scaled: whether a JPEG whose short side has at least twice `resize` is decoded to a half, a
            quarter or an eighth of its sides before it is resized; see `jpeg.scale_of`. All of the
            shrinking may happen there. Keeping a half of it for the resizing, as Pillow's
            `thumbnail` does, was measured and not taken: see docs/benchmarks/README.md.
    """

    resize: int
    crop: int
    grey_bits: int = 0
    scaled: bool = False


# ---- One process ---------------------------------------------------------------------------------


def decode(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> np.ndarray:
    """Decode files into (B, crop, crop, 3) uint8.

    Channels come last, as decoders write them and as networks and strong views take them.

    Args:
        draws: (B, 3) float in [0, 1): the place of the crop from top to bottom and from left to
            right, and a flip from 0.5 on. None: the centre, not flipped.
    Raises: BrokenImage, naming the file.
    """
    return decode_views(paths, geometry, None if draws is None else draws[None])[0]


def decode_views(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> np.ndarray:
    """Decode each file once, and cut V views out of it: (V, B, crop, crop, 3) uint8.

    Args:
        draws: (V, B, 3), of each view as in `decode`; None: one view, the centre.
    Raises: BrokenImage, naming the file.
    """
    count = 1 if draws is None else len(draws)
    out = np.empty((count, len(paths), geometry.crop, geometry.crop, 3), np.uint8)
    for i, path in enumerate(paths):
        image = _padded(_resized(path, geometry), geometry.crop)
        for k in range(count):
            out[k, i] = _cut(image, geometry.crop, None if draws is None else draws[k, i])
    return out


def _resized(path: str, geometry: Geometry) -> Tensor:
    """Decode one file, and resize it: (3, H, W) uint8."""
    import torch
    from torchvision.transforms.v2 import functional as F

    found, whole = _open_pixels(path, geometry)
    with warnings.catch_warnings(action="ignore"):
        # torch warns of pixels that cannot be written to, and nothing here writes.
        image = torch.from_numpy(found).permute(2, 0, 1)
    if not geometry.resize:
        return image

    # As torchvision computes it, from the sides of the whole picture. Those of a scaled one are
    # rounded, and the place of a crop must not depend on the scale.
    short, long = min(whole), max(whole)
    new = geometry.resize, int(geometry.resize * long / short)
    height, width = new if whole[0] <= whole[1] else new[::-1]
    if (height, width) == tuple(image.shape[1:]):
        return image
    return F.resize(image, [height, width], antialias=True)


def _cut(image: Tensor, crop: int, draw: np.ndarray | None) -> np.ndarray:
    """Return a square (crop, crop, 3) of an image (3, H, W); `draw` is (3,) or None, see above."""
    # How far the square can move down and to the right.
    room = [side - crop for side in image.shape[1:]]
    if draw is None:
        top, left = room[0] // 2, room[1] // 2
    else:
        # One place more than there is room, because the square may also stay at the edge.
        top, left = int(draw[0] * (room[0] + 1)), int(draw[1] * (room[1] + 1))
    square = image[:, top : top + crop, left : left + crop]

    if draw is not None and draw[2] >= 0.5:
        # Ten times as fast as copying NumPy's view with a negative step.
        square = square.flip(2)
    found: np.ndarray = square.permute(1, 2, 0).numpy()
    return found


def _padded(image: Tensor, crop: int) -> Tensor:
    """Put black around an image (3, H, W) that is smaller than the crop."""
    from torchvision.transforms.v2 import functional as F

    height, width = (max(crop - side, 0) for side in image.shape[1:])
    if not height and not width:
        return image
    top, left = height // 2, width // 2
    return F.pad(image, [left, top, width - left, height - top])


def _open_pixels(path: str, geometry: Geometry) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a file as a viewer shows it, scaled where the geometry allows it.

    Returns: (H, W, 3) uint8, which may not be written to; (height, width) of the whole picture.
    Raises: BrokenImage, naming the file.
    """
    with _opened(path) as image:
        scale = jpeg.scale_of(image, geometry.resize) if geometry.scaled else 1
        width, height = image.size
        found = jpeg.fast(image, path, scale)
        if found is not None:
            turn = pixels.orientation(image)
            found = pixels.turned_array(found, turn)
        else:
            jpeg.draft(image, scale)
            found = pixels.rgb_array(image, geometry.grey_bits)
            turn = pixels.orientation(image)

    if scale == 1:
        return found, (found.shape[0], found.shape[1])
    return found, (width, height) if turn in pixels.SIDEWAYS else (height, width)


def open_image(path: str, grey_bits: int = 0) -> Image.Image:
    """Open an image as RGB, as a viewer shows it; see `nlbench.data.pixels`, also for `grey_bits`.

    Raises: BrokenImage, naming the file.
    """
    with _opened(path) as image:
        return pixels.rgb(image, grey_bits)


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """Open a file for a `with` block that decodes it.

    Raises: BrokenImage, naming the file, for what goes wrong in the block.
    """
    from PIL import Image

    try:
        # Pillow warns of large images, odd palettes and damaged EXIF data, which are read all the
        # same. In a worker nobody could tell which image is meant.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise BrokenImage(f"{path}: {_why_gone(path)}") from None
    except Image.UnidentifiedImageError:
        raise BrokenImage(f"{path}: {_what_instead(path)}") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BrokenImage(
            f"{path}: cannot be decoded (it is of more than {most:,} pixels); "
            f"{os.path.getsize(path)} bytes, perhaps a download that broke off: make it smaller, "
            f"get it again, or take it out"
        ) from None
    except PermissionError:
        raise BrokenImage(f"{path}: may not be read by this user; change its permissions") from None
    except (pixels.UnknownWhite, pixels.IsProgram) as error:
        raise BrokenImage(f"{path}: cannot be decoded ({error})") from None
    # Pillow raises errors of every kind for damaged files.
    except Exception as error:
        raise BrokenImage(
            f"{path}: cannot be decoded ({error}); {os.path.getsize(path)} bytes, perhaps a "
            f"download that broke off: get it again, or take it out"
        ) from None


def _why_gone(path: str) -> str:
    """Say why there is no file of this name."""
    if os.path.islink(path):
        return f"is a link to {os.readlink(path)}, which is not there"
    return "there is no such image"


def _what_instead(path: str) -> str:
    """Say what a file is that is no image, from its first bytes."""
    with open(path, "rb") as file:
        start = file.read(512)
    size = os.path.getsize(path)
    if not start:
        return "cannot be decoded (the file is empty; 0 bytes): get it again, or take it out"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"is a web page and no image ({size} bytes): get the image again, or take it out"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS and no image: `git lfs pull` gets the image"
    return (
        f"cannot be decoded (no kind of image that is known); {size} bytes, perhaps a download "
        f"that broke off: get it again, or take it out"
    )


# ---- Several processes ---------------------------------------------------------------------------


class Pending:
    """Images that are being decoded."""

    def __init__(self, parts: list[Future[np.ndarray]]):
        self._parts = parts

    def take(self, view: int = 0) -> list[np.ndarray]:
        """Wait for the images. Returns arrays (b, crop, crop, 3) uint8, in the requested order.

        Args:
            view: which one of those that were requested.
        Raises: DataError, naming the file, or when a worker was killed.
        """
        try:
            return [part.result()[view] for part in self._parts]
        except BrokenProcessPool:
            raise DataError(_KILLED) from None


def request(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> Pending:
    """Start to decode, with the arguments of `decode`. Without workers it is done at once."""
    return request_views(paths, geometry, None if draws is None else draws[None])


def request_views(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> Pending:
    """Start to decode several views, with the arguments of `decode_views`, as `request` does."""
    count = workers()
    parts: list[Future[np.ndarray]] = []
    for start in range(0, len(paths), CHUNK):
        piece = slice(start, start + CHUNK)
        piece_draws = None if draws is None else draws[:, piece]
        if count:
            parts.append(_submit(count, paths[piece], geometry, piece_draws))
        else:
            done: Future[np.ndarray] = Future()
            done.set_result(decode_views(paths[piece], geometry, piece_draws))
            parts.append(done)
    return Pending(parts)


def in_workers(
    function: Callable[[Sequence[str]], T], paths: Sequence[str], size: int
) -> Iterator[T]:
    """Yield what a function of a module returns for `size` paths at a time, in their order.

    Raises: what `function` raises; DataError when a worker was killed.
    """
    count = workers()
    parts = [paths[start : start + size] for start in range(0, len(paths), size)]
    if not count:
        yield from map(function, parts)
        return
    try:
        # Some tasks ahead, so that no worker waits and memory does not grow with the dataset.
        ahead = 4 * count
        waiting = [_pool(count).submit(function, part) for part in parts[:ahead]]
        for i in range(len(parts)):
            result = waiting.pop(0).result()
            if i + ahead < len(parts):
                waiting.append(_pool(count).submit(function, parts[i + ahead]))
            yield result
    except BrokenProcessPool:
        _pool.cache_clear()
        raise DataError(_KILLED) from None


def workers() -> int:
    """Return the number of decoding processes: NLBENCH_WORKERS, else the cores of this process."""
    chosen = os.environ.get("NLBENCH_WORKERS")
    if chosen is None:
        return hardware.cores()

    # isdecimal() refuses an empty text and a minus sign as well.
    if not chosen.isdecimal():
        raise DataError(
            f"NLBENCH_WORKERS must be a number of processes, 0 for none, got {chosen!r}"
        )
    return int(chosen)


def _submit(
    count: int, paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None
) -> Future[np.ndarray]:
    try:
        return _pool(count).submit(decode_views, paths, geometry, draws)
    except BrokenProcessPool:
        # A worker was killed. `take` reports that to the requests that waited for it.
        _pool.cache_clear()
        return _pool(count).submit(decode_views, paths, geometry, draws)


@functools.cache
def _pool(count: int) -> ProcessPoolExecutor:
    """Return the process pool of this size, which lives as long as this process."""
    workers = _Workers()
    workers.set_forkserver_preload(["nlbench.data.decode", "torchvision.transforms.v2"])
    _start_server()

    # The preloaded server forks a worker in milliseconds instead of seconds.
    pool = ProcessPoolExecutor(count, mp_context=workers, initializer=_initialise_worker)
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _start_server() -> None:
    """Start the processes from which workers are forked."""
    start_tracker()
    with _environment(PYTHONSAFEPATH="1"):
        forkserver.ensure_running()


def start_tracker() -> None:
    """Start Python's process that removes the semaphores of a pool whose processes were killed.

    Processes that are forked from this one share it. Where it is running, nothing happens.
    """
    # A killed run is reported already. That its semaphores were removed is no news for the user.
    quiet = "ignore:resource_tracker:UserWarning"
    given = os.environ.get("PYTHONWARNINGS")
    with _environment(PYTHONSAFEPATH="1", PYTHONWARNINGS=f"{given},{quiet}" if given else quiet):
        resource_tracker.ensure_running()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for processes that are started within a `with` block.

    With PYTHONSAFEPATH they do without the working directory's modules. Python would import a file
    multiprocessing.py there, and that may be a folder of somebody else's pictures.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_workers() -> None:
    """End the decoding processes, if there are any, and wait until they are gone.

    A process that ends by `os._exit` has to call this. Otherwise Python warns, on standard error,
    of the semaphores that the pool leaves behind.
    """
    if _pool.cache_info().currsize:
        _pool(workers()).shutdown(wait=True, cancel_futures=True)
        _pool.cache_clear()


class _Worker(context.ForkServerProcess):
    """A worker that does not run the caller's script again.

    The script may be one without `if __name__ == "__main__"`.
    """

    def start(self) -> None:
        # multiprocessing makes a worker run the file of __main__. An empty module has none.
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Workers(context.ForkServerContext):
    # Forking a process that holds threads or a GPU is unsafe. A server process forks the workers.
    Process = _Worker


def _initialise_worker() -> None:
    """Use one thread, leave signals to the main process, and end when that is gone."""
    import signal

    import torch

    # Several threads in each worker would compete for the same cores.
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Slurm sends it to all processes of a job. SIGTERM still ends a worker, as the pool needs it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the main process has ended.

    After kill -9 of the main process the worker would wait for tasks for ever, because it holds the
    other end of its queue itself.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
