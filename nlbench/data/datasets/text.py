"""Texts of your own with labels: a CSV, JSON lines or parquet file, or one for each part."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import Arrays, Facts, cached, file_state
from nlbench.data.feature_matrix import Part
from nlbench.data.formats.frames import Column, Frame, numbers_or_texts
from nlbench.data.formats.split_column import part_of, require_one_part
from nlbench.data.formats.text_rows import SUFFIXES, Rows, read_rows
from nlbench.data.places import Places
from nlbench.data.table_labels import Numbered, columns_of_labels, dataset_of, trusted_labels
from nlbench.data.test_share import choose_test
from nlbench.data.texts import UNKNOWN, numbered, vocabulary_of, words_of
from nlbench.errors import DataError, DataMissing
from nlbench.files import short_hash

# Where a suite says nothing: the numbers of the Forward paper's code for IMDB.
VOCABULARY, LENGTH = 5000, 400

INFO = Info(
    name="text",
    title="texts of your own",
    num_classes=0,
    num_train=0,
    num_test=0,
    shape=(LENGTH,),
    # A table with a column of true labels also has the labels "clean".
    label_sets=("given",),
    located_by="suite",
    columns=("label", "clean_label"),
    vocabulary=VOCABULARY,
)
SOURCES: tuple[Source, ...] = ()
WHERE = (
    "texts of your own, of which a suite says where they lie: "
    "datasets: [{name: text, path: reviews.csv, text: review, label: rating, test_share: 0.2}]"
)
_PARTS = ("train", "test")
NAMES = ("text", "texts", "sentence", "review", "document", "message", "comment", "tweet", "body")
_TEST_FIX = (
    "`test_share: 0.2` in the suite's dataset entry takes a fifth of the texts to test on, and "
    "`split: COLUMN` parts them as a column says"
)
# Raise it when the same files and options give other arrays.
_VERSION = 2


@dataclass(frozen=True)
class _Part:
    """The texts of one part.

    Attributes:
        table: the other columns of the same rows.
    """

    rows: Rows
    table: Part
    texts: list[str]

    def at(self, i: int) -> str:
        """Return where a text is, for the beginning of a message."""
        return self.table.at(i)

    def select(self, places: Sequence[int]) -> _Part:
        """Return the texts at these positions."""
        taken = self.table.rows[np.array(places, np.int64)]
        return _Part(self.rows, Part(self.table.frame, taken), [self.texts[i] for i in places])


# ---- Reading it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Find nothing: a suite names the file."""
    kinds = f"a file must be one of {', '.join(SUFFIXES)}; or a folder with train and test in one"
    return Found(paths=(), looked=(), missing=(WHERE, kinds))


def load(places: Places, seed: int) -> Dataset:
    """Read the table `places.data_dir`: a file, or a folder with one for each part.

    Texts become (N, L) int64 numbers of words, by a vocabulary of the training texts; see
    `nlbench.data.texts`. L is the suite's `length`, or that of the longest text. Labels are those
    of `nlbench.data.table_labels`. The test texts' true labels, or else their given ones, are taken
    as true.

    Raises: DataMissing when the file is not there; DataError, naming file and row.
    """
    path = places.data_dir
    if not path.exists():
        raise DataMissing(f"{path}: no such file; {WHERE}")
    return _read(places, file_state(_files(path)))


# The suite's check and each seed read the same table.
@functools.lru_cache(maxsize=8)
def _read(places: Places, state: str) -> Dataset:
    """Read the table; `state` is that of its files, so that a change is noticed."""
    path = places.data_dir
    options = {**vars(places), "data_dir": str(path), "cache_dir": "", "version": _VERSION}
    name = f"text-{short_hash(repr(sorted(options.items())).encode())}"
    arrays, facts = cached(places.cache_dir, name, _files(path), lambda: _decode(places))

    return dataset_of(replace(INFO, vocabulary=facts["vocabulary"]), path, arrays, facts)


