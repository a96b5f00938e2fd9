"""What a dataset file provides. A dataset file defines INFO, SOURCES and load(); the folder is the registry."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Info:
    """What is known of a dataset without reading it: enough to validate a suite."""

    name: str
    title: str  # how tables print it, for example "CIFAR-10N"
    num_classes: int
    num_train: int
    num_test: int
    shape: tuple[int, ...]  # of one example: (H, W, 3) for uint8 images, (C, H, W) for float features
    label_sets: tuple[str, ...] = ("clean",)
    mean: tuple[float, ...] = ()  # per channel, of images scaled to [0, 1]; empty for float features
    std: tuple[float, ...] = ()
    redrawn: bool = False  # the training part is drawn anew for each seed, so that its order is no file's


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory or memory-mapped; nothing in it is written to.

    Images are (N, H, W, 3) uint8, to be augmented and normalised, or (N, C, H, W) float32 features, used as they are.
    """

    info: Info
    train_images: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray  # (N_test,) int64, the true ones
    label_sets: dict[str, np.ndarray]  # (N,) int64 each; always holds "clean", the true labels of the training images
    fingerprint: str  # of the decoded pixels and true labels, the same whatever files they came from
    variant: str = ""  # how the pixels differ from the official data, for example "JPEG"; tables print it
    warnings: tuple[str, ...] = field(default=())  # for example an unknown checksum; stored in every record
    checksums: dict[str, str] = field(default_factory=dict)  # file read -> "md5:..."; unknown ones are in `warnings`

    @property
    def clean_labels(self) -> np.ndarray:
        return self.label_sets["clean"]


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
