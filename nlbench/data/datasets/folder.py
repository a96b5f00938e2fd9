"""A folder of your own images: class folders, CSV lists, or Hugging Face parquet files."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.cache import file_state
from nlbench.data.formats import image_lists
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing, did_you_mean
from nlbench.files import short_hash

INFO = Info(
    name="folder",
    title="a folder of your own",
    num_classes=0,
    num_train=0,
    num_test=0,
    shape=(),
    label_sets=("given",),  # and "clean", where the lists have a column clean_label
    mean=image_lists.IMAGENET_MEAN,
    std=image_lists.IMAGENET_STD,
    located_by="suite",
)
SOURCES: tuple[Source, ...] = ()
LAYOUTS = "train/CLASS/*.jpg or train.csv (path,label[,clean_label]) or train*.parquet, and the same for test"
WHERE = "images of your own, of which a suite says where they lie: datasets: [{name: folder, path: my_images}]"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_COLUMNS = ("path", "label", "clean_label")
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label", "noisy_label")


@dataclass(frozen=True)
class Part:
    """The training or the test images as they are listed: names relative to `root`, labels as text."""

    root: Path
    names: list[str]
    labels: list[str]
    clean: list[str]  # empty where unknown
    source: Path  # the list, or the folder
    lines: list[int]  # in the list, from 1; of a folder 0


def find(data_dir: Path) -> Found:
    """Nothing: a suite says where each of them is."""
    return Found(paths=(), looked=(), missing=(WHERE, f"a folder must hold {LAYOUTS}"))


def load(places: Places, seed: int) -> Dataset:
    """Read the folder `places.data_dir`; nothing depends on `seed`.

    A class is a folder's name or a label's text; classes are numbered in their order, integers as numbers. Test images'
    column clean_label, or else their labels, are taken as true. Training images that are listed but not there are left
    out and counted in a warning.

    Raises: DataMissing when a part is not there; DataError, naming file and line.
    """
    path = places.data_dir
    if not path.is_dir():
        raise DataMissing(f"{path}: no such folder; it must hold {LAYOUTS}")
    return _cached_read(places, _state(path))


def _state(path: Path) -> tuple[tuple[str, int], ...]:
    """Changes when a file or a class comes or goes; a folder's time does so."""
    inner = [path, *(path / part for part in ("train", "test", "data") if (path / part).is_dir())]
    entries = [entry for folder in inner for entry in folder.iterdir()]
    return tuple(sorted((str(entry), entry.stat().st_mtime_ns) for entry in entries if entry.exists()))


@functools.lru_cache(maxsize=8)
def _cached_read(places: Places, state: tuple[tuple[str, int], ...]) -> Dataset:
    path = places.data_dir
    train, test = (_part(path, name, places.cache_dir) for name in ("train", "test"))
    classes = _classes(train.labels + train.clean)
    number = {name: i for i, name in enumerate(classes)}
    true = test.clean or test.labels
    for label, line in zip(true, test.lines, strict=True):
        if label not in number:
            known = ", ".join(classes[:20])
            hint = did_you_mean(label, classes)
            raise DataError(
                f"{image_lists.at(test.source, line)}: no training image has the class {label!r}. "
                f"There are: {known}.{hint}"
            )
    if len(classes) < 2:
        raise DataError(f"{train.source}: holds one class, {', '.join(classes)}; at least two are needed")
    kept, warnings = image_lists.usable(train.root, train.names, train.source, train.lines)
    image_lists.require_whole(test.root, test.names, test.source, test.lines)
    _require_apart(train, test)

    def numbers(labels: list[str]) -> np.ndarray:
        return np.array([number[label] for label in labels], np.int64)

    names = [name for name, keep in zip(train.names, kept, strict=True) if keep]
    label_sets = {"given": numbers(train.labels)[kept]}
    if train.clean:
        label_sets["clean"] = numbers(train.clean)[kept]
    test_labels = numbers(true)
    return Dataset(
        info=replace(
            INFO,
            name=f"folder:{path.name}",
            title=path.name,
            num_classes=len(classes),
            num_train=len(names),
            num_test=len(test.names),
            label_sets=tuple(label_sets),
        ),
        train_images=image_lists.image_files(train.root, names),
        test_images=image_lists.image_files(test.root, test.names),
        test_labels=test_labels,
        label_sets=label_sets,
        fingerprint=image_lists.list_fingerprint(
            (classes, label_sets.get("clean", np.empty(0, np.int64))),
            (names, label_sets["given"]),
            (test.names, test_labels),
        ),
        warnings=warnings,
    )


def _require_apart(train: Part, test: Part) -> None:
    """Raises DataError where a file is listed in both parts. A copy under another name is not found."""
    places = {os.path.join(train.root, name): line for name, line in zip(train.names, train.lines, strict=True)}
    for name, line in zip(test.names, test.lines, strict=True):
        if (place := os.path.join(test.root, name)) in places:
            first = image_lists.at(train.source, places[place])
            raise DataError(
                f"{image_lists.at(test.source, line)}: {place} is a training image too ({first}); "
                f"nothing may be trained on and tested with"
            )


