"""A folder of your own images: class folders, CSV lists, or Hugging Face parquet files."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.cache import file_state
from nlbench.data.formats import image_lists
from nlbench.data.formats.image_lists import ImageList
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing, did_you_mean
from nlbench.files import new_folder, short_hash

if TYPE_CHECKING:
    from pyarrow import Schema

INFO = Info(
    name="folder",
    title="a folder of your own",
    num_classes=0,
    num_train=0,
    num_test=0,
    shape=(),
    # A folder whose lists have a column clean_label also has the labels "clean".
    label_sets=("given",),
    mean=image_lists.IMAGENET_MEAN,
    std=image_lists.IMAGENET_STD,
    located_by="suite",
)
SOURCES: tuple[Source, ...] = ()
LAYOUTS = (
    "train/CLASS/*.jpg or train.csv (path,label[,clean_label]) or train*.parquet, "
    "and the same for test"
)
WHERE = (
    "images of your own, of which a suite says where they lie: "
    "datasets: [{name: folder, path: my_images}]"
)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "noisy_label")

# How Hugging Face marks an example without a label.
_NO_LABEL = -1


# ---- The listed images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The training or the test images as they are listed, with labels as text.

    Attributes:
        source: the list, or the folder that was listed.
        root: the folder that the names are relative to.
        clean: true labels; empty where they are unknown.
        lines: the line of each image in the list, from 1; 0 in a folder.
    """

    source: Path
    root: Path
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    clean: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, name: str, label: str, clean: str | None, line: int = 0) -> None:
        """Append one image."""
        self.names.append(name)
        self.labels.append(label)
        self.lines.append(line)
        if clean is not None:
            self.clean.append(clean)

    def numbered(self, labels: np.ndarray) -> ImageList:
        """Return the images under labels that are numbers."""
        return ImageList(self.source, self.names, labels, self.lines, self.root)


# ---- Reading the folder --------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Find nothing: a suite names the folder."""
    return Found(paths=(), looked=(), missing=(WHERE, f"a folder must hold {LAYOUTS}"))


def load(places: Places, seed: int) -> Dataset:
    """Read the folder `places.data_dir`.

    A class is a folder's name or a label's text. Classes are numbered in their order, integers as
    numbers. The test images' column clean_label, or else their labels, are taken as true. Training
    images that are listed but not there are left out and counted in a warning.

    Raises: DataMissing when a part is not there; DataError, naming file and line.
    """
    path = places.data_dir
    if not path.is_dir():
        raise DataMissing(f"{path}: no such folder; it must hold {LAYOUTS}")
    return _read(places, _state(path))


def _state(path: Path) -> tuple[tuple[str, int], ...]:
    """Return a value that changes when a file or a class comes or goes, as a folder's time does."""
    # Reading all the images again to notice a change would take too long.
    folders = [path, *(path / part for part in ("train", "test", "data"))]
    state = []
    for folder in folders:
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.exists():
                state.append((str(entry), entry.stat().st_mtime_ns))
    return tuple(sorted(state))


# The suite's check and each seed read the same folder.
@functools.lru_cache(maxsize=8)
def _read(places: Places, state: tuple[tuple[str, int], ...]) -> Dataset:
    """Read the folder; `state` is that of its files, so that a change is noticed."""
    train, test = _part(places, "train"), _part(places, "test")

    # ---- Classes as numbers ----------------------------------------------------------------------
    # A class may occur among the true labels alone.
    classes = _classes(train.labels + train.clean)
    _require_known(test, classes)
    if len(classes) < 2:
        raise DataError(
            f"{train.source}: holds one class, {', '.join(classes)}; at least two are needed"
        )
    number = {name: i for i, name in enumerate(classes)}

    def numbers(labels: Sequence[str]) -> np.ndarray:
        return np.array([number[label] for label in labels], np.int64)

    # ---- Which images are there ------------------------------------------------------------------
    train_list = train.numbered(numbers(train.labels))
    test_list = test.numbered(numbers(test.clean or test.labels))
    kept, warnings = image_lists.usable(train_list)
    image_lists.require_whole(test_list)
    _require_apart(train, test)

    train_list = train_list.select(kept)
    label_sets = {"given": train_list.labels}
    if train.clean:
        label_sets["clean"] = numbers(train.clean)[kept]

    # ---- The dataset -----------------------------------------------------------------------------
    name = places.data_dir.name
    info = replace(
        INFO,
        name=f"folder:{name}",
        title=name,
        num_classes=len(classes),
        num_train=len(train_list.names),
        num_test=len(test_list.names),
        label_sets=tuple(label_sets),
    )
    return Dataset(
        info=info,
        train_images=train_list.files(),
        test_images=test_list.files(),
        test_labels=test_list.labels,
        label_sets=label_sets,
        fingerprint=image_lists.list_fingerprint(
            (classes, label_sets.get("clean", np.empty(0, np.int64))),
            (train_list.names, train_list.labels),
            (test_list.names, test_list.labels),
        ),
        warnings=warnings,
    )


