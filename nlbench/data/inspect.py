"""Decode every picture of a dataset before anything is trained, and say what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nlbench.data import decode, pixels
from nlbench.data.base import ImageFiles
from nlbench.data.decode import BrokenImage

# Pictures a task. Few enough for a progress bar that moves.
_CHUNK = 32


@dataclass(frozen=True)
class Picture:
    """What a picture's file is.

    Attributes:
        error: why it cannot be decoded, with its path; empty for a sound picture, which alone has
            the rest.
        form: "JPEG", "PNG", ...
        mode: Pillow's name for the kind of pixels, such as "RGB" or "I;16".
        size: width and height in pixels as they are shown.
        turned: whether its EXIF orientation says to turn or mirror it.
        bits: of grey in 16 bits, the bits that are used; else 8.
        frames: number of frames or pages, of which the first is used.
    """

    path: str
    error: str = ""
    form: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    bits: int = 8
    frames: int = 1


def pictures(
    paths: Sequence[str], done: Callable[[int], None] = lambda count: None
) -> list[Picture]:
    """Decode every file, on all cores, and return what each is.

    Args:
        done: is called with the number of pictures that were just decoded.
    """
    found: list[Picture] = []
    for part in decode.in_workers(look, paths, _CHUNK):
        found += part
        done(len(part))
    return found


def look(paths: Sequence[str]) -> list[Picture]:
    """Decode files in this process, and return what each is."""
    return [_look_at(path) for path in paths]


def _look_at(path: str) -> Picture:
    from PIL import Image

    try:
        size = decode.open_image(path).size
    except BrokenImage as error:
        return Picture(path, str(error))

    # Opened again, because what was decoded does not tell what it was.
    with Image.open(path) as image:
        turned = pixels.orientation(image) != 1
        bits = 8
        if image.mode.startswith("I"):
            bits = pixels.grey_depth(np.asarray(image))
        frames = int(getattr(image, "n_frames", 1))
        return Picture(path, "", image.format or "", image.mode, size, turned, bits, frames)


# ---- In words ------------------------------------------------------------------------------------


def summary(found: Sequence[Picture]) -> list[str]:
    """Return lines on the forms, modes and sizes of the sound pictures."""
    sound = [picture for picture in found if not picture.error]
    if not sound:
        return []
    widths = sorted(picture.size[0] for picture in sound)
    heights = sorted(picture.size[1] for picture in sound)
    middle = len(sound) // 2
    lines = [
        f"forms: {_counted(picture.form for picture in sound)}",
        f"pixels: {_counted(picture.mode for picture in sound)}",
        f"sizes: {widths[0]} to {widths[-1]} wide (median {widths[middle]}), {heights[0]} to "
        f"{heights[-1]} high (median {heights[middle]})",
    ]

    turned = sum(picture.turned for picture in sound)
    if turned:
        lines.append(f"turned as their EXIF orientation says: {turned}")
    deep = Counter(picture.bits for picture in sound if picture.mode.startswith("I"))
    for bits, count in sorted(deep.items()):
        lines.append(f"grey of more than 8 bits, of which {bits} are used: {count}")
    several = sum(picture.frames > 1 for picture in sound)
    if several:
        lines.append(f"with several frames or pages, of which the first is used: {several}")
    return lines


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())


# ---- Of a run ------------------------------------------------------------------------------------

# By the paths of the parts: a sweep has many runs on the same pictures.
_known: dict[tuple[str, ...], list[str]] = {}


def broken(parts: Iterable[object]) -> list[str]:
    """Return why pictures of a run's parts cannot be decoded, one line each, in their order.

    Args:
        parts: images of a dataset; those that are no files have been decoded.
    """
    paths: dict[str, None] = {}
    for part in parts:
        if isinstance(part, ImageFiles):
            paths.update(dict.fromkeys(part.path(i) for i in range(len(part))))
    key = tuple(paths)
    if key not in _known:
        _known.clear()
        _known[key] = [picture.error for picture in pictures(key) if picture.error]
    return _known[key]
