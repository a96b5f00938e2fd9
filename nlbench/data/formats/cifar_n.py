"""CIFAR-10N and CIFAR-100N: the images of CIFAR under the labels that people gave them.

Wei et al., "Learning with noisy labels revisited", ICLR 2022, arXiv:2110.12088; the files of UCSC-REAL/cifar-10-100n.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
LICENCE = "CC BY-NC 4.0: no commercial use"


@dataclass(frozen=True)
class LabelFile:
    """One of the published label files."""

    file: str
    sets: Mapping[str, str]  # label set -> its key in the file; "clean" is compared with the images' own labels
    known_bad: Mapping[int, str] = field(default_factory=dict)  # size in bytes -> what is wrong with that file


def find(labels: LabelFile, layout: cifar.Layout, data_dir: Path) -> Found:
    """Where the images and the label file are."""
    images = cifar.find(layout, data_dir)
    places = (data_dir / labels.file, data_dir / "cifar-n" / labels.file)
    path = next((place for place in places if place.is_file()), None)
    looked = (*images.looked, *(place.parent for place in places))
    return Found(
        paths=images.paths + ((path,) if path else ()),
        looked=tuple(dict.fromkeys(looked)),
        missing=images.missing + (() if path else (f"the labels ({labels.file})",)),
        needs=images.needs + (() if path else (labels.file,)),
    )


def read(info: Info, labels: LabelFile, layout: cifar.Layout, sources: Sequence[Source], places: Places) -> Dataset:
    """The images with every label set.

    Raises: DataMissing when something is not there; DataError, naming the file, when it cannot be used or when its
    clean labels are not those of the images one by one, so that its labels would land on other images.
    """
    found = find(labels, layout, places.data_dir)
    require(info, sources, found, places.data_dir)
    path = found.paths[-1]
    images = cifar.read(info, layout, sources, places)
    label_sets = _label_sets(path, labels, info)
    _check_order(label_sets["clean"], images.label_sets["clean"], path)
    md5 = digest(path, "md5")
    published = md5 in {source.md5 for source in sources}
    return replace(
        images,
        label_sets=label_sets,
        checksums={**images.checksums, path.name: f"md5:{md5}"},
        warnings=images.warnings + (() if published else (f"unknown checksum of {path.name}: not the published file",)),
    )


def _label_sets(path: Path, labels: LabelFile, info: Info) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    if size in labels.known_bad:
        raise DataError(f"{path}: {labels.known_bad[size]}; get the corrected file from {HOME} (folder data)")
    content = read_torch(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not label sets by name; get the file again")
    return {name: _label_set(content, key, path, info) for name, key in labels.sets.items()}


def _label_set(content: dict[Any, Any], key: str, path: Path, info: Info) -> np.ndarray:
    if key not in content:
        raise DataError(f"{path}: has no {key!r}, only {', '.join(map(repr, content))}; is this the right file?")
    where = f"{path}: {key}"
    labels = as_labels(content[key], where)
    check_labels(labels, info.num_train, info.num_classes, where)
    labels.flags.writeable = False
    return labels


def _check_order(given: np.ndarray, clean: np.ndarray, path: Path) -> None:
    different = int((given != clean).sum())
    if different:
        raise DataError(
            f"{path}: its clean labels differ from the images' labels in {different} of {len(clean)} places, so the "
            f"images are in another order (or are other images). The labels go by the order of torchvision's CIFAR: "
            f"data_batch_1 to 5, one after the other; for CIFAR-100 that of its file train"
        )
