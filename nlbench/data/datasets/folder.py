"""A folder of your own images: class folders, CSV lists, or Hugging Face parquet files."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Images, Info, Source
from nlbench.data.cache import cached_files, file_state
from nlbench.data.class_names import about_class_names
from nlbench.data.formats import image_lists, image_parquet
from nlbench.data.formats.class_folders import (
    BESIDE,
    SUFFIXES,
    class_folders,
    counted,
    in_words,
    is_of_program,
    pictures_in,
)
from nlbench.data.formats.columns import (
    is_no_class,
    path_column,
    require_classes,
)
from nlbench.data.formats.copies import groups_of_copies
from nlbench.data.formats.grey import grey_depths
from nlbench.data.formats.image_lists import ImageList
from nlbench.data.formats.image_parquet import ChosenAll
from nlbench.data.formats.not_pictures import about_not_pictures
from nlbench.data.formats.split_column import require_one_part
from nlbench.data.formats.text_table import read_table
from nlbench.data.noise.relation import unrelated
from nlbench.data.places import Places
from nlbench.data.test_share import choose_test
from nlbench.errors import DataError, DataMissing, did_you_mean
from nlbench.files import short_hash, writing

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
    columns=("image", "label", "clean_label"),
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
CHECK = "`nlbench data check FOLDER` decodes its pictures, and says what would be read"
_PARTS = ("train", "test")
# In place of a true label that nobody knows.
UNKNOWN = -1
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".xls", ".ods")
_VALIDATION = ("val", "valid", "validation", "dev", "eval")


# ---- The listed images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The training or the test images as they are listed, with labels as text.

    Attributes:
        source: the list, or the folder that was listed.
        root: the folder that the names are relative to.
        clean: true labels, "" for an image whose label is unknown; empty where all are.
        lines: the line of each image in the list, from 1; 0 in a folder.
        notes: what was left out, in words.
    """

    source: Path
    root: Path
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    clean: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, clean: str | None, line: int = 0) -> None:
        """Append one image."""
        self.names.append(name)
        self.labels.append(composed(label))
        self.lines.append(line)
        if clean is not None:
            self.clean.append("" if is_no_class(clean) else composed(clean))

    def select(self, mask: np.ndarray) -> Part:
        """Return the images where `mask` (N,) bool is true, without the notes."""
        part = Part(self.source, self.root)
        for i in np.flatnonzero(mask):
            clean = self.clean[i] if self.clean else None
            part.add(self.names[i], self.labels[i], clean, self.lines[i])
        return part

    def numbered(self, labels: np.ndarray) -> ImageList:
        """Return the images under labels that are numbers."""
        return ImageList(self.source, self.names, labels, self.lines, self.root)


def composed(label: str) -> str:
    """Return a label with composed accents. Some systems write the e and the accent apart."""
    return unicodedata.normalize("NFC", label)


# ---- Reading the folder --------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Find nothing: a suite names the folder."""
    return Found(paths=(), looked=(), missing=(WHERE, f"a folder must hold {LAYOUTS}", CHECK))


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
    train, test = _both_parts(places)
    # True labels that may select an epoch; a suite asks for them.
    held = [_held_part(places)] if places.clean_val else []
    name = places.data_dir.name
    info = replace(INFO, name=f"folder:{name}", title=name)
    data = as_dataset(train, test, held, info, places.cache_dir)

    paths = [os.path.join(part.root, name) for part in (train, test, *held) for name in part.names]
    others = _other_parts(places, train, test, *held)
    unlisted = _unlisted(places.data_dir, paths, train, test, *held)
    return replace(data, warnings=(*data.warnings, *others, *unlisted))


