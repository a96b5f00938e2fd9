"""Mini-WebVision: the first 50 classes of WebVision 1.0's Google images (Li et al. 2017, arXiv:1708.02862).

Tested on WebVision's validation images of these classes and, as `ilsvrc12`, on ImageNet's, mapped by WordNet id.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import image_lists
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.errors import DataError

HOME = "https://data.vision.ee.ethz.ch/cvl/webvision"
INFO = Info(
    name="webvision",
    title="mini-WebVision",
    num_classes=50,
    num_train=0,
    num_test=0,
    shape=(),
    label_sets=("noisy",),
    mean=image_lists.IMAGENET_MEAN,
    std=image_lists.IMAGENET_STD,
    estimated_noise_rate=0.2,  # as ELR's authors quote it
)
_TERMS = "terms: see the page"
SOURCES = (
    *(
        Source(file=file, home=HOME, goes_to=f"webvision/{file}", licence=_TERMS)
        for file in (
            "info/train_filelist_google.txt",
            "info/val_filelist.txt",
            "info/synsets.txt",
            "google",
            "val_images_256",
        )
    ),
    Source(
        file="ilsvrc12",
        home="https://image-net.org (an account; ILSVRC2012_img_val.tar, unpacked into a folder for each WordNet id)",
        goes_to="webvision/ilsvrc12",
        licence=_TERMS,
    ),
)
_LISTS = tuple(source.file for source in SOURCES if source.file.startswith("info/"))
_PLACES = ("webvision", "WebVision", "webvision1.0", "")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_IMAGENET_PER_CLASS = 50  # validation images


def find(data_dir: Path) -> Found:
    """The lists in info/, the images in the folders that the lists name, ImageNet's validation images in ilsvrc12/."""
    looked = tuple(data_dir / place for place in _PLACES)
    best: Found | None = None
    for place in looked:
        missing = [file for file in _LISTS if not (place / file).is_file()]
        missing += [folder for folder in ("google", "val_images_256", "ilsvrc12") if not (place / folder).is_dir()]
        if best is None or len(missing) < len(best.missing):
            paths = tuple(place / source.file for source in SOURCES if source.file not in missing)
            best = Found(paths, looked, tuple(missing), tuple(missing))
    assert best is not None
    return best


def load(places: Places, seed: int) -> Dataset:
    """Images with labels below 50; how many there are is counted, not taken from papers, which disagree.

    Raises: DataMissing; DataError, naming file and line.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    root = next(path for path in found.paths if path.name == "google").parent
    train_list, val_list, synsets = (root / file for file in _LISTS)
    names, labels, lines = _mini(train_list)
    kept, warnings = image_lists.usable(root, names, train_list, lines)
    names, labels = [name for name, keep in zip(names, kept, strict=True) if keep], labels[kept]
    tests, test_labels, test_lines = _mini(val_list)
    tests = [name if name.startswith("val_images_256/") else f"val_images_256/{name}" for name in tests]
    image_lists.require_whole(root, tests, val_list, test_lines)
    imagenet, imagenet_labels = _imagenet(root / "ilsvrc12", synsets)
    if odd := {int(count) for count in np.bincount(imagenet_labels)} - {_IMAGENET_PER_CLASS}:
        warnings += (f"{root / 'ilsvrc12'}: {min(odd)} images of a class; ILSVRC 2012 has {_IMAGENET_PER_CLASS}",)
    return Dataset(
        info=replace(INFO, num_train=len(names), num_test=len(tests)),
        train_images=image_lists.image_files(root, names),
        test_images=image_lists.image_files(root, tests),
        test_labels=test_labels,
        label_sets={"noisy": labels},
        fingerprint=image_lists.list_fingerprint((names, labels), (tests, test_labels), (imagenet, imagenet_labels)),
        warnings=warnings,
        scored={"ilsvrc12": (image_lists.image_files(root / "ilsvrc12", imagenet), imagenet_labels)},
    )


def _mini(path: Path) -> tuple[list[str], np.ndarray, list[int]]:
    """The lines of a list with a label below 50."""
    names, labels, lines = image_lists.names_and_labels(path, 1000)
    first = np.flatnonzero(labels < INFO.num_classes)
    if len(present := np.unique(labels[first])) < INFO.num_classes:
        raise DataError(f"{path}: only {len(present)} of the first {INFO.num_classes} classes are in it")
    return [names[i] for i in first], labels[first], [lines[i] for i in first]


def _imagenet(folder: Path, synsets: Path) -> tuple[list[str], np.ndarray]:
    """ImageNet's validation images of the 50 classes: line i of synsets.txt says which WordNet id is class i."""
    wordnet = [line.split()[0] for line in image_lists.read_lines(synsets)[: INFO.num_classes] if line.strip()]
    if len(wordnet) < INFO.num_classes:
        raise DataError(f"{synsets}: holds {len(wordnet)} of the first {INFO.num_classes} WordNet ids")
    for line, name in enumerate(wordnet, 1):
        if (first := wordnet.index(name) + 1) != line:
            raise DataError(f"{synsets}:{line}: {name} is the class of line {first} already")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(wordnet):
        own = sorted(path.name for path in (folder / name).glob("[!.]*") if path.suffix.lower() in _SUFFIXES)
        if not own:
            raise DataError(f"{folder / name}: no images of class {label} there ({synsets}:{label + 1} is {name})")
        names += [f"{name}/{file}" for file in own]
        labels += [label] * len(own)
    return names, np.array(labels, np.int64)
