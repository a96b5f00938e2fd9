"""Features of images without published weights: k-means filters on whitened patches.

Coates, Ng and Lee, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS
2011. The filters are learned as in Coates and Ng, "Learning Feature Representations with K-means",
2012: centroids of length 1, found by ten passes over whitened patches.

Two things differ from the papers. The triangle activation uses squared distances, which for
centroids of length 1 need no root: with |c| = 1,

    mean over j of |x - c_j|^2 / 2  -  |x - c_k|^2 / 2  =  <x, c_k> - mean over j of <x, c_j>

so that all that is linear (whitening, the mean of a patch, the mean over the centroids) folds into
the filters of one convolution. And the root of each pooled activation is taken, because the many
small ones tell as much about an image as the few large ones. docs/embed.md has what was measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlbench.embedding.principal import Principal
from nlbench.streams import rng

# As in the papers, for pixels from 0 to 255 and patches of unit variance.
CONTRAST_EPS = 10.0
WHITENING_EPS = 0.1
PASSES = 10

# Patches that the filters are learned from.
PATCHES = 100_000
# Images at once. More do not fit into the cache of a core with all their activations.
_AT_ONCE = 8


@dataclass(frozen=True)
class Settings:
    """What decides about the features of given images.

    Attributes:
        filters: the number of centroids, K.
        patch: pixels of a side of a patch.
        cells: the activations are averaged over cells x cells parts of an image.
        dims: the features that are kept; fewer where there are fewer training images.
        sample: training images that filters and principal components are learned from.
        size: pixels of a side to which images are resized; 0 leaves them as they are.
    """

    filters: int = 800
    patch: int = 6
    cells: int = 3
    dims: int = 512
    sample: int = 5000
    size: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Filters:
    """One convolution, and what is added to its result after the division by the contrast.

    Attributes:
        weight: (K, 3, patch, patch) float32.
        bias: (K,) float32.
        cells: see `Settings`.
    """

    weight: Tensor
    bias: Tensor
    cells: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return pooled activations (N, K * cells * cells) float32 of images (N, H, W, 3) uint8."""
        with torch.no_grad():
            parts = [
                self._pooled(torch.tensor(images[start : start + _AT_ONCE]))
                for start in range(0, len(images), _AT_ONCE)
            ]
        found: np.ndarray = torch.cat(parts).numpy()
        return found

    def _pooled(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        side = self.weight.shape[2]
        average = torch.full((1, 3, side, side), 1 / (3 * side * side))
        mean = F.conv2d(pixels, average)
        # Each patch has its own contrast.
        variance = F.conv2d(pixels.square(), average) - mean.square()
        contrast = variance.clamp_(min=0).add_(CONTRAST_EPS).sqrt_()

        active = F.conv2d(pixels, self.weight).div_(contrast)
        active.add_(self.bias[:, None, None]).clamp_(min=0)
        return F.adaptive_avg_pool2d(active, self.cells).sqrt_().flatten(1)


@dataclass(frozen=True)
class Patches:
    """The whole extractor: filters, pooling, and principal components of the pooled activations."""

    filters: Filters
    principal: Principal

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features (N, D) float32 of images (N, H, W, 3) uint8."""
        return self.principal(self.filters(images))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that was learned, to be kept in a file."""
        return {
            "weight": self.filters.weight.numpy(),
            "bias": self.filters.bias.numpy(),
            "cells": np.array(self.filters.cells),
            **asdict(self.principal),
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Patches:
        """Return the extractor that `arrays` was called on."""
        filters = Filters(
            torch.from_numpy(arrays["weight"]),
            torch.from_numpy(arrays["bias"]),
            int(arrays["cells"]),
        )
        names = ("mean", "std", "axes")
        return cls(filters, Principal(**{name: arrays[name] for name in names}))


def learn(images: np.ndarray, settings: Settings) -> Patches:
    """Learn filters and principal components from images (N, H, W, 3) uint8, without labels.

    Raises: ValueError for images that are smaller than a patch.
    """
    if min(images.shape[1:3]) < settings.patch + settings.cells - 1:
        height, width = images.shape[1:3]
        raise ValueError(
            f"images of {height}x{width} pixels have no room for {settings.cells} x "
            f"{settings.cells} parts with patches of {settings.patch} pixels; make them larger"
        )
    filters = learn_filters(draw_patches(images, settings), settings)
    return Patches(filters, Principal.of(filters(images), settings.dims, settings.seed))


def draw_patches(images: np.ndarray, settings: Settings) -> np.ndarray:
    """Draw patches at random places: (PATCHES, 3 * patch * patch) float32, channel by channel."""
    draws = rng(settings.seed, "embed", "patches")
    side = settings.patch
    N, height, width = images.shape[:3]
    image = draws.integers(0, N, PATCHES)
    top = draws.integers(0, height - side + 1, PATCHES)
    left = draws.integers(0, width - side + 1, PATCHES)
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    return windows[image, top, left].reshape(PATCHES, -1).astype(np.float32)


def learn_filters(patches: np.ndarray, settings: Settings) -> Filters:
    """Learn centroids from patches (P, D), and fold into them all that is linear."""
    normal = normalised(patches)
    mean, whitening = zca(normal)
    centroids = spherical_kmeans((normal - mean) @ whitening, settings)

    # <W (n - m), c> = <n, W c> - <m, W c>, because W is symmetric.
    weight = centroids @ whitening
    bias = -(weight @ mean)
    # The mean over the centroids, which the triangle activation takes away.
    weight, bias = weight - weight.mean(0), bias - bias.mean()
    # The mean of a patch, which the contrast normalisation takes away.
    weight = weight - weight.mean(1, keepdims=True)

    shape = (len(weight), 3, settings.patch, settings.patch)
    return Filters(torch.from_numpy(weight.reshape(shape)), torch.from_numpy(bias), settings.cells)


def normalised(patches: np.ndarray) -> np.ndarray:
    """Return patches (P, D) with mean 0 and, but for flat ones, variance 1."""
    centred = patches - patches.mean(1, keepdims=True)
    found: np.ndarray = centred / np.sqrt(centred.var(1, keepdims=True) + CONTRAST_EPS)
    return found


def zca(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and the symmetric whitening matrix (D, D) of patches, as float32."""
    mean = patches.mean(0, dtype=np.float64)
    centred = patches.astype(np.float64) - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(patches))
    whitening = (axes / np.sqrt(np.maximum(variances, 0) + WHITENING_EPS)) @ axes.T
    return mean.astype(np.float32), whitening.astype(np.float32)


def spherical_kmeans(points: np.ndarray, settings: Settings) -> np.ndarray:
    """Return K centroids (K, D) float32 of length 1.

    In each pass a point belongs to the centroid whose product with it is largest, be it negative,
    and adds itself times that product. A centroid without points stays where it is.
    """
    draws = rng(settings.seed, "embed", "centroids")
    first = draws.standard_normal((settings.filters, points.shape[1]), np.float32)
    centroids = F.normalize(torch.from_numpy(first))
    given = torch.from_numpy(points)

    for _ in range(PASSES):
        moved = centroids.clone()
        for part in given.split(10_000):
            products = part @ centroids.T
            nearest = products.abs().argmax(1)
            weights = products.gather(1, nearest[:, None])
            moved.index_add_(0, nearest, part * weights)
        centroids = F.normalize(moved)
    found: np.ndarray = centroids.numpy()
    return found


def sample_index(count: int, settings: Settings) -> np.ndarray:
    """Draw the training images to learn from: (n,) int64, in ascending order."""
    if count <= settings.sample:
        return np.arange(count)
    chosen = rng(settings.seed, "embed", "sample").choice(count, settings.sample, replace=False)
    return np.sort(chosen)