def as_dataset(
    train: Part,
    test: Part,
    held: Sequence[Part],
    info: Info,
    cache_dir: Path,
    names: Sequence[str] = (),
) -> Dataset:
    """Return the dataset of listed images, after checking that their parts fit together.

    Args:
        held: a validation part, if there is one.
        info: name and title; the rest is counted here.
        names: the classes in their order; those of the labels, sorted, where empty.
    Raises: DataError, naming file and line.
    """
    # ---- Classes as numbers ----------------------------------------------------------------------
    # A class may occur among the true labels alone.
    for part in (train, test, *held):
        part.clean[:] = _as_whole_numbers(part.clean, train.labels)
    known = [label for label in train.clean if label]
    classes = list(names) or _classes(train.labels + known)
    if len(classes) < 2:
        message = f"{train.source}: holds one class, {', '.join(classes)}; at least two are needed"
        raise DataError("\n".join([message, *train.notes]))
    for part in (test, *held):
        _require_true_labels(part)
        _require_known(part, classes, train.notes)
    number = {name: i for i, name in enumerate(classes)}

    def numbers(labels: Sequence[str]) -> np.ndarray:
        return np.array([number[label] for label in labels], np.int64)

    # ---- Which images are there ------------------------------------------------------------------
    train_list = train.numbered(numbers(train.labels))
    test_list = test.numbered(numbers(test.clean or test.labels))
    kept, absent = image_lists.usable(train_list)
    held_lists = [part.numbered(numbers(part.clean or part.labels)) for part in held]
    for images in (test_list, *held_lists):
        image_lists.require_whole(images)
    for part in (test, *held):
        _require_apart(train, part, "training")
    for part in held:
        _require_apart(test, part, "test")

    train_list = train_list.select(kept)
    label_sets = {"given": train_list.labels}
    number[""] = UNKNOWN
    partly_clean = None
    if known and len(known) < len(train.clean):
        partly_clean = numbers(train.clean)[kept]
    elif known:
        label_sets["clean"] = numbers(train.clean)[kept]
    clean = label_sets.get("clean", partly_clean)

    # ---- The pictures ----------------------------------------------------------------------------
    lists = {"training": train_list, "test": test_list}
    if held_lists:
        lists["validation"] = held_lists[0]
    paths = [os.path.join(part.root, name) for part in lists.values() for name in part.names]
    grey = grey_depths(paths, cache_dir)
    bits = grey.bits
    scored: dict[str, tuple[Images, np.ndarray]] = {}
    for images in held_lists:
        scored["clean_val"] = replace(images.files(), grey_bits=bits), images.labels

    # ---- The dataset -----------------------------------------------------------------------------
    info = replace(
        info,
        num_classes=len(classes),
        num_train=len(train_list.names),
        num_test=len(test_list.names),
        label_sets=tuple(label_sets),
        partly_clean=partly_clean is not None,
        class_names=tuple(classes),
    )
    return Dataset(
        info=info,
        train_images=replace(train_list.files(), grey_bits=bits),
        test_images=replace(test_list.files(), grey_bits=bits),
        test_labels=test_list.labels,
        label_sets=label_sets,
        partly_clean=partly_clean,
        scored=scored,
        fingerprint=image_lists.list_fingerprint(
            (classes, np.empty(0, np.int64) if clean is None else clean),
            (train_list.names, train_list.labels),
            (test_list.names, test_list.labels),
            *((images.names, images.labels) for images in held_lists),
        ),
        warnings=(
            *train.notes,
            *test.notes,
            *(note for part in held for note in part.notes),
            *_about_classes(classes, train_list, test_list),
            *_about_labels(label_sets, len(classes), train.source),
            *absent,
            *about_not_pictures(paths, cache_dir),
            *grey.notes(),
            *_about_copies(lists, groups_of_copies(paths, cache_dir)),
        ),
    )


def _classes(labels: Sequence[str]) -> list[str]:
    """Return the classes in order. Integers are ordered as numbers; 1 and 01 are two classes."""
    found = set(labels)
    # int() refuses thousands of digits.
    if all(label.isdecimal() and len(label) < 1000 for label in found):
        return sorted(found, key=lambda label: (int(label), label))
    return sorted(found)


