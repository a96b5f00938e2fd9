"""Put the rows of a label file in the order of the training images.

A table may have columns that say which image a row is about: positions from 0, or the files' names.
A column that is called so is used, or the file is refused. It is never passed over, because then
every label could belong to another image.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlbench.data.noise.examples import Examples
from nlbench.errors import DataError

# Names of columns, as letters and digits in lower case. These hold positions.
_POSITIONS = {"", "index", "idx", "indices", "position", "pos", "row", "rowindex", "rowid"}
_POSITIONS |= {"rownumber", "number", "no", "nr", "num", "i", "n", "trainindex", "trainidx"}
_POSITIONS |= {"datasetindex", "datasetidx", "globalindex", "globalidx", "sampleindex"}
_POSITIONS |= {"imageindex", "imageidx", "imgindex", "imgidx", "exampleindex", "exampleidx"}
_POSITIONS |= {"originalindex", "originalidx", "ordinal", "order", "sampleidx", "level0"}

# These hold positions or names.
_NAMES = {"id", "ids", "imageid", "imgid", "sampleid", "exampleid", "dataid", "fileid", "uid"}
_NAMES |= {"instanceid", "itemid", "objectid", "photoid", "pictureid", "uuid", "guid", "key"}
_NAMES |= {"path", "paths", "file", "files", "filename", "filenames", "filepath", "name"}
_NAMES |= {"image", "images", "img", "imgs", "imagepath", "imgpath", "imagefile", "imgfile"}
_NAMES |= {"imagename", "imgname", "imagefilename", "fname", "fpath", "relpath", "names"}
_NAMES |= {"photo", "picture", "pic", "sample", "example", "uri", "url", "src", "stem"}
_NAMES |= {"basename", "item", "identifier", "relativepath"}


@dataclass(frozen=True)
class Order:
    """Where each row of a label file belongs.

    Attributes:
        column: the column that says so; None where rows are taken as they are. An empty name is
            that of an index that pandas wrote.
        positions: (M,) int64, the training example of each row.
    """

    column: str | None
    positions: np.ndarray


def order_of(
    columns: Mapping[str, Sequence[str]],
    rows: int,
    lines: Sequence[int],
    where: Path,
    examples: Examples | None,
) -> Order:
    """Return the order of a table's rows.

    Args:
        columns: those that hold no labels, by name.
        lines: the line of each row, for errors; empty where the file has none.
        examples: None where only the file itself is known.
    Raises: DataError, naming the column, when it does not name each training example once.
    """
    found: list[Order] = []
    for name, cells in _usable(columns, examples).items():
        order = _order_by(_Column(name, cells, lines, where), examples)
        if order is not None:
            found.append(order)

    as_it_is = np.arange(rows)
    # A row number that only counts the lines says nothing where names do.
    telling = [order for order in found if not _counts_rows(order, as_it_is)]
    for order in telling[1:]:
        if not np.array_equal(order.positions, telling[0].positions):
            raise DataError(
                f"{where}: its columns {telling[0].column!r} and {order.column!r} put the rows in "
                f"different orders; remove the one that is not meant"
            )
    if not telling:
        return Order(found[0].column if found else None, as_it_is)

    counting = []
    for order in found:
        # pandas numbers the rows without being asked.
        by_pandas = re.fullmatch(r"(unnamed\d+)?", _plain(order.column or ""))
        if _counts_rows(order, as_it_is) and not by_pandas:
            counting.append(order)
    if counting:
        raise DataError(
            f"{where}: {_called(counting[0].column)} counts the rows as they are, and "
            f"{telling[0].column!r} puts them in another order; remove the one that is not meant"
        )
    return telling[0]


def _usable(
    columns: Mapping[str, Sequence[str]], examples: Examples | None
) -> Mapping[str, Sequence[str]]:
    """Return the columns without those of names, where images have none and positions are given.

    Lists of CIFAR-10 often have the names that its pictures had before they were put together.
    """
    if examples is None or examples.names != ():
        return columns
    numbered = {name for name, cells in columns.items() if _integers(cells) is not None}
    if not any(_plain(name) in _POSITIONS for name in numbered):
        return columns

    kept = {}
    for name, cells in columns.items():
        if name in numbered or _plain(name) not in _NAMES:
            kept[name] = cells
    return kept


# ---- One column ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column that may say which image each row is about."""

    name: str
    cells: Sequence[str]
    lines: Sequence[int]
    file: Path

    def at(self, row: int) -> str:
        """Return the place of a row's cell in words, for errors."""
        line = f":{self.lines[row]}" if self.lines else ""
        return f"{self.file}{line}: {_called(self.name)}"


