"""Decide which columns of a table are features, which are numbers and which are categories."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nlbench.data.formats.columns import is_label_column, words
from nlbench.data.formats.frames import Column, Frame, shape_of
from nlbench.data.formats.split_column import MOST_VALUES, may_be_split, says_a_part
from nlbench.errors import DataError, did_you_mean

# More categories than this in one column are names or numbers of the rows.
MOST_CATEGORIES = 1000

# What one-hot columns may take, beside which the matrix of numbers is small.
MOST_COLUMNS = 20_000

_ROW_WORDS = {"id", "idx", "index", "row", "no", "number"}

_LEAVE_OUT = "leave it out, as `features: ['!{}']` does"


@dataclass(frozen=True)
class Chosen:
    """The columns of features, in the order of the table.

    Attributes:
        numbers: columns of numbers, and matrices.
        categories: columns to be one-hot.
        notes: what was left out, in words.
    """

    numbers: list[str]
    categories: list[str]
    notes: list[str] = field(default_factory=list)


def choose(
    frame: Frame, patterns: Sequence[str], categorical: Sequence[str], taken: Sequence[str]
) -> Chosen:
    """Choose the features of a table.

    Args:
        patterns: names as a suite gives them, where "c*" stands for all that begin with c, and
            "!id" leaves one out. Without a name, all columns are chosen that are not `taken`; or
            the matrix, where the table has one.
        categorical: the columns, likewise, that hold categories.
        taken: the columns of labels and of the split.
    Raises: DataError, naming the columns, for names that no column has, labels among the features,
        and text that is not said to be categories.
    """
    as_categories = _matching(frame, categorical, "categorical", taken)
    named = _matching(frame, patterns, "features", taken)
    out = _excluded(frame, patterns)
    notes: list[str] = []
    matrix = ""
    if not any(not pattern.startswith("!") for pattern in patterns):
        named = [name for name in frame.columns if name not in (*taken, *out)]
        matrix = _only_matrix(frame, named)
    if matrix:
        rest = [name for name in named if name not in (matrix, *as_categories)]
        if rest:
            notes.append(f"{frame.path}: not read beside {matrix!r}: {_listed(rest)}")
        named = [matrix]

    exact = {*patterns, *as_categories}
    kept = []
    for name in frame.columns:
        if name in as_categories or (name in named and name in exact):
            kept.append(name)
        elif name in named and is_row_number(name, frame.columns[name]):
            # pandas writes the index without a name. Of a sorted table it would tell the class.
            notes.append(f"{frame.path}: the column {name!r} numbers the rows, and is not read")
        elif name in named:
            _require_feature(frame, name)
            kept.append(name)
    if not kept:
        raise DataError(f"{frame.path}: has no column of features beside {_listed(taken)}")

    numbers = [name for name in kept if name not in as_categories]
    _require_numbers(frame, numbers)
    for name in as_categories:
        if shape_of(frame.columns[name]):
            raise DataError(f"{frame.path}: {name!r} is a matrix, and no column of categories")
    return Chosen(numbers, as_categories, notes)


def _matching(frame: Frame, patterns: Sequence[str], key: str, taken: Sequence[str]) -> list[str]:
    """Return the columns that names and patterns mean, without those that begin with "!"."""
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern in taken:
            raise DataError(
                f"{frame.path}: the column {pattern!r} holds labels or parts, so it cannot be a "
                f"feature; take it out of `{key}`"
            )
        if not pattern.startswith("!"):
            found |= dict.fromkeys(_meant(frame, pattern, key))
    out = {*taken, *_excluded(frame, patterns)}
    return [name for name in frame.columns if name in found and name not in out]


def _excluded(frame: Frame, patterns: Sequence[str]) -> list[str]:
    out = []
    for pattern in patterns:
        if pattern.startswith("!"):
            out += _meant(frame, pattern[1:], "features")
    return out


def _meant(frame: Frame, pattern: str, key: str) -> list[str]:
    """Return the columns of a name or pattern. Raises DataError where there is none."""
    # A column may be called x[1], which as a pattern would mean x1.
    if pattern in frame.columns:
        return [pattern]
    found = fnmatch.filter(frame.columns, pattern)
    if not found:
        raise DataError(
            f"{frame.path}: `{key}` names {pattern!r}, and there is no such column, only "
            f"{_listed(list(frame.columns))}.{did_you_mean(pattern, frame.columns)}"
        )
    return found


def _only_matrix(frame: Frame, names: Sequence[str]) -> str:
    """Return the column that is a matrix; "" where there is none. Raises DataError for several."""
    found = [name for name in names if shape_of(frame.columns[name])]
    if len(found) > 1:
        raise DataError(
            f"{frame.path}: {_listed(found)} are matrices; which are the features? Name them: "
            f"`features: [{found[0]}]`"
        )
    return found[0] if found else ""


def _require_feature(frame: Frame, name: str) -> None:
    """Raise DataError for a column that may hold labels or parts, and that nothing names."""
    fix = f"; {_LEAVE_OUT.format(name)}; or, if it is a feature, name it: `features: ['*', {name}]`"
    if is_label_column(name):
        raise DataError(
            f"{frame.path}: the column {name!r} may hold labels, by its name, and a label among "
            f"the features would make every method look right. Say what it is with `label`, "
            f"`clean_label` or `labels`{fix}"
        )
    column = frame.columns[name]
    if shape_of(column):
        return
    # Of numbers only a column with a telling name is looked at.
    if isinstance(column, list) or may_be_split(name):
        values = {str(text) for text in as_texts(column)}
        parts = all(says_a_part(value) for value in values)
        if 1 < len(values) <= MOST_VALUES and (parts or may_be_split(name)):
            raise DataError(
                f"{frame.path}: the column {name!r} may part the rows ({_listed(sorted(values))}). "
                f"If it does, write `split: {name}`{fix}"
            )


def is_row_number(name: str, column: Column) -> bool:
    """Return whether a column counts the rows, as an index or `id` does."""
    if isinstance(column, list) or column.ndim > 1 or column.dtype.kind not in "iuf":
        return False
    if name not in ("", "Unnamed: 0") and not _ROW_WORDS & set(words(name)):
        return False
    return len(column) > 2 and bool((np.diff(column) == 1).all())


def _require_numbers(frame: Frame, names: Sequence[str]) -> None:
    """Raise DataError for columns of text, all of them at once."""
    texts = {}
    for name in names:
        column = frame.columns[name]
        if isinstance(column, list):
            texts[name] = next((cell for cell in column if cell is not None), "")
        elif column.dtype.kind not in "biuf":
            raise DataError(
                f"{frame.path}: the column {name!r} holds {column.dtype}, and no numbers; "
                f"{_LEAVE_OUT.format(name)}"
            )
    if not texts:
        return
    shown = ", ".join(f"{name!r} (such as {text!r})" for name, text in list(texts.items())[:5])
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    comma = ""
    if any(text.replace(",", "", 1).lstrip("-").isdecimal() for text in texts.values()):
        comma = ". A decimal comma is no number here: write 1.5 and not 1,5"
    raise DataError(
        f"{frame.path}: {shown}{more} hold text. If these are categories: `categorical: "
        f"[{', '.join(list(texts)[:5])}]`; if not, {_LEAVE_OUT.format(next(iter(texts)))}{comma}"
    )


# ---- Categories ----------------------------------------------------------------------------------


def as_texts(column: Column) -> list[str | None]:
    """Return a column (N,) as texts: whole numbers without a point, None for a missing value."""
    if isinstance(column, list):
        return column
    if column.dtype.kind == "f":
        texts: list[str | None] = []
        for value in column.tolist():
            if value != value:
                texts.append(None)
            else:
                texts.append(str(int(value)) if float(value).is_integer() else repr(value))
        return texts
    return [str(value) for value in column.tolist()]


def categories_of(name: str, texts: Sequence[str], path: object, rows: int) -> list[str]:
    """Return the categories of a column in order, as the training part has them.

    Raises: DataError for more than can be one-hot.
    """
    found = sorted(set(texts))
    if len(found) > MOST_CATEGORIES or (len(found) > 20 and 2 * len(found) > rows):
        raise DataError(
            f"{path}: the column {name!r} has {len(found):,} categories for {rows:,} training "
            f"rows, each of which would be a feature of its own; {_LEAVE_OUT.format(name)}, or "
            "join rare ones into one"
        )
    return found


def require_width(path: object, widths: Mapping[str, int]) -> None:
    """Raise DataError for one-hot columns that would fill the memory. `widths` is by column."""
    total = sum(widths.values())
    if total > MOST_COLUMNS:
        widest = max(widths, key=lambda name: widths[name])
        raise DataError(
            f"{path}: the categories would make {total:,} features, and at most {MOST_COLUMNS:,} "
            f"are made; the most come from {widest!r} ({widths[widest]:,})"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(map(repr, names[:8])) or "nothing") + more