def _as_whole_numbers(clean: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return true labels with 1.0 as 1, if the given labels are whole numbers.

    pandas writes a column of numbers in this way when some of them are missing.
    """
    if not all(label.isdecimal() for label in given):
        return list(clean)
    whole = []
    for label in clean:
        number = label.removesuffix(".0")
        whole.append(number if number.isdecimal() else label)
    return whole


def _require_true_labels(test: Part) -> None:
    """Raise DataError for a test image without a true label where others have one."""
    if "" not in test.clean:
        return
    first, count = test.clean.index(""), test.clean.count("")
    raise DataError(
        f"{image_lists.at(test.source, test.lines[first])}: the true label of a test image is "
        f"empty (the first of {count} of {len(test.names)}); give it, take the image out, or "
        "remove the column, so that label is taken as true"
    )


def _require_known(test: Part, classes: Sequence[str], notes: Sequence[str]) -> None:
    """Raise DataError for a test image of a class that no training image has.

    Args:
        notes: what is to be said about the training part.
    """
    known = set(classes)
    labels = test.clean or test.labels
    for label, line in zip(labels, test.lines, strict=True):
        if label not in known:
            floats = ""
            if f"{label}.0" in known or label.removesuffix(".0") in known:
                floats = (
                    " pandas writes whole numbers as 0.0 and 1.0 where cells of the column were "
                    "empty: write them in both parts as whole numbers, 0 and 1."
                )
            wrong = sum(other not in known for other in labels)
            more = f" (the first of {wrong} of {len(labels)} images)" if wrong > 1 else ""
            message = (
                f"{image_lists.at(test.source, line)}: no training image has the class {label!r}"
                f"{more}. There are: {', '.join(classes[:20])}."
                f"{floats or did_you_mean(label, classes)}"
            )
            # For example that the classes lie a folder deeper.
            raise DataError("\n".join([message, *notes, *test.notes]))


def _about_labels(labels: Mapping[str, np.ndarray], C: int, source: Path) -> list[str]:
    """Say so when the given labels have nothing to do with the true ones."""
    if "clean" not in labels:
        return []
    found = unrelated(labels["clean"], labels["given"], C)
    return [f"{source}: {found}: do both columns belong to these images?"] if found else []


def _about_classes(classes: Sequence[str], train: ImageList, test: ImageList) -> list[str]:
    """Say which classes look like one class, and which have no image in a part."""
    notes = [f"{train.source}: {note}" for note in about_class_names(classes)]
    for name in classes:
        if is_no_class(name):
            notes.append(f"{train.source}: {name!r} is taken for a class; is it a missing label?")

    # As many classes as this has a column of numbers that are measured, or of names of files.
    if len(classes) > 10 and 2 * len(classes) > len(train.names):
        notes.append(
            f"{train.source}: {len(classes)} classes for {counted(len(train.names), 'image')}; are "
            f"these labels?"
        )
    for part, images in (("training", train), ("test", test)):
        there = set(images.labels.tolist())
        absent = [name for i, name in enumerate(classes) if i not in there]
        if absent:
            notes.append(
                f"{images.source}: no {part} image has the class {_shortened(absent)} "
                f"({len(absent)} of {len(classes)} classes)"
            )
    return notes


def _about_copies(lists: Mapping[str, ImageList], groups: Sequence[Sequence[int]]) -> list[str]:
    """Say which images have the same bytes as a training image.

    Args:
        lists: the parts by their names, the training part first.
        groups: positions of images with the same bytes, counted over all parts.
    """
    names = [(part, i) for part, images in lists.items() for i in range(len(images.names))]
    train = lists["training"]
    shared: dict[str, list[str]] = {}
    again, conflicts = dict.fromkeys(lists, 0), dict.fromkeys(lists, 0)
    for group in groups:
        inside = [names[i][1] for i in group if names[i][0] == "training"]
        for part, images in lists.items():
            own = [names[i][1] for i in group if names[i][0] == part]
            again[part] += max(len(own) - 1, 0)
            conflicts[part] += len({int(images.labels[i]) for i in own}) > 1
        for part, i in (names[place] for place in group):
            if inside and part != "training":
                one, other = lists[part].names[i], train.names[inside[0]]
                pair = f"{lists[part].root / one} and {train.root / other}"
                shared.setdefault(part, []).append(pair)

    notes = []
    for part, pairs in shared.items():
        what = counted(len(lists[part].names), f"{part} image")
        notes.append(
            f"{len(pairs)} of {what} with the bytes of a training image, the first: {pairs[0]}. "
            f"Take them out of one part: every method looks better than it is"
        )
    for part, images in lists.items():
        if again[part]:
            what = counted(len(images.names), f"{part} image")
            both = counted(conflicts[part], "picture")
            more = f"; {both} with two labels or more" if conflicts[part] else ""
            notes.append(f"{again[part]} of {what} with the bytes of another one{more}")
    return notes


def _require_apart(train: Part, test: Part, kind: str) -> None:
    """Raise DataError for a file that both parts list. A copy under another name is not found.

    Args:
        kind: what the first part is for, in words.
    """
    train_lines = {}
    for name, line in zip(train.names, train.lines, strict=True):
        train_lines[os.path.join(train.root, name)] = line

    for name, line in zip(test.names, test.lines, strict=True):
        place = os.path.join(test.root, name)
        if place in train_lines:
            first = image_lists.at(train.source, train_lines[place])
            raise DataError(
                f"{image_lists.at(test.source, line)}: {place} is a {kind} image too ({first}); "
                f"an image may be in one part only"
            )


# ---- A test part made from one folder ------------------------------------------------------------


def _both_parts(places: Places) -> tuple[Part, Part]:
    """Read both parts, or part one folder as the suite's `test_share` says."""
    if not places.test_share:
        return _part(places, "train"), _part(places, "test")

    path = places.data_dir
    if _has_part(path, "test"):
        raise DataError(
            f"{path}: has a test part, and test_share makes one of a folder without; leave out "
            f"test_share"
        )
    whole = _part(places, "train") if _has_part(path, "train") else _class_folders(path)
    if not whole.names:
        raise DataError(_why_empty(whole))
    return share_of(whole, places)


def share_of(whole: Part, places: Places) -> tuple[Part, Part]:
    """Part one list of images into a training and a test part, as the suite's `test_share` says.

    Raises: DataError where there are too few images.
    """
    listed = whole.numbered(np.zeros(len(whole.names), np.int64))
    kept, absent = image_lists.usable(listed)
    whole = whole.select(kept)
    paths = [os.path.join(whole.root, name) for name in whole.names]
    copies = groups_of_copies(paths, places.cache_dir)

    # Tested on true labels where some are known, and else on the given ones.
    trusted = whole.clean if any(whole.clean) else whole.labels
    chosen = choose_test(trusted, copies, places.test_share)
    if not chosen.any():
        raise DataError(f"{whole.source}: too few images for test_share {places.test_share:g}")
    train, test = whole.select(~chosen), whole.select(chosen)
    train.notes.extend([*whole.notes, *absent])
    if trusted is whole.labels:
        train.notes.append(
            f"{whole.source}: the test images come from the same folder (test_share), so their "
            f"labels may be as wrong as those of the training images"
        )
    return train, test


def _held_part(places: Places) -> Part:
    """Read the part that the suite's `clean_val` names."""
    name = places.clean_val
    if name in _PARTS or "/" in name or name.startswith("."):
        raise DataError(
            f"{places.data_dir}: clean_val {name!r} must be the name of another part than train "
            f"and test, for example val, which lies in val/ or is listed in val.csv"
        )
    if not _has_part(places.data_dir, name):
        raise DataMissing(
            f"{places.data_dir}: clean_val is {name!r}, and there is neither {name}/ nor {name}.csv"
        )
    return _part(places, name)


def _has_part(path: Path, name: str) -> bool:
    places = (path / f"{name}.csv", path / name)
    return any(place.exists() for place in places) or name in image_parquet.all_splits(path)


# ---- The forms of a part -------------------------------------------------------------------------


def _part(places: Places, name: str) -> Part:
    """Read "train" or "test" in the first form that is there."""
    path = places.data_dir
    parquet = image_parquet.all_splits(path).get(name, [])
    # Other parts need not have the columns of the training part.
    chosen = chosen_columns(places, must=name == "train")
    if (path / f"{name}.csv").is_file():
        part = _csv(path / f"{name}.csv", chosen, name)
    elif (path / name / "metadata.csv").is_file():
        part = _metadata(path / name, chosen, name)
    elif (path / name).is_dir():
        _require_no_other_labels(path / name)
        part = _class_folders(path / name)
    elif parquet:
        files = image_parquet.require_one_copy(parquet, name)
        part = from_parquet(files, chosen, places.cache_dir, name)
    else:
        raise DataMissing(
            f"{path}: no {name} images there; it must hold {LAYOUTS}{_hint(path, name)}"
        )

    if not part.names:
        raise DataError(_why_empty(part))
    if part.source == path / f"{name}.csv" and (path / name).is_dir():
        inside = any(listed.startswith(f"{name}/") for listed in part.names)
        count = 0 if inside else pictures_in(path / name)
        if count:
            what = counted(count, "picture")
            part.notes.append(f"{path}: {name}/ ({what}) is not read, because {name}.csv is")
    if parquet and part.source.suffix != ".parquet":
        part.notes.append(f"{path}: {parquet[0].name} is not read, because {part.source.name} is")
    return part


def chosen_columns(places: Places, *, must: bool) -> ChosenAll:
    """Return the columns that a suite names. Those of the training part must be there."""
    return ChosenAll(places.label_column, places.clean_column, must=must, image=places.image_column)


def _require_no_other_labels(folder: Path) -> None:
    """Raise DataError for labels in a form that is not read."""
    for name in ("metadata.jsonl", "metadata.parquet", "metadata.json"):
        if (folder / name).is_file():
            raise DataError(
                f"{folder / name}: is not read; save it as metadata.csv with the columns "
                f"file_name,label, or remove it if the folders in {folder.name}/ are the classes"
            )


def _why_empty(part: Part) -> str:
    """Say why a part holds no images."""
    message = f"{part.source}: holds no images ({', '.join(SUFFIXES)})"
    if part.source.is_dir():
        message = f"{part.source}: holds no images in class folders ({', '.join(SUFFIXES)})"
        files = sorted(path.name for path in part.source.glob("*.parquet"))
        if files:
            shard = f"{part.source.name}-00000-of-{len(files):05}.parquet"
            message += f"; put {files[0]} as {shard} into {part.source.parent / 'data'}"
    return "\n".join([message, *part.notes])


def _hint(path: Path, part: str) -> str:
    """Say what there is in a folder that lacks a part."""
    folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    folders = [name for name in folders if not is_of_program(name)]
    lists = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _TABLES)
    splits = [name for name in image_parquet.all_splits(path) if name not in _PARTS]
    # Where the other part is there, pictures of lists may lie in such folders.
    alone = not any(_has_part(path, name) for name in _PARTS)
    for name in folders if alone else ():
        if (path / name / part).is_dir() or (path / name / f"{part}.csv").is_file():
            return f". There is {name}/{part}: name the folder {path / name} in the suite"
    for file in sorted(path.glob(f"*/{part}*.parquet")) if alone else ():
        return f". There is {file.relative_to(path)}: put such files into {path / 'data'}"
    for name in (*folders, *splits, *lists):
        if name.lower().startswith(part):
            return f". There is {name}: call it {part}{'.csv' * (name in lists)}, if it is that"
    if part == "test":
        for name in (*folders, *splits, *lists):
            plain = name.lower().removesuffix(".csv")
            if plain in (*_VALIDATION, "train-val", "holdout"):
                return (
                    f". There is {name}: call it test{'.csv' * (name in lists)}, if its labels are "
                    f"to be tested on"
                )
    if part == "test" and _has_part(path, "train"):
        return (
            ". `test_share: 0.2` in the suite's dataset entry takes a fifth of the training images "
            "to test on"
        )

    with_pictures = [name for name in folders if pictures_in(path / name, 1)]
    if len(with_pictures) > 1:
        return (
            f". If {_shortened(with_pictures)} are the classes: `test_share: 0.2` in the suite's "
            f"dataset entry takes a fifth of the images to test on"
        )
    there = [*folders, *lists, *splits]
    return f". There is {_shortened(there)}" if there else ""


