"""Strong views in plain torch, image by image: the reference of `ops.strong_augment`.

It computes what the kernels compute, bit for bit, on every processor. Operations that work with
integers, or round once, are torchvision's. Moves and mixtures are its own. For moves torchvision
computes in float32, whose rounding decides where a pixel's source lies in the middle between two
others. For mixtures it calls `torch.add` with a factor, which rounds once or twice depending on the
processor and on the element's place in the tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from nlbench.ops.policies import NAMES, PARAMETERS, SLOT_HEAD, Policy
from nlbench.ops.policies import table as numbers_of

_WORD = 2**32


def strong_augment(
    images: Tensor,
    index: Tensor,
    examples: Tensor,
    draws: Tensor | None,
    policy: Policy,
    seed: int,
    table: Tensor,
    padding: int,
    reflect: bool,
    planar: bool,
) -> Tensor:
    """Return the strong views of a batch; see `ops.strong_augment`. It waits for a GPU.

    Args: have been checked. `table` is (3, 256), the normalised value of each byte, per channel.
    Returns: (B, 3, H, W) in the dtype of `table`, contiguous if `planar`, else channels_last.
    """
    height, width = images.shape[1:3]
    numbers = numbers_of(policy, height, width)
    slots = numbers[PARAMETERS:].view(len(policy.entries), policy.slots, -1).tolist()
    views = torch.empty((len(index), 3, height, width), dtype=table.dtype, device=images.device)
    channel = torch.arange(3, device=images.device)[:, None, None]

    for view, row, example in zip(views, index.tolist(), examples.tolist(), strict=True):
        image = images[row].permute(2, 0, 1)
        draw = None if draws is None else draws[row].tolist()
        if policy.crop_first:
            image = crop(image, draw, padding, reflect)
        for number in range(policy.rounds):
            entry = pick(words(seed, example, number, 0)[0], len(slots))
            image = apply_entry(image, slots[entry], seed, example, number)
        if not policy.crop_first:
            image = crop(image, draw, padding, reflect)

        view[:] = table[channel, image.long()]
        y, x, *_ = words(seed, example, policy.rounds, 0)
        square = numbers[:PARAMETERS].tolist()
        rows, columns = place_square(square, y, x, height, width)
        level = int(square[5])
        view[:, rows, columns] = 0 if level < 0 else table[:, level, None, None]

    return views if planar else views.contiguous(memory_format=torch.channels_last)


def apply_entry(
    image: Tensor, entry: list[list[float]], seed: int, example: int, number: int
) -> Tensor:
    """Return what the operations of an entry make of an image (3, H, W) in round `number`."""
    for slot, row in enumerate(entry):
        applied, strength, y, x = words(seed, example, number, slot + 1)
        if applied < row[1] * _WORD:
            start = SLOT_HEAD + PARAMETERS * pick(strength, int(row[2]))
            parameters = row[start : start + PARAMETERS]
            image = apply(NAMES[int(row[0])], parameters, image, y, x)
    return image


# ---- Random words --------------------------------------------------------------------------------


def words(seed: int, example: int, number: int, slot: int) -> tuple[int, int, int, int]:
    """Return four words of 32 bits that depend on the arguments alone.

    They are Philox4x32-10 (Salmon et al., SC 2011) with `seed` as key.
    """
    c = [example % _WORD, example // _WORD % _WORD, number, slot]
    low, high = seed % _WORD, seed // _WORD % _WORD
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            second // _WORD ^ c[1] ^ low,
            second % _WORD,
            first // _WORD ^ c[3] ^ high,
            first % _WORD,
        ]
        low, high = (low + 0x9E3779B9) % _WORD, (high + 0xBB67AE85) % _WORD
    return c[0], c[1], c[2], c[3]


def pick(word: int, count: int) -> int:
    """Map a word to an integer in [0, count)."""
    return word * count // _WORD


# ---- Operations ----------------------------------------------------------------------------------


def apply(name: str, parameters: list[float], image: Tensor, y: int = 0, x: int = 0) -> Tensor:
    """Return what an operation makes of an image (3, H, W) uint8, which stays as it is.

    Args:
        name: one of `policies.NAMES`.
        parameters: as in a policy's table.
        y, x: two random words, for the place of a square.
    """
    if name in _BY_FACTOR:
        return _BY_FACTOR[name](image, parameters[0])
    if name in _WITHOUT_STRENGTH:
        return _WITHOUT_STRENGTH[name](image)
    if name == "affine":
        return move(image, parameters)
    if name == "posterize":
        return image & int(parameters[0])
    if name == "solarize":
        return F.solarize(image, parameters[0])
    if name == "add_solarize":
        moved = (image.to(torch.int16) + int(parameters[0])).clamp(0, 255).to(torch.uint8)
        return F.solarize(moved, parameters[1])

    # square
    rows, columns = place_square(parameters, y, x, *image.shape[1:])
    filled = image.clone()
    filled[:, rows, columns] = int(parameters[5])
    return filled


def change_brightness(image: Tensor, factor: float) -> Tensor:
    """Return an image (3, H, W) uint8 mixed with black."""
    return _to_bytes(image.float() * factor)


def change_color(image: Tensor, factor: float) -> Tensor:
    """Return an image (3, H, W) uint8 mixed with its greyscale."""
    return _mix(image, greyscale(image), factor)


def change_contrast(image: Tensor, factor: float) -> Tensor:
    """Return an image (3, H, W) uint8 mixed with the mean of its greyscale."""
    grey = greyscale(image)
    # Integers have the same sum in every order.
    total, size = int(grey.long().sum()), max(1, grey.numel())
    mean = np.float32(total) / np.float32(size)
    return _mix(image, torch.full_like(grey, float(mean)), factor)


def change_sharpness(image: Tensor, factor: float) -> Tensor:
    """Return an image (3, H, W) uint8 mixed with a blurred one; its edge stays as it is."""
    height, width = image.shape[1:]
    if height < 3 or width < 3:
        return image

    inner = slice(1, -1)
    middle = image[:, inner, inner].int()
    sums = image.int().unfold(1, 3, 1).unfold(2, 3, 1).sum((-2, -1))
    # The rounded mean of nine values, of which the middle counts five times.
    blurred = (2 * (sums + 4 * middle) + 13) // 26

    sharpened = image.clone()
    mixed = multiply_add((blurred - middle).float(), 1.0 - factor, middle.float())
    sharpened[:, inner, inner] = _to_bytes(mixed)
    return sharpened


def greyscale(image: Tensor) -> Tensor:
    """Return the greyscale of an image (3, H, W) uint8: (H, W) float32, whole numbers."""
    red, green, blue = image.float()
    return multiply_add(blue, 0.114, multiply_add(green, 0.587, red * 0.2989)).floor()


def _mix(image: Tensor, other: Tensor, factor: float) -> Tensor:
    return _to_bytes(multiply_add(other, 1.0 - factor, image.float() * factor))


def multiply_add(x: Tensor, y: float, z: Tensor) -> Tensor:
    """Return x * y + z, computed in float64 and then rounded to float32.

    x and z are float32, and y is rounded to float32 first.
    """
    product = x.double() * float(np.float32(y))
    return (product + z.double()).float()


def _to_bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


_BY_FACTOR = {
    "color": change_color,
    "brightness": change_brightness,
    "contrast": change_contrast,
    "sharpness": change_sharpness,
}
_WITHOUT_STRENGTH = {
    "identity": torch.clone,
    "autocontrast": F.autocontrast,
    "equalize": F.equalize,
    "invert": F.invert,
}


def move(image: Tensor, parameters: list[float]) -> Tensor:
    """Return an image (3, H, W) moved by a matrix in units of 2^-32 pixels."""
    height, width = image.shape[1:]
    a, b, c, d, e, f = map(int, parameters)
    y = torch.arange(height, device=image.device)[:, None]
    x = torch.arange(width, device=image.device)
    from_x, from_y = (a * x + b * y + c) >> 32, (d * x + e * y + f) >> 32

    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    return image[:, from_y.clamp(0, height - 1), from_x.clamp(0, width - 1)] * inside


def place_square(
    parameters: list[float], y: int, x: int, height: int, width: int
) -> tuple[slice, slice]:
    """Return the rows and columns of a square around the point that two random words give."""
    before_y, before_x, size_y, size_x, moved, _ = parameters
    places = []
    for word, before, size, side in ((y, before_y, size_y, height), (x, before_x, size_x, width)):
        begin = int((word * side / _WORD - before) // 1)
        if moved:
            begin = max(begin, 0)
        end = begin + int(size)
        places.append(slice(max(begin, 0), max(0, min(end, side))))
    return places[0], places[1]


def crop(image: Tensor, draw: list[int] | None, padding: int, reflect: bool) -> Tensor:
    """Return an image (3, H, W) cropped and flipped by (dy, dx, flip), if there is a draw."""
    if draw is None:
        return image
    dy, dx, flip = draw
    height, width = image.shape[1:]
    edges = [padding] * 4
    padded = F.pad(image, edges, padding_mode="reflect" if reflect else "constant")
    cropped = padded[:, dy : dy + height, dx : dx + width]
    return cropped.flip(2) if flip else cropped
