"""ANIMAL-10N (Song et al., ICML 2019): ten animals in five confusable pairs, 64x64.

Fifteen people labelled the training images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import Facts, cached
from nlbench.data.formats import image_lists
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.errors import DataError

INFO = Info(
    name="animal10n",
    title="ANIMAL-10N",
    num_classes=10,
    num_train=50_000,
    num_test=5_000,
    shape=(64, 64, 3),
    label_sets=("noisy",),
    mean=image_lists.IMAGENET_MEAN,
    std=image_lists.IMAGENET_STD,
    # The authors' estimate, by cross-validation.
    estimated_noise_rate=0.08,
)
SOURCES = (
    Source(
        "raw_image.zip, unpacked, or data_batch_*.bin with test_batch.bin",
        home="https://dm.kaist.ac.kr/datasets/animal-10n",
        goes_to="animal10n/",
        licence="a form on the page; the link comes by e-mail",
    ),
)

# Names that people give the folder; the last is the data directory itself.
_PLACES = ("animal10n", "ANIMAL-10N", "Animal-10N", "")

# Folders inside it that raw_image.zip was unpacked into.
_IMAGE_FOLDERS = ("", "raw_image", "raw_image_ver")

# Bytes of an image in the binary files: id, label, then the planes of the colours.
_RECORD = 8 + 3 * 64 * 64


# The decoded copy. Version 2 holds images upright; version 1 did not.
_ENTRY = "animal10n-2"


# ---- Finding it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Look for the binary files, else for the two folders of images."""
    looked = tuple(data_dir / place for place in _PLACES)
    for place in looked:
        test = place / "test_batch.bin"
        train = sorted(place.glob("data_batch_*.bin"), key=_number)
        if test.is_file() and train:
            return Found((*train, test), looked, ())

        for root in (place / folder for folder in _IMAGE_FOLDERS):
            train_folder = _first_folder(root / "training", root / "train")
            test_folder = _first_folder(root / "testing", root / "test")
            if train_folder and test_folder and _labelled(train_folder):
                return Found((train_folder, test_folder), looked, ())

    what = "training/ and testing/ with images LABEL_*.jpg, or data_batch_*.bin with test_batch.bin"
    return Found((), looked, (what,), tuple(source.file for source in SOURCES))


def _number(path: Path) -> int:
    """Return the number in a file name, so that batch 10 comes after batch 9."""
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0


def _first_folder(*folders: Path) -> Path | None:
    for folder in folders:
        if folder.is_dir():
            return folder
    return None


def _labelled(folder: Path) -> list[str]:
    """Return the names of the images whose name begins with their label, in order."""
    # Sorted, because file systems list their files in different orders.
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if re.match(r"\d_.*\.(jpe?g|png)$", name, re.I)]


# ---- Reading it ----------------------------------------------------------------------------------


def load(places: Places, seed: int) -> Dataset:
    """Read 50,000 images with the labels that people gave, and 5,000 test images.

    They are decoded once, into the cache.

    Raises: DataMissing; DataError, naming the file, when it cannot be used.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    arrays, facts = cached(places.cache_dir, _ENTRY, found.paths, lambda: _decode(found.paths))
    return Dataset(
        info=INFO,
        train_images=arrays["train_images"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        label_sets={"noisy": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        warnings=tuple(facts["warnings"]),
    )


def _decode(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], Facts]:
    """Decode the training files, which come first, and the test file."""
    warnings: list[str] = []

    # `find` puts the test file last.
    train_images, train_labels = _part(paths[:-1], "train", INFO.num_train, warnings)
    test_images, test_labels = _part(paths[-1:], "test", INFO.num_test, warnings)
    arrays = {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    # The order of the arrays is part of the fingerprint, and so of every run's key.
    return arrays, {"fingerprint": fingerprint(*arrays.values()), "warnings": warnings}


def _part(
    paths: Sequence[Path], name: str, expected: int, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Read one part from its files. Appends a warning where the number of images is unusual."""
    all_images, all_labels = [], []
    for path in paths:
        images, labels = _read_binary(path) if path.is_file() else _read_folder(path)
        all_images.append(images)
        all_labels.append(labels)
    images, labels = np.concatenate(all_images), np.concatenate(all_labels)

    where = ", ".join(map(str, paths))
    absent = sorted(set(range(INFO.num_classes)) - set(labels.tolist()))
    if absent:
        raise DataError(
            f"{where}: no image of class {', '.join(map(str, absent))}; is this ANIMAL-10N?"
        )
    if len(labels) != expected:
        warnings.append(f"{where}: {len(labels)} {name} images, ANIMAL-10N has {expected}")
    return images, labels


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read records of a 4-byte id, a 4-byte label and three 64x64 planes."""
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % _RECORD:
        raise DataError(
            f"{path}: {len(content)} bytes are no whole number of records of {_RECORD}; "
            f"get the file again"
        )
    records = content.reshape(-1, _RECORD)

    # The byte order is documented nowhere. In the wrong one the labels are huge.
    for order in ("<u4", ">u4"):
        labels = records[:, 4:8].copy().view(order)[:, 0]
        if labels.max() < INFO.num_classes:
            images = records[:, 8:].reshape(-1, 3, 64, 64).transpose(0, 2, 3, 1)
            return np.ascontiguousarray(images), labels.astype(np.int64)
    raise DataError(
        f"{path}: labels are not 0 to 9 in either byte order; is this ANIMAL-10N's binary form?"
    )


def _read_folder(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images LABEL_*.jpg, in the order of their names."""
    from nlbench.data.decode import open_image

    names = _labelled(path)
    images = np.empty((len(names), 64, 64, 3), np.uint8)
    labels = np.empty(len(names), np.int64)
    for i, name in enumerate(names):
        image = np.asarray(open_image(str(path / name)))
        if image.shape != (64, 64, 3):
            raise DataError(
                f"{path / name}: is {image.shape[1]}x{image.shape[0]}, "
                f"ANIMAL-10N's images are 64x64"
            )
        images[i] = image
        labels[i] = int(name[0])
    return images, labels
