"""The report of `nlbench data check` on a table of features or of texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nlbench.cli.check_folder import Report, about_classes, read_or_share
from nlbench.data import texts
from nlbench.data.base import Dataset
from nlbench.data.datasets import features, text
from nlbench.data.formats.columns import may_name_images
from nlbench.data.formats.frames import SUFFIXES
from nlbench.data.places import FolderOptions, Places
from nlbench.errors import DataError, DataMissing


def is_table(path: Path) -> bool:
    """Return whether a path is a table, or a folder of tables alone."""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    return bool(files) and all(_is_of_table(file) for file in files)


def _is_of_table(file: Path) -> bool:
    """Return whether a file in a folder is a table, and no list of pictures."""
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv"):
        # A parquet file may hold pictures.
        return suffix in (".npy", ".arrow", ".npz")
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        names = re.split(r"[,;\t|]", lines.readline().strip())
    return not any(may_name_images(name) for name in names)


def check_table(path: Path, places: Places, options: FolderOptions) -> Report:
    """Read a table of features as a run would, and report what was found.

    Args:
        options: the columns of the labels; "" where their names tell.
    Raises: DataMissing where it is not there.
    """
    report = Report()
    data = _read(features.load, path, places, options, report)
    if data is None:
        return report

    train, test = np.asarray(data.train_images), np.asarray(data.test_images)
    same = int((train == 0).all(0).sum())
    report.lines += [
        *about_classes(data),
        f"features: {train.shape[1]}, of which {same} are the same in all training rows",
        f"largest distance from the mean, in standard deviations: {np.abs(train).max():.1f} in "
        f"training rows, {np.abs(test).max():.1f} in test rows",
    ]
    _add_warnings(data, report)
    return report


def check_texts(path: Path, places: Places, options: FolderOptions) -> Report:
    """Read a table of texts as a run would, and report what was found.

    Args:
        options: the columns of the texts and labels; "" where their names tell.
    Raises: DataMissing where it is not there.
    """
    report = Report()
    data = _read(text.load, path, places, options, report)
    if data is None:
        return report

    train, test = np.asarray(data.train_images), np.asarray(data.test_images)
    lengths = (train != texts.PADDING).sum(1)
    known = int(train.max()) + 1 - texts.SPECIAL
    unknown = [
        (part == texts.UNKNOWN).sum() / (part != texts.PADDING).sum() for part in (train, test)
    ]
    report.lines += [
        *about_classes(data),
        f"words: {known} have a number; of all words {unknown[0]:.1%} in training texts and "
        f"{unknown[1]:.1%} in test texts have none",
        f"length of a training text: {int(np.median(lengths))} words in the middle, at most "
        f"{lengths.max()}; longer texts are cut to the last {places.length or text.LENGTH}",
    ]
    _add_warnings(data, report)
    return report


# What a table of texts that is read as features looks like.
_HOLDS_TEXT = re.compile(r" holds? texts?\b")


def _read(
    load: Callable[[Places, int], Dataset],
    path: Path,
    places: Places,
    options: FolderOptions,
    report: Report,
) -> Dataset | None:
    """Read a table; None, and why in the report, where it cannot be used."""
    if not path.exists():
        raise DataMissing(f"{path}: no such file")
    try:
        return read_or_share(load, path, places, options, report)
    except DataError as error:
        report.unfit = True
        report.lines.append(f"cannot be used as it is: {error}")
        if load is features.load and _HOLDS_TEXT.search(str(error)):
            report.lines.append("to check a table of texts, name their column: --text COLUMN")
        return None


def _add_warnings(data: Dataset, report: Report) -> None:
    if data.warnings:
        report.lines += ["", *data.warnings]
