"""The report of `nlbench data check` on a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nlbench.cli.check_folder import SHARE, Report, class_table
from nlbench.data import describe
from nlbench.data.base import Dataset
from nlbench.data.datasets import features
from nlbench.data.formats.frames import SUFFIXES
from nlbench.data.places import FolderOptions, Places
from nlbench.errors import DataError, DataMissing


def is_table(path: Path) -> bool:
    """Return whether a path is a table, or a folder of tables alone."""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    # A list of pictures lies in a folder as well, but beside its pictures.
    return bool(files) and all(file.suffix.lower() in (".npy", ".arrow", ".npz") for file in files)


def check_table(path: Path, places: Places, label: str, clean_label: str) -> Report:
    """Read a table as a run would, and report what was found.

    Args:
        label, clean_label: the columns of the labels; "" where their names tell.
    Raises: DataMissing where it is not there.
    """
    if not path.exists():
        raise DataMissing(f"{path}: no such file")
    report = Report()
    options = FolderOptions(label_column=label, clean_column=clean_label)
    try:
        data = _read(path, places, options, report)
    except DataError as error:
        report.unfit = True
        report.lines.append(f"cannot be used as it is: {error}")
        return report

    train, test = np.asarray(data.train_images), np.asarray(data.test_images)
    same = int((train == 0).all(0).sum())
    report.lines += [
        describe.in_short(data),
        "",
        *class_table(data),
        "",
        f"features: {train.shape[1]}, of which {same} are the same in all training rows",
        f"largest distance from the mean, in standard deviations: {np.abs(train).max():.1f} in "
        f"training rows, {np.abs(test).max():.1f} in test rows",
    ]
    if data.warnings:
        report.lines += ["", *data.warnings]
    return report


def _read(path: Path, places: Places, options: FolderOptions, report: Report) -> Dataset:
    """Read the table; one without a test part as with a `test_share`, which the report says."""
    try:
        return features.load(places.reading(path, options), 0)
    except DataMissing as error:
        shared = FolderOptions(SHARE, "", options.label_column, options.clean_column)
        try:
            data = features.load(places.reading(path, shared), 0)
        except DataMissing:
            raise error from None
    report.lines += [
        f"no test part: `test_share: {SHARE}` in the suite's dataset entry would make this one",
        "",
    ]
    return data
