"""What a dataset file defines (`DatasetModule`), and what loading it returns (`Dataset`)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from nlbench.data.places import Places
from nlbench.files import short_hash

# ---- A dataset's file ----------------------------------------------------------------------------


class DatasetModule(Protocol):
    """The interface of a file in `nlbench/data/datasets`.

    Attributes:
        INFO: what is known without reading the data; enough to validate a suite.
        SOURCES: the files that the dataset can be read from, and where to get them. Empty for a
            dataset that needs no files.
    """

    INFO: Info
    SOURCES: tuple[Source, ...]

    def find(self, data_dir: Path) -> Found:
        """Look for the dataset's files, without opening them."""

    def load(self, places: Places, seed: int) -> Dataset:
        """Read the dataset. Only a `redrawn` dataset depends on `seed`.

        Raises: DataMissing when it is not there; DataError, naming the file, when it cannot be
            used.
        """


@dataclass(frozen=True)
class Info:
    """The known properties of a dataset: in `INFO` before it is read, in `Dataset.info` afterwards.

    Attributes:
        title: how tables print it, for example "CIFAR-10N".
        num_train, num_test: numbers of examples; 0 where they are counted when the data is read.
        shape: of one example: (H, W, 3) for uint8 images, (C, H, W) for float features, (L,) for
            texts, () for image files.
        label_sets: the names of the label sets; the first is the default. Without "clean" among
            them the true labels are unknown.
        mean, std: per channel, of images scaled to [0, 1]; empty for float features.
        redrawn: whether the training part is drawn anew for each seed. Then the order of the
            examples is not that of a file.
        estimated_noise_rate: a published estimate where the true labels are unknown; 0 where there
            is none.
        partly_clean: whether the true labels of some training images are known, and not of all.
        located_by: "data-dir" for a dataset in the data directory; "suite" for one whose folder
            the suite names.
        class_ids: the dataset that numbers the classes as this one does, for kinds of noise that
            are defined on certain classes, for example "cifar10"; empty where no kind needs it.
        class_names: the classes by number, where the dataset names them; else empty.
        columns: the columns of its parquet files that a suite may name: "image", "label",
            "clean_label".
        commit: of a dataset of the Hugging Face hub, the commit that was read; else empty.
        vocabulary: of texts, the number of different words, with those for padding and for unknown
            ones; 0 for all other data.
    """

    name: str
    title: str
    num_classes: int
    num_train: int
    num_test: int
    shape: tuple[int, ...]
    label_sets: tuple[str, ...] = ("clean",)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    redrawn: bool = False
    estimated_noise_rate: float = 0.0
    partly_clean: bool = False
    located_by: Literal["data-dir", "suite"] = "data-dir"
    class_ids: str = ""
    class_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    commit: str = ""
    vocabulary: int = 0


def is_vector(info: Info) -> bool:
    """Return whether an example is a vector of features, and so no image that has views."""
    return not info.mean and tuple(info.shape[1:]) == (1, 1)


# ---- A dataset that was read ---------------------------------------------------------------------


@dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded when they are asked for. A part of them shares the list's memory.

    Attributes:
        root: the folder that the names are relative to.
        names: (N,) bytes, file-system encoded. An array, since lists of a million are usual.
        grey_bits: how many bits grey of 16 bits uses; 0 where each image tells.
    """

    root: Path
    names: np.ndarray
    grey_bits: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: np.ndarray) -> ImageFiles:
        return ImageFiles(self.root, self.names[index], self.grey_bits)

    def path(self, i: int) -> str:
        """Return the path of image `i`."""
        return os.path.join(self.root, os.fsdecode(self.names[i]))

    def paths(self) -> np.ndarray:
        """Return all paths as (N,) bytes, for comparing."""
        return np.char.add(os.fsencode(self.root) + b"/", self.names)


# (N, H, W, 3) uint8, (N, C, H, W) float32, (N, L) int64 for texts, or files.
Images = np.ndarray | ImageFiles


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory, memory-mapped or as files. Nothing in it is written to.

    Images are (N, H, W, 3) uint8, to be augmented and normalised, (N, C, H, W) float32 features,
    used as they are, texts as (N, L) int64 numbers of words, in [0, info.vocabulary), or files.

    Attributes:
        test_labels: (N_test,) int64, the true ones.
        label_sets: (N,) int64 each. "clean" holds the true labels of the training images, where
            they are known.
        fingerprint: a hash of the decoded pixels and true labels, so that it does not depend on the
            form of the files; for image files a hash of their names and labels.
        variant: how the pixels differ from the official data, for example "JPEG". Tables print it.
        warnings: for example an unknown checksum. Every record stores them.
        checksums: file read -> "md5:...". Unknown ones are also in `warnings`.
        partly_clean: (N,) int64, the true labels where only those of some training images are
            known, and -1 for the others; else None.
        scored: further images to evaluate, with their true labels: "ilsvrc12", a second test set;
            "clean_val", a validation set.
        rows: (N,) int64, the row of each training example in its table, from 0; with an imbalance,
            else its position among all training examples. None where neither is known.
    """

    info: Info
    train_images: Images
    test_images: Images
    test_labels: np.ndarray
    label_sets: dict[str, np.ndarray]
    fingerprint: str
    variant: str = ""
    warnings: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)
    scored: dict[str, tuple[Images, np.ndarray]] = field(default_factory=dict)
    partly_clean: np.ndarray | None = None
    rows: np.ndarray | None = None

    @property
    def clean_labels(self) -> np.ndarray | None:
        """(N,) int64; None where they are unknown, be it for one image."""
        return self.label_sets.get("clean")


def fingerprint(*arrays: np.ndarray) -> str:
    """Return 16 hex digits over the arrays' values, little-endian, one array after the other."""
    return short_hash(*map(_little_endian, arrays))


def _little_endian(array: np.ndarray) -> memoryview:
    # Copies only an array with gaps, or one of a big-endian machine.
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data


# ---- The files it comes from ---------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A file that a dataset can be read from, and where to get it.

    Attributes:
        file: the name to download, for example "cifar-10-python.tar.gz".
        home: the page that a person would open.
        url: for a direct download; empty where the terms forbid it or none exists.
        size: in bytes; 0 where unknown.
        goes_to: where `data status` tells a person to put it, relative to the data directory.
    """

    file: str
    home: str
    url: str = ""
    md5: str = ""
    sha256: str = ""
    size: int = 0
    goes_to: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Found:
    """The places of a dataset's parts. It can be loaded when `missing` is empty.

    Attributes:
        paths: the files and folders that will be read.
        looked: every folder that was searched.
        missing: what is not there, in words.
        needs: `Source.file` of every source that would supply what is missing.
    """

    paths: tuple[Path, ...]
    looked: tuple[Path, ...]
    missing: tuple[str, ...]
    needs: tuple[str, ...] = ()
