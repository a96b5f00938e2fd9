"""The report of `nlbench data check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nlbench.data import describe, hub, inspect
from nlbench.data.base import Dataset, ImageFiles
from nlbench.data.datasets import folder, hf
from nlbench.data.formats.class_folders import SUFFIXES, is_of_program
from nlbench.data.formats.copies import groups_of_copies
from nlbench.data.formats.frames import SUFFIXES as TABLES
from nlbench.data.places import FolderOptions, Places
from nlbench.errors import DataError, DataMissing

# Of a folder without a test part.
SHARE = 0.2

# Groups of copies that are printed.
_GROUPS_SHOWN = 20


@dataclass
class Report:
    """What was found in a folder.

    Attributes:
        lines: for standard output.
        unfit: whether the folder cannot be trained on, or holds a broken picture.
    """

    lines: list[str] = field(default_factory=list)
    unfit: bool = False


def check_folder(
    path: Path, places: Places, start: Callable[[int], Callable[[int], None]]
) -> Report:
    """Read a folder as a run would, decode every picture of it, and report what was found.

    If it cannot be read as a dataset, the pictures in it are checked nevertheless.

    Args:
        path: the folder; or hf:owner/name@revision, a dataset of the Hugging Face hub.
        start: is called with the number of pictures before they are decoded; what it returns is
            called with the number of those that were just decoded.
    """
    if hub.named(str(path)) is None and not path.is_dir():
        if path.exists():
            raise DataError(
                f"{path}: is a file. What is checked is a folder of pictures, a table "
                f"({', '.join(TABLES)}) or, with `--text COLUMN`, a table of texts"
            )
        raise DataMissing(f"{path}: no such folder")
    report = Report()
    data: Dataset | None
    try:
        data = _read(path, places, report)
    except DataError as error:
        data = None
        report.unfit = True
        report.lines += [f"cannot be used as it is: {error}", ""]

    paths = _paths(data) if data else _below(path)
    if data:
        report.lines += about_classes(data)

    if not paths:
        if data and data.warnings:
            report.lines += data.warnings
        return report
    found = inspect.pictures(paths, start(len(paths)))
    report.lines += inspect.summary(found)
    if data and isinstance(data.train_images, ImageFiles) and data.train_images.grey_bits:
        report.lines.append(f"grey of 16 bits is read as of {data.train_images.grey_bits} bits")
    broken = [picture.error for picture in found if picture.error]
    report.unfit = report.unfit or bool(broken)
    report.lines.append(f"broken: {len(broken)} of {len(found)}")
    report.lines += [f"  {error}" for error in broken]
    if broken and data and _from_parquet(data, places.cache_dir):
        report.lines.append(
            "  (pictures of parquet files lie in the cache; a file's first number is the row of "
            "the picture, from 0, over all files of its part)"
        )

    report.lines += _copies(paths, places.cache_dir)
    if data and data.warnings:
        report.lines += ["", *data.warnings]
    return report


def _read(path: Path, places: Places, report: Report) -> Dataset:
    """Read the folder; one without a test part as with a `test_share`, which the report says."""
    on_hub = hub.named(str(path))
    if on_hub is not None:
        repository, revision = on_hub
        return hf.load(places.reading(Path(repository), FolderOptions(revision=revision)), 0)
    return read_or_share(folder.load, path, places, FolderOptions(), report)


def read_or_share(
    load: Callable[[Places, int], Dataset],
    path: Path,
    places: Places,
    options: FolderOptions,
    report: Report,
) -> Dataset:
    """Read a dataset; one without a test part as with a `test_share`, which the report says.

    Raises: DataError of the first reading, where a share of it makes no dataset either.
    """
    try:
        return load(places.reading(path, options), 0)
    except DataMissing as error:
        try:
            data = load(places.reading(path, replace(options, test_share=SHARE)), 0)
        except DataError:
            raise error from None
    report.lines += [
        f"no test part: `test_share: {SHARE}` in the suite's dataset entry would make this one",
        "",
    ]
    return data


def _paths(data: Dataset) -> list[str]:
    """Return the pictures of both parts, the training part first."""
    paths = []
    for images in (data.train_images, data.test_images):
        if isinstance(images, ImageFiles):
            paths += [images.path(i) for i in range(len(images))]
    return paths


def _from_parquet(data: Dataset, cache_dir: Path) -> bool:
    images = data.train_images
    return isinstance(images, ImageFiles) and cache_dir in images.root.parents


def _below(path: Path) -> list[str]:
    """Return the files below a folder that are pictures by their name."""
    paths = []
    for inner, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_of_program(name))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                paths.append(os.path.join(inner, name))
    return paths


def about_classes(data: Dataset) -> list[str]:
    """Return a line about a dataset, and its table of classes, with an empty line after each."""
    return [describe.in_short(data), "", *class_table(data), ""]


def class_table(data: Dataset) -> list[str]:
    """Return a line for each class: its name, and its images in each part."""
    info = data.info
    columns = [["class", *info.class_names]]
    counted = {**data.label_sets, "test": data.test_labels}
    for name, labels in counted.items():
        counts = describe.class_counts(labels, info.num_classes)
        title = "test" if name == "test" else f"training ({name})"
        columns.append([title, *map(str, counts)])

    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join([cells[0].ljust(widths[0]), *numbers]))
    return lines


def _copies(paths: Sequence[str], cache_dir: Path) -> list[str]:
    """Return lines about pictures with the same bytes."""
    groups = groups_of_copies(paths, cache_dir)
    lines = [f"pictures with the same bytes as another one: {sum(map(len, groups)) - len(groups)}"]
    for group in groups[:_GROUPS_SHOWN]:
        lines.append(f"  {', '.join(paths[i] for i in group)}")
    if len(groups) > _GROUPS_SHOWN:
        lines.append(f"  and {len(groups) - _GROUPS_SHOWN} more groups")
    return lines