def _called(name: str | None) -> str:
    """Return a column in words; an index that pandas wrote has no name."""
    return f"its column {name!r}" if name else "its unnamed column"


def _order_by(column: _Column, examples: Examples | None) -> Order | None:
    """Return the order that a column gives; None for a column about something else."""
    kind = _plain(column.name)
    numbers = _integers(column.cells)
    N = examples.info.num_train if examples else 0
    total = N or len(column.cells)

    if kind in _POSITIONS or re.fullmatch(r"unnamed\d+", kind):
        if numbers is not None:
            return Order(column.name, _positions(numbers, total, column))
        # An index of texts, as pandas has after set_index, can only hold names.
        return _by_name(column, examples)

    if kind in _NAMES:
        return _by_name_or_number(column, numbers, total, examples)

    # Under any other name, numbers that count the rows in another order are no accident.
    if numbers is not None and len(numbers) > 2:
        base = numbers - numbers.min()
        counts = np.array_equal(np.sort(base), np.arange(len(base))) and numbers.min() in (0, 1)
        if counts and not np.array_equal(base, np.arange(len(base))):
            raise DataError(
                f"{column.file}: its column {column.name!r} numbers the rows in another order; "
                f"call it 'index' if these are positions of the training images, or remove it"
            )
    return None


def _by_name_or_number(
    column: _Column, numbers: np.ndarray | None, total: int, examples: Examples | None
) -> Order:
    """Return the order by a column such as `id`, which may hold names or positions."""
    names = examples.names if examples else None
    by_name = _match(column, examples) if examples and names else None

    if numbers is None:
        return by_name or _by_name(column, examples)
    if by_name is None:
        return Order(column.name, _positions(numbers, total, column))

    # Images called 0.png, 1.png, 10.png, 2.png are not in the order of their numbers.
    try:
        positions = _positions(numbers, total, column)
    except DataError:
        return by_name
    if not np.array_equal(positions, by_name.positions):
        assert names is not None
        first = int(np.flatnonzero(positions != by_name.positions)[0])
        raise DataError(
            f"{column.at(first)} may be a position or a name: {column.cells[first]} is the number "
            f"of {names[positions[first]]!r} and the name of {names[by_name.positions[first]]!r}; "
            f"call it 'index' for positions, or write the whole names under 'path'"
        )
    return by_name


def _by_name(column: _Column, examples: Examples | None) -> Order:
    """Return the order by a column of names.

    Where the names of the images are not known yet, the rows stay as they are.

    Raises: DataError when they are known, and are others.
    """
    if examples is None:
        raise DataError(
            f"{column.file}: {_called(column.name)} names images, whose order is not known "
            f"here; replace it by a column 'index' with each image's position, from 0"
        )
    if examples.names is None:
        return Order(column.name, np.arange(len(column.cells)))
    if not examples.names:
        first = column.cells[0] if column.cells else ""
        raise DataError(
            f"{column.file}: {_called(column.name)} names images ({first!r}), and those of "
            f"{examples.info.title} have no names here; replace it by a column 'index' with each "
            f"image's position in the training set, from 0"
        )

    matched = _match(column, examples)
    if matched is None:
        raise _no_match(column, examples)
    return matched


def _counts_rows(order: Order, as_it_is: np.ndarray) -> bool:
    return np.array_equal(order.positions, as_it_is)


# ---- Positions -----------------------------------------------------------------------------------


def _integers(cells: Sequence[str]) -> np.ndarray | None:
    """Return the cells as integers, None unless all are. 7, 007 and 7.0 are the same."""
    numbers = np.empty(len(cells), np.int64)
    for i, cell in enumerate(cells):
        try:
            value = float(cell)
        except ValueError:
            return None
        if not math.isfinite(value) or value != int(value) or abs(value) >= 2**53:
            return None
        numbers[i] = int(value)
    return numbers


