"""The images of a run: arrays on the training device, or files that are decoded in time."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from nlbench import ops
from nlbench.data import decode
from nlbench.data.base import ImageFiles, Info
from nlbench.data.decode import Geometry
from nlbench.ops.policies import POLICIES

Augment = Literal["crop-flip", "reflect-crop-flip", "flip", "none"]
# The names of POLICIES.
Strong = Literal["autoaugment", "randaugment-5", "randaugment-10"]

# Black pixels on each side of an array's image before it is cropped.
PADDING = 4


class TrainingImages(Protocol):
    """The images of N examples, from which the batches of a run are made on its device."""

    @property
    def ahead(self) -> int:
        """Number of batches that are requested before the step that uses them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one example as a network gets it; (L, vocabulary) of a text."""

    def __len__(self) -> int:
        """Return N."""

    def draws(self, rng: np.random.Generator) -> Tensor:
        """Draw an augmentation for each example: (N, 3), or (0, 3) if nothing is augmented."""

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) int64 under their draws, (B, C, H, W) float32."""

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Return a function that gives `augmented(index, draws)`; files are decoded in advance."""

    def request_views(
        self, index: Tensor, draws: Sequence[Tensor], strong: Sequence[tuple[Tensor, int]]
    ) -> tuple[list[Callable[[], Tensor]], list[Callable[[], Tensor]]]:
        """Request several views, as `request` does, so that a file is decoded once for all of them.

        Args:
            draws: of each view, as `augmented` takes them.
            strong: draws and seed of each strong view, as `strong` takes them.
        Returns: a function for each view, and for each strong view.
        """

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation, (B, C, H, W) float32.

        Crop and flip are those of `draws`. The rest is drawn from `seed`. See `Batch.strong`.
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
    strong: Strong = "autoaugment",
) -> Images | FileImages:
    """Return the images of an array or of files.

    Args:
        augment: "crop-flip" crops and flips at random. An array is cropped after padding with 4
            black pixels on each side; of a file a square is cut out of the resized image.
            "reflect-crop-flip" pads an array with its reflection, by an eighth of its side.
            "flip" flips only, and takes the centre of a file's image.
        geometry: sizes for files. The pixels of an array are used as they are.
        strong: what a strong augmentation does, see `Batch.strong`.
    """
    if isinstance(source, ImageFiles):
        return FileImages(source, info, device, augment, geometry, strong)
    return Images(source, info, device, augment, strong)


# ---- Arrays -------------------------------------------------------------------------------------


class Images:
    """Images on a device. uint8 images are augmented and normalised by one kernel.

    Float features and the words of texts are used as they are, without augmentation.

    Args:
        array: (N, H, W, 3) uint8, (N, C, H, W) float32, or (N, L) int64 for texts. On the CPU it is
            used without a copy. It is never written to.
        info: gives mean and standard deviation per channel, and how many words there are.
        augment, strong: see `images_of`.
    """

    ahead = 0

    def __init__(
        self,
        array: np.ndarray,
        info: Info,
        device: torch.device | str = "cpu",
        augment: Augment = "none",
        strong: Strong = "autoaugment",
    ):
        allowed = (np.int64,) if info.vocabulary else (np.uint8, np.float32)
        if array.dtype not in allowed:
            known = "int64, as texts are" if info.vocabulary else "uint8 or float32"
            raise TypeError(f"images must be {known}, got {array.dtype}")

        self.data = _on_device(array, torch.device(device))
        self.info = info
        self.pixels = array.dtype == np.uint8
        self.augment: Augment = augment
        self.augments = augment != "none" and self.pixels
        self.kind_of_strong: Strong = strong
        # An eighth of the side, as in the code of DISC: 4 of 32 pixels.
        reflects = augment == "reflect-crop-flip"
        self.padding = min(self.shape[1:]) // 8 if reflects else PADDING

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one example as a network gets it; (L, vocabulary) of a text."""
        if self.info.vocabulary:
            return self.data.shape[1], self.info.vocabulary
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
        part.kind_of_strong = self.kind_of_strong
        part.padding = self.padding
        return part

    def draws(self, rng: np.random.Generator) -> Tensor:
        """Draw (dy, dx, flip) for each example: (N, 3) int64 on the device.

        dy and dx are in [0, 2 * padding], flip is 0 or 1. (0, 3) if nothing is augmented.
        """
        if not self.augments:
            return torch.empty((0, 3), dtype=torch.int64, device=self.data.device)

        shifts = rng.integers(0, 2 * self.padding + 1, (len(self), 2))
        flips = rng.integers(0, 2, (len(self), 1))
        if self.augment == "flip":
            # The middle of the range: the image is not shifted.
            shifts[:] = self.padding
        drawn = np.concatenate([shifts, flips], axis=1)
        return torch.from_numpy(drawn).to(self.data.device)

    def request(self, index: Tensor, draws: Tensor) -> Callable[[], Tensor]:
        """Return a function that computes `augmented(index, draws)`.

        It computes nothing before, because some methods never look at view 0.
        """
        return lambda: self.augmented(index, draws)

    def request_views(
        self, index: Tensor, draws: Sequence[Tensor], strong: Sequence[tuple[Tensor, int]]
    ) -> tuple[list[Callable[[], Tensor]], list[Callable[[], Tensor]]]:
        """Return functions that compute the views; see `TrainingImages.request_views`."""
        plain = [self.request(index, view) for view in draws]
        strongly: list[Callable[[], Tensor]] = []
        for view, seed in strong:
            strongly.append(functools.partial(self.strong, index, view, seed))
        return plain, strongly

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) under their draws, (B, C, H, W) float32."""
        if not self.pixels:
            return self.data[index]
        mean, std = self.info.mean, self.info.std
        if not self.augments:
            return ops.augment(self.data, index, None, mean=mean, std=std)
        if self.augment != "reflect-crop-flip":
            return ops.augment(self.data, index, draws, mean=mean, std=std)

        crops = _reflected_crops(self.data[index], draws[index], self.padding)
        every = torch.arange(len(index), device=index.device)
        return ops.augment(crops, every, None, mean=mean, std=std)

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation; see `TrainingImages.strong`.

        Float features are returned as they are.
        """
        if not self.pixels:
            return self.data[index]

        return ops.strong_augment(
            self.data,
            index,
            draws if self.augments else None,
            seed=seed,
            mean=self.info.mean,
            std=self.info.std,
            policy=POLICIES[self.kind_of_strong],
            padding=self.padding,
            reflect=self.augment == "reflect-crop-flip",
        )

    def plain(self, start: int, stop: int) -> Tensor:
        """Return the examples from `start` to before `stop`, or to the end.

        (B, C, H, W) float32.
        """
        index = torch.arange(start, min(stop, len(self)), device=self.data.device)
        if not self.pixels:
            return self.data[index]
        return ops.augment(self.data, index, None, mean=self.info.mean, std=self.info.std)