def _other_parts(places: Places, *parts: Part) -> list[str]:
    """Say which parts of the folder are not read, such as val/ beside train/ and test/."""
    path = places.data_dir
    used = {part.source.name for part in parts}
    for part in parts:
        if part.root == path:
            used |= {name.split("/")[0] for name in part.names}

    notes = []
    for split, files in image_parquet.all_splits(path).items():
        if split not in (*_PARTS, places.clean_val):
            notes.append(_not_read(path, split, counted(len(files), "parquet file")))
    for entry in sorted(path.iterdir()):
        if entry.name in used or entry.name in _PARTS or is_of_program(entry.name):
            continue
        if entry.is_dir() and entry.name != "data":
            count = pictures_in(entry)
            if count:
                notes.append(_not_read(path, f"{entry.name}/", counted(count, "picture")))
        elif entry.suffix.lower() in _TABLES and not entry.stem.startswith("dataset_info"):
            notes.append(_not_read(path, entry.name, "a list"))
    return notes


def _unlisted(path: Path, listed: Sequence[str], *parts: Part) -> list[str]:
    """Say which pictures lie among those that lists name, and are named by no list.

    Args:
        listed: the pictures of all parts.
    """
    lists = [part for part in parts if part.source.suffix == ".csv" and part.root == path]
    tops: set[str] = set()
    for part in lists:
        tops |= {name.split("/")[0] for name in part.names if "/" in name}
    known = {os.path.normpath(name) for name in listed}
    for part in parts:
        known |= {os.path.normpath(os.path.join(part.root, name)) for name in part.names}

    there = [str(entry) for entry in path.iterdir() if lists and entry.is_file()]
    for top in sorted(tops - {"", ".."}):
        for folder, folders, files in os.walk(path / top):
            folders[:] = [name for name in folders if not is_of_program(name)]
            there += [os.path.join(folder, name) for name in files]
    left = []
    for name in sorted(there):
        hidden = os.path.basename(name).startswith(".")
        if name.lower().endswith(SUFFIXES) and not hidden and name not in known:
            left.append(os.path.relpath(name, path))
    if not left:
        return []
    what = counted(len(left), "picture")
    return [f"{path}: left out {what} that no list names: {_shortened(left)}"]


