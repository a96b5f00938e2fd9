"""Do two trainings of one run have the same numbers, and where do they differ first?

The numbers are the status, the labels, the epoch metrics, the predictions and the metrics of the
record. What a clock measures is none of them.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.files import read_regular, require_regular
from nlbench.results.integrity import HISTORY, PREDICTIONS, located
from nlbench.results.record import RunRecord

if TYPE_CHECKING:
    import numpy as np

# Columns of history.csv that differ each time.
CLOCK = ("seconds", "images_per_second")

# The arrays of a run that somebody made up could fill the memory.
_MOST_BYTES = 8 << 30


@dataclass(frozen=True)
class RunNumbers:
    """What is compared of a run.

    Attributes:
        history: the text of each value by column, for each epoch, without the columns of the clock.
        arrays: those of predictions.npz, by name.
    """

    record: RunRecord
    history: Sequence[Mapping[str, str]]
    arrays: Mapping[str, np.ndarray]

    @property
    def columns(self) -> list[str]:
        """The columns of the history."""
        return list(self.history[0]) if self.history else []


@dataclass(frozen=True)
class Difference:
    """A place where two trainings differ, with both values as text.

    Attributes:
        place: in words, for example "epoch 3, test_accuracy".
    """

    place: str
    one: str
    other: str


# ---- Reading -------------------------------------------------------------------------------------


def read_numbers(folder: Path, record: RunRecord) -> RunNumbers:
    """Read what is compared of the run in `folder`, whose record was read already.

    Raises: ValueError with the file and the reason where one cannot be read.
    """
    return RunNumbers(
        record,
        _history(located(folder, HISTORY)),
        read_arrays(located(folder, PREDICTIONS)),
    )


def _history(path: Path) -> list[dict[str, str]]:
    """Return the epochs of a history.csv; none where the run has no such file."""
    try:
        text = read_regular(path).decode()
        epochs = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None

    for number, epoch in enumerate(epochs):
        # csv puts what is too much under None, and None in the place of what is missing.
        if None in epoch or None in epoch.values():
            raise ValueError(f"{path}: the line of epoch {number} has another number of fields")
        for name in CLOCK:
            epoch.pop(name, None)
    return epochs


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a predictions.npz; none where the run has no such file.

    Raises: ValueError with the file and the reason where it cannot be read.
    """
    # Imported here, because tables read records and do without NumPy.
    import numpy as np

    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_BYTES:
            raise ValueError(f"its arrays would take {size:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        for name, array in arrays.items():
            # NumPy returns the bytes of what is no array.
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} is no array")
        return arrays
    except FileNotFoundError:
        return {}
    # A file that somebody made can make NumPy raise almost any exception.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason})") from None


# ---- Comparing -----------------------------------------------------------------------------------


def first_difference(
    one: RunNumbers, other: RunNumbers, *, complete: bool = False
) -> Difference | None:
    """Return where two trainings of a run differ first, or None where they do not.

    Args:
        complete: `other` must have everything that `one` has. Otherwise what only one of them has
            is left out: another version may measure more.
    """
    return next(_differences(one, other, complete), None)


def _differences(one: RunNumbers, other: RunNumbers, complete: bool) -> Iterator[Difference]:
    if one.record.status != other.record.status:
        yield Difference("status", one.record.status, other.record.status)
    labels = one.record.noise.get("labels_hash"), other.record.noise.get("labels_hash")
    if None not in labels and labels[0] != labels[1]:
        yield Difference("the given labels (labels_hash)", str(labels[0]), str(labels[1]))

    yield from _of_history(one, other, complete)
    yield from _of_errors(one, other)
    for name, array in one.arrays.items():
        if name in other.arrays:
            yield from _of_array(name, array, other.arrays[name])
        elif complete:
            yield Difference(f"{PREDICTIONS}, {name}", "an array", "missing")

    for name, value in one.record.metrics.items():
        if name in other.record.metrics and value != other.record.metrics[name]:
            yield Difference(f"metrics.{name}", str(value), str(other.record.metrics[name]))
        elif complete and name not in other.record.metrics:
            yield Difference(f"metrics.{name}", str(value), "missing")


def _of_history(one: RunNumbers, other: RunNumbers, complete: bool) -> Iterator[Difference]:
    shared = [column for column in one.columns if column in other.columns]
    for number, (old, new) in enumerate(zip(one.history, other.history, strict=False)):
        for column in shared:
            if not _equal(old[column], new[column]):
                yield Difference(f"epoch {number}, {column}", old[column], new[column])

    epochs = len(one.history), len(other.history)
    if epochs[0] != epochs[1]:
        yield Difference(HISTORY, f"{epochs[0]} epochs", f"{epochs[1]} epochs")
    elif complete:
        for column in one.columns:
            if column not in shared:
                yield Difference(f"{HISTORY}, {column}", "a column", "missing")


def _equal(one: str, other: str) -> bool:
    if one == other:
        return True
    # Another version may have written the same number in another way.
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _of_errors(one: RunNumbers, other: RunNumbers) -> Iterator[Difference]:
    """Yield where two runs diverged at different steps."""
    errors = one.record.error or {}, other.record.error or {}
    places = [f"epoch {error.get('epoch')}, step {error.get('step')}" for error in errors]
    if places[0] != places[1]:
        yield Difference("error", *places)


def _of_array(name: str, one: np.ndarray, other: np.ndarray) -> Iterator[Difference]:
    place = f"{PREDICTIONS}, {name}"
    kinds = [f"{array.dtype} {array.shape}" for array in (one, other)]
    if kinds[0] != kinds[1]:
        yield Difference(place, *kinds)
        return
    # As bytes: a NaN is then equal to itself, and 0.0 differs from -0.0.
    if one.tobytes() == other.tobytes():
        return

    size = one.dtype.itemsize
    rows = [array.reshape(-1).view(f"V{size}") for array in (one.copy(), other.copy())]
    places = (rows[0] != rows[1]).nonzero()[0]
    first = int(places[0])
    yield Difference(
        f"{place}, entry {first} ({len(places):,} of {one.size:,} differ)",
        str(one.reshape(-1)[first]),
        str(other.reshape(-1)[first]),
    )
