"""Clothing1M (Xiao et al., CVPR 2015): a million images of clothes, labelled by the text of the shops around them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.formats import image_lists
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.errors import DataError

HOME = "https://github.com/Cysu/noisy_label"
INFO = Info(
    name="clothing1m",
    title="Clothing1M",
    num_classes=14,
    num_train=0,
    num_test=0,
    shape=(),
    label_sets=("noisy",),
    mean=(0.6959, 0.6537, 0.6371),
    std=(0.3113, 0.3192, 0.3214),
    estimated_noise_rate=0.385,  # of the dataset's authors, as later papers quote it
)
LISTS = {"train": "noisy_train_key_list.txt", "val": "clean_val_key_list.txt", "test": "clean_test_key_list.txt"}
TABLES = {"noisy": "noisy_label_kv.txt", "clean": "clean_label_kv.txt"}
SOURCES = tuple(
    Source(
        file=file,
        home=HOME,
        goes_to=f"clothing1m/{file}",
        licence="by e-mail to the dataset's authors, who send a link; not to be passed on",
    )
    for file in (*LISTS.values(), *TABLES.values(), "images")
)
_PLACES = ("clothing1m", "Clothing1M", "clothing1M", "")
_ANNOTATIONS = ("", "annotations", "label", "images")  # where codes expect the lists


def find(data_dir: Path) -> Found:
    """The lists in the folder, in annotations/, label/ or images/; the images in images/, or 0 to 9 there."""
    looked = tuple(data_dir / place for place in _PLACES)
    best: Found | None = None
    for place in looked:
        paths, missing = [], []
        for file in (*LISTS.values(), *TABLES.values()):
            path = next((p for sub in _ANNOTATIONS if (p := place / sub / file).is_file()), None)
            paths += [path] if path else []
            missing += [] if path else [file]
        images = place / "images"
        if not images.is_dir() and any((place / str(digit)).is_dir() for digit in range(10)):
            images = place
        missing += [] if images.is_dir() else ["images"]
        if best is None or len(missing) < len(best.missing):
            best = Found((*paths, images), looked, tuple(missing), tuple(missing))
    assert best is not None
    return best


def load(places: Places, seed: int) -> Dataset:
    """The noisy training images, the clean validation and test images; nothing depends on `seed`.

    The key lists alone say what belongs to which part: an image may have a noisy and a clean label. Training images
    that are listed but not there are left out and counted in a warning.

    Raises: DataMissing; DataError, naming file and line.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    *lists, root = found.paths
    files = {path.name: path for path in lists}
    tables = {kind: _table(files[file]) for kind, file in TABLES.items()}
    parts = {}
    for part, file in LISTS.items():
        kind = "noisy" if part == "train" else "clean"
        names, labels, lines = _part(files[file], files[TABLES[kind]], tables[kind])
        if part == "train":
            kept, warnings = image_lists.usable(root, names, files[file], lines)
            names, labels = [name for name, keep in zip(names, kept, strict=True) if keep], labels[kept]
        else:
            image_lists.require_whole(root, names, files[file], lines)
        parts[part] = names, labels
    (train, noisy), (val, val_labels), (test, test_labels) = parts.values()
    return Dataset(
        info=replace(INFO, num_train=len(train), num_test=len(test)),
        train_images=image_lists.image_files(root, train),
        test_images=image_lists.image_files(root, test),
        test_labels=test_labels,
        label_sets={"noisy": noisy},
        fingerprint=image_lists.list_fingerprint(*parts.values()),
        warnings=warnings,
        scored={"clean_val": (image_lists.image_files(root, val), val_labels)},
    )


def _table(path: Path) -> dict[str, tuple[int, int]]:
    """Key -> (label, line). Keys hold commas."""
    table: dict[str, tuple[int, int]] = {}
    for name, label, line in zip(*image_lists.names_and_labels(path, INFO.num_classes), strict=True):
        other, first = table.setdefault(_key(name), (int(label), line))
        if other != label:
            raise DataError(f"{path}:{line}: {name} has label {label}, and {other} in line {first}; keep one")
    return table


def _part(
    list_file: Path, table_file: Path, table: dict[str, tuple[int, int]]
) -> tuple[list[str], np.ndarray, list[int]]:
    names, labels, lines = [], [], []
    for number, line in enumerate(image_lists.read_lines(list_file), 1):
        if not (key := _key(line.strip())):
            continue
        if key not in table:
            raise DataError(f"{list_file}:{number}: {line[:80]!r} has no label in {table_file}")
        names.append(key)
        labels.append(table[key][0])
        lines.append(number)
    if not names:
        raise DataError(f"{list_file}: holds no key")
    return names, np.array(labels, np.int64), lines


def _key(name: str) -> str:
    """Keys are images/2/26/FILE.jpg; some copies leave out images/."""
    return name.removeprefix("images/")