def _not_read(path: Path, name: str, what: str) -> str:
    message = f"{path}: {name} ({what}) is not read as a part; only train and test are"
    if name.lower().rstrip("/").removesuffix(".csv") in _VALIDATION:
        message += (
            ". Validation images are taken out of the training part (the protocol's val_fraction): "
            f"move those of {name} into train or test, or remove them. If their labels are true, "
            f"`clean_val: {name.rstrip('/').removesuffix('.csv')}` in the suite's dataset entry "
            "selects an epoch by them"
        )
    return message


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _class_folders(folder: Path) -> Part:
    """List CLASS/FILE, also in folders inside a class's."""
    listing = class_folders(folder)
    part = Part(folder, folder)
    for name, label in zip(listing.names, listing.labels, strict=True):
        part.add(name, label, None)

    part.notes.extend(in_words(folder, listing.left_out))
    if listing.levels:
        outer = _shortened(list(listing.levels))
        inner = dict.fromkeys(name for levels in listing.levels.values() for name in levels)
        part.notes.append(
            f"{folder}: the folders {outer} are the classes, and not the folders "
            f"{_shortened(list(inner))} inside them; if these are meant, move them up into "
            f"{folder.name}/"
        )
    return part


def _metadata(folder: Path, chosen: ChosenAll, name: str) -> Part:
    """Read the labels of Hugging Face's metadata.csv, which lies beside the pictures."""
    part = _csv(folder / "metadata.csv", chosen, name)
    tops = {name.split("/")[0] for name in part.names if "/" in name}
    in_folders = [name.split("/")[0] for name in part.names]
    if tops and in_folders != part.labels:
        part.notes.append(
            f"{folder}: the labels are those of metadata.csv, and not the folders "
            f"{_shortened(sorted(tops))}; without metadata.csv these would be the classes"
        )
    there = class_folders(folder)
    beside = [name for name in there.left_out.get(BESIDE, []) if name not in part.names]
    unlisted = len(set(there.names) - set(part.names)) + len(beside)
    if unlisted:
        what = counted(unlisted, "picture")
        part.notes.append(f"{folder}: left out {what} that metadata.csv does not list")
    return part