def _classes(labels: Sequence[str]) -> list[str]:
    """Return the classes in order. Integers are ordered as numbers; 1 and 01 are two classes."""
    found = set(labels)
    if all(label.isdecimal() for label in found):
        return sorted(found, key=lambda label: (int(label), label))
    return sorted(found)


def _require_known(test: Part, classes: Sequence[str]) -> None:
    """Raise DataError for a test image of a class that no training image has."""
    known = set(classes)
    for label, line in zip(test.clean or test.labels, test.lines, strict=True):
        if label not in known:
            raise DataError(
                f"{image_lists.at(test.source, line)}: no training image has the class {label!r}. "
                f"There are: {', '.join(classes[:20])}.{did_you_mean(label, classes)}"
            )


def _require_apart(train: Part, test: Part) -> None:
    """Raise DataError for a file that both parts list. A copy under another name is not found."""
    train_lines = {}
    for name, line in zip(train.names, train.lines, strict=True):
        train_lines[os.path.join(train.root, name)] = line

    for name, line in zip(test.names, test.lines, strict=True):
        place = os.path.join(test.root, name)
        if place in train_lines:
            first = image_lists.at(train.source, train_lines[place])
            raise DataError(
                f"{image_lists.at(test.source, line)}: {place} is a training image too ({first}); "
                f"nothing may be trained on and tested with"
            )


# ---- The forms of a part -------------------------------------------------------------------------


def _part(places: Places, name: str) -> Part:
    """Read "train" or "test" in the first form that is there."""
    path = places.data_dir
    parquet = sorted([*path.glob(f"{name}*.parquet"), *path.glob(f"data/{name}*.parquet")])
    if (path / f"{name}.csv").is_file():
        part = _csv(path / f"{name}.csv")
    elif (path / name).is_dir():
        part = _class_folders(path / name)
    elif parquet:
        part = _parquet(parquet, places.cache_dir)
    else:
        raise DataMissing(f"{path}: no {name} images there; it must hold {LAYOUTS}")

    if not part.names:
        raise DataError(f"{part.source}: holds no images ({', '.join(_SUFFIXES)})")
    return part


def _class_folders(folder: Path) -> Part:
    """List CLASS/FILE, also in folders inside a class's. Hidden files belong to other programs."""
    part = Part(folder, folder)
    classes = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    for label in sorted(name for name in classes if not name.startswith(".")):
        for inner, folders, files in os.walk(folder / label):
            # os.walk goes on into the folders that are left in the list, in their order.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                    part.add(os.path.relpath(os.path.join(inner, file), folder), label, None)
    return part


# ---- CSV lists -----------------------------------------------------------------------------------


def _csv(path: Path) -> Part:
    """Read a list with the columns path, label and possibly clean_label."""
    part = Part(path, path.parent)
    line_of: dict[str, int] = {}
    for cells, line in _csv_lines(path):
        # csv.DictReader puts the values beyond its columns under None.
        if None in cells:
            raise DataError(
                f"{path}:{line}: more values than columns; "
                f"put a path with a comma in it between quotes"
            )
        for column in ("path", "label", "clean_label"):
            if column in cells and not (cells[column] or "").strip():
                raise DataError(f"{path}:{line}: {column} is empty")

        # a.jpg and ./a.jpg are one image.
        name = os.path.normpath(cells["path"].strip())
        other = line_of.setdefault(name, line)
        if other != line:
            raise DataError(
                f"{path}:{line}: {cells['path']} is in line {other} already; an image has one label"
            )
        clean = cells["clean_label"].strip() if "clean_label" in cells else None
        part.add(name, cells["label"].strip(), clean, line)
    return part


