"""CIFAR-10N and CIFAR-100N: the images of CIFAR under the labels that people gave them.

Wei et al., "Learning with noisy labels revisited", ICLR 2022, arXiv:2110.12088; the files of
UCSC-REAL/cifar-10-100n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import cifar
from nlbench.data.formats.safe_pickle import read_torch
from nlbench.data.missing import require
from nlbench.data.noise.label_files import as_labels, check_labels
from nlbench.data.places import Places
from nlbench.errors import DataError
from nlbench.files import digest

HOME = "https://github.com/UCSC-REAL/cifar-10-100n"
FILES = "https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data"
LICENCE = "CC BY-NC 4.0: no commercial use"


@dataclass(frozen=True)
class LabelFile:
    """One of the published label files.

    Attributes:
        sets: label set -> its key in the file. "clean" is compared with the images' own labels.
        known_bad: size in bytes -> what is wrong with the file of that size.
    """

    file: str
    sets: Mapping[str, str]
    known_bad: Mapping[int, str] = field(default_factory=dict)


def find(labels: LabelFile, layout: cifar.Layout, data_dir: Path) -> Found:
    """Look for the images and the label file."""
    images = cifar.find(layout, data_dir)
    places = (data_dir / labels.file, data_dir / "cifar-n" / labels.file)
    looked = (*images.looked, *(place.parent for place in places))
    looked = tuple(dict.fromkeys(looked))

    for place in places:
        if place.is_file():
            return replace(images, paths=(*images.paths, place), looked=looked)
    return replace(
        images,
        looked=looked,
        missing=(*images.missing, f"the labels ({labels.file})"),
        needs=(*images.needs, labels.file),
    )


# ---- Reading -------------------------------------------------------------------------------------


def read(
    info: Info,
    labels: LabelFile,
    layout: cifar.Layout,
    sources: Sequence[Source],
    places: Places,
) -> Dataset:
    """Read the images with every label set.

    Raises: DataMissing when something is not there; DataError, naming the file, when it cannot be
        used, or when its clean labels are not those of the images one by one, so that its labels
        would belong to other images.
    """
    found = find(labels, layout, places.data_dir)
    require(info, sources, found, places.data_dir)
    # `find` puts the label file last.
    path = found.paths[-1]

    images = cifar.read(info, layout, sources, places)
    label_sets = _label_sets(path, labels, info)

    # Labels in another order would belong to other images, and nothing else would show it.
    _check_order(label_sets["clean"], images.label_sets["clean"], path)

    md5 = digest(path, "md5")
    warnings = images.warnings
    if md5 not in {source.md5 for source in sources}:
        warnings += (f"unknown checksum of {path.name}: not the published file",)
    return replace(
        images,
        label_sets=label_sets,
        checksums={**images.checksums, path.name: f"md5:{md5}"},
        warnings=warnings,
    )


def _label_sets(path: Path, labels: LabelFile, info: Info) -> dict[str, np.ndarray]:
    # The authors' bad file is valid otherwise, so it is recognised by its size.
    size = path.stat().st_size
    if size in labels.known_bad:
        raise DataError(
            f"{path}: {labels.known_bad[size]}; get the corrected file from {HOME} (folder data)"
        )
    content = read_torch(path)
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, not label sets by name; get the file again"
        )
    return {name: _label_set(content, key, path, info) for name, key in labels.sets.items()}


def _label_set(content: dict[object, object], key: str, path: Path, info: Info) -> np.ndarray:
    """Return one label set (N,) int64, read-only."""
    if key not in content:
        known = ", ".join(map(repr, content))
        raise DataError(f"{path}: has no {key!r}, only {known}; is this the right file?")
    where = f"{path}: {key}"
    labels = as_labels(content[key], where)
    check_labels(labels, info.num_train, info.num_classes, where)

    # Read-only, because several runs of a process share them.
    labels.flags.writeable = False
    return labels


def _check_order(given: np.ndarray, clean: np.ndarray, path: Path) -> None:
    """Raise DataError unless the file's clean labels are those of the images."""
    different = int((given != clean).sum())
    if different:
        raise DataError(
            f"{path}: its clean labels differ from the images' labels in {different} of "
            f"{len(clean)} places, so the images are in another order (or are other images). The "
            f"labels go by the order of torchvision's CIFAR: data_batch_1 to 5, one after the "
            f"other; for CIFAR-100 that of its file train"
        )
