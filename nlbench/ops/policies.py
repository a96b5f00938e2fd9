"""Policies of strong augmentation, and the tables of numbers that `ops.strong_augment` reads.

A policy draws one of its entries a number of times. An entry is a list of operations. Each is
applied with a probability of its own, at a strength that is drawn from a list. Further draws are
crop, flip and a square.

An operation's meaning is that of torchvision.transforms.v2.functional on uint8 tensors:

    affine        moves pixels to the nearest place; black comes in from outside
    posterize     value & mask
    solarize      255 - value from a threshold on
    add_solarize  adds a number, cuts off at 0 and 255, then solarizes
    autocontrast, equalize, invert
    color, brightness, contrast, sharpness: mixes with grey, black, the mean grey, a blurred image
    square        fills a square around a random point
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlbench.ops.checks import require_int

# As numbered in csrc/strong_view.h.
NAMES = (
    "identity",
    "affine",
    "posterize",
    "solarize",
    "add_solarize",
    "autocontrast",
    "equalize",
    "invert",
    "color",
    "brightness",
    "contrast",
    "sharpness",
    "square",
)
# The numbers that an operation has for each of its strengths; the rest of them are 0.
PARAMETERS = 6
# Before these a slot of the table has operation, probability and number of strengths.
SLOT_HEAD = 3

Numbers = tuple[float, ...]


# The magnitudes that each kind of operation may have: the lowest and the highest.
MAGNITUDES: dict[str, tuple[float, float]] = {
    "ShearX": (-10.0, 10.0),
    "ShearY": (-10.0, 10.0),
    "TranslateX": (-1000.0, 1000.0),
    "TranslateY": (-1000.0, 1000.0),
    "Rotate": (-360.0, 360.0),
    "Posterize": (0.0, 8.0),
    "Solarize": (0.0, 255.0),
    "AddSolarize": (-255.0, 255.0),
    "Square": (0.0, 100.0),
    "Color": (0.0, 1000.0),
    "Brightness": (0.0, 1000.0),
    "Contrast": (0.0, 1000.0),
    "Sharpness": (0.0, 1000.0),
}
WITHOUT_MAGNITUDE = ("Identity", "AutoContrast", "Equalize", "Invert")
CUTOUTS = ("", "mean", "grey")


class Setting(NamedTuple):
    """An operation of a policy as its source gives it.

    Attributes:
        kind: torchvision's name for the operation, for example "ShearX"; or "AddSolarize" or
            "Square", which torchvision does not have.
        probability: with which it is applied.
        magnitudes: the strengths that are drawn from; none for an operation without strength.
            Shears in pixels a pixel, translations in thousandths of the side, rotations in degrees,
            bits that posterize keeps, thresholds of solarize, what AddSolarize adds, factors of
            the rest (1 changes nothing), and the side of a square in hundredths.
        signed: whether each is drawn with either sign.
    """

    kind: str
    probability: float = 1.0
    magnitudes: tuple[float, ...] = ()
    signed: bool = False


# Equal is only the same object, since a batch must not compare all entries to find its table.
@dataclass(frozen=True, eq=False)
class Policy:
    """What a strong augmentation does.

    Attributes:
        name: how messages and tables call it.
        rounds: how many entries are drawn, with repeats.
        entries: what is drawn from.
        crop_first: whether crop and flip come before the operations, not after them.
        cutout: the last square. "mean" has half the image's side and the mean colour, and is cut
            off at the edges. "grey" has 0.15 of the side and level 127, as DISC's authors have it.
            "" for none.

    Raises: TypeError or ValueError for a value that no view can be made of; the message names it.
    """

    name: str
    rounds: int
    entries: tuple[tuple[Setting, ...], ...]
    crop_first: bool = False
    cutout: str = ""

    def __post_init__(self) -> None:
        _check_policy(self)

    @functools.cached_property
    def slots(self) -> int:
        """The largest number of operations of an entry."""
        return max(map(len, self.entries))

    @functools.cached_property
    def strengths(self) -> int:
        """The largest number of strengths of an operation, where each sign counts."""
        counts = [_count(setting) for entry in self.entries for setting in entry]
        return max(counts, default=1)


# ---- Checks --------------------------------------------------------------------------------------


def _check_policy(policy: Policy) -> None:
    """Check everything that a policy is made of. Raises: TypeError, ValueError."""
    what = f"policy {policy.name!r}"
    require_int(what, "rounds", policy.rounds, 0, 2**31 - 1)
    if not isinstance(policy.crop_first, bool):
        raise TypeError(f"{what}: crop_first must be True or False, got {policy.crop_first!r}")
    if policy.cutout not in CUTOUTS:
        allowed = ", ".join(map(repr, CUTOUTS))
        raise ValueError(f"{what}: cutout must be one of {allowed}, got {policy.cutout!r}")

    # A list could be changed after its table has been made.
    if not isinstance(policy.entries, tuple):
        found = type(policy.entries).__name__
        raise TypeError(f"{what}: entries must be a tuple of tuples of Setting, got {found}")
    if not policy.entries:
        raise ValueError(f"{what}: entries must hold at least one entry, got ()")
    for number, entry in enumerate(policy.entries):
        if not isinstance(entry, tuple) or isinstance(entry, Setting):
            found = type(entry).__name__
            raise TypeError(f"{what}: entries[{number}] must be a tuple of Setting, got {found}")
        if not entry:
            raise ValueError(
                f"{what}: entries[{number}] is empty; Setting('Identity') does nothing"
            )
        for slot, setting in enumerate(entry):
            _check_setting(f"{what}: entries[{number}][{slot}]", setting)


def _check_setting(what: str, setting: object) -> None:
    if not isinstance(setting, Setting):
        raise TypeError(f"{what} must be a Setting, got {type(setting).__name__}")
    kind, magnitudes = setting.kind, setting.magnitudes
    if kind not in MAGNITUDES and kind not in WITHOUT_MAGNITUDE:
        known = ", ".join([*MAGNITUDES, *WITHOUT_MAGNITUDE])
        raise ValueError(f"{what}: kind must be one of {known}, got {kind!r}")
    _check_range(f"{what}, {kind}: probability", setting.probability, 0.0, 1.0)

    if not isinstance(magnitudes, tuple):
        found = type(magnitudes).__name__
        raise TypeError(f"{what}, {kind}: magnitudes must be a tuple of numbers, got {found}")
    if kind in WITHOUT_MAGNITUDE:
        if magnitudes:
            raise ValueError(f"{what}: {kind} takes no magnitudes, got {magnitudes}")
        return
    if not magnitudes:
        raise ValueError(f"{what}: {kind} needs at least one magnitude, got none")
    lowest, highest = MAGNITUDES[kind]
    for magnitude in magnitudes:
        _check_range(f"{what}, {kind}: magnitude", magnitude, lowest, highest)
        if setting.signed and -magnitude < lowest:
            raise ValueError(
                f"{what}: {kind} takes no negative magnitude, so signed must be False for "
                f"{magnitude}"
            )
        if kind == "Posterize" and magnitude != int(magnitude):
            raise ValueError(f"{what}: {kind} keeps a whole number of bits, got {magnitude}")


def _check_range(what: str, value: object, lowest: float, highest: float) -> None:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number, got {type(value).__name__}")
    # NaN is in no range.
    if not lowest <= value <= highest:
        raise ValueError(f"{what} must be in [{lowest:g}, {highest:g}], got {value}")


# ---- The table -----------------------------------------------------------------------------------


def table(policy: Policy, height: int, width: int) -> Tensor:
    """Return a policy's numbers for images of one size, float64 on the CPU.

    [6 + entries * slots * (3 + 6 * strengths)]: the parameters of the last square, then for each
    slot of each entry: operation, probability, number of strengths, and six parameters for each.
    """
    # The largest is 4096 pixels in units of 2^-32, which float64 holds exactly.
    slots = np.zeros(
        (len(policy.entries), policy.slots, SLOT_HEAD + PARAMETERS * policy.strengths), np.float64
    )
    # A slot that an entry does not use is the identity, of which there is one strength.
    slots[:, :, 2] = 1
    for entry, settings in zip(slots, policy.entries, strict=True):
        for slot, setting in zip(entry, settings, strict=False):
            numbers = parameters(setting, height, width)
            number = NAMES.index(operation(setting.kind))
            slot[:SLOT_HEAD] = number, setting.probability, len(numbers)
            for i, given in enumerate(numbers):
                start = SLOT_HEAD + PARAMETERS * i
                slot[start : start + len(given)] = given

    square = np.zeros(PARAMETERS)
    square[:] = _cutout(policy.cutout, height, width)
    return torch.from_numpy(np.concatenate([square, slots.ravel()]))


@functools.lru_cache(maxsize=64)
def table_on(policy: Policy, height: int, width: int, device: torch.device) -> Tensor:
    """Return `table` on a device, where it is kept for the next batches."""
    return table(policy, height, width).to(device)


def operation(kind: str) -> str:
    """Return the operation of NAMES that carries out a source's `kind`."""
    if kind in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        return "affine"
    return {
        "Identity": "identity",
        "AddSolarize": "add_solarize",
        "AutoContrast": "autocontrast",
        "Square": "square",
    }.get(kind, kind.lower())


