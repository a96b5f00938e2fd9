"""Embed the images of a dataset: from pictures to a file that dataset `features` reads."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nlbench.data.base import Dataset, ImageFiles, Images
from nlbench.embedding.parts import Arrays, Parts
from nlbench.errors import DataError, SuiteError

# Images of a part. A killed process loses the work on one.
PART = 500

# The largest number of float16.
_LARGEST = float(np.finfo(np.float16).max)


class Extractor(Protocol):
    """What turns images into features.

    Attributes:
        record: model, weights and transform, as JSON has them.
    """

    record: dict[str, Any]

    def learn(self, images: Images, parts: Parts) -> float:
        """Learn from the training images what is to be learned, or read it from `parts`.

        Returns: the seconds that learning has taken, in this call or in an interrupted one.
        """

    def __call__(self, images: Images, index: np.ndarray) -> np.ndarray:
        """Return the features (B, D) float32 of the images at these positions."""


@dataclass(frozen=True)
class Written:
    """A file of features.

    Attributes:
        train, test: the numbers of images.
        entry: the dataset entry of a suite that reads the file.
        record: what the array `embedding` says.
    """

    to: Path
    train: int
    test: int
    entry: dict[str, Any]
    record: dict[str, Any]


def embed(
    data: Dataset,
    extractor: Extractor,
    to: Path,
    start: Callable[[int], Callable[[int], None]],
) -> Written:
    """Write the features of all training and test images to the .npz file `to`.

    A killed call leaves a folder beside the file, from which the next one goes on with the same
    result.

    Args:
        start: is called with the number of images; what it returns is called with the number of
            those that were just embedded.
    Raises: SuiteError for a file that is there, and for what `Parts.held` refuses; DataError for a
        broken image, and for features that are no numbers of float16; NotWritten.
    """
    check_file(to)
    plan = {**extractor.record, **_of_dataset(data)}
    parts = Parts(to, plan)
    with parts.held():
        seconds = extractor.learn(data.train_images, parts)
        images = {"train": data.train_images, "test": data.test_images}
        advance = start(sum(map(len, images.values())))

        names: dict[str, list[str]] = {}
        dims = 0
        for part, pictures in images.items():
            names[f"{part}_features"] = []
            for name, index in _pieces(part, len(pictures)):
                found = parts.kept(name, functools.partial(_features, extractor, pictures, index))
                seconds += float(found["seconds"])
                dims = found["features"].shape[1]
                names[f"{part}_features"].append(name)
                advance(len(index))

        record = {**plan, "dims": dims, "seconds": round(seconds, 1)}
        labels, keys = _labels(data)
        text = np.array([json.dumps(record)])
        parts.finish(names, {**labels, "embedding": text})
    entry = {"name": "features", "path": str(to), **keys}
    return Written(to, len(data.train_images), len(data.test_images), entry, record)


def check_file(to: Path) -> None:
    """Raise SuiteError for a file that cannot be written, or that is there already."""
    if to.suffix != ".npz":
        raise SuiteError(f"--to {to}: must end in .npz, the form that dataset `features` reads")
    if to.exists():
        raise SuiteError(f"--to {to}: is there already; remove it, or name another file")


def _pieces(part: str, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the positions of each part."""
    for begin in range(0, count, PART):
        yield f"{part}-{begin:08}", np.arange(begin, min(begin + PART, count))


def _features(extractor: Extractor, images: Images, index: np.ndarray) -> Arrays:
    """Return the features of a part as float16."""
    found = extractor(images, index)
    # A NaN is not smaller than anything.
    bad = np.flatnonzero(~(np.abs(found).max(1) <= _LARGEST))
    if len(bad):
        first = int(index[bad[0]])
        where = images.path(first) if isinstance(images, ImageFiles) else f"image {first}"
        raise DataError(
            f"{where}: its features are not finite, or too large for float16 ({len(bad)} of "
            f"{len(index)} images); are these the right weights?"
        )
    return {"features": found.astype(np.float16)}


def _of_dataset(data: Dataset) -> dict[str, Any]:
    return {
        "dataset": data.info.name,
        "fingerprint": data.fingerprint,
        "variant": data.variant,
        "nlbench": version("nlbench"),
    }


def _labels(data: Dataset) -> tuple[Arrays, dict[str, str | dict[str, str]]]:
    """Return the arrays of labels, and the keys of a suite that name them."""
    sets = dict(data.label_sets)
    arrays = {"test_labels": data.test_labels}
    keys: dict[str, str | dict[str, str]] = {}
    if "clean" in sets:
        keys["clean_label"] = "labels"
        arrays["train_labels"] = sets.pop("clean")
    else:
        # Test labels are true ones, and have the name of the training labels that stand for them.
        keys["label"] = "labels"
        arrays["train_labels"] = sets.pop(next(iter(sets)))
    if data.partly_clean is not None:
        keys["clean_label"] = "label_clean"
        arrays["train_label_clean"] = data.partly_clean

    arrays |= {f"train_label_{name}": labels for name, labels in sets.items()}
    if sets:
        keys["labels"] = {name: f"label_{name}" for name in sets}
    if data.info.class_names:
        arrays["class_names"] = np.array(data.info.class_names)
    return arrays, keys