def _csv_lines(path: Path) -> list[tuple[dict[str, str], int]]:
    """Return the lines after the header as dicts, each with its number."""
    try:
        # utf-8-sig, because Excel begins its files with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for needed in ("path", "label"):
                if needed not in columns:
                    raise DataError(
                        f"{path}:1: no column {needed!r}; the first line must be "
                        f"path,label[,clean_label].{did_you_mean(needed, columns)}"
                    )
            return [(cells, reader.line_num) for cells in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        line = reader.reader.line_num
        raise DataError(f"{path}:{line}: cannot be read as CSV ({error})") from None


# ---- Parquet files -------------------------------------------------------------------------------


def _parquet(files: Sequence[Path], cache_dir: Path) -> Part:
    """Read images from parquet files. They are written out as files once, into the cache."""
    entry = cache_dir / f"folder-{file_state(files)}"
    if not (entry / "list.json").is_file():
        _write_out(files, entry)

    part = Part(files[0], entry)
    for name, label, *clean in json.loads((entry / "list.json").read_text(encoding="utf-8")):
        part.add(name, label, clean[0] if clean else None)
    # True labels count only where every image has one.
    return part if len(part.clean) == len(part.names) else replace(part, clean=[])


def _write_out(files: Sequence[Path], entry: Path) -> None:
    """Write each image to a file of the folder `entry`, and the labels to its list.json.

    A file's name holds a hash of the image. The fingerprint is made of the names, so that it
    changes when an image does.
    """
    listed = []
    with new_folder(entry) as folder:
        for number, (content, labels) in enumerate(_parquet_images(files)):
            name = f"{number // 1000:04}/{number:07}-{short_hash(content)}"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
            listed.append([name, *labels])
        (folder / "list.json").write_text(json.dumps(listed), encoding="utf-8")


def _parquet_images(files: Sequence[Path]) -> Iterator[tuple[bytes, list[str]]]:
    """Yield each image's bytes and its labels: the given one, then the true one where known."""
    import pyarrow
    from pyarrow import parquet

    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            columns = opened.schema_arrow.names
            image = _first_of(_IMAGE_COLUMNS, columns)
            label = _first_of(_LABEL_COLUMNS, columns)
            if image is None or label is None:
                raise DataError(
                    f"{file}: needs a column image and a column label, has {', '.join(columns)}"
                )
            label_columns = [label]
            if "clean_label" in columns:
                label_columns.append("clean_label")

            # Where the file names the classes, labels are numbers of them.
            class_names = _class_names(opened.schema_arrow, label)

            number = 0
            for batch in opened.iter_batches(batch_size=256, columns=[image, *label_columns]):
                for cells in batch.to_pylist():
                    content = cells[image]
                    # Hugging Face writes a path beside the bytes.
                    if isinstance(content, dict):
                        content = content.get("bytes")
                    values = [cells[column] for column in label_columns]
                    if not isinstance(content, bytes) or None in values or _NO_LABEL in values:
                        raise DataError(
                            f"{file}: row {number} (from 0) is without image bytes or without a "
                            f"label"
                        )
                    yield content, [class_names.get(value, str(value)) for value in values]
                    number += 1
        except (pyarrow.ArrowException, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise DataError(f"{file}: cannot be read as parquet ({first_line})") from error


def _first_of(wanted: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((column for column in wanted if column in columns), None)


def _class_names(schema: Schema, label: str) -> dict[object, str]:
    """Return the names of the classes, which Hugging Face keeps in the schema's metadata."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(enumerate(metadata["info"]["features"][label]["names"]))
    except (KeyError, TypeError, ValueError):
        return {}
