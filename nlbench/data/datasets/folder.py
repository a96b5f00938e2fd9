"""A folder of your own images: class folders, CSV lists, or Hugging Face parquet files."""

from __future__ import annotations

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
from nlbench.data.formats.columns import (
    label_columns,
    path_column,
    require_class,
    require_classes,
)
from nlbench.data.formats.image_lists import ImageList
from nlbench.data.formats.text_table import read_table
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

# How a user can say which column is which.
_WHICH_COLUMN = "call the given labels 'noisy_label' and the true ones 'clean_label'"


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
        class_names=tuple(classes),
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
    """Read a list with columns for the path, the given label and possibly the true label."""
    table = read_table(path)
    where = f"{path}:1"
    place = path_column(table.names, where)
    found = label_columns(table.names, where, answer=_WHICH_COLUMN)

    cells = {"path": table.column(place), "label": table.column(found.given)}
    if found.clean:
        cells["clean_label"] = table.column(found.clean)
    for column, values in cells.items():
        for value, line in zip(values, table.lines, strict=True):
            if not value:
                raise DataError(f"{path}:{line}: {column} is empty")
        if column != "path":
            require_classes(values, table.lines, path, column)

    part = Part(path, path.parent)
    line_of: dict[str, int] = {}
    for i, line in enumerate(table.lines):
        # a.jpg and ./a.jpg are one image.
        name = os.path.normpath(cells["path"][i])
        other = line_of.setdefault(name, line)
        if other != line:
            raise DataError(
                f"{path}:{line}: {cells['path'][i]} is in line {other} already; an image has one "
                f"label"
            )
        clean = cells["clean_label"][i] if found.clean else None
        part.add(name, cells["label"][i], clean, line)
    return part


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
            if image is None:
                raise DataError(
                    f"{file}: needs a column image and a column label, has {', '.join(columns)}"
                )
            found = label_columns(columns, file, answer=_WHICH_COLUMN)
            chosen = [found.given, found.clean] if found.clean else [found.given]

            # Where the file names the classes, labels are numbers of them. Names that stand with
            # one column hold for the other one, too.
            class_names = _class_names(opened.schema_arrow, found.given)

            number = 0
            for batch in opened.iter_batches(batch_size=256, columns=[image, *chosen]):
                for cells in batch.to_pylist():
                    content = cells[image]
                    # Hugging Face writes a path beside the bytes.
                    if isinstance(content, dict):
                        content = content.get("bytes")
                    where = f"{file}: row {number} (from 0)"
                    if not isinstance(content, bytes):
                        raise DataError(f"{where} is without image bytes")
                    labels = []
                    for column in chosen:
                        value = cells[column]
                        require_class(value, f"{where}: {column}")
                        labels.append(class_names.get(value, str(value)))
                    yield content, labels
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