def _decode(places: Places) -> tuple[Arrays, Facts]:
    """Return the arrays of a table, and what else is known of it."""
    parts, notes = _parts(places)
    for name, part in parts.items():
        if not part.texts:
            raise DataError(f"{part.rows.path}: there are no {name} texts")

    columns = columns_of_labels(parts["train"].table.frame, places)
    labels = Numbered.of({name: part.table for name, part in parts.items()}, columns, notes)
    arrays = dict(labels.arrays)
    arrays["rows"] = np.asarray(parts["train"].table.rows, np.int64)

    # ---- Words -----------------------------------------------------------------------------------
    words = {name: [words_of(text) for text in part.texts] for name, part in parts.items()}
    size, length = places.vocabulary or VOCABULARY, places.length or LENGTH
    longest = max(len(found) for of_part in words.values() for found in of_part)
    length = min(length, max(longest, 1))
    vocabulary = vocabulary_of(words["train"], size)
    for name, of_part in words.items():
        arrays[name] = numbered(of_part, vocabulary, length)

    notes += [*_about_texts(parts, words, arrays), *labels.notes]
    clean = arrays.get(labels.clean, np.empty(0, np.int64))
    hashed = fingerprint(arrays["train"], arrays["test"], clean, arrays["test_labels"])
    facts = {
        "classes": labels.classes,
        "label_sets": labels.complete,
        "vocabulary": size,
        "fingerprint": short_hash("\0".join([hashed, str(size), *labels.classes]).encode()),
        "notes": notes,
    }
    return arrays, facts


# ---- Parts ---------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """Return the files that are read. Raises DataMissing for a folder that lacks a part."""
    if not path.is_dir():
        return [path]
    found = []
    for part in _PARTS:
        there = [path / f"{part}{suffix}" for suffix in SUFFIXES]
        there = [file for file in there if file.is_file()]
        if len(there) > 1:
            raise DataError(f"{path}: {there[0].name} and {there[1].name} are one part; keep one")
        if not there:
            names = ", ".join(f"{part}{suffix}" for suffix in SUFFIXES)
            raise DataMissing(
                f"{path}: there is none of {names}; with one file for all texts, name that file as "
                "the path"
            )
        found += there
    return found


def _parts(places: Places) -> tuple[dict[str, _Part], list[str]]:
    """Return the parts train and test, and what is to be said about them."""
    path = places.data_dir
    parts: dict[str, _Part] = {}
    notes: list[str] = []
    for name, file in zip(_PARTS, _files(path), strict=False):
        rows = read_rows(file)
        parts[name] = _part(rows, places)
    if path.is_dir():
        for key, value in {"test_share": places.test_share, "split": places.table.split}.items():
            if value:
                raise DataError(f"{path}: has a test part; leave `{key}` out")
        for name, part in parts.items():
            _require_one_part(part.rows, places, name)
        return parts, notes

    whole = parts["train"]
    if places.table.split and places.test_share:
        raise DataError(f"{path}: `split` and `test_share` both choose the test texts; keep one")
    if places.table.split:
        return _by_column(whole, places.table.split)
    if not places.test_share:
        raise DataMissing(f"{path}: has no test part; {_TEST_FIX}")
    _require_one_part(whole.rows, places, "train")
    return _by_share(whole, places)


def _require_one_part(rows: Rows, places: Places, name: str) -> None:
    """Raise DataError for a column that parts the rows, and is not read."""
    others = {}
    for column, cells in rows.columns.items():
        if column not in (_text_column(rows, places), places.label_column, places.clean_column):
            others[column] = [cell or "" for cell in cells]
    try:
        require_one_part(others, name, rows.path)
    except DataError as error:
        raise DataError(f"{error}. If it says the part, name it with `split: COLUMN`") from None


def _by_column(whole: _Part, name: str) -> tuple[dict[str, _Part], list[str]]:
    cells = whole.rows.column(name, "split")
    found = [part_of(name, cell or "") for cell in cells]
    if "" in found:
        row = found.index("")
        raise DataError(
            f"{whole.at(row)}: {name} is {cells[row]!r}. A text is of the part train, test or val "
            "(or training, validation and the like; or yes and no in a column such as is_test)"
        )
    parts = {}
    for part in _PARTS:
        parts[part] = whole.select([i for i, of in enumerate(found) if of == part])
    notes = []
    if "val" in found:
        notes.append(
            f"{whole.rows.path}: {found.count('val')} texts of the part val are not read. "
            "Validation texts are taken out of the training part (the protocol's val_fraction)"
        )
    return parts, notes