# ---- CSV lists -----------------------------------------------------------------------------------


def _csv(path: Path, chosen: ChosenAll, name_of_part: str) -> Part:
    """Read a list with columns for the path, the given label and possibly the true label."""
    table = read_table(path)
    where = f"{path}:1"
    place = _path_column(table.names, chosen, where)
    found = chosen.among(table.names, where)

    cells = {"path": table.column(place), "label": table.column(found.given)}
    if found.clean:
        cells["clean_label"] = table.column(found.clean)
    for column, values in cells.items():
        for value, line in zip(values, table.lines, strict=True):
            # A true label may be unknown.
            if not value and column == "path":
                raise DataError(f"{path}:{line}: {column} is empty")
        if column == "label":
            require_classes(values, table.lines, path, column)

    others = {}
    # Not by name, because two columns that are not read may have the same one.
    for i, column in enumerate(table.names):
        if column not in (place, found.given, found.clean):
            others[column] = [row[i] for row in table.rows]
    require_one_part(others, name_of_part, path)

    part = Part(path, path.parent)
    part.notes.extend(found.notes(path))
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


def _path_column(names: Sequence[str], chosen: ChosenAll, where: str) -> str:
    """Return the column of the files: the one that a suite names, else by its name."""
    # A column may be called "", as the index that pandas writes.
    if chosen.image and chosen.image in names:
        return chosen.image
    if chosen.image and chosen.must:
        raise DataError(
            f"{where}: has no column {chosen.image!r}, only {', '.join(names)}."
            f"{did_you_mean(chosen.image, names)}"
        )
    return path_column(names, where)