def parameters(setting: Setting, height: int, width: int) -> list[Numbers]:
    """Return the parameters of each strength of an operation, as csrc/strong_view.h reads them."""
    if not setting.magnitudes:
        return [()]
    found = []
    for magnitude in setting.magnitudes:
        for sign in (1, -1) if setting.signed else (1,):
            found.append(_parameters(setting.kind, sign * magnitude, height, width))
    return found


def _count(setting: Setting) -> int:
    return max(1, len(setting.magnitudes) * (2 if setting.signed else 1))


def _parameters(kind: str, magnitude: float, height: int, width: int) -> Numbers:
    if operation(kind) == "affine":
        return fixed_point(_matrix(kind, magnitude, height, width))
    if kind == "Posterize":
        bits = int(magnitude)
        return (256 - 2 ** (8 - bits),)
    if kind == "AddSolarize":
        return magnitude, 128.0
    if kind == "Square":
        side = int(magnitude * min(height, width)) // 100
        return _grey_square(side)
    # The threshold of solarize, or the factor of color, brightness, contrast and sharpness.
    return (magnitude,)


def _matrix(kind: str, magnitude: float, height: int, width: int) -> Numbers:
    """Return where a pixel comes from: x' = a x + b y + c, y' = d x + e y + f.

    Coordinates count from the image's corner, so that pixel centres are at halves.
    """
    if kind == "ShearX":
        return 1.0, magnitude, 0.0, 0.0, 1.0, 0.0
    if kind == "ShearY":
        return 1.0, 0.0, 0.0, magnitude, 1.0, 0.0
    if kind == "TranslateX":
        return 1.0, 0.0, -_pixels(magnitude, width), 0.0, 1.0, 0.0
    if kind == "TranslateY":
        return 1.0, 0.0, 0.0, 0.0, 1.0, -_pixels(magnitude, height)

    # Rotate: counterclockwise, in degrees, around the centre.
    angle = math.radians(magnitude)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


