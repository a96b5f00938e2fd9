"""Turn an opened image into RGB as a viewer shows it: upright, and with grey of any depth."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# The tags of EXIF and TIFF that say how the stored pixels are meant.
_ORIENTATION, _PHOTOMETRIC = 0x0112, 262

# The orientations that swap width and height.
SIDEWAYS = (5, 6, 7, 8)

# Bits that cameras and scanners use of 16. The depth is the first that holds the brightest pixel,
# because few files say it.
GREY_DEPTHS = (8, 10, 12, 14, 16)


class UnknownWhite(ValueError):
    """Pixels of a kind that does not say which value is white."""


class IsProgram(ValueError):
    """A file that would have to be run to be shown."""


def refuse_program(image: Image.Image) -> None:
    """Raise IsProgram for an opened EPS file, which Pillow gives to Ghostscript to run."""
    if image.format == "EPS":
        raise IsProgram("it is EPS, which is a program and not pixels: save it as PNG")


def rgb(image: Image.Image, grey_bits: int = 0) -> Image.Image:
    """Return an image as RGB and upright. Of several frames the first is taken.

    Palettes, CMYK and grey become RGB. Transparent pixels are laid over black. Colour profiles are
    not applied.

    Args:
        grey_bits: how many of 16 bits the pictures of a dataset use, so that all are scaled alike;
            0 for those that this picture uses. More are used if it needs them.
    Raises: UnknownWhite for pixels whose white is unknown; IsProgram; what Pillow raises for a
        damaged file.
    """
    refuse_program(image)
    # TIFF files are turned by Pillow when it loads them, and say so only afterwards.
    image.load()
    upright = _turned(image, orientation(image))
    return _coloured(upright, image, grey_bits)


def rgb_array(image: Image.Image, grey_bits: int = 0) -> np.ndarray:
    """Return what `rgb` returns as (H, W, 3) uint8, which may not be written to. Raises as it."""
    refuse_program(image)
    image.load()
    # Most pictures. The image is not copied for them.
    plain = image.mode == "RGB" and "transparency" not in image.info
    if plain and orientation(image) == 1:
        return np.asarray(image)
    return np.asarray(rgb(image, grey_bits))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, from 1 (upright) to 8; 1 where it is unreadable or absent."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    # Damaged EXIF data says nothing about the pixels, which can still be shown.
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def grey_depth(values: np.ndarray) -> int:
    """Return how many bits a grey picture of integers uses, from 8 to 16.

    Raises: UnknownWhite for negative values, and for values of more than 16 bits.
    """
    low, high = int(values.min()), int(values.max())
    for depth in GREY_DEPTHS:
        if low >= 0 and high < 1 << depth:
            return depth
    raise UnknownWhite(
        f"grey values from {low} to {high}, and the value of white is unknown: save it with 8 or "
        f"16 bits"
    )


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image as its EXIF orientation says that it is to be shown."""
    from PIL.Image import Transpose

    # The camera was held so; this undoes it.
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def turned_array(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (H, W, 3) as `rgb` turns an image of this EXIF orientation.

    Returns: a copy; the same array where there is nothing to turn.
    """
    across = pixels.transpose(1, 0, 2)
    turned = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: across,
        6: across[:, ::-1],
        7: across[::-1, ::-1],
        8: across[::-1],
    }.get(orientation)
    return pixels if turned is None else np.ascontiguousarray(turned)


def _coloured(image: Image.Image, opened: Image.Image, grey_bits: int) -> Image.Image:
    """Return an image as RGB. `opened` is the same image with what its file says about it."""
    from PIL import Image

    # convert() would clip what is above 255.
    if image.mode.startswith("I"):
        values = np.asarray(image)
        depth = max(grey_bits, grey_depth(values))
        grey = (values >> (depth - 8)).astype(np.uint8)
        if _white_is_zero(opened):
            grey = 255 - grey
        return Image.fromarray(grey).convert("RGB")

    if image.mode == "F":
        raise UnknownWhite(
            "pixels are floating-point numbers, and the value of white is unknown: save it with 8 "
            "or 16 bits"
        )

    # Transparent parts become black.
    if image.mode in ("P", "PA", "LA", "RGBA") or "transparency" in image.info:
        solid = image.convert("RGBA")
        black = Image.new("RGBA", solid.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, solid).convert("RGB")
    return image.convert("RGB")


def _white_is_zero(opened: Image.Image) -> bool:
    """Tell whether 0 is white, as in X-rays saved as TIFF. Pillow handles this for 8 bits alone."""
    tags = getattr(opened, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == 0
