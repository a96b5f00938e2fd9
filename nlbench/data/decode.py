"""Decoding image files, in worker processes where there are several. What a worker imports is here.

The workers come from the standard library's pool and not from a DataLoader, because a DataLoader owns the order of what
it loads, while methods ask by index: batches of their own, several views, one network's examples before the other's.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import context
from typing import Any

import numpy as np

from nlbench import hardware
from nlbench.errors import DataError

CHUNK = 16  # images a task: a batch is decoded by several workers at once


@dataclass(frozen=True)
class Geometry:
    """How a file becomes (3, crop, crop): the short side to `resize` pixels (0: as it is), then a square cut out."""

    resize: int
    crop: int


def decode(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> np.ndarray:
    """(B, 3, crop, crop) uint8 of the files.

    Args:
        draws: (B, 3) float in [0, 1): where the crop lies from top to bottom and from left to right, and a flip from
            0.5 on. None: the centre, not flipped.
    Raises: DataError, naming the file.
    """
    out = np.empty((len(paths), 3, geometry.crop, geometry.crop), np.uint8)
    for i, path in enumerate(paths):
        out[i] = _one(path, geometry, None if draws is None else draws[i])
    return out


def _one(path: str, geometry: Geometry, draw: np.ndarray | None) -> np.ndarray:
    from torchvision.transforms.v2 import functional as F

    image = F.pil_to_tensor(open_image(path))
    if geometry.resize and min(image.shape[1:]) != geometry.resize:
        image = F.resize(image, [geometry.resize], antialias=True)
    crop = geometry.crop
    missing = [max(crop - side, 0) for side in image.shape[1:]]
    if any(missing):  # smaller than the network's input: black around it
        top, left = (m // 2 for m in missing)
        image = F.pad(image, [left, top, missing[1] - left, missing[0] - top])
    room = [side - crop for side in image.shape[1:]]
    top, left = (r // 2 for r in room) if draw is None else (int(d * (r + 1)) for d, r in zip(draw, room, strict=False))
    image = image[:, top : top + crop, left : left + crop]
    return (image.flip(2) if draw is not None and draw[2] >= 0.5 else image).numpy()


def open_image(path: str) -> Any:
    """The image as RGB; grey, also of 16 bits, palette, CMYK and transparent ones are converted."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits of grey: convert() would keep the lower eight and clip the rest
                return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            if image.mode == "F":
                raise ValueError("pixels are floating-point numbers, whose white nobody knows")
            if image.mode in ("P", "PA", "LA", "RGBA") or "transparency" in image.info:  # what shines through is black
                solid = image.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", solid.size, (0, 0, 0, 255)), solid).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such image any more; it was there when the list was read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        size = os.path.getsize(path) if os.path.exists(path) else 0
        raise DataError(
            f"{path}: cannot be decoded ({error}); {size} bytes, perhaps a download that broke off: get it again, or "
            f"take it out of the list"
        ) from None


def workers() -> int:
    """How many processes decode: NLBENCH_WORKERS, else one for each core that this process may use; 0 is none."""
    chosen = os.environ.get("NLBENCH_WORKERS")
    if chosen is None:
        return hardware.cores()
    if not chosen.isdecimal():
        raise DataError(f"NLBENCH_WORKERS must be a number of processes, 0 for none, got {chosen!r}")
    return int(chosen)


class _Worker(context.ForkServerProcess):
    """Does not run the caller's script again, which may be one without `if __name__ == "__main__"`."""

    def start(self) -> None:
        main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _Workers(context.ForkServerContext):
    # Forking a process that holds threads or a GPU is unsafe; a server process forks the workers instead.
    Process = _Worker


@functools.cache
def _pool(count: int) -> ProcessPoolExecutor:
    workers = _Workers()
    workers.set_forkserver_preload(["nlbench.data.decode", "torchvision.transforms.v2"])
    pool = ProcessPoolExecutor(count, mp_context=workers, initializer=_quiet)
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _quiet() -> None:
    """A worker has one thread, leaves it to the main process to end on Ctrl-C, and ends when that is gone."""
    import signal

    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """After kill -9 of the main process a worker would wait for tasks for ever: it holds its queue's other end too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Pending:
    """Images on their way. `take()` waits for them."""

    def __init__(self, parts: list[Future[np.ndarray]]):
        self._parts = parts

    def take(self) -> list[np.ndarray]:
        """Arrays (b, 3, crop, crop) uint8, the images in their order."""
        try:
            return [part.result() for part in self._parts]
        except BrokenProcessPool:
            raise DataError(
                "a process that decodes images was killed, perhaps for want of memory: NLBENCH_WORKERS sets how many "
                "there are"
            ) from None


def request(paths: Sequence[str], geometry: Geometry, draws: np.ndarray | None) -> Pending:
    """Start to decode; without worker processes it is done here and now."""
    parts: list[Future[np.ndarray]] = []
    count = workers()
    for start in range(0, len(paths), CHUNK):
        piece = slice(start, start + CHUNK)
        task = paths[piece], geometry, None if draws is None else draws[piece]
        if count:
            parts.append(_submit(count, *task))
        else:
            done: Future[np.ndarray] = Future()
            done.set_result(decode(*task))
            parts.append(done)
    return Pending(parts)


def _submit(count: int, *task: Any) -> Future[np.ndarray]:
    try:
        return _pool(count).submit(decode, *task)
    except BrokenProcessPool:  # a worker was killed; `take` says so to those that waited for it
        _pool.cache_clear()
        return _pool(count).submit(decode, *task)
