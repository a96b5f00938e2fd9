"""Clothing1M (Xiao et al., CVPR 2015): a million images of clothes.

Their labels come from the text of the shops around them.
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

HOME = "https://github.com/Cysu/noisy_label"
INFO = Info(
    name="clothing1m",
    title="Clothing1M",
    num_classes=14,
    # Counted when the lists are read, because copies lack some images.
    num_train=0,
    num_test=0,
    shape=(),
    label_sets=("noisy",),
    mean=(0.6959, 0.6537, 0.6371),
    std=(0.3113, 0.3192, 0.3214),
    # The estimate of the dataset's authors, as later papers quote it.
    estimated_noise_rate=0.385,
)

# The keys of the images of each part.
LISTS = {
    "train": "noisy_train_key_list.txt",
    "val": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
}

# The label of each key. A key can be in both.
TABLES = {"noisy": "noisy_label_kv.txt", "clean": "clean_label_kv.txt"}
_FILES = (*LISTS.values(), *TABLES.values())
SOURCES = tuple(
    Source(
        file=file,
        home=HOME,
        goes_to=f"clothing1m/{file}",
        licence="by e-mail to the dataset's authors, who send a link; not to be passed on",
    )
    for file in (*_FILES, "images")
)

# Names that people give the folder; the last is the data directory itself.
_PLACES = ("clothing1m", "Clothing1M", "clothing1M", "")

# Folders inside a place where codes expect the lists.
_ANNOTATIONS = ("", "annotations", "label", "images")


# ---- Finding it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Look for the lists and the images. Takes the place that lacks least.

    The lists are in the folder itself, in annotations/, label/ or images/; the images in images/,
    or in folders 0 to 9.
    """
    looked = tuple(data_dir / place for place in _PLACES)
    return min((_find_in(place, looked) for place in looked), key=lambda found: len(found.missing))


def _find_in(place: Path, looked: tuple[Path, ...]) -> Found:
    paths, missing = [], []
    for file in _FILES:
        candidates = [place / folder / file for folder in _ANNOTATIONS]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            missing.append(file)
        else:
            paths.append(path)

    # Some copies have the folders 0 to 9 without a folder images/ around them.
    images = place / "images"
    if not images.is_dir() and any((place / str(digit)).is_dir() for digit in range(10)):
        images = place
    if not images.is_dir():
        missing.append("images")
    return Found((*paths, images), looked, tuple(missing), tuple(missing))


# ---- Reading it ----------------------------------------------------------------------------------


def load(places: Places, seed: int) -> Dataset:
    """Read the noisy training images, and the clean validation and test images.

    The key lists alone tell which image belongs to which part: an image may have a noisy and a
    clean label. Training images that are listed but not there are left out and counted in a
    warning.

    Raises: DataMissing; DataError, naming file and line.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    *lists, root = found.paths
    files = {path.name: path for path in lists}

    noisy_file, clean_file = files[TABLES["noisy"]], files[TABLES["clean"]]
    noisy_table, clean_table = _table(noisy_file), _table(clean_file)
    train = _part(files[LISTS["train"]], noisy_file, noisy_table, root)
    kept, warnings = image_lists.usable(train)
    train = train.select(kept)

    # Parts that are scored must be whole, or accuracies could not be compared.
    val = _part(files[LISTS["val"]], clean_file, clean_table, root)
    image_lists.require_whole(val)
    test = _part(files[LISTS["test"]], clean_file, clean_table, root)
    image_lists.require_whole(test)

    return Dataset(
        info=replace(INFO, num_train=len(train.names), num_test=len(test.names)),
        train_images=train.files(),
        test_images=test.files(),
        test_labels=test.labels,
        label_sets={"noisy": train.labels},
        fingerprint=image_lists.list_fingerprint(
            (train.names, train.labels), (val.names, val.labels), (test.names, test.labels)
        ),
        warnings=warnings,
        scored={"clean_val": (val.files(), val.labels)},
    )


def _table(path: Path) -> dict[str, int]:
    """Read key -> label. Keys hold commas.

    Raises: DataError for a key with two labels.
    """
    listed = image_lists.read_list(path, INFO.num_classes)
    table: dict[str, tuple[int, int]] = {}
    for name, label, line in zip(listed.names, listed.labels, listed.lines, strict=True):
        # A key may be listed twice with the same label.
        other, first = table.setdefault(_key(name), (int(label), line))
        if other != label:
            raise DataError(
                f"{path}:{line}: {name} has label {label}, and {other} in line {first}; keep one"
            )
    return {key: label for key, (label, _) in table.items()}


def _part(list_file: Path, table_file: Path, table: dict[str, int], root: Path) -> ImageList:
    """Read a list of keys, and look up their labels in the table."""
    names, labels, lines = [], [], []
    for number, line in enumerate(image_lists.read_lines(list_file), 1):
        key = _key(line.strip())
        if not key:
            continue
        if key not in table:
            raise DataError(f"{list_file}:{number}: {line[:80]!r} has no label in {table_file}")
        names.append(key)
        labels.append(table[key])
        lines.append(number)
    if not names:
        raise DataError(f"{list_file}: holds no key")
    return ImageList(list_file, names, np.array(labels, np.int64), lines, root)


def _key(name: str) -> str:
    """Return a key without images/, which some copies leave out: images/2/26/FILE.jpg."""
    return name.removeprefix("images/")