def _classes(labels: list[str]) -> list[str]:
    found = set(labels)
    if all(label.isdecimal() for label in found):
        return sorted(found, key=lambda label: (int(label), label))  # 1 and 01 are two
    return sorted(found)


def _part(path: Path, name: str, cache_dir: Path) -> Part:
    parquet = sorted([*path.glob(f"{name}*.parquet"), *path.glob(f"data/{name}*.parquet")])
    if (path / f"{name}.csv").is_file():
        part = _csv(path / f"{name}.csv")
    elif (path / name).is_dir():
        part = _class_folders(path / name)
    elif parquet:
        part = _parquet(parquet, cache_dir)
    else:
        raise DataMissing(f"{path}: no {name} images there; it must hold {LAYOUTS}")
    if not part.names:
        raise DataError(f"{part.source}: holds no images ({', '.join(_SUFFIXES)})")
    return part


def _class_folders(folder: Path) -> Part:
    """CLASS/FILE, also in folders inside a class's; what begins with a dot is some tool's."""
    names, labels = [], []
    for label in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."):
        for inner, folders, files in os.walk(folder / label):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            own = [file for file in sorted(files) if file.lower().endswith(_SUFFIXES) and file[0] != "."]
            names += [os.path.relpath(os.path.join(inner, file), folder) for file in own]
            labels += [label] * len(own)
    return Part(folder, names, labels, [], folder, [0] * len(names))


def _csv(path: Path) -> Part:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            for needed in _COLUMNS[:2]:
                if needed not in columns:
                    hint = did_you_mean(needed, columns)
                    raise DataError(
                        f"{path}:1: no column {needed!r}; the first line must be path,label[,clean_label].{hint}"
                    )
            rows = [(row, reader.line_num) for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: cannot be read as CSV ({error})") from None
    known = "clean_label" in columns
    seen: dict[str, int] = {}
    for row, line in rows:
        if None in row:
            raise DataError(f"{path}:{line}: more values than columns; put a path with a comma in it between quotes")
        for column in _COLUMNS[: 3 if known else 2]:
            if not (row[column] or "").strip():
                raise DataError(f"{path}:{line}: {column} is empty")
        if (other := seen.setdefault(os.path.normpath(row["path"].strip()), line)) != line:
            raise DataError(f"{path}:{line}: {row['path']} stands in line {other} already; an image has one label")
    names = [os.path.normpath(row["path"].strip()) for row, _ in rows]
    labels = [row["label"].strip() for row, _ in rows]
    clean = [row["clean_label"].strip() for row, _ in rows] if known else []
    return Part(path.parent, names, labels, clean, path, [line for _, line in rows])


def _parquet(files: list[Path], cache_dir: Path) -> Part:
    """Images that a parquet file holds, written out as files once, beside the decoded data of other datasets."""
    entry = cache_dir / f"folder-{file_state(files)}"
    if not (entry / "list.json").is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=cache_dir))
        try:
            rows = [_write_out(row, number, temporary) for number, row in enumerate(_parquet_rows(files))]
            (temporary / "list.json").write_text(json.dumps(rows), encoding="utf-8")
            with contextlib.suppress(OSError):  # another process was first, and reads there already
                temporary.rename(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    rows = json.loads((entry / "list.json").read_text(encoding="utf-8"))
    clean = [row[2] for row in rows] if all(len(row) > 2 for row in rows) else []
    return Part(entry, [row[0] for row in rows], [row[1] for row in rows], clean, files[0], [0] * len(rows))


def _parquet_rows(files: list[Path]) -> Iterator[tuple[bytes, list[str]]]:
    import pyarrow
    from pyarrow import parquet

    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            columns = opened.schema_arrow.names
            image = next((c for c in _IMAGE_COLUMNS if c in columns), None)
            label = next((c for c in _LABEL_COLUMNS if c in columns), None)
            if image is None or label is None:
                raise DataError(f"{file}: needs a column image and a column label, has {', '.join(columns)}")
            wanted = [image, label, *(["clean_label"] if "clean_label" in columns else [])]
            names = _class_names(opened.schema_arrow, label)
            batches = opened.iter_batches(batch_size=256, columns=wanted)
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                content = row[image].get("bytes") if isinstance(row[image], dict) else row[image]
                values = [row[column] for column in wanted[1:]]
                if not isinstance(content, bytes) or None in values or -1 in values:  # -1: Hugging Face's for none
                    raise DataError(f"{file}: row {number} (from 0) is without image bytes or without a label")
                yield content, [names.get(value, str(value)) for value in values]
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as parquet ({str(error).splitlines()[0]})") from error


def _class_names(schema: Any, label: str) -> dict[Any, str]:
    """Hugging Face keeps the names of the classes in the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return dict(enumerate(features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return {}


def _write_out(row: tuple[bytes, list[str]], number: int, folder: Path) -> list[str]:
    """Its name holds a hash of the image, so that the fingerprint, which is of names, knows other images."""
    content, labels = row
    name = f"{number // 1000:04}/{number:07}-{short_hash(content)}"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return [name, *labels]
