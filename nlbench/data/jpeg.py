"""Decode JPEG files faster than Pillow does, to the same pixels, and to a fraction of their size.

libjpeg-turbo can leave out frequencies, so that a picture of half, a quarter or an eighth of the
side lengths costs less than the whole one. Pillow calls that draft mode.

simplejpeg (`pip install nlbench[jpeg]`) is used where it is installed and gives Pillow's pixels bit
for bit, which is tried once in each process. It gets sound files of the usual kinds alone. Pillow
decodes all others, and its errors are those that a user reads. torchvision's decoder is slower, has
no scales, and writes to standard error what is damaged in a file that can be read all the same.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# The fractions that Pillow knows, as divisors of the sides.
SCALES = (8, 4, 2, 1)

# Formats of Pillow that are JPEG: phones write several JPEGs into one file.
_FORMATS = ("JPEG", "MPO")


def scale_of(image: Image.Image, least: int) -> int:
    """Return the largest scale that leaves both sides of an opened image at `least` pixels or more.

    1 for files that are no JPEG, and for a `least` of 0.
    """
    if image.format not in _FORMATS or not least:
        return 1
    ratio = min(image.size) // least
    return next((scale for scale in SCALES if scale <= ratio), 1)


def scaled(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the sides of a picture that is decoded at a scale. Both are rounded up."""
    return -(-size[0] // scale), -(-size[1] // scale)


def fast(image: Image.Image, path: str, scale: int) -> np.ndarray | None:
    """Decode an opened file as Pillow would at this scale, but faster.

    Args:
        image: opened by Pillow, whose pixels were not loaded. It is left as it is.
        path: of the same file.
    Returns: (H, W, 3) uint8, as the file has it and not turned upright; None where Pillow has to
        decode it: a kind of file or a damage that the decoders do not share, or no simplejpeg.
    """
    if image.format not in _FORMATS or image.mode not in ("RGB", "L") or not agrees(scale):
        return None

    width, height = image.size
    try:
        pixels = by_simplejpeg(np.fromfile(path, np.uint8), (height, width), scale)
    # A damaged file. Pillow reads some of them, and says of the others what is wrong.
    except (OSError, ValueError):
        return None
    return pixels if pixels.shape == (*scaled((height, width), scale), 3) else None


def by_simplejpeg(data: np.ndarray, size: tuple[int, int], scale: int) -> np.ndarray:
    """Decode by simplejpeg, without turning.

    Args:
        data: the bytes of a file (n,) uint8.
        size: its height and width.
    Returns: (H, W, 3) uint8.
    Raises: ImportError without the package; ValueError for any damage.
    """
    import simplejpeg

    # It takes the smallest of libjpeg-turbo's scales that leaves these sides.
    height, width = scaled(size, scale)
    pixels: np.ndarray = simplejpeg.decode_jpeg(
        data, min_height=height, min_width=width, min_factor=scale, strict=True
    )
    return pixels


@functools.cache
def agrees(scale: int) -> bool:
    """Tell whether simplejpeg is there and gives Pillow's pixels of some pictures at this scale.

    Another build of libjpeg may round in another way.
    """
    try:
        for data in _specimens():
            if not np.array_equal(by_simplejpeg(data, _SPECIMEN, scale), by_pillow(data, scale)):
                return False
    # An ImportError also comes from an installation that is damaged.
    except (ImportError, ValueError, TypeError, AttributeError):
        return False
    return True


def by_pillow(data: np.ndarray, scale: int) -> np.ndarray:
    """Decode by Pillow at a scale, without turning. Returns (H, W, 3) uint8."""
    from PIL import Image

    with Image.open(io.BytesIO(data.tobytes())) as image:
        draft(image, scale)
        return np.asarray(image.convert("RGB"))


def draft(image: Image.Image, scale: int) -> None:
    """Let Pillow decode an opened JPEG at a scale."""
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))


# Height and width, of no whole number of blocks.
_SPECIMEN = (75, 91)


@functools.cache
def _specimens() -> tuple[np.ndarray, ...]:
    """Return small JPEGs: without and with subsampled colour, in several passes, and grey."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    picture = coarse.resize(_SPECIMEN[::-1], Image.Resampling.BICUBIC)
    found = []
    for shown, options in (
        (picture, {"subsampling": 0}),
        (picture, {"subsampling": 1}),
        (picture, {"subsampling": 2}),
        (picture, {"subsampling": 2, "progressive": True}),
        (picture.convert("L"), {}),
    ):
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=88, **options)
        found.append(np.frombuffer(buffer.getvalue(), np.uint8).copy())
    return tuple(found)
