"""Make the float32 matrix of a table: filled, standardised and one-hot by the training part alone.

Numbers are read in chunks and computed with in float64, so that a mapped file of any size needs
memory for its float32 matrix alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nlbench.data.formats.feature_columns import (
    Chosen,
    as_texts,
    categories_of,
    require_width,
)
from nlbench.data.formats.frames import Frame, shape_of
from nlbench.errors import DataError

Missing = Literal["refuse", "mean", "median", "most-frequent"]

# Of the numbers that a table becomes. Raise it when the same table gives other ones: fingerprints
# are of the numbers in the file, and run keys would stay although what is trained on has changed.
VERSION = 1

# Rows that are read at once.
_CHUNK = 4096


@dataclass(frozen=True)
class Part:
    """Rows of a table, in order.

    Attributes:
        rows: (n,) int64 positions in the frame.
    """

    frame: Frame
    rows: np.ndarray

    def numbers(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the columns of numbers in chunks, (n, D) float64. Yields nothing for no columns."""
        return (chunk for _, chunk in self.places(names))

    def places(self, names: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each chunk with the position of its first row in this part."""
        for start in range(0, len(self.rows), _CHUNK) if names else ():
            rows = self.rows[start : start + _CHUNK]
            columns = [np.asarray(self.frame.columns[name])[rows] for name in names]
            yield start, np.column_stack(columns).astype(np.float64, copy=False)

    def at(self, row: int) -> str:
        """Return where a row of this part is, for the beginning of a message."""
        return self.frame.at(int(self.rows[row]))

    def texts(self, name: str) -> list[str | None]:
        """Return a column as texts."""
        cells = as_texts(self.frame.columns[name])
        return [cells[i] for i in self.rows]


@dataclass(frozen=True)
class Matrices:
    """The features of all parts.

    Attributes:
        features: (n, D) float32 of each part.
        fingerprint: a hash of `VERSION` and of the values before they were standardised, which does
            not depend on the file's format or on how a machine rounds.
        notes: in words, what the owner of the data should know.
    """

    features: dict[str, np.ndarray]
    fingerprint: str
    notes: list[str]


def matrices(parts: Mapping[str, Part], chosen: Chosen, missing: Missing) -> Matrices:
    """Return the features of each part. Means, fillings and categories are those of "train".

    Numbers are (x - mean) / std with the population's std, as in scikit-learn's StandardScaler; a
    column that is constant in the training part is 0 everywhere. Categories are one-hot and not
    scaled: an unknown one in another part is 0 in all columns, as in OneHotEncoder with
    handle_unknown="ignore". Columns of numbers are first, then those of categories.

    Raises: DataError, naming the column, for missing values unless `missing` says how to fill them,
        for infinite values, and for too many categories.
    """
    lacking = _Lacking.of(parts, chosen)
    if missing == "refuse":
        lacking.refuse(parts["train"].frame)

    scale = _Scale.of(parts["train"], chosen.numbers, missing, lacking.numbers)
    one_hot = _OneHot.of(parts["train"], chosen.categories)
    notes = list(scale.notes)
    hashed = hashlib.sha256(f"features {VERSION}".encode())
    if lacking.found:
        hashed.update(missing.encode())

    features = {}
    for name, part in parts.items():
        matrix = np.zeros((len(part.rows), scale.width + one_hot.width), np.float32)
        hashed.update(f"{len(part.rows)} {scale.width}".encode())
        start = 0
        for chunk in part.numbers(chosen.numbers):
            hashed.update(_canonical(chunk))
            matrix[start : start + len(chunk), : scale.width] = scale(chunk)
            start += len(chunk)
        for column in chosen.categories:
            hashed.update("\0".join(["", *(text or "" for text in part.texts(column))]).encode())
        notes += one_hot.fill(part, matrix[:, scale.width :], name)
        _require_finite(matrix, part.frame)
        features[name] = matrix
    return Matrices(features, hashed.hexdigest()[:16], notes)


def _canonical(chunk: np.ndarray) -> bytes:
    """Return the bytes of numbers, the same for every NaN and for both zeros."""
    chunk = np.where(np.isnan(chunk), np.nan, chunk) + 0.0
    return chunk.astype("<f8").tobytes()


def _require_finite(matrix: np.ndarray, frame: Frame) -> None:
    if not np.isfinite(matrix).all():
        raise DataError(
            f"{frame.path}: a value is so far from the training part's that float32 cannot hold it"
        )


# ---- What is refused -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lacking:
    """The missing values of all parts.

    Attributes:
        numbers: (D,) bool, whether a value is missing in a column of numbers.
        found: how many are missing, by column; and where the first is.
    """

    numbers: np.ndarray
    found: dict[str, tuple[int, str]]

    @classmethod
    def of(cls, parts: Mapping[str, Part], chosen: Chosen) -> _Lacking:
        """Count them. Raises DataError for an infinite value."""
        labels = _labels(parts["train"].frame, chosen.numbers)
        counts = np.zeros(len(labels), np.int64)
        found: dict[str, tuple[int, str]] = {}
        for part in parts.values():
            for start, chunk in part.places(chosen.numbers):
                _require_no_infinity(part, start, chunk, labels)
                lacks = np.isnan(chunk)
                counts += lacks.sum(0)
                for i in np.flatnonzero(lacks.any(0)):
                    place = part.at(start + int(lacks[:, i].argmax()))
                    found[labels[i]] = int(counts[i]), found.get(labels[i], (0, place))[1]
            for name in chosen.categories:
                there = [text is not None for text in part.texts(name)]
                if not all(there):
                    count, place = found.get(name, (0, part.at(there.index(False))))
                    found[name] = count + there.count(False), place
        return cls(counts > 0, found)

    def refuse(self, frame: Frame) -> None:
        """Raise DataError, naming the columns, if a value is missing."""
        if not self.found:
            return
        shown = []
        for name, (count, place) in list(self.found.items())[:5]:
            shown.append(f"{name!r} {count} (the first at {place})")
        if len(self.found) > 5:
            shown.append(f"and {len(self.found) - 5} more columns")
        raise DataError(
            f"{frame.path}: cells are empty, by column: {', '.join(shown)}. Fill them with "
            "`missing: median` (or mean, or most-frequent) in the suite's dataset entry, or leave "
            f"columns out, as `features: ['!{next(iter(self.found))}']` does"
        )


def _require_no_infinity(part: Part, start: int, chunk: np.ndarray, labels: Sequence[str]) -> None:
    infinite = np.isinf(chunk)
    if infinite.any():
        row, column = (int(place[0]) for place in np.nonzero(infinite))
        raise DataError(
            f"{part.at(start + row)}: {labels[column]!r} is infinite; take the row out, or write "
            "the cell empty and say how it is filled (`missing: median`)"
        )


# ---- Numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """What the training part says about D columns of numbers: (D,) float64 each.

    Attributes:
        fill: what a missing value becomes.
        std: 1 for a constant column.
        constant: (D,) bool.
    """

    fill: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    constant: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.mean)

    @classmethod
    def of(cls, part: Part, names: Sequence[str], missing: Missing, lacking: np.ndarray) -> _Scale:
        """Learn it from the training part. `lacking` (D,) tells the columns that need a `fill`."""
        labels = _labels(part.frame, names)
        fill = _filling(part, names, missing, lacking)
        for name, value in zip(labels, fill, strict=True):
            if np.isnan(value):
                raise DataError(
                    f"{part.frame.path}: {name!r} is empty in all training rows; leave it out, as "
                    f"`features: ['!{name}']` does"
                )
        n = len(part.rows)
        total = np.zeros(len(labels))
        low, high = np.full(len(labels), np.inf), np.full(len(labels), -np.inf)
        for chunk in part.numbers(names):
            chunk = np.where(np.isnan(chunk), fill, chunk)
            total += chunk.sum(0)
            low, high = np.minimum(low, chunk.min(0)), np.maximum(high, chunk.max(0))
        mean = total / n
        squares = np.zeros_like(mean)
        for chunk in part.numbers(names):
            chunk = np.where(np.isnan(chunk), fill, chunk)
            squares += ((chunk - mean) ** 2).sum(0)

        constant = low == high
        std = np.where(constant, 1.0, np.sqrt(squares / n))
        notes = []
        if constant.any():
            same = [labels[i] for i in np.flatnonzero(constant)]
            more = f" and {len(same) - 5} more" if len(same) > 5 else ""
            notes.append(
                f"{part.frame.path}: {', '.join(map(repr, same[:5]))}{more} are the same in all "
                "training rows, and 0 as features"
            )
        return cls(fill, mean, std, constant, tuple(notes))

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        """Return values (n, D) float64 filled and standardised."""
        chunk = np.where(np.isnan(chunk), self.fill, chunk)
        return np.where(self.constant, 0.0, (chunk - self.mean) / self.std)


def _labels(frame: Frame, names: Sequence[str]) -> list[str]:
    """Return a name for each number of a row: those of a matrix are X[0], X[1] and so on."""
    labels = []
    for name in names:
        shape = shape_of(frame.columns[name])
        labels += [f"{name}[{i}]" for i in range(shape[0])] if shape else [name]
    return labels


def _filling(part: Part, names: Sequence[str], missing: Missing, lacking: np.ndarray) -> np.ndarray:
    """Return what a missing value of each column becomes (D,): NaN where all are missing."""
    fill = np.zeros(len(lacking))
    # Medians need a whole column, so only those columns are read that lack a value in some part.
    for i in np.flatnonzero(lacking):
        values = np.concatenate([chunk[:, i] for chunk in part.numbers(names)])
        values = values[~np.isnan(values)]
        if not len(values):
            fill[i] = np.nan
        elif missing == "mean":
            fill[i] = values.mean()
        elif missing == "median":
            fill[i] = np.median(values)
        else:
            fill[i] = _most_frequent(values)
    return fill


def _most_frequent(values: np.ndarray) -> float:
    """Return the most frequent value; of several the smallest, as scikit-learn does."""
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()])


# ---- Categories ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OneHot:
    """The categories of each column, as the training part has them, in order.

    Attributes:
        most: the most frequent category of each column, which a missing value becomes.
    """

    categories: dict[str, list[str]]
    most: dict[str, str]

    @property
    def width(self) -> int:
        return sum(map(len, self.categories.values()))

    @classmethod
    def of(cls, part: Part, names: Sequence[str]) -> _OneHot:
        categories, most = {}, {}
        for name in names:
            there = [text for text in part.texts(name) if text is not None]
            if not there:
                raise DataError(f"{part.frame.path}: {name!r} is empty in all training rows")
            categories[name] = categories_of(name, there, part.frame.path, len(part.rows))
            counts = Counter(there)
            # Of several the first in order, as scikit-learn does.
            most[name] = max(categories[name], key=lambda text: counts[text])
        require_width(part.frame.path, {name: len(found) for name, found in categories.items()})
        return cls(categories, most)

    def fill(self, part: Part, matrix: np.ndarray, name_of_part: str) -> list[str]:
        """Write the ones of a part into its `matrix` of zeros, and say which were unknown."""
        notes, start = [], 0
        for name, known in self.categories.items():
            place = {text: start + i for i, text in enumerate(known)}
            unknown: Counter[str] = Counter()
            for row, text in enumerate(part.texts(name)):
                text = self.most[name] if text is None else text
                if text in place:
                    matrix[row, place[text]] = 1.0
                else:
                    unknown[text] += 1
            start += len(known)
            if unknown:
                shown = ", ".join(map(repr, list(unknown)[:5]))
                notes.append(
                    f"{part.frame.path}: {unknown.total()} {name_of_part} rows have a category of "
                    f"{name!r} that no training row has ({shown}); it is 0 in all columns"
                )
        return notes
