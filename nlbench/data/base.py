"""What a dataset file provides. A dataset file defines INFO, SOURCES and load(); the folder is the registry."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Info:
    """What is known of a dataset without reading it: enough to validate a suite. `Dataset.info` has what was read."""

    name: str
    title: str  # how tables print it, for example "CIFAR-10N"
    num_classes: int
    num_train: int  # 0 where nobody knows before it is read
    num_test: int
    shape: tuple[int, ...]  # of one example: (H, W, 3) for uint8 images, (C, H, W) for float features, () for files
    label_sets: tuple[str, ...] = ("clean",)  # the first is the default; without "clean" the true labels are unknown
    mean: tuple[float, ...] = ()  # per channel, of images scaled to [0, 1]; empty for float features
    std: tuple[float, ...] = ()
    redrawn: bool = False  # the training part is drawn anew for each seed, so that its order is no file's
    estimated_noise_rate: float = 0.0  # where true labels are unknown: a published estimate; 0 where there is none


@dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded when they are asked for. What is cut out of it shares the list.

    Args:
        root: the folder that the names are relative to.
        names: (N,) bytes, file-system encoded; an array of its own kind, since a million of them are usual.
    """

    root: Path
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: np.ndarray) -> ImageFiles:
        return ImageFiles(self.root, self.names[index])

    def path(self, i: int) -> str:
        return os.path.join(self.root, os.fsdecode(self.names[i]))

    def paths(self) -> np.ndarray:
        """(N,) bytes: all of them, for comparing."""
        return np.char.add(os.fsencode(self.root) + b"/", self.names)


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory, memory-mapped or as files; nothing in it is written to.

    Images are (N, H, W, 3) uint8, to be augmented and normalised, (N, C, H, W) float32 features, used as they are, or
    files.
    """

    info: Info
    train_images: np.ndarray | ImageFiles
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray  # (N_test,) int64, the true ones
    label_sets: dict[str, np.ndarray]  # (N,) int64 each; "clean" are the true labels of the training images, if known
    fingerprint: str  # of the decoded pixels and true labels, the same whatever files they came from; of files' lists
    variant: str = ""  # how the pixels differ from the official data, for example "JPEG"; tables print it
    warnings: tuple[str, ...] = field(default=())  # for example an unknown checksum; stored in every record
    checksums: dict[str, str] = field(default_factory=dict)  # file read -> "md5:..."; unknown ones are in `warnings`
    # Further images to score, with their true labels: "ilsvrc12", a second test set; "clean_val", a validation set.
    scored: dict[str, tuple[np.ndarray | ImageFiles, np.ndarray]] = field(default_factory=dict)

    @property
    def clean_labels(self) -> np.ndarray | None:
        """(N,) int64; None where nobody knows them."""
        return self.label_sets.get("clean")


@dataclass(frozen=True)
class Source:
    """A file a dataset can be read from, and where it comes from."""

    file: str  # file name to download, for example "cifar-10-python.tar.gz"
    home: str  # the page a person would open
    url: str = ""  # direct download, empty where terms forbid it or none exists
    md5: str = ""
    sha256: str = ""
    size: int = 0  # bytes; 0 where unknown
    goes_to: str = ""  # relative to the data directory, as `data status` prints it
    licence: str = ""


@dataclass(frozen=True)
class Found:
    """Where a dataset's parts are. `missing` is empty when the dataset can be loaded."""

    paths: tuple[Path, ...]  # files and folders that will be read
    looked: tuple[Path, ...]  # every place that was looked at
    missing: tuple[str, ...]  # what is not there, in words
    needs: tuple[str, ...] = ()  # Source.file of every source that would supply what is missing