def _reflected_crops(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Crop and flip images that are padded with their reflection, without the edge itself.

    Args:
        images: (B, H, W, 3).
        draws: (B, 3), see `Images.draws`.
        padding: less than H and W.
    Returns: (B, H, W, 3), contiguous.
    """
    taken = []
    for axis, size in enumerate(images.shape[1:3]):
        places = draws[:, axis, None] - padding + torch.arange(size, device=images.device)
        places = size - 1 - (size - 1 - places.abs()).abs()
        taken.append(places)

    rows, columns = taken
    columns = torch.where(draws[:, 2, None] == 1, columns.flip(1), columns)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    return images[every, rows[:, :, None], columns[:, None, :]]


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
        strong: Strong = "autoaugment",
    ):
        self.files = files
        self.info = info
        self.device = device
        self.augment: Augment = augment
        self.geometry = replace(geometry, grey_bits=files.grey_bits or geometry.grey_bits)
        self.kind_of_strong: Strong = strong

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
        files = self.files[index]
        return FileImages(files, self.info, self.device, "none", self.geometry, self.kind_of_strong)

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
        (view,), _ = self.request_views(index, [draws], [])
        return view

    def request_views(
        self, index: Tensor, draws: Sequence[Tensor], strong: Sequence[tuple[Tensor, int]]
    ) -> tuple[list[Callable[[], Tensor]], list[Callable[[], Tensor]]]:
        """Start to decode each file once for all views; see `TrainingImages.request_views`."""
        pending = self._ask(index.cpu(), [*draws, *(view for view, _ in strong)])
        plain: list[Callable[[], Tensor]] = []
        for k in range(len(draws)):
            plain.append(functools.partial(self._normalised_view, pending, k))
        strongly: list[Callable[[], Tensor]] = []
        for k, (_, seed) in enumerate(strong, len(draws)):
            strongly.append(functools.partial(self._strong_view, pending, k, index, seed))
        return plain, strongly

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """Return the examples at `index` (B,) under their draws, (B, 3, crop, crop) float32."""
        return self.request(index, draws)()

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """Return the examples under a strong augmentation; see `TrainingImages.strong`.

        Crop and flip come first, as they are part of decoding.
        """
        _, (view,) = self.request_views(index, [], [(draws, seed)])
        return view()

    def _normalised_view(self, pending: decode.Pending, k: int) -> Tensor:
        return self._normalised(self._bytes(pending, k))

    def _strong_view(self, pending: decode.Pending, k: int, index: Tensor, seed: int) -> Tensor:
        pixels = self._bytes(pending, k)
        return ops.strong_augment(
            pixels,
            torch.arange(len(index), device=self.device),
            None,
            seed=seed,
            mean=self.info.mean,
            std=self.info.std,
            policy=POLICIES[self.kind_of_strong],
            examples=index.to(self.device),
        )

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
        return self._ask(torch.arange(start, stop), [torch.empty((0, 3))])

    def _ask(self, index: Tensor, draws: Sequence[Tensor]) -> decode.Pending:
        """Start to decode the examples at `index` (B,) under the draws of each view."""
        paths = [self.files.path(i) for i in index.tolist()]
        # Without augmentation all views are the same one.
        if not len(draws[0]):
            return decode.request_views(paths, self.geometry, None)
        drawn = torch.stack([view[index] for view in draws]).numpy()
        return decode.request_views(paths, self.geometry, drawn)

    def _bytes(self, pending: decode.Pending, view: int = 0) -> Tensor:
        """Wait for decoded images, and return them on the device, (B, crop, crop, 3) uint8."""
        taken = pending.take(0 if self.augment == "none" else view)
        parts = [torch.from_numpy(part) for part in taken]
        if self.device.type != "cuda":
            return torch.cat(parts)

        # From pinned memory the copy to the GPU does not block this process.
        shape = sum(map(len, parts)), *parts[0].shape[1:]
        whole = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.cat(parts, out=whole).to(self.device, non_blocking=True)

    def _normalised(self, images: Tensor) -> Tensor:
        """Return images (B, H, W, 3) uint8 as a network gets them, (B, 3, H, W) float32."""
        floats = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).add_(self._shift)