# ---- Parquet files -------------------------------------------------------------------------------


def from_parquet(files: Sequence[Path], chosen: ChosenAll, cache_dir: Path, name: str) -> Part:
    """Read images from parquet files. They are written out as files once, into the cache."""
    # Version 2 refuses labels that no class name belongs to.
    # Version 3 has checksums.
    entry = cache_dir / f"folder-{file_state(files, 3)}{chosen.tag}"
    require_one_part(image_parquet.splitting_columns(files, chosen), name, files[0])
    part = Part(files[0], entry)
    part.notes.extend(image_parquet.about_columns(files[0], chosen))
    size = sum(file.stat().st_size for file in files)
    for file, label, *clean in cached_files(
        entry, lambda folder: _write_out(files, chosen, folder), size
    ):
        part.add(file, label, clean[0] if clean else None)
    # A shard without the column has no true labels.
    return part if len(part.clean) == len(part.names) else replace(part, clean=[])


def _write_out(files: Sequence[Path], chosen: ChosenAll, folder: Path) -> list[list[str]]:
    """Write each image to a file in `folder`, and return each file's name with its labels.

    A file's name holds a hash of the image. The fingerprint is made of the names, so that it
    changes when an image does.
    """
    listed = []
    for number, (content, labels) in enumerate(image_parquet.images(files, chosen)):
        name = f"{number // 1000:04}/{number:07}-{short_hash(content)}"
        # Not brought to the disk one by one, since the hash in the name tells what is whole.
        with writing(folder / name, len(content)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        listed.append([name, *labels])
    return listed
