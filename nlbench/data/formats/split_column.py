"""Find a column that says to which part, such as training or test, each row of a table belongs.

Each part is a list or file of its own. A table with the rows of several parts would be trained on
as a whole, its test rows too, and nothing in the results would show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from nlbench.data.formats.columns import is_label_column, words
from nlbench.errors import DataError

_TRAIN, _TEST, _VAL = "train", "test", "val"
# What a cell may say, in lower case.
_PARTS = dict.fromkeys(("train", "training", "trainset", "trn"), _TRAIN)
_PARTS |= dict.fromkeys(("test", "testing", "testset", "tst", "holdout", "hold-out"), _TEST)
_PARTS |= dict.fromkeys(("val", "valid", "validation", "valset", "dev", "eval"), _VAL)
# Kaggle parts its test rows so, in a column `Usage`.
_KAGGLE = {"public": _TEST, "private": _TEST}

# Names of columns: a word that is enough, and whole names.
_WORDS = {"split", "splits", "subset", "partition", "fold", "folds"}
_NAMES = {"part", "set", "usage", "phase", "stage", "data set", "dataset", "purpose"}
_YES, _NO = {"1", "true", "yes", "y", "t", "1.0"}, {"0", "false", "no", "n", "f", "0.0"}

# A column with more values is about something else.
MOST_VALUES = 20


def may_be_split(name: str) -> bool:
    """Return whether a column says by its name which part a row belongs to."""
    found = words(name)
    whole = " ".join(found)
    return bool(set(found) & _WORDS) or whole in _NAMES or _asked(name) != ""


def says_a_part(value: object) -> bool:
    """Return whether a cell is the name of a part, such as "train" or "Validation"."""
    return str(value).strip().lower() in _PARTS


def part_of(name: str, value: str) -> str:
    """Return "train", "test" or "val", as a cell of the column `name` says it; "" if it does not.

    A cell is the name of a part, or yes or no in a column such as `is_test`.
    """
    plain, asked = value.strip().lower(), _asked(name)
    if asked and plain in _YES:
        return asked
    if asked and plain in _NO:
        return _TEST if asked == _TRAIN else _TRAIN
    return _PARTS.get(plain, "")


def require_one_part(columns: Mapping[str, Sequence[object]], part: str, file: Path) -> None:
    """Raise DataError for a column that says that rows belong to other parts than `part`.

    Args:
        columns: those that hold neither images nor labels, by name.
    """
    for name, cells in columns.items():
        if is_label_column(name) or not cells:
            continue
        counts = Counter(str(cell).strip() for cell in cells)
        named = may_be_split(name) or all(says_a_part(value) for value in counts)
        if not named or len(counts) > MOST_VALUES or _fits(name, list(counts), part):
            continue

        what = ", ".join(f"{value or '(empty)'} {count}" for value, count in counts.most_common())
        use = "trained on" if part == _TRAIN else "taken for one part"
        table = f"{file}:1" if file.suffix == ".csv" else str(file)
        raise DataError(
            f"{table}: the column {name!r} parts the rows ({what}), and is not read: all of them "
            f"would be {use}. Write the training rows into a train{file.suffix} and the test rows "
            f"into a test{file.suffix}, each alone; or remove the column, if all rows are meant"
        )


def _asked(name: str) -> str:
    """Return the part that a column of yes and no asks about, as `is_test` does; else ""."""
    found = words(name)
    if found[:1] in (["is"], ["in"], ["for"]):
        found = found[1:]
    return _PARTS.get(found[0], "") if len(found) == 1 else ""


def _fits(name: str, values: Sequence[str], part: str) -> bool:
    """Return whether all rows are of one part, and of the part that the table is for."""
    parts = set()
    for value in values:
        plain = value.lower()
        asked = _asked(name)
        if asked and plain in _YES:
            parts.add(asked)
        elif asked and plain in _NO:
            parts.add(f"not {asked}")
        else:
            parts.add((_PARTS | _KAGGLE).get(plain, plain))
    if len(parts) > 1:
        return False

    (only,) = parts
    if part == _TRAIN:
        return only not in (_TEST, _VAL, "not train")
    return only not in (_TRAIN, "not test")
