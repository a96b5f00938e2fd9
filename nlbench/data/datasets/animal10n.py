"""ANIMAL-10N (Song et al., ICML 2019): ten animals in five confusable pairs, 64x64, labelled by fifteen people."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import cached
from nlbench.data.formats import image_lists
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.errors import DataError

HOME = "https://dm.kaist.ac.kr/datasets/animal-10n"
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
    estimated_noise_rate=0.08,  # the authors' estimate, by cross-validation
)
_LICENCE = "a form on the page; the link comes by e-mail"
SOURCES = (
    Source(
        "raw_image.zip, unpacked, or data_batch_*.bin with test_batch.bin", HOME, goes_to="animal10n/", licence=_LICENCE
    ),
)
_PLACES = ("animal10n", "ANIMAL-10N", "Animal-10N", "")
_FOLDERS = {"train": ("training", "train"), "test": ("testing", "test")}
_RECORD = 8 + 3 * 64 * 64  # bytes: id, label, then the planes


def find(data_dir: Path) -> Found:
    """The binary files, else the two folders of images."""
    looked = tuple(data_dir / place for place in _PLACES)
    for place in looked:
        test, train = place / "test_batch.bin", sorted(place.glob("data_batch_*.bin"), key=_number)
        if test.is_file() and train:
            return Found((*train, test), looked, ())
        for root in (place, place / "raw_image", place / "raw_image_ver"):
            folders = [next((root / n for n in names if (root / n).is_dir()), None) for names in _FOLDERS.values()]
            if folders[0] and folders[1] and any(_labelled(folders[0])):
                return Found((folders[0], folders[1]), looked, ())
    what = "training/ and testing/ with images LABEL_*.jpg, or data_batch_*.bin with test_batch.bin"
    return Found((), looked, (what,), tuple(source.file for source in SOURCES))


def _number(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0


def _labelled(folder: Path) -> list[str]:
    """The images of a folder whose name begins with their label."""
    return sorted(path.name for path in folder.iterdir() if re.match(r"\d_.*\.(jpe?g|png)$", path.name, re.I))


def load(places: Places, seed: int) -> Dataset:
    """50,000 images with the labels that people gave, 5,000 test images; decoded once. Nothing depends on `seed`.

    Raises: DataMissing; DataError, naming the file, when it cannot be used.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    arrays, facts = cached(places.cache_dir, "animal10n", found.paths, functools.partial(_decode, found.paths))
    return Dataset(
        info=INFO,
        train_images=arrays["train_images"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        label_sets={"noisy": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        warnings=tuple(facts["warnings"]),
    )


def _decode(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    read = _binary if paths[0].is_file() else _folder
    arrays: dict[str, np.ndarray] = {}
    warnings = []
    for part, files in (("train", paths[:-1]), ("test", paths[-1:])):
        pieces = [read(path) for path in files]
        images, labels = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
        where = ", ".join(str(path) for path in files)
        if len(absent := set(range(INFO.num_classes)) - set(labels.tolist())):
            raise DataError(f"{where}: no image of class {', '.join(map(str, sorted(absent)))}; is this ANIMAL-10N?")
        expected = INFO.num_train if part == "train" else INFO.num_test
        if len(labels) != expected:
            warnings.append(f"{where}: {len(labels)} {part} images, ANIMAL-10N has {expected}")
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    return arrays, {"fingerprint": fingerprint(*arrays.values()), "warnings": warnings}


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of 4-byte id, 4-byte label and three 64x64 planes. The byte order is nowhere stated: see which fits."""
    raw = np.fromfile(path, np.uint8)
    if not len(raw) or len(raw) % _RECORD:
        raise DataError(f"{path}: {len(raw)} bytes are no whole number of records of {_RECORD}; get the file again")
    records = raw.reshape(-1, _RECORD)
    for order in ("<u4", ">u4"):
        labels = records[:, 4:8].copy().view(order)[:, 0]
        if labels.max() < INFO.num_classes:
            images = records[:, 8:].reshape(-1, 3, 64, 64).transpose(0, 2, 3, 1)
            return np.ascontiguousarray(images), labels.astype(np.int64)
    raise DataError(f"{path}: labels are not 0 to 9 in either byte order; is this ANIMAL-10N's binary form?")


def _folder(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images LABEL_*.jpg, in the order of their names."""
    from nlbench.data.decode import open_image

    names = _labelled(path)
    images = np.empty((len(names), 64, 64, 3), np.uint8)
    for i, name in enumerate(names):
        image = np.asarray(open_image(str(path / name)))
        if image.shape != (64, 64, 3):
            raise DataError(f"{path / name}: is {image.shape[1]}x{image.shape[0]}, ANIMAL-10N's images are 64x64")
        images[i] = image
    return images, np.array([int(name[0]) for name in names], np.int64)