def _positions(numbers: np.ndarray, total: int, column: _Column) -> np.ndarray:
    """Return positions from 0. Raises DataError unless each of `total` is there exactly once.

    Numbers from 1 to `total` are the positions from 1.
    """
    present, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if (counts > 1).any():
        value = int(present[counts > 1][0])
        rows = np.flatnonzero(numbers == value)
        also = f" in line {column.lines[rows[0]]} and" if column.lines else ""
        raise DataError(
            f"{column.at(int(rows[1]))} holds {value}{also} here; it must hold every position "
            f"0..{total - 1} exactly once"
        )

    if len(present) == total and present[0] in (0, 1) and present[-1] == present[0] + total - 1:
        return numbers - present[0]

    wanted = f"it must hold every position 0..{total - 1} exactly once"
    if present[0] < 0:
        raise DataError(f"{column.at(int(first[0]))} holds {present[0]}; {wanted}")
    if present[-1] >= total:
        more = ""
        if len(numbers) > total:
            more = "; are test images in the list? Leave them out"
        raise DataError(f"{column.at(int(first[-1]))} holds {present[-1]}; {wanted}{more}")

    missing = np.setdiff1d(np.arange(total), present)
    raise DataError(
        f"{column.file}: {_called(column.name)} lacks {missing[0]}"
        f"{_and_more(len(missing))}; {wanted}"
    )


def _and_more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


# ---- Names ---------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return "".join(re.findall(r"[a-z0-9]+", name.lower()))


def _spelt(name: str) -> str:
    """Return a path in one spelling: composed letters, slashes, no ./ in it."""
    return os.path.normpath(unicodedata.normalize("NFC", name.strip()).replace("\\", "/"))


def _without_suffix(name: str) -> str:
    # 1.5 is a name, and its .5 no suffix.
    return re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name)


def _below(cell: str, folder: str) -> str:
    """Return the part of a path after the folder of this name; the path where it is not in it."""
    _, found, inside = cell.rpartition(f"{folder}/")
    return inside if found else cell


def _match(column: _Column, examples: Examples) -> Order | None:
    """Return the order by names; None unless every cell is one training image, and each once."""
    places = _places(column, examples)
    total = len(examples.names or ())
    if len(places) != total or not np.array_equal(np.sort(places), np.arange(total)):
        return None
    return Order(column.name, places)


def _places(column: _Column, examples: Examples) -> np.ndarray:
    """Return the training image that each cell names, -1 for none, in the form that finds most.

    Names may lack their suffix, or their folders where these are not needed to tell them apart, or
    have the path of the dataset's folder before them.
    """
    cells = [_spelt(cell) for cell in column.cells]
    names = [_spelt(name) for name in examples.names or ()]
    inside = [_below(cell, examples.root.name) for cell in cells]

    best = np.full(len(cells), -1, np.int64)
    for spelling in (cells, inside):
        for form in (str, _without_suffix, os.path.basename, _stem):
            known = {form(name): place for place, name in enumerate(names)}
            # Two images of one name cannot be told apart without their folders.
            if len(known) < len(names):
                continue

            found = np.full(len(cells), -1, np.int64)
            for i, cell in enumerate(spelling):
                # A cell with a folder names one in this folder only.
                if "/" in cell and form in (os.path.basename, _stem):
                    continue
                found[i] = known.get(form(cell), -1)
            # Lists of a million images are usual, so no further form is tried then.
            if (found >= 0).all():
                return found
            if (found >= 0).sum() > (best >= 0).sum():
                best = found
    return best


def _stem(name: str) -> str:
    return _without_suffix(os.path.basename(name))


def _no_match(column: _Column, examples: Examples) -> DataError:
    """Return the error about a column whose names are not those of the training images."""
    places, names = _places(column, examples), examples.names or ()
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        cell = column.cells[unknown[0]]
        example = ""
        if len(unknown) == len(places):
            example = (
                f"the first one is {names[0]!r}. A column 'index' with each image's position, from "
                f"0, does as well"
            )
        plain = _spelt(cell)
        inside = [name for name in names if plain.endswith(f"/{_spelt(name)}")]
        if inside:
            example = f"there is {inside[0]!r}: write it so, without the folders before it"
        near = difflib.get_close_matches(cell, names[:10_000], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "leave out the lines of other images"
        return DataError(
            f"{column.at(int(unknown[0]))} holds '{cell}'{_and_more(len(unknown))}; no training "
            f"image is called so; {example or hint}"
        )

    present, counts = np.unique(places, return_counts=True)
    if (counts > 1).any():
        twice = present[counts > 1][0]
        row = int(np.flatnonzero(places == twice)[1])
        return DataError(f"{column.at(row)} holds {column.cells[row]!r} a second time; keep one")

    missing = np.setdiff1d(np.arange(len(names)), present)
    return DataError(
        f"{column.file}: {_called(column.name)} lacks {names[missing[0]]!r}"
        f"{_and_more(len(missing))}; every training image must have a label"
    )
