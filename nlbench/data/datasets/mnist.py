"""MNIST (LeCun, Cortes & Burges 1998), from torchvision's files or from parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import Facts, cached
from nlbench.data.formats import cifar_parquet
from nlbench.data.formats.idx import read_idx
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.files import digest

SIDE = 28
INFO = Info(
    name="mnist",
    title="MNIST",
    num_classes=10,
    num_train=60_000,
    num_test=10_000,
    shape=(1, SIDE, SIDE),
)

_HOME = "https://github.com/pytorch/vision/blob/main/torchvision/datasets/mnist.py"
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FOLDER = "MNIST/raw"
# Of torchvision's list, by the file without .gz. Images come before labels, training before test.
_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
SOURCES = tuple(
    Source(f"{name}.gz", _HOME, f"{_URL}{name}.gz", md5, goes_to=f"{_FOLDER}/{name}.gz")
    for name, md5 in _MD5.items()
)

# Folders that hold the idx files, and those that hold parquet files. The last of the former is the
# data directory itself.
_PLACES = (_FOLDER, "MNIST", "mnist/raw", "mnist", "")
# The second as in the Hugging Face repository.
_PARQUET_PLACES = ("mnist", "mnist/mnist", "MNIST")

# No file holds more images than this.
_MOST = 1_000_000


# ---- Finding it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Look for the four idx files, packed or not, and else for parquet files."""
    looked = tuple(data_dir / place for place in dict.fromkeys((*_PLACES, *_PARQUET_PLACES)))
    best: dict[str, Path] = {}
    for place in _PLACES:
        there = _idx_files(data_dir / place)
        if len(there) == len(_MD5):
            return Found(tuple(there.values()), looked, ())
        # A part of them says more than none.
        best = best or there

    for place in _PARQUET_PLACES:
        train, train_missing = cifar_parquet.shards(data_dir / place, "train")
        test, test_missing = cifar_parquet.shards(data_dir / place, "test")
        if train and test:
            return Found((*train, *test), looked, (*train_missing, *test_missing))

    missing = [name for name in _MD5 if name not in best]
    needs = tuple(f"{name}.gz" for name in missing)
    return Found(tuple(best.values()), looked, (", ".join(missing),), needs)


def _idx_files(folder: Path) -> dict[str, Path]:
    """Return those of the four files that are in a folder, by name."""
    found: dict[str, Path] = {}
    for name in _MD5:
        # Some unpacking programs write a dot for the second hyphen.
        for form in (name, f"{name}.gz", name.replace("-idx", ".idx")):
            if (folder / form).is_file():
                found.setdefault(name, folder / form)
    return found


# ---- Reading it ----------------------------------------------------------------------------------


def load(places: Places, seed: int) -> Dataset:
    """Read 60,000 / 10,000 images as (N, 1, 28, 28) float32 in [0, 1], without augmentation.

    They are decoded once, into the cache.

    Raises: DataMissing; DataError, naming the file, when it cannot be used.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    arrays, facts = cached(places.cache_dir, "mnist", found.paths, lambda: _decode(found.paths))
    train, test = arrays["train_images"], arrays["test_images"]
    return Dataset(
        info=replace(INFO, num_train=len(train), num_test=len(test)),
        train_images=train,
        test_images=test,
        test_labels=arrays["test_labels"],
        label_sets={"clean": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        warnings=tuple(facts["warnings"]),
        checksums=facts["checksums"],
    )


def _decode(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], Facts]:
    warnings: list[str] = []
    checksums: dict[str, str] = {}
    if paths[0].suffix == ".parquet":
        parts = _of_parquet(paths)
    else:
        parts = _of_idx(paths)
        checksums = _checksums(paths, warnings)

    arrays = {}
    for (name, expected), (images, labels) in zip(
        {"train": INFO.num_train, "test": INFO.num_test}.items(), parts, strict=True
    ):
        if len(labels) != expected:
            warnings.append(f"MNIST has {expected} {name} images, and there are {len(labels)}")
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = images, labels

    facts: Facts = {
        # Of the pixels as bytes, so that it does not depend on how they are scaled.
        "fingerprint": fingerprint(*arrays.values()),
        "warnings": warnings,
        "checksums": checksums,
    }
    for name in ("train_images", "test_images"):
        # As in the code of the Forward paper: pixels from 0 to 1.
        arrays[name] = (arrays[name][:, None] / np.float32(255)).astype(np.float32)
    return arrays, facts


def _checksums(paths: Sequence[Path], warnings: list[str]) -> dict[str, str]:
    """Return the checksums of packed files. Appends a warning for one that is not the official."""
    found = {}
    for path, known in zip(paths, _MD5.values(), strict=True):
        # Those of unpacked files are not published.
        if path.suffix != ".gz":
            continue
        md5 = digest(path, "md5")
        found[path.name] = f"md5:{md5}"
        if md5 != known:
            warnings.append(f"{path}: is not the official file (its md5 is {md5})")
    return found


def _of_idx(paths: Sequence[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    parts = []
    for image_path, label_path in (paths[:2], paths[2:]):
        images = read_idx(image_path, 3, _MOST * SIDE * SIDE)
        labels = read_idx(label_path, 1, _MOST)
        if images.shape[1:] != (SIDE, SIDE):
            size = "x".join(map(str, images.shape[1:]))
            raise DataError(f"{image_path}: its images are {size}, and MNIST's are 28x28")
        if len(images) != len(labels):
            raise DataError(
                f"{label_path}: holds {len(labels)} labels, and {image_path.name} holds "
                f"{len(images)} images"
            )
        parts.append((images, _digits(labels, label_path)))
    return parts


def _of_parquet(paths: Sequence[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    parts = []
    for name in ("train", "test"):
        files = [path for path in paths if path.name.startswith(name)]
        images, labels, _ = cifar_parquet.decode(files, ("label",), (SIDE, SIDE, 1))
        parts.append((images[..., 0], _digits(labels, files[0])))
    return parts


def _digits(labels: np.ndarray, path: Path) -> np.ndarray:
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise DataError(
            f"{path}: label {wrong[0]} (from 0) is {labels[wrong[0]]}; digits are 0 to 9"
        )
    return labels.astype(np.int64)