def _by_share(whole: _Part, places: Places) -> tuple[dict[str, _Part], list[str]]:
    trusted, notes = trusted_labels(whole.table, columns_of_labels(whole.table.frame, places))
    same: dict[str, list[int]] = {}
    for i, text in enumerate(whole.texts):
        same.setdefault(text, []).append(i)
    copies = [group for group in same.values() if len(group) > 1]
    chosen = choose_test(trusted, copies, places.test_share)
    if not chosen.any():
        raise DataError(f"{whole.rows.path}: too few texts for test_share {places.test_share:g}")
    parts = {}
    for part, mask in (("train", ~chosen), ("test", chosen)):
        parts[part] = whole.select(np.flatnonzero(mask).tolist())
    return parts, notes


# ---- Columns -------------------------------------------------------------------------------------


def _part(rows: Rows, places: Places) -> _Part:
    """Return the texts of a table, and its other columns as numbers or texts."""
    column = _text_column(rows, places)
    texts = []
    for i, text in enumerate(rows.column(column, "text")):
        if text is None:
            raise DataError(f"{rows.at(i)}: there is no {column}; take the row out")
        texts.append(text)

    columns = {}
    for name, cells in rows.columns.items():
        if name not in (column, places.table.split):
            columns[name] = _numbers_or_texts(cells)
    frame = Frame(rows.path, columns, rows.lines, rows.class_names)
    return _Part(rows, Part(frame, np.arange(len(texts))), texts)


def _numbers_or_texts(cells: Sequence[str | None]) -> Column:
    """Return a column as a table of features has it, so that 1.0 is the class 1.

    Texts are kept as they are written, for the message that refuses one.
    """
    plain = [(cell or "").strip() for cell in cells]
    found = numbers_or_texts(plain)
    return [cell or None for cell in plain] if isinstance(found, list) else found


def _text_column(rows: Rows, places: Places) -> str:
    if places.text:
        return places.text
    found = [name for name in rows.names if name.lower() in NAMES]
    if len(found) != 1:
        what = f"{', '.join(map(repr, found))} may all hold the texts" if found else ""
        raise DataError(
            f"{rows.path}: {what or 'has no column text'}; it has "
            f"{', '.join(map(repr, rows.names[:20]))}. Name the column with `text: COLUMN` in the "
            "suite's dataset entry"
        )
    return found[0]


# ---- What the owner of the texts should see ------------------------------------------------------


def _about_texts(
    parts: Mapping[str, _Part],
    words: Mapping[str, Sequence[Sequence[str]]],
    arrays: Mapping[str, np.ndarray],
) -> list[str]:
    """Say how many texts have no word, are in both parts, or are of unknown words alone."""
    notes = []
    for name, part in parts.items():
        empty = [i for i, of_text in enumerate(words[name]) if not of_text]
        if empty:
            notes.append(
                f"{part.at(empty[0])}: has no word (the first of {len(empty)} of "
                f"{len(part.texts)} {name} texts); such a text is one unknown word"
            )

    train, test = parts["train"], parts["test"]
    known = set(train.texts)
    again = [i for i, text in enumerate(test.texts) if text in known]
    if again:
        notes.append(
            f"{len(again)} of {len(test.texts)} test texts are training texts as well, the first: "
            f"{test.at(again[0])}. Take them out of one part: every method looks better than it is"
        )

    # Texts without spaces between words, as Chinese is written, have none that occurs again.
    unknown = np.isin(arrays["test"], (0, UNKNOWN)).all(1).mean()
    if unknown > 0.1:
        notes.append(
            f"{test.rows.path}: {unknown:.0%} of the test texts have no word of the training "
            "texts; words must be parted by spaces or signs"
        )
    return notes
