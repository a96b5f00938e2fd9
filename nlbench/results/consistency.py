"""Does a record say the same as its epoch metrics and its predictions?

Checksums show that a file was changed since. What is compared here must agree even where every
checksum fits.
"""

from __future__ import annotations

import ast
import csv
import functools
import io
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from nlbench.files import open_regular, read_regular
from nlbench.results.integrity import HISTORY, PREDICTIONS, located
from nlbench.results.record import Metrics, RunRecord
from nlbench.results.summary import metric_key, summarise

# An epoch metric of this name belongs to a method's targets, and to no part of the data.
_TARGETS = metric_key("target", "accuracy")

# The arrays of predictions.npz with one value for each training image.
_PER_TRAINING_IMAGE = (
    *("train_index", "labels", "train", "train_prob", "train_loss", "names"),
    *("margin", "own_score", "own_label"),
)

# NumPy reads no longer header of an array either.
_LONGEST_HEADER = 10_000


def disagreements(
    record: RunRecord, folder: Path, damaged: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield where the files of a run disagree with its record: a file's name, and in which way.

    Args:
        damaged: the names of files that are not compared. Neither are those that are missing.
    """
    for name, compare in ((HISTORY, _of_history), (PREDICTIONS, _of_predictions)):
        path = located(folder, name)
        if name in damaged or not path.exists():
            continue
        for reason in compare(record, path):
            yield name, reason


# ---- Epoch metrics -------------------------------------------------------------------------------


def read_history(path: Path) -> list[Metrics]:
    """Return the metrics of each epoch from a history.csv.

    Raises: OSError; ValueError for a file that holds no such table.
    """
    reader = csv.reader(io.StringIO(read_regular(path).decode(), newline=""), strict=True)
    try:
        names = next(reader, [])
        lines = list(reader)
    except csv.Error as error:
        raise ValueError(str(error)) from None

    history = []
    for number, line in enumerate(lines):
        if len(line) != len(names):
            raise ValueError(f"line {number + 2} has {len(line)} cells, and not {len(names)}")
        values = [None if cell == "" else float(cell) for cell in line]
        history.append(dict(zip(names, values, strict=True)))
    return history


def _of_history(record: RunRecord, path: Path) -> Iterator[str]:
    try:
        history = read_history(path)
    except (OSError, ValueError) as error:
        yield f"it cannot be read as epoch metrics ({error})"
        return

    epochs = record.spec.get("protocol", {}).get("epochs")
    if record.status == "done" and isinstance(epochs, int) and len(history) != epochs:
        yield f"it has {len(history)} epochs, and the protocol has {epochs}"
        return
    if [metrics.get("epoch") for metrics in history] != list(range(len(history))):
        yield "its epochs are not numbered from 0 on"
        return
    if record.status == "done" and history:
        yield from _other_metrics(record, history)


def _other_metrics(record: RunRecord, history: list[Metrics]) -> Iterator[str]:
    parts = []
    for name in history[0]:
        part = name.removesuffix(metric_key("", "accuracy"))
        if part != name and name != _TARGETS:
            parts.append(part)
    try:
        expected = summarise(history, parts)
    except (KeyError, TypeError, AssertionError):
        yield "it lacks the test accuracy of an epoch"
        return

    for name, value in expected.items():
        if name not in record.metrics:
            continue
        found = record.metrics[name]
        if not _same(found, value):
            yield f"metrics.{name} of the record is {found}, and from the epochs follows {value}"


def _same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    # Text keeps every bit of a number. Sums of another version of Python may round differently.
    return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-15)


# ---- Predictions ---------------------------------------------------------------------------------


def _of_predictions(record: RunRecord, path: Path) -> Iterator[str]:
    # A file that somebody made can make zipfile and NumPy raise almost any exception.
    try:
        shapes = _shapes(path)
    except Exception as error:
        yield f"it cannot be read as predictions ({type(error).__name__})"
        return

    noise: Mapping[str, Any] = record.noise
    counts = {part: noise.get(f"num_{part}") for part in ("test", "train", "val")}
    expected = {"test": counts["test"], "test_labels": counts["test"], "val_index": counts["val"]}
    expected |= dict.fromkeys(_PER_TRAINING_IMAGE, counts["train"])
    for name, count in expected.items():
        if count is not None and name in shapes and shapes[name] != (count,):
            yield f"{name} has the shape {shapes[name]}, and the record counts {count} images"

    classes = record.classes.get("num_classes")
    for part, count in counts.items():
        name = f"{part}_probs"
        if None not in (count, classes) and shapes.get(name, (count, classes)) != (count, classes):
            yield (
                f"{name} has the shape {shapes[name]}, and the record counts {count} images and "
                f"{classes} classes"
            )
    if noise and "test" not in shapes:
        yield "it has no predictions of the test images"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array, from the few bytes before its values."""
    shapes = {}
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                shapes[name.removesuffix(".npy")] = _shape_of(member)
    return shapes


def _shape_of(member: IO[bytes]) -> tuple[int, ...]:
    """Return the shape that the header of a .npy file states."""
    magic, version = member.read(6), member.read(2)
    if magic != b"\x93NUMPY":
        raise ValueError("no array")
    # The length of the header has two bytes in version 1, and four in later ones.
    length = int.from_bytes(member.read(2 if version[0] == 1 else 4), "little")
    return _shape_in(member.read(min(length, _LONGEST_HEADER)))


# Runs of one dataset have the same headers, and reading one as Python takes a tenth of a
# millisecond.
@functools.lru_cache(1000)
def _shape_in(header: bytes) -> tuple[int, ...]:
    shape = ast.literal_eval(header.decode("latin-1"))["shape"]
    if not isinstance(shape, tuple):
        raise ValueError("no shape")
    return shape
