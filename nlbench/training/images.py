"""From a dataset to what one run trains on: noisy labels, parts, and images on the training device."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from nlbench import ops
from nlbench.data import decode
from nlbench.data.base import ImageFiles, Info
from nlbench.data.decode import Geometry


def _strengthened(images: Tensor, index: Tensor, seed: int, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """AutoAugment's CIFAR-10 policy on (B, 3, H, W) uint8, written to; then normalised, and a square cut out of each.

    Cubuk et al., CVPR 2019, arXiv:1805.09501; DeVries & Taylor, arXiv:1708.04552: a square of half the side around a
    random pixel, at the mean colour. An example's draws come from (seed, its index), whatever batch it is in.
    """
    height, width = images.shape[2:]
    policy, kept = _auto_augment(), torch.ones((len(images), height, width), device=images.device)
    with torch.random.fork_rng(devices=[]):
        for i, example in enumerate(index.tolist()):
            torch.default_generator.manual_seed((seed + example) % 2**63)  # not those of GPUs, which no one puts back
            images[i] = policy(images[i])
            y, x = (int(torch.randint(side, ())) for side in (height, width))
            top, left = max(y - height // 4, 0), max(x - width // 4, 0)
            kept[i, top : y + height // 4, left : x + width // 4] = 0
    return (normalise(images) * kept[:, None]).contiguous(memory_format=torch.channels_last)


@functools.cache
def _auto_augment() -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # here: its import is slow, and few methods ask for it

    return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


Augment = Literal["crop-flip", "flip", "none"]


class TrainingImages(Protocol):
    """The images of N examples, from which the batches of a run are made on its device."""

    @property
    def ahead(self) -> int:
        """Number of batches that are requested before the step that uses them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example as a network gets it."""

    def __len__(self) -> int:
        """Return N."""

    def draws(self, rng: np.random.Generator) -> Tensor:
        """Draw an augmentation for each example: (N, 3), or (0, 3) if nothing is augmented."""

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) int64, augmented by their draws, (B, C, H, W) float32."""

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Return a function that gives `augmented(index, draws)`; files are decoded in advance."""

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation, see `Batch.strong`, (B, C, H, W) float32."""

    def plain(self, start: int, stop: int) -> Tensor:
        """Return the examples from `start` to before `stop`, or to the end, without augmentation.

        (B, C, H, W) float32.
        """

    def subset(self, index: np.ndarray) -> TrainingImages:
        """Return the examples at `index` (n,) int64, without augmentation."""


def images_of(
    source: np.ndarray | ImageFiles, info: Info, device: torch.device, augment: Augment, geometry: Geometry
) -> Images | FileImages:
    """What a run takes its images from.

    Args:
        augment: "crop-flip" on pixels crops after 4 zero pixels around, on files it cuts a square out of the resized
            image; then either flips. "flip" only flips, from the centre of a file's image.
        geometry: of files; pixels are used as they are.
    """
    if isinstance(source, ImageFiles):
        return FileImages(source, info, device, augment, geometry)
    return Images(source, info, device, augment)


