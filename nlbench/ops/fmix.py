"""The masks of FMix. Harris et al., 2020, arXiv:2002.12047.

A mask takes a share of an image's pixels: those where a random picture of low frequencies is
brightest. Such regions are connected, but have any form.

The authors' code, ecs-vlc/FMix, takes two rows of its array of random numbers as real and imaginary
part of the spectrum, where its last axis is meant. Here it is the last axis.
"""

import math

import numpy as np
import torch
from torch import Tensor

# Authors' code: how fast a frequency's amplitude falls, and alpha of the share's Beta distribution.
DECAY, ALPHA = 3.0, 1.0


def draw_mask(shape: torch.Size, rng: np.random.Generator) -> tuple[float, Tensor]:
    """Draw a share from Beta(1, 1), and a mask that is 1 on that share of an image and 0 elsewhere.

    Args:
        shape: of an example: (C, H, W), or (n,), which is a row of n pixels.
    Returns: the share, and (H, W) or (1, n) float64. The mask's mean is the share, rounded up or
        down to whole pixels.
    """
    height, width = shape[-2:] if len(shape) > 1 else (1, shape[0])
    share = float(rng.beta(ALPHA, ALPHA))

    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = np.maximum(frequency, 1 / max(height, width)) ** -DECAY
    real, imaginary = rng.standard_normal((2, *amplitude.shape))
    picture = np.fft.irfft2(amplitude * (real + 1j * imaginary), (height, width))

    count = share * picture.size
    count = math.ceil(count) if rng.random() > 0.5 else math.floor(count)
    mask = np.zeros(picture.size)
    mask[np.argsort(-picture, axis=None, kind="stable")[:count]] = 1.0
    return share, torch.from_numpy(mask.reshape(height, width))
