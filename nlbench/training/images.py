"""The images of a run: arrays on the training device, or files that are decoded in time."""

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
        """Return the examples at `index` (B,) int64 under their draws, (B, C, H, W) float32."""

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Return a function that gives `augmented(index, draws)`; files are decoded in advance."""

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation, (B, C, H, W) float32.

        Crop and flip under `draws`, then AutoAugment's policy for CIFAR-10 and a cutout, both drawn
        from `seed`. See `Batch.strong`.
        """

    def plain(self, start: int, stop: int) -> Tensor:
        """Return the examples from `start` to before `stop`, or to the end, without augmentation.

        (B, C, H, W) float32.
        """

    def subset(self, index: np.ndarray) -> TrainingImages:
        """Return the examples at `index` (n,) int64, without augmentation."""


def images_of(
    source: np.ndarray | ImageFiles,
    info: Info,
    device: torch.device,
    augment: Augment,
    geometry: Geometry,
) -> Images | FileImages:
    """Return the images of an array or of files.

    Args:
        augment: "crop-flip" crops and flips at random. An array is cropped after padding with 4
            zero pixels on each side; of a file a square is cut out of the resized image. "flip"
            flips only, and takes the centre of a file's image.
        geometry: sizes for files. The pixels of an array are used as they are.
    """
    if isinstance(source, ImageFiles):
        return FileImages(source, info, device, augment, geometry)
    return Images(source, info, device, augment)


# ---- Arrays -------------------------------------------------------------------------------------


class Images:
    """Images on a device. uint8 images are augmented and normalised by one kernel.

    Float features are used as they are, without augmentation.

    Args:
        array: (N, H, W, 3) uint8 or (N, C, H, W) float32. On the CPU it is used without a copy. It
            is never written to.
        info: gives mean and standard deviation per channel.
        augment: see `images_of`.
    """

    ahead = 0

    def __init__(
        self,
        array: np.ndarray,
        info: Info,
        device: torch.device | str = "cpu",
        augment: Augment = "none",
    ):
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
        """(C, H, W) of one example as a network gets it."""
        first, second, third = self.data.shape[1:]
        return (third, first, second) if self.pixels else (first, second, third)

    def subset(self, index: np.ndarray) -> Images:
        """Return a copy of the examples at `index` (n,), without augmentation."""
        # The constructor takes an array of the host; these examples are on the device already.
        part = Images.__new__(Images)
        part.data = self.data[torch.from_numpy(index).to(self.data.device)]
        part.info = self.info
        part.pixels = self.pixels
        part.augment = "none"
        part.augments = False
        return part

    def draws(self, rng: np.random.Generator) -> Tensor:
        """Draw (dy, dx, flip) for each example: (N, 3) int64 on the device.

        dy and dx are in [0, 8], flip is 0 or 1. (0, 3) if nothing is augmented.
        """
        if not self.augments:
            return torch.empty((0, 3), dtype=torch.int64, device=self.data.device)

        shifts = rng.integers(0, 9, (len(self), 2))
        flips = rng.integers(0, 2, (len(self), 1))
        if self.augment == "flip":
            # 4 is the middle of the range: the image is not shifted.
            shifts[:] = 4
        drawn = np.concatenate([shifts, flips], axis=1)
        return torch.from_numpy(drawn).to(self.data.device)

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Return a function that computes `augmented(index, draws)`.

        It computes nothing before, because some methods never look at view 0.
        """
        return lambda: self.augmented(index, draws)

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) under their draws, (B, C, H, W) float32."""
        return self._normalised(index, draws if self.augments else None)

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation; see `TrainingImages.strong`.

        Float features are returned as they are.
        """
        if not self.pixels:
            return self.data[index]

        # The kernel crops and flips; with this mean and deviation it keeps the pixel values.
        draw = draws if self.augments else None
        pixels = ops.augment(self.data, index, draw, mean=(0.0,) * 3, std=(1 / 255,) * 3)

        mean = torch.tensor(self.info.mean, device=index.device)[:, None, None]
        std = torch.tensor(self.info.std, device=index.device)[:, None, None]
        return _strengthened(
            pixels.round().to(torch.uint8), index, seed, lambda images: (images / 255 - mean) / std
        )

    def plain(self, start: int, stop: int) -> Tensor:
        """Return the examples from `start` to before `stop`, or to the end.

        (B, C, H, W) float32.
        """
        stop = min(stop, len(self))
        return self._normalised(torch.arange(start, stop, device=self.data.device), None)

    def _normalised(self, index: Tensor, draws: Tensor | None) -> Tensor:
        if not self.pixels:
            return self.data[index]
        return ops.augment(self.data, index, draws, mean=self.info.mean, std=self.info.std)


# Arrays that are on a GPU, for the next runs that use them: by the id of the array, latest last.
_copies: dict[tuple[int, torch.device], tuple[np.ndarray, Tensor]] = {}
COPIES_KEPT = 4


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return `array` as a tensor, which must not be written to."""
    # The entry holds the array, because after its end another array may get the same id.
    kept = _copies.pop((id(array), device), None)
    if kept is None or kept[0] is not array:
        with warnings.catch_warnings():
            # A memory map cannot be written to, and nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            kept = array, torch.from_numpy(np.ascontiguousarray(array)).to(device)

    # On the CPU the tensor has the memory of the array, so there is no copy to save.
    if device.type != "cpu":
        _copies[id(array), device] = kept
        for oldest in list(_copies)[:-COPIES_KEPT]:
            del _copies[oldest]
    return kept[1]


