"""Mini-WebVision: the first 50 classes of WebVision 1.0's Google images.

Li et al. 2017, arXiv:1708.02862. Tested on WebVision's validation images of these classes and, as
`ilsvrc12`, on ImageNet's, mapped by WordNet id.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import image_lists
from nlbench.data.formats.image_lists import ImageList
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
    # As ELR's authors quote it.
    estimated_noise_rate=0.2,
)
_TERMS = "terms: see the page"
_LISTS = ("info/train_filelist_google.txt", "info/val_filelist.txt", "info/synsets.txt")
_FOLDERS = ("google", "val_images_256", "ilsvrc12")
SOURCES = (
    *(
        Source(file=file, home=HOME, goes_to=f"webvision/{file}", licence=_TERMS)
        for file in (*_LISTS, "google", "val_images_256")
    ),
    Source(
        file="ilsvrc12",
        home="https://image-net.org (an account; ILSVRC2012_img_val.tar, unpacked into a folder "
        "for each WordNet id)",
        goes_to="webvision/ilsvrc12",
        licence=_TERMS,
    ),
)

# Names that people give the folder; the last is the data directory itself.
_PLACES = ("webvision", "WebVision", "webvision1.0", "")
_SUFFIXES = (".jpeg", ".jpg", ".png")

# Classes in WebVision's lists, of which mini-WebVision takes the first 50.
_ALL_CLASSES = 1000

# Validation images of each class in ImageNet.
_IMAGENET_PER_CLASS = 50


# ---- Finding it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Look for the lists and the folders of images. Takes the place that lacks least.

    The lists are in info/, the images in the folders that the lists name, and ImageNet's validation
    images in ilsvrc12/.
    """
    looked = tuple(data_dir / place for place in _PLACES)
    return min((_find_in(place, looked) for place in looked), key=lambda found: len(found.missing))


def _find_in(place: Path, looked: tuple[Path, ...]) -> Found:
    missing = [file for file in _LISTS if not (place / file).is_file()]
    missing += [folder for folder in _FOLDERS if not (place / folder).is_dir()]
    paths = tuple(place / source.file for source in SOURCES if source.file not in missing)
    return Found(paths, looked, tuple(missing), tuple(missing))


# ---- Reading it ----------------------------------------------------------------------------------


def load(places: Places, seed: int) -> Dataset:
    """Read the images with labels below 50.

    They are counted, because papers disagree about their number.

    Raises: DataMissing; DataError, naming file and line.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    root = next(path for path in found.paths if path.name == "google").parent
    train_list, val_list, synsets = (root / file for file in _LISTS)

    train = _mini(train_list, root)
    kept, warnings = image_lists.usable(train)
    train = train.select(kept)

    # Parts that are scored must be whole, or accuracies could not be compared.
    test = _mini(val_list, root)
    test = replace(test, names=[_in_val_folder(name) for name in test.names])
    image_lists.require_whole(test)

    imagenet = _imagenet(root / "ilsvrc12", synsets)

    # Fewer images are scored as they are, and every record keeps the warning.
    counts = np.bincount(imagenet.labels)
    odd = counts[counts != _IMAGENET_PER_CLASS]
    if len(odd):
        warnings += (
            f"{imagenet.root}: {odd.min()} images of a class; "
            f"ILSVRC 2012 has {_IMAGENET_PER_CLASS}",
        )

    return Dataset(
        info=replace(INFO, num_train=len(train.names), num_test=len(test.names)),
        train_images=train.files(),
        test_images=test.files(),
        test_labels=test.labels,
        label_sets={"noisy": train.labels},
        fingerprint=image_lists.list_fingerprint(
            (train.names, train.labels),
            (test.names, test.labels),
            (imagenet.names, imagenet.labels),
        ),
        warnings=warnings,
        scored={"ilsvrc12": (imagenet.files(), imagenet.labels)},
    )


def _mini(path: Path, root: Path) -> ImageList:
    """Read the lines of a list whose label is below 50. Raises DataError when a class is absent."""
    listed = image_lists.read_list(path, _ALL_CLASSES, root)

    # Files of the other 950 classes need not be there.
    first = listed.select(listed.labels < INFO.num_classes)
    present = len(np.unique(first.labels))
    if present < INFO.num_classes:
        raise DataError(f"{path}: only {present} of the first {INFO.num_classes} classes are in it")
    return first


def _in_val_folder(name: str) -> str:
    """Return the name with its folder, which some copies of the list leave out."""
    return name if name.startswith("val_images_256/") else f"val_images_256/{name}"


def _imagenet(folder: Path, synsets: Path) -> ImageList:
    """List ImageNet's validation images of the 50 classes, class by class."""
    names: list[str] = []
    labels: list[int] = []
    for label, wordnet in enumerate(_wordnet_ids(synsets)):
        # Hidden files belong to other programs.
        files = [path for path in (folder / wordnet).glob("[!.]*") if _is_image(path)]
        if not files:
            raise DataError(
                f"{folder / wordnet}: no images of class {label} there "
                f"({synsets}:{label + 1} is {wordnet})"
            )

        # Sorted, because file systems list their files in different orders.
        names += sorted(f"{wordnet}/{path.name}" for path in files)
        labels += [label] * len(files)
    return ImageList(folder, names, np.array(labels, np.int64), [0] * len(names), folder)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _wordnet_ids(synsets: Path) -> list[str]:
    """Return the WordNet ids of the 50 classes; line i of synsets.txt holds that of class i."""
    lines = image_lists.read_lines(synsets)[: INFO.num_classes]
    ids = []
    for line in lines:
        if line.strip():
            ids.append(line.split()[0])
    if len(ids) < INFO.num_classes:
        raise DataError(f"{synsets}: holds {len(ids)} of the first {INFO.num_classes} WordNet ids")

    for number, name in enumerate(ids, 1):
        first = ids.index(name) + 1
        if first != number:
            raise DataError(f"{synsets}:{number}: {name} is the class of line {first} already")
    return ids
