"""From a dataset to what one run trains on: noisy labels, parts, and images on the training device."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlbench import ops, streams
from nlbench.data import noise as noises
from nlbench.data import strata
from nlbench.data.base import Dataset, Info
from nlbench.errors import did_you_mean


@dataclass(frozen=True)
class RunData:
    """The data of one run, NumPy only. Label arrays are copies; images are the dataset's own where nothing is cut out.

    The images of the parts are (n, H, W, 3) uint8 or (n, C, H, W) float32, labels (n,) int64.
    """

    info: Info
    train_images: np.ndarray
    labels: np.ndarray  # given
    clean_labels: np.ndarray  # for scoring only
    val_images: np.ndarray | None  # None without a validation part
    val_labels: np.ndarray | None  # given, as noisy as the training part's
    test_images: np.ndarray
    test_labels: np.ndarray  # the true ones
    train_index: np.ndarray  # (n,) ascending positions of the training part among all training examples
    val_index: np.ndarray  # likewise; empty without a validation part
    noise_rate_full: float  # measured on all N training examples
    noise_rate_train: float  # measured on the training part
    noise_rate_val: float | None
    labels_hash: str  # of all N given labels
    T: np.ndarray  # (C, C) float64, measured on the training part, T[i, j] = P(given j | clean i)
    variant: str  # how the pixels differ from the official data; empty where they do not
    warnings: tuple[str, ...]  # of the dataset's files, for the record
    checksums: dict[str, str]  # of the dataset's files, for the record

    @property
    def num_train(self) -> int:
        return len(self.labels)

    @property
    def num_val(self) -> int:
        return len(self.val_index)

    @property
    def num_test(self) -> int:
        return len(self.test_labels)


def prepare(
    dataset: Dataset,
    *,
    seed: int,
    labels: str = "clean",
    noise: Mapping[str, Any] | None = None,
    val_fraction: float = 0.0,
    stratify: str = "clean",
    subset: int = 0,
) -> RunData:
    """The given labels of all training examples first, the split afterwards; both from `seed`.

    Args:
        labels: a label set of the dataset.
        noise: resolved by `noise.resolve`, drawn from the clean labels in place of a label set.
        val_fraction: of all N training examples, held out with their given labels: round(val_fraction * N), a half to
            the even number.
        stratify: "clean" or "given", the labels whose classes keep their proportions in each part. By clean labels
            the split of a seed is the same for every noise.
        subset: examples in the training part, drawn from what the validation part leaves; 0 takes all of that.
    Raises: ValueError for settings that cannot be, DataError for a noise file that cannot be used.
    """
    clean = dataset.clean_labels
    given = _given(dataset, labels, noise, seed)
    train, val = _split({"clean": clean, "given": given}, val_fraction, stratify, subset, seed)
    _check_disjoint(dataset, train, val)
    info = dataset.info
    whole = len(train) == len(clean)
    return RunData(
        info=info,
        train_images=dataset.train_images if whole else dataset.train_images[train],
        labels=given[train],
        clean_labels=clean[train],
        val_images=dataset.train_images[val] if len(val) else None,
        val_labels=given[val] if len(val) else None,
        test_images=dataset.test_images,
        test_labels=np.array(dataset.test_labels),
        train_index=train,
        val_index=val,
        noise_rate_full=noises.noise_rate(clean, given),
        noise_rate_train=noises.noise_rate(clean[train], given[train]),
        noise_rate_val=noises.noise_rate(clean[val], given[val]) if len(val) else None,
        labels_hash=noises.labels_hash(given),
        T=noises.transition_matrix(clean[train], given[train], info.num_classes),
        variant=dataset.variant,
        warnings=dataset.warnings,
        checksums=dataset.checksums,
    )


def _given(dataset: Dataset, labels: str, noise: Mapping[str, Any] | None, seed: int) -> np.ndarray:
    if noise is not None:
        if labels != "clean":
            raise ValueError(f"labels {labels!r} and noise exclude each other: noise is drawn from the clean labels")
        return noises.apply(noise, dataset.clean_labels, dataset.info, seed, dataset.train_images)
    if labels not in dataset.label_sets:
        known = ", ".join(dataset.label_sets)
        hint = did_you_mean(labels, dataset.label_sets)
        raise ValueError(f"{dataset.info.name} has no label set {labels!r}. It has: {known}.{hint}")
    return dataset.label_sets[labels]


def _split(
    labels: Mapping[str, np.ndarray], val_fraction: float, stratify: str, subset: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if stratify not in labels:
        raise ValueError(f"stratify must be one of {', '.join(labels)}, got {stratify!r}")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
    N = len(labels[stratify])
    num_val = round(Decimal(str(val_fraction)) * N)
    if num_val == N:
        raise ValueError(f"val_fraction {val_fraction} of {N} leaves no training example")
    if not 0 <= subset <= N - num_val:
        raise ValueError(f"subset must be in [0, {N - num_val}], got {subset}: {num_val} of {N} are for validation")
    val, train = strata.split(labels[stratify], (num_val, subset or N - num_val), streams.rng(seed, "split"))
    return train, val


def _check_disjoint(dataset: Dataset, train: np.ndarray, val: np.ndarray) -> None:
    """A leak is a wrong result, so it is looked for even where the code above cannot make one."""
    if len(np.intersect1d(train, val)) or len(np.unique(train)) < len(train) or len(np.unique(val)) < len(val):
        raise RuntimeError("the training and validation parts overlap")
    if np.may_share_memory(dataset.train_images, dataset.test_images):
        raise RuntimeError(f"{dataset.info.name}: training and test images are the same memory")


@functools.cache
def _auto_augment() -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # here: its import is slow, and few methods ask for it

    return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


class Images:
    """Images on a device: uint8 ones augmented and normalised by one kernel, float features as they are.

    Args:
        array: (N, H, W, 3) uint8 or (N, C, H, W) float32; on the CPU it is used in place, and never written to.
        info: gives mean and std.
        augment: random crop of 4 zero pixels around, and flip; float features have neither.
    """

    def __init__(self, array: np.ndarray, info: Info, device: torch.device | str = "cpu", augment: bool = False):
        if array.dtype not in (np.uint8, np.float32):
            raise TypeError(f"images must be uint8 or float32, got {array.dtype}")
        with warnings.catch_warnings():
            # A memory map cannot be written to, and nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.data = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        self.info = info
        self.pixels = array.dtype == np.uint8
        self.augments = augment and self.pixels

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
        part.info, part.pixels, part.augments = self.info, self.pixels, False
        return part

    def draws(self, rng: np.random.Generator) -> Tensor:
        """(N, 3) int64 on the device, a row for each example: dy and dx in [0, 8], flip 0 or 1; else (0, 3)."""
        if not self.augments:
            return torch.empty((0, 3), dtype=torch.int64, device=self.data.device)
        rows = np.concatenate([rng.integers(0, 9, (len(self), 2)), rng.integers(0, 2, (len(self), 1))], axis=1)
        return torch.from_numpy(rows).to(self.data.device)

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """(B, C, H, W) float32: the examples at `index` (B,) under their rows of `draws`."""
        return self._normalised(index, draws if self.augments else None)

    def strong(self, index: Tensor, draws: Tensor, seed: int) -> Tensor:
        """(B, C, H, W) float32: crop and flip under `draws`, AutoAugment's CIFAR-10 policy, normalise, cutout.

        Cubuk et al., CVPR 2019, arXiv:1805.09501; DeVries & Taylor, arXiv:1708.04552: a square of half the side around
        a random pixel, at the mean colour. An example's draws come from (seed, its index), whatever batch it is in.
        """
        if not self.pixels:
            return self.data[index]
        draw = draws if self.augments else None
        images = ops.augment(self.data, index, draw, mean=(0.0,) * 3, std=(1 / 255,) * 3).round().to(torch.uint8)
        side, policy = images.shape[-1], _auto_augment()
        rows = torch.arange(side, device=images.device)
        kept = torch.ones((len(images), *images.shape[2:]), device=images.device)
        with torch.random.fork_rng(devices=[]):
            for i, example in enumerate(index.tolist()):
                torch.manual_seed((seed + example) % 2**63)
                images[i] = policy(images[i])
                y, x = torch.randint(side, (2,)).tolist()
                inside = [(rows >= centre - side // 4) & (rows < centre + side // 4) for centre in (y, x)]
                kept[i][inside[0][:, None] & inside[1]] = 0
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.info.mean, self.info.std))
        return ((images / 255 - mean) / std * kept[:, None]).contiguous(memory_format=torch.channels_last)

    def plain(self, start: int, stop: int) -> Tensor:
        """(B, C, H, W) float32: the examples from `start` to before `stop`, or to the end, without augmentation."""
        return self._normalised(torch.arange(start, min(stop, len(self)), device=self.data.device), None)

    def _normalised(self, index: Tensor, draws: Tensor | None) -> Tensor:
        if not self.pixels:
            return self.data[index]
        return ops.augment(self.data, index, draws, mean=self.info.mean, std=self.info.std)
