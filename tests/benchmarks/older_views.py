"""Strong views image by image, by torchvision and Pillow, as nlbench made them before version 2.

They stay here to be measured and compared. Both draw what they do to an example from (seed, its
index), so that it does not depend on its batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

# ---- AutoAugment and cutout ----------------------------------------------------------------------


def auto_augment(images: Tensor, index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Apply AutoAugment's CIFAR-10 policy, and choose a square to cut out of each image.

    Cubuk et al., CVPR 2019, arXiv:1805.09501; DeVries & Taylor, arXiv:1708.04552. The square has
    half the side of the image and a random pixel as its centre.

    Args:
        images: (B, 3, H, W) uint8. Written to.
        index: (B,) int64, whose entries the draws belong to.
    Returns: the images, and what is left of them, (B, H, W) float32: 0 in the square, else 1.
    """
    height, width = images.shape[2:]
    policy = _policy()
    kept = torch.ones((len(images), height, width), device=images.device)

    # The generators of GPUs are not used here, so they need not be restored.
    with torch.random.fork_rng(devices=[]):
        for i, example in enumerate(index.tolist()):
            # AutoAugment takes no generator, so the global one is seeded for each example.
            torch.default_generator.manual_seed((seed + example) % 2**63)
            images[i] = policy(images[i])

            y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
            top, left = max(y - height // 4, 0), max(x - width // 4, 0)
            kept[i, top : y + height // 4, left : x + width // 4] = 0
    return images, kept


@functools.cache
def _policy() -> Callable[[Tensor], Tensor]:
    # Imported here because the import is slow and few methods need it.
    from torchvision.transforms import v2

    policy: Callable[[Tensor], Tensor] = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    return policy


# ---- RandAugment as in DISC's code ---------------------------------------------------------------


def rand_augment(images: Tensor, index: Tensor, seed: int, magnitude: int) -> Tensor:
    """Apply the RandAugment of DISC's authors, and fill a square of each image with grey.

    JackYFL/DISC, datasets/randaugment.py, RandAugmentwogeo: two operations are drawn, with repeats.
    Each has a strength drawn from 1 to magnitude - 1, and is applied with probability 1/2. The grey
    square, drawn last, has 0.15 of the image's side: 4 of 32 pixels, and one more by the way that
    Pillow counts them.

    Args:
        images: (B, 3, H, W) uint8, which stay as they are.
        index: (B,) int64, whose entries the draws belong to.
    Returns: (B, 3, H, W) uint8, on the device of `images`.
    """
    changed = []
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    for example, array in zip(index.tolist(), pixels, strict=True):
        rng = np.random.default_rng((seed % 2**63, example))
        image = Image.fromarray(np.ascontiguousarray(array))
        for operation in rng.integers(0, len(OPERATIONS), 2):
            strength = int(rng.integers(1, magnitude))
            if rng.random() < 0.5:
                image = OPERATIONS[operation](image, strength, rng)
        changed.append(np.asarray(_with_square(image, int(image.width * 0.15), rng)))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(images.device)


Rng = np.random.Generator
Operation = Callable[[Image.Image, int, Rng], Image.Image]


def _with_square(image: Image.Image, side: int, rng: Rng) -> Image.Image:
    """Return the image with a grey square around a random point, cut off at the edges."""
    width, height = image.size
    left = int(max(0, rng.uniform(0, width) - side / 2))
    top = int(max(0, rng.uniform(0, height) - side / 2))
    right, bottom = int(min(width, left + side)), int(min(height, top + side))

    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), (127, 127, 127))
    return image


def _enhanced(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """Return the operation of a Pillow enhancer, whose factor is 1 where nothing changes."""
    return lambda image, strength, rng: enhancer(image).enhance(0.1 + 0.18 * strength)


def _shifted(image: Image.Image, along: tuple[float, ...]) -> Image.Image:
    """Return the image seen through an affine map, black where it has no pixels."""
    return image.transform(image.size, Image.Transform.AFFINE, along)


def _sign(rng: Rng) -> int:
    return -1 if rng.random() < 0.5 else 1


def _rotate(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    return image.rotate(_sign(rng) * 3 * strength)


def _shear_x(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    return _shifted(image, (1, _sign(rng) * 0.01 * strength, 0, 0, 1, 0))


def _shear_y(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    return _shifted(image, (1, 0, 0, _sign(rng) * 0.01 * strength, 1, 0))


def _translate_x(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    return _shifted(image, (1, 0, _sign(rng) * (5 * strength * image.width // 1000), 0, 1, 0))


def _translate_y(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    return _shifted(image, (1, 0, 0, 0, 1, _sign(rng) * (5 * strength * image.height // 1000)))


def _solarize_add(image: Image.Image, strength: int, rng: Rng) -> Image.Image:
    moved = np.asarray(image).astype(np.int64) + _sign(rng) * 11 * strength
    return ImageOps.solarize(Image.fromarray(moved.clip(0, 255).astype(np.uint8)), 128)


# In the authors' order. Their table has the strength 10 of each; it goes down in proportion.
OPERATIONS: tuple[Operation, ...] = (
    lambda image, strength, rng: ImageOps.autocontrast(image),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    lambda image, strength, rng: _with_square(image, strength * min(image.size) // 100, rng),
    lambda image, strength, rng: ImageOps.equalize(image),
    lambda image, strength, rng: ImageOps.invert(image),
    lambda image, strength, rng: ImageOps.posterize(image, 4 + 4 * strength // 10),
    _rotate,
    _enhanced(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    lambda image, strength, rng: ImageOps.solarize(image, 256 - 256 * strength // 10),
    _solarize_add,
    _translate_x,
    _translate_y,
)