_copies: dict[tuple[int, torch.device], tuple[np.ndarray, Tensor]] = {}  # by the array's id, the latest last
_COPIES_KEPT = 4


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` as a tensor nobody writes to. On a GPU the last few copies stay, for the runs that share their arrays."""
    kept = _copies.pop((id(array), device), None)
    if kept is None or kept[0] is not array:
        with warnings.catch_warnings():
            # A memory map cannot be written to, and nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            kept = array, torch.from_numpy(np.ascontiguousarray(array)).to(device)
    if device.type != "cpu":
        _copies[id(array), device] = kept
        for oldest in list(_copies)[:-_COPIES_KEPT]:
            del _copies[oldest]
    return kept[1]


class Images:
    """Images on a device: uint8 ones augmented and normalised by one kernel, float features as they are.

    Args:
        array: (N, H, W, 3) uint8 or (N, C, H, W) float32; on the CPU it is used in place, and never written to.
        info: gives mean and std.
        augment: random crop of 4 zero pixels around, and flip; float features have neither.
    """

    ahead = 0  # batches that are asked for before their step

    def __init__(self, array: np.ndarray, info: Info, device: torch.device | str = "cpu", augment: Augment = "none"):
        if array.dtype not in (np.uint8, np.float32):
            raise TypeError(f"images must be uint8 or float32, got {array.dtype}")
        self.data = _on_device(array, torch.device(device))
        self.info = info
        self.pixels = array.dtype == np.uint8
        self.augment: Augment = augment
        self.augments = augment != "none" and self.pixels

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example as a network sees it."""
        first, second, third = self.data.shape[1:]
        return (third, first, second) if self.pixels else (first, second, third)

    def subset(self, index: np.ndarray) -> Images:
        """The examples at `index` (n,), without augmentation, a copy."""
        part = Images.__new__(Images)
        part.data = self.data[torch.from_numpy(index).to(self.data.device)]
        part.info, part.pixels, part.augment, part.augments = self.info, self.pixels, "none", False
        return part

    def draws(self, rng: np.random.Generator) -> Tensor:
        """(N, 3) int64 on the device, a row for each example: dy and dx in [0, 8], flip 0 or 1; else (0, 3)."""
        if not self.augments:
            return torch.empty((0, 3), dtype=torch.int64, device=self.data.device)
        rows = np.concatenate([rng.integers(0, 9, (len(self), 2)), rng.integers(0, 2, (len(self), 1))], axis=1)
        if self.augment == "flip":
            rows[:, :2] = 4  # the middle: nothing is shifted
        return torch.from_numpy(rows).to(self.data.device)

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """What `augmented` gives, made when it is asked for: a batch whose view 0 nobody looks at costs nothing."""
        return lambda: self.augmented(index, draws)

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """(B, C, H, W) float32: the examples at `index` (B,) under their rows of `draws`."""
        return self._normalised(index, draws if self.augments else None)

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """(B, C, H, W) float32: crop and flip under `draws`, AutoAugment's CIFAR-10 policy, normalise, cutout."""
        if not self.pixels:
            return self.data[index]
        draw = draws if self.augments else None
        unit = ops.augment(self.data, index, draw, mean=(0.0,) * 3, std=(1 / 255,) * 3)
        mean, std = (torch.tensor(v, device=index.device)[:, None, None] for v in (self.info.mean, self.info.std))
        return _strengthened(unit.round().to(torch.uint8), index, seed, lambda images: (images / 255 - mean) / std)

    def plain(self, start: int, stop: int) -> Tensor:
        """(B, C, H, W) float32: the examples from `start` to before `stop`, or to the end, without augmentation."""
        return self._normalised(torch.arange(start, min(stop, len(self)), device=self.data.device), None)

    def _normalised(self, index: Tensor, draws: Tensor | None) -> Tensor:
        if not self.pixels:
            return self.data[index]
        return ops.augment(self.data, index, draws, mean=self.info.mean, std=self.info.std)


class FileImages:
    """Images that worker processes decode while the network is busy; memory holds a few batches.

    Args: see `images_of`.
    """

    ahead = 3  # batches that are asked for before their step; a constant, so that plans are drawn alike everywhere

    def __init__(self, files: ImageFiles, info: Info, device: torch.device, augment: Augment, geometry: Geometry):
        self.files, self.info, self.device = files, info, device
        self.augment: Augment = augment
        self.geometry = geometry
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (info.mean, info.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._window: tuple[int, int, decode.Pending] | None = None  # the part that `plain` will be asked for next

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example as a network sees it."""
        return 3, self.geometry.crop, self.geometry.crop

    def subset(self, index: np.ndarray) -> FileImages:
        """The examples at `index` (n,), without augmentation."""
        return FileImages(self.files[index], self.info, self.device, "none", self.geometry)

    def draws(self, rng: np.random.Generator) -> Tensor:
        """(N, 3) float32 in [0, 1), a row for each example: see `decode.decode`; without augmentation (0, 3)."""
        if self.augment == "none":
            return torch.empty((0, 3))
        rows = rng.random((len(self), 3), np.float32)
        if self.augment == "flip":
            rows[:, :2] = np.nextafter(np.float32(0.5), np.float32(0))  # just below it: `plain` rounds down too
        return torch.from_numpy(rows)

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Start to decode the examples at `index` (B,); the result waits for them: as `augmented`."""
        pending = self._ask(index.cpu(), draws)
        return lambda: self._normalised(self._bytes(pending))

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """(B, 3, crop, crop) float32: the examples at `index` (B,) under their rows of `draws`."""
        return self.request(index, draws)()

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """As `Images.strong`: crop and flip under `draws`, AutoAugment's policy, normalise, cutout."""
        return _strengthened(self._bytes(self._ask(index.cpu(), draws)), index, seed, self._normalised)

    def plain(self, start: int, stop: int) -> Tensor:
        """(B, 3, crop, crop) float32: the examples from `start` to before `stop`, or to the end, from their centre."""
        stop = min(stop, len(self))
        window, self._window = self._window, None
        pending = window[2] if window and window[:2] == (start, stop) else self._ask_range(start, stop)
        if stop < len(self):  # who asks for parts in their order finds the next one begun
            following = stop, min(2 * stop - start, len(self))
            self._window = *following, self._ask_range(*following)
        return self._normalised(self._bytes(pending))

    def _ask_range(self, start: int, stop: int) -> decode.Pending:
        return self._ask(torch.arange(start, stop), torch.empty((0, 3)))

    def _ask(self, index: Tensor, draws: Tensor) -> decode.Pending:
        paths = [self.files.path(i) for i in index.tolist()]
        return decode.request(paths, self.geometry, draws[index].numpy() if len(draws) else None)

    def _bytes(self, pending: decode.Pending) -> Tensor:
        """(B, 3, crop, crop) uint8 on the device."""
        parts = [torch.from_numpy(part) for part in pending.take()]
        if self.device.type != "cuda":
            return torch.cat(parts)
        whole = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=torch.uint8, pin_memory=True)
        return torch.cat(parts, out=whole).to(self.device, non_blocking=True)

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)