def _pixels(thousandths: float, side: int) -> float:
    """Return a part of a side in whole pixels, rounded towards zero."""
    # The product may be just below the whole number that it would be without rounding.
    return float(int(round(thousandths * side / 1000, 6)))


def fixed_point(matrix: Numbers) -> Numbers:
    """Return a matrix for pixels (x, y) that are counted, in units of 2^-32 pixels.

    The nearest pixel is then the whole part of the result.
    """
    a, b, c, d, e, f = matrix
    moved = a, b, c + (a + b) / 2, d, e, f + (d + e) / 2
    return tuple(float(round(value * 2**32)) for value in moved)


def _cutout(kind: str, height: int, width: int) -> Numbers:
    """Return rows and columns before the random point, height, width, moved, level."""
    if kind == "mean":
        y, x = height // 4, width // 4
        return y, x, 2 * y, 2 * x, 0, -1
    if kind == "grey":
        return _grey_square(int(0.15 * width))
    return (0,) * PARAMETERS


def _grey_square(side: int) -> Numbers:
    # Pillow's rectangle, with which DISC's authors draw it, is larger by a pixel.
    return side / 2, side / 2, side + 1, side + 1, 1, 127


# ---- The policies --------------------------------------------------------------------------------

# Cubuk et al., CVPR 2019, arXiv:1805.09501, as torchvision has it: each pair of operations with
# probability and number of the magnitude.
_CIFAR10: tuple[tuple[tuple[str, float, int | None], ...], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)


def _autoaugment() -> Policy:
    entries = []
    for pair in _CIFAR10:
        settings = []
        for kind, probability, number in pair:
            setting = _torchvisions(kind, 10, number or 0)
            settings.append(setting._replace(probability=probability))
        entries.append(tuple(settings))
    return Policy("autoaugment", 1, tuple(entries), cutout="mean")


