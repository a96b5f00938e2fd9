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
    notes += _about_unread(frame, patterns)
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
        if pattern.startswith("!") and pattern[1:] not in frame.unread:
            out += _meant(frame, pattern[1:], "features")
    return out


def _about_unread(frame: Frame, patterns: Sequence[str]) -> list[str]:
    """Say which columns are neither numbers nor texts and would else be features."""
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")] or ["*"]
    out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    shown = []
    for name, kind in frame.unread.items():
        meant = any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
        if meant and not any(fnmatch.fnmatchcase(name, pattern) for pattern in out):
            shown.append(f"{name!r} ({kind[:40]})")
    if not shown:
        return []
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return [
        f"{frame.path}: not read, since they hold neither numbers nor texts: "
        f"{', '.join(shown[:8])}{more}. Features that are dates or durations must be numbers"
    ]


def _meant(frame: Frame, pattern: str, key: str) -> list[str]:
    """Return the columns of a name or pattern. Raises DataError where there is none."""
    # A column may be called x[1], which as a pattern would mean x1.
    if pattern in frame.columns:
        return [pattern]
    if pattern in frame.unread:
        raise DataError(
            f"{frame.path}: `{key}` names {pattern!r}, which holds {frame.unread[pattern]}; write "
            "it as numbers, such as days, or take it out"
        )
    found = fnmatch.filter(frame.columns, pattern)
    if not found and not fnmatch.filter(frame.unread, pattern):
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
    fix = f"; {_fix(name)}"
    annotator = any(word.startswith("annotator") for word in words(name))
    if is_label_column(name) or annotator:
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


def _fix(name: str) -> str:
    return f"{_LEAVE_OUT.format(name)}; or, if it is a feature, name it: `features: ['*', {name}]`"


# On so many of fewer rows, a column of two values agrees with two classes by chance.
_FEWEST_ROWS = 20
# Of labels and a copy of them, some may have been corrected.
_LEAST_AGREEMENT = 0.95


def require_no_copy(
    frame: Frame, rows: np.ndarray, chosen: Chosen, patterns: Sequence[str], labels: np.ndarray
) -> None:
    """Raise DataError for a feature that is the labels in other words, unless it is named.

    Its values map one to one to the classes: each is most frequent in a class of its own, and the
    other way round, and 95% of the rows are of these pairs.

    Args:
        rows: (n,) positions of the rows in the frame.
        labels: (n,) int64; -1 where a label is unknown.
    """
    num_classes = len(np.unique(labels[labels >= 0]))
    for name in (*chosen.numbers, *chosen.categories):
        column = frame.columns[name]
        if name in patterns or shape_of(column):
            continue
        values = _few_values(column, rows, num_classes)
        known = (labels >= 0) & (values >= 0)
        if known.sum() < _FEWEST_ROWS:
            continue
        if _agreement(values[known], labels[known]) >= _LEAST_AGREEMENT:
            raise DataError(
                f"{frame.path}: the column {name!r} has a value for each class, so it may hold "
                f"labels, and a label among the features would make every method look right; "
                f"{_fix(name)}"
            )


def _few_values(column: Column, rows: np.ndarray, most: int) -> np.ndarray:
    """Return rows of a column as numbers of its values (n,); -1 where one is missing.

    All are -1 for a single value, and for more than `most` values.
    """
    if isinstance(column, list):
        cells = np.array([column[i] or "" for i in rows])
        there = cells != ""
    else:
        cells = np.asarray(column[rows])
        there = cells == cells
    numbers = np.full(len(rows), -1)
    # Most columns have many values in their first rows already.
    if len(np.unique(cells[there][:1000])) > most:
        return numbers
    found, places = np.unique(cells[there], return_inverse=True)
    if 2 <= len(found) <= most:
        numbers[there] = places
    return numbers


def _agreement(values: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows that a mapping of values to classes, one to one, accounts for."""
    classes, places = np.unique(labels, return_inverse=True)
    counts = np.zeros((values.max() + 1, len(classes)), np.int64)
    np.add.at(counts, (values, places), 1)
    class_of = counts.argmax(1)
    # The value of a class is most frequent in it as well.
    if (counts.argmax(0)[class_of] != np.arange(len(counts))).any():
        return 0.0
    return float(counts.max(1).sum() / len(labels))


def is_row_number(name: str, column: Column) -> bool:
    """Return whether a column numbers the rows, as an index or `id` does, also with gaps."""
    if isinstance(column, list) or column.ndim > 1 or column.dtype.kind not in "iuf":
        return False
    if name not in ("", "Unnamed: 0") and not _ROW_WORDS & set(words(name)):
        return False
    # A sorted table whose rows are numbered from class to class would tell the class.
    rising = len(column) > 2 and bool((column[1:] > column[:-1]).all())
    return rising and bool((column == np.floor(column)).all())


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
    long = [name for name in texts if _holds_sentences(frame.columns[name])]
    if long:
        raise DataError(
            f"{frame.path}: {long[0]!r} holds texts (such as {_shortened(texts[long[0]])!r}). To "
            f"classify them, use the dataset text: `{{name: text, path: {frame.path.name}, text: "
            f"{long[0]}}}` (see docs/your-own-texts.md); to classify rows by their other columns, "
            f"{_LEAVE_OUT.format(long[0])}"
        )
    shown = ", ".join(f"{name!r} (such as {text!r})" for name, text in list(texts.items())[:5])
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    holds = "holds" if len(texts) == 1 else "hold"
    comma = ""
    if any(text.replace(",", "", 1).lstrip("-").isdecimal() for text in texts.values()):
        comma = ". A decimal comma is no number here: write 1.5 and not 1,5"
    raise DataError(
        f"{frame.path}: {shown}{more} {holds} text. If these are categories: `categorical: "
        f"[{', '.join(list(texts)[:5])}]`; if not, {_LEAVE_OUT.format(next(iter(texts)))}{comma}"
    )


def _holds_sentences(column: Column) -> bool:
    """Return whether cells are texts of several words, most of which occur once."""
    if not isinstance(column, list):
        return False
    cells = [cell for cell in column[:1000] if cell]
    several = sum(len(cell.split()) > 2 for cell in cells)
    return 2 * several > len(cells) and 2 * len(set(cells)) > len(cells)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


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
