"""A table of your own: features and labels in .csv, .npz, .npy, .parquet or .arrow."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from nlbench.data import feature_matrix
from nlbench.data.base import Dataset, Found, Info, Source
from nlbench.data.cache import Arrays, Facts, cached, file_state
from nlbench.data.feature_matrix import Missing, Part, matrices
from nlbench.data.formats.feature_columns import Chosen, as_texts, choose, require_no_copy
from nlbench.data.formats.frames import SUFFIXES, Frame, files_of, read_parts, shape_of
from nlbench.data.formats.split_column import part_of
from nlbench.data.places import Places
from nlbench.data.table_labels import Numbered, columns_of_labels, dataset_of, trusted_labels
from nlbench.data.test_share import choose_test
from nlbench.errors import DataError, DataMissing, did_you_mean
from nlbench.files import short_hash

INFO = Info(
    name="features",
    title="a table of your own",
    num_classes=0,
    num_train=0,
    num_test=0,
    # As many features as the table has.
    shape=(0, 1, 1),
    label_sets=("given",),
    located_by="suite",
    columns=("label", "clean_label"),
)
SOURCES: tuple[Source, ...] = ()
WHERE = (
    "features of your own, of which a suite says where they lie: "
    "datasets: [{name: features, path: table.csv, label: species, test_share: 0.2}]"
)
CHECK = "`nlbench data check FILE --label COLUMN` says what would be read"
_TEST_FIX = (
    "`test_share: 0.2` in the suite's dataset entry takes a fifth of the rows to test on, and "
    "`split: COLUMN` parts them as a column says"
)
# Raise it when the cache gets other arrays of the same table.
_LAYOUT = 2


def find(data_dir: Path) -> Found:
    """Find nothing: a suite names the file."""
    kinds = f"a file must be one of {', '.join(SUFFIXES)}"
    return Found(paths=(), looked=(), missing=(WHERE, kinds, CHECK))


def load(places: Places, seed: int) -> Dataset:
    """Read the table `places.data_dir`: a file, or a folder with one for each part.

    Features are (N, D, 1, 1) float32, standardised by the training rows alone; see
    `feature_matrix.matrices`. A class is a label's text or whole number. Classes are numbered in
    their order, integers as numbers. The test rows' true labels, or else their first label set, are
    taken as true. The arrays are kept in the cache, from which they are mapped.

    Raises: DataMissing when the file is not there; DataError, naming file and column.
    """
    path = places.data_dir
    if not path.exists():
        made = f"`nlbench embed DATASET --to {path}` makes features of images"
        raise DataMissing(f"{path}: no such file; {WHERE}; {made}")
    files = files_of(path)
    return _read(places, file_state(files))


# The suite's check and each seed read the same table.
@functools.lru_cache(maxsize=8)
def _read(places: Places, state: str) -> Dataset:
    """Read the table; `state` is that of its files, so that a change is noticed."""
    path = places.data_dir
    columns = (places.label_column, places.clean_column, places.table)
    options = (feature_matrix.VERSION, _LAYOUT, places.test_share, *columns)
    name = f"features-{short_hash(repr((str(path), options)).encode())}"
    arrays, facts = cached(places.cache_dir, name, files_of(path), lambda: _decode(places))

    return dataset_of(INFO, path, arrays, facts)


def _decode(places: Places) -> tuple[Arrays, Facts]:
    """Return the arrays of a table, and what else is known of it."""
    frames = read_parts(places.data_dir)
    if not {"train", "test"} <= set(frames) and list(frames) != [""]:
        there = ", ".join(name or "a table" for name in frames)
        raise DataError(
            f"{places.data_dir}: needs the parts train and test, and has {there}. {_TEST_FIX}, of "
            "one file"
        )
    whole = frames.get("", frames.get("train"))
    assert whole is not None
    columns = columns_of_labels(whole, places)
    taken = [*columns.values()]
    if places.table.split and "" in frames:
        _require_column(whole, "split", places.table.split)
        taken.append(places.table.split)
    chosen = choose(whole, places.table.features, places.table.categorical, taken)
    _require_rows(whole, [*taken, *chosen.numbers, *chosen.categories])

    # ---- Which rows are which part ---------------------------------------------------------------
    notes = list(chosen.notes)
    if "" in frames:
        parts, more = _split(whole, columns, chosen, places)
        notes += more
    else:
        parts = _given_parts(frames, columns, chosen, places)
        left = [name for name in frames if name not in parts]
        notes += [f"{places.data_dir}: the part {name} is not read" for name in left]
    for name, part in parts.items():
        if not len(part.rows):
            raise DataError(f"{part.frame.path}: there are no {name} rows")

    numbered = Numbered.of(parts, columns, notes)
    for name, array in numbered.arrays.items():
        if name != "test_labels":
            rows = parts["train"].rows
            require_no_copy(whole, rows, chosen, places.table.features, array)
    made = matrices(parts, chosen, cast(Missing, places.table.missing))
    notes += [*made.notes, *_about_twins(parts, chosen)]

    arrays = dict(numbered.arrays)
    for name, matrix in made.features.items():
        arrays[name] = matrix.reshape(*matrix.shape, 1, 1)
    arrays["rows"] = parts["train"].rows
    clean = arrays.get(numbered.clean, np.empty(0, np.int64))
    test = arrays["test_labels"]
    texts = "\0".join([made.fingerprint, *numbered.classes]).encode()
    facts = {
        "classes": numbered.classes,
        "label_sets": numbered.complete,
        "fingerprint": short_hash(texts, b"\0", _bytes(clean), _bytes(test)),
        "notes": [*notes, *numbered.notes],
    }
    return arrays, facts


def _bytes(labels: np.ndarray) -> bytes:
    return labels.astype("<i8").tobytes()


def _require_column(frame: Frame, key: str, name: str) -> None:
    if name not in frame.columns:
        raise DataError(
            f"{frame.path}: `{key}` names {name!r}, and there is no such column, only "
            f"{', '.join(map(repr, list(frame.columns)[:20]))}.{did_you_mean(name, frame.columns)}"
        )


def _require_rows(frame: Frame, names: Sequence[str]) -> None:
    """Raise DataError for columns of different lengths, as arrays of a file may be."""
    first, *others = dict.fromkeys(names)
    length = len(frame.columns[first])
    for name in others:
        found = len(frame.columns[name])
        if found != length:
            raise DataError(
                f"{frame.path}: {name!r} has {found} rows, and {first!r} has {length}; they must "
                "belong to the same examples"
            )
    if length == 0:
        raise DataError(f"{frame.path}: holds no rows")


# ---- Parts ---------------------------------------------------------------------------------------


def _given_parts(
    frames: Mapping[str, Frame], columns: Mapping[str, str], chosen: Chosen, places: Places
) -> dict[str, Part]:
    """Return the parts train and test of a folder or of arrays, whose columns must fit."""
    for key, value in {"test_share": places.test_share, "split": places.table.split}.items():
        if value:
            raise DataError(
                f"{places.data_dir}: has a test part, and `{key}` would take another one; leave it "
                "out, or name one file as the path"
            )
    train, test = frames["train"], frames["test"]
    for name in (*chosen.numbers, *chosen.categories):
        if name not in test.columns:
            raise DataError(
                f"{test.path}: has no column {name!r}, which the training part has; it has "
                f"{', '.join(map(repr, list(test.columns)[:20]))}."
                f"{did_you_mean(name, test.columns)}"
            )
        ours, theirs = (shape_of(frame.columns[name]) for frame in (train, test))
        if ours != theirs:
            raise DataError(
                f"{test.path}: {name!r} has {theirs or 'one'} numbers in a row, and the training "
                f"part has {ours or 'one'}"
            )
    choose(test, chosen.numbers, chosen.categories, ())
    there = [name for name in columns.values() if name in test.columns]
    _require_rows(test, [*chosen.numbers, *chosen.categories, *there])
    return {"train": _all_rows(train), "test": _all_rows(test)}


def _all_rows(frame: Frame) -> Part:
    return Part(frame, np.arange(len(frame)))


def _split(
    frame: Frame, columns: Mapping[str, str], chosen: Chosen, places: Places
) -> tuple[dict[str, Part], list[str]]:
    """Part one table by a column or by a share. Returns the parts, and what is to be said."""
    if places.table.split:
        if places.test_share:
            raise DataError(
                f"{frame.path}: `split` and `test_share` both choose the test rows; leave one out"
            )
        return _split_by_column(frame, places.table.split)
    if not places.test_share:
        raise DataMissing(f"{frame.path}: has no test part; {_TEST_FIX}")

    whole = _all_rows(frame)
    trusted, notes = trusted_labels(whole, columns)
    twins: dict[str, list[int]] = {}
    for i, found in enumerate(_row_hashes(whole, chosen)):
        twins.setdefault(found, []).append(i)
    copies = [group for group in twins.values() if len(group) > 1]
    test = choose_test(trusted, copies, places.test_share)
    if not test.any():
        raise DataError(f"{frame.path}: too few rows for test_share {places.test_share:g}")
    parts = {"train": Part(frame, np.flatnonzero(~test)), "test": Part(frame, np.flatnonzero(test))}
    return parts, notes


def _split_by_column(frame: Frame, name: str) -> tuple[dict[str, Part], list[str]]:
    texts = as_texts(frame.columns[name])
    found = [part_of(name, text or "") for text in texts]
    if "" in found:
        row = found.index("")
        raise DataError(
            f"{frame.at(row)}: {name!r} is {texts[row]!r}; a row is of the part train, test or val "
            "(or training, validation and the like; or yes and no in a column such as is_test)"
        )
    parts = {}
    for part in ("train", "test"):
        parts[part] = Part(frame, np.array([i for i, p in enumerate(found) if p == part], np.int64))
    notes = []
    if "val" in found:
        notes.append(
            f"{frame.path}: {found.count('val')} rows of the part val are not read. Validation "
            "rows are taken out of the training part (the protocol's val_fraction)"
        )
    return parts, notes


def _row_hashes(part: Part, chosen: Chosen) -> list[str]:
    """Return a hash of the features of each row."""
    texts = [part.texts(name) for name in chosen.categories]
    words = ["\0".join(text or "" for text in cells).encode() for cells in zip(*texts, strict=True)]
    words = words or [b""] * len(part.rows)
    if not chosen.numbers:
        return [short_hash(word) for word in words]
    hashes = []
    for start, chunk in part.places(chosen.numbers):
        for i, row in enumerate(chunk, start):
            hashes.append(short_hash(row.tobytes(), words[i]))
    return hashes


def _about_twins(parts: Mapping[str, Part], chosen: Chosen) -> list[str]:
    """Say how many test rows have the features of a training row."""
    known = dict.fromkeys(_row_hashes(parts["train"], chosen))
    test = _row_hashes(parts["test"], chosen)
    again = [i for i, found in enumerate(test) if found in known]
    if not again:
        return []
    return [
        f"{len(again)} of {len(test)} test rows have the features of a training row, the first: "
        f"{parts['test'].at(again[0])}. If these are copies of one row, take them out of one part: "
        "every method looks better than it is"
    ]