def rand_augment(
    rounds: int = 2, magnitude: int = 9, bins: int = 31, *, cutout: str = "mean"
) -> Policy:
    """Return RandAugment (Cubuk et al., NeurIPS 2020, arXiv:1909.13719) as torchvision has it.

    Args:
        rounds: how many operations are applied, of fourteen, with repeats.
        magnitude: their strength, in [0, bins).
        bins: how many strengths there are, at least 2.
        cutout: see `Policy`.
    Raises: ValueError for a number out of range, and TypeError for one that is no int.
    """
    require_int("rand_augment", "rounds", rounds, 0, 2**31 - 1)
    require_int("rand_augment", "bins", bins, 2, 2**31 - 1)
    require_int("rand_augment", "magnitude", magnitude, 0, bins - 1)
    kinds = ("Identity", *_SPACE)
    entries = tuple((_torchvisions(kind, bins, magnitude),) for kind in kinds if kind != "Invert")
    return Policy(f"randaugment({rounds}, {magnitude})", rounds, entries, cutout=cutout)


# The largest magnitudes of torchvision's operations, which are reached in equal steps from 0.
_SPACE: dict[str, float] = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150_000 / 331,
    "TranslateY": 150_000 / 331,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
    "Posterize": 4.0,
    "Solarize": 1.0,
    "AutoContrast": 0.0,
    "Equalize": 0.0,
    "Invert": 0.0,
}


def _torchvisions(kind: str, bins: int, number: int) -> Setting:
    """Return torchvision's operation at one of its `bins` magnitudes, counted from 0."""
    largest = _SPACE.get(kind, 0.0)
    if largest == 0:
        return Setting(kind)
    if kind == "Posterize":
        kept = 8 - torch.arange(bins) / ((bins - 1) / largest)
        return Setting(kind, magnitudes=(float(kept.round()[number]),))
    if kind == "Solarize":
        return Setting(kind, magnitudes=(255 * float(torch.linspace(1.0, 0.0, bins)[number]),))
    if kind.startswith("Translate"):
        return Setting(kind, magnitudes=(largest * number / (bins - 1),), signed=True)

    # torchvision computes these in float32.
    magnitude = float(torch.linspace(0.0, largest, bins)[number])
    if operation(kind) == "affine":
        return Setting(kind, magnitudes=(magnitude,), signed=True)
    return Setting(kind, magnitudes=(1.0 + magnitude, 1.0 - magnitude))


def _of_disc(magnitude: int) -> Policy:
    """Return the RandAugment of DISC's authors.

    JackYFL/DISC, datasets/randaugment.py, RandAugmentwogeo: two operations are drawn, with repeats.
    Each has a strength drawn from 1 to magnitude - 1, and is applied with probability 1/2. Crop and
    flip come before them, and the grey square after them.
    """
    strengths = range(1, magnitude)
    factors = tuple(0.1 + 0.18 * strength for strength in strengths)

    def at(kind: str, *magnitudes: float, signed: bool = False) -> tuple[Setting, ...]:
        return (Setting(kind, 0.5, magnitudes, signed),)

    # In the authors' order. Their table has the strength 10 of each; it goes down in proportion.
    entries = (
        at("AutoContrast"),
        at("Brightness", *factors),
        at("Color", *factors),
        at("Contrast", *factors),
        at("Square", *strengths),
        at("Equalize"),
        at("Invert"),
        at("Posterize", *(4 + 4 * strength // 10 for strength in strengths)),
        at("Rotate", *(3.0 * strength for strength in strengths), signed=True),
        at("Sharpness", *factors),
        at("ShearX", *(0.01 * strength for strength in strengths), signed=True),
        at("ShearY", *(0.01 * strength for strength in strengths), signed=True),
        at("Solarize", *(256 - 256 * strength // 10 for strength in strengths)),
        at("AddSolarize", *(11.0 * strength for strength in strengths), signed=True),
        at("TranslateX", *(5.0 * strength for strength in strengths), signed=True),
        at("TranslateY", *(5.0 * strength for strength in strengths), signed=True),
    )
    return Policy(f"randaugment-{magnitude}", 2, entries, crop_first=True, cutout="grey")


AUTOAUGMENT = _autoaugment()

# By the names that a protocol's `strong` has.
POLICIES = {
    policy.name: policy for policy in (AUTOAUGMENT, _of_disc(magnitude=5), _of_disc(magnitude=10))
}