# ---- Files --------------------------------------------------------------------------------------


class FileImages:
    """Images that worker processes decode while the network is busy. Memory holds a few batches.

    Args: see `images_of`.
    """

    # A constant, because it decides when a method's plan is drawn: it must be the same everywhere.
    ahead = 3

    def __init__(
        self,
        files: ImageFiles,
        info: Info,
        device: torch.device,
        augment: Augment,
        geometry: Geometry,
    ):
        self.files = files
        self.info = info
        self.device = device
        self.augment: Augment = augment
        self.geometry = geometry

        mean = torch.tensor(info.mean, device=device)[:, None, None]
        std = torch.tensor(info.std, device=device)[:, None, None]
        self._scale, self._shift = 1 / (255 * std), -mean / std

        # (start, stop, decoding) of the examples that `plain` will probably be asked for next.
        self._window: tuple[int, int, decode.Pending] | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one example as a network gets it."""
        return 3, self.geometry.crop, self.geometry.crop

    def subset(self, index: np.ndarray) -> FileImages:
        """Return the examples at `index` (n,), without augmentation."""
        return FileImages(self.files[index], self.info, self.device, "none", self.geometry)

    def draws(self, rng: np.random.Generator) -> Tensor:
        """Draw three numbers in [0, 1) for each example: (N, 3) float32, see `decode.decode`.

        (0, 3) if nothing is augmented.
        """
        if self.augment == "none":
            return torch.empty((0, 3))

        drawn = rng.random((len(self), 3), np.float32)
        if self.augment == "flip":
            # Just below one half is the centre: like `plain`, it rounds down.
            drawn[:, :2] = np.nextafter(np.float32(0.5), np.float32(0))
        return torch.from_numpy(drawn)

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Start to decode the examples at `index` (B,); the returned function waits for them."""
        pending = self._ask(index.cpu(), draws)
        return lambda: self._normalised(self._bytes(pending))

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) under their draws, (B, 3, crop, crop) float32."""
        return self.request(index, draws)()

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation; see `TrainingImages.strong`."""
        pixels = self._bytes(self._ask(index.cpu(), draws))
        return _strengthened(pixels, index, seed, self._normalised)

    def plain(self, start: int, stop: int) -> Tensor:
        """Return the centres of the examples from `start` to before `stop`, or to the end.

        (B, 3, crop, crop) float32.
        """
        # The decoding that was begun in advance is used only if the guess was right.
        stop = min(stop, len(self))
        window, self._window = self._window, None
        in_time = window if window and window[:2] == (start, stop) else None
        pending = in_time[2] if in_time else self._ask_range(start, stop)

        if stop < len(self):
            # Start decoding the next window now, for callers that read the images in order.
            following = stop, min(2 * stop - start, len(self))
            self._window = *following, self._ask_range(*following)
        return self._normalised(self._bytes(pending))

    def _ask_range(self, start: int, stop: int) -> decode.Pending:
        return self._ask(torch.arange(start, stop), torch.empty((0, 3)))

    def _ask(self, index: Tensor, draws: Tensor) -> decode.Pending:
        paths = [self.files.path(i) for i in index.tolist()]
        return decode.request(paths, self.geometry, draws[index].numpy() if len(draws) else None)

    def _bytes(self, pending: decode.Pending) -> Tensor:
        """Wait for decoded images, and return them on the device, (B, 3, crop, crop) uint8."""
        parts = [torch.from_numpy(part) for part in pending.take()]
        if self.device.type != "cuda":
            return torch.cat(parts)

        # From pinned memory the copy to the GPU does not block this process.
        shape = sum(map(len, parts)), *parts[0].shape[1:]
        whole = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.cat(parts, out=whole).to(self.device, non_blocking=True)

    def _normalised(self, images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)


# ---- Strong augmentation ------------------------------------------------------------------------


def _strengthened(
    images: Tensor, index: Tensor, seed: int, normalise: Callable[[Tensor], Tensor]
) -> Tensor:
    """Apply AutoAugment's CIFAR-10 policy, normalise, and cut a square out of each image.

    Cubuk et al., CVPR 2019, arXiv:1805.09501; DeVries & Taylor, arXiv:1708.04552. The square has
    half the side of the image, a random pixel as its centre and the mean colour. The draws of an
    example come from (seed, its index), so they do not depend on its batch.

    Args:
        images: (B, 3, H, W) uint8. Written to.
    Returns: (B, 3, H, W) float32.
    """
    height, width = images.shape[2:]
    policy = _auto_augment()
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

    # Normalised first: a zero is then the mean colour.
    cut = normalise(images) * kept[:, None]
    return cut.contiguous(memory_format=torch.channels_last)


@functools.cache
def _auto_augment() -> Callable[[Tensor], Tensor]:
    # Imported here because the import is slow and few methods need it.
    from torchvision.transforms import v2

    policy: Callable[[Tensor], Tensor] = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    return policy
