"""Strong views in plain torch, image by image: the reference of `ops.strong_augment`.

It computes what the kernels compute, bit for bit, by torchvision's operations. Moves alone are its
own, since torchvision's arithmetic is float32, whose rounding decides where a pixel's source lies
in the middle between two others.
"""

from __future__ import annotations

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
        changed: Tensor = _BY_FACTOR[name](image, parameters[0])
        return changed
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


_BY_FACTOR = {
    "color": F.adjust_saturation,
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "sharpness": F.adjust_sharpness,
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
