"""IMDB reviews (Maas et al., ACL 2011), from the authors' folder aclImdb or from parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.cache import Facts, cached
from nlbench.data.formats import cifar_parquet
from nlbench.data.formats.text_rows import read_rows
from nlbench.data.formats.text_table import read_text
from nlbench.data.missing import require
from nlbench.data.places import Places
from nlbench.data.texts import numbered, vocabulary_of, words_of
from nlbench.errors import DataError

# As in the code of the Forward paper (giorgiop/loss-correction, models.py): 5,000 words, and the
# last 400 of a review.
VOCABULARY, LENGTH = 5000, 400
CLASSES = ("neg", "pos")

INFO = Info(
    name="imdb",
    title="IMDB",
    num_classes=2,
    num_train=25_000,
    num_test=25_000,
    shape=(LENGTH,),
    class_names=CLASSES,
    vocabulary=VOCABULARY,
)
SOURCES = (
    Source(
        "aclImdb_v1.tar.gz, unpacked",
        home="https://ai.stanford.edu/~amaas/data/sentiment/",
        goes_to="aclImdb/",
    ),
)

# Folders that hold train/ and test/; the last one is the data directory itself.
_PLACES = ("aclImdb", "imdb/aclImdb", "imdb", "")
# The second as in the Hugging Face repository.
_PARQUET_PLACES = ("imdb", "imdb/plain_text", "aclImdb")

# Raise it when the same files give other numbers.
_ENTRY = "imdb-1"

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


# ---- Finding it ----------------------------------------------------------------------------------


def find(data_dir: Path) -> Found:
    """Look for the four folders of reviews, and else for parquet files."""
    looked = tuple(data_dir / place for place in dict.fromkeys((*_PLACES, *_PARQUET_PLACES)))
    best: list[Path] = []
    for place in _PLACES:
        there = [folder for folder in _folders(data_dir / place) if folder.is_dir()]
        if len(there) == 2 * len(CLASSES):
            return Found(tuple(there), looked, ())
        best = best or there

    for place in _PARQUET_PLACES:
        train, train_missing = cifar_parquet.shards(data_dir / place, "train")
        test, test_missing = cifar_parquet.shards(data_dir / place, "test")
        if train and test:
            return Found((*train, *test), looked, (*train_missing, *test_missing))

    what = "aclImdb/train/neg, train/pos, test/neg and test/pos, or train-*.parquet and test-*"
    if best:
        missing = [path for path in _folders(best[0].parents[1]) if path not in best]
        what = ", ".join(str(path.relative_to(best[0].parents[1])) for path in missing)
    return Found(tuple(best), looked, (what,), tuple(source.file for source in SOURCES))


def _folders(root: Path) -> list[Path]:
    return [root / part / name for part in ("train", "test") for name in CLASSES]


# ---- Reading it ----------------------------------------------------------------------------------


def load(places: Places, seed: int) -> Dataset:
    """Read 25,000 / 25,000 reviews as (N, 400) int64 numbers of words; see `nlbench.data.texts`.

    They are read once, into the cache. Line breaks, which are written <br />, part words.

    Raises: DataMissing; DataError, naming the file, when it cannot be used.
    """
    found = find(places.data_dir)
    require(INFO, SOURCES, found, places.data_dir)
    arrays, facts = cached(places.cache_dir, _ENTRY, found.paths, lambda: _decode(found.paths))
    train, test = arrays["train"], arrays["test"]
    return Dataset(
        info=replace(INFO, num_train=len(train), num_test=len(test)),
        train_images=train,
        test_images=test,
        test_labels=arrays["test_labels"],
        label_sets={"clean": arrays["train_labels"]},
        fingerprint=facts["fingerprint"],
        warnings=tuple(facts["warnings"]),
    )


def _decode(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], Facts]:
    """Read both parts, and number their words by the training part's."""
    folders = paths[0].is_dir()
    words, labels = {}, {}
    for part in ("train", "test"):
        if folders:
            texts, labels[part] = _of_folders([path for path in paths if path.parent.name == part])
        else:
            files = [path for path in paths if path.name.startswith(part)]
            texts, labels[part] = _of_parquet(files)
        words[part] = [words_of(_BREAK.sub(" ", text)) for text in texts]

    warnings = []
    for part, expected in (("train", INFO.num_train), ("test", INFO.num_test)):
        if len(labels[part]) != expected:
            count = len(labels[part])
            warnings.append(f"IMDB has {expected} {part} reviews, and there are {count}")

    vocabulary = vocabulary_of(words["train"], VOCABULARY)
    arrays = {}
    for part in ("train", "test"):
        arrays[part] = numbered(words[part], vocabulary, LENGTH)
        arrays[f"{part}_labels"] = np.array(labels[part], np.int64)
    return arrays, {"fingerprint": fingerprint(*arrays.values()), "warnings": warnings}


def _of_folders(folders: Sequence[Path]) -> tuple[list[str], list[int]]:
    """Read the reviews of a part: first the negative ones, each class in the order of its ids."""
    texts: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = sorted(folder.glob("*.txt"), key=_place)
        if not files:
            raise DataError(f"{folder}: holds no reviews (*.txt); was all of the archive unpacked?")
        texts += [read_text(path) for path in files]
        labels += [label] * len(files)
    return texts, labels


def _place(path: Path) -> tuple[int, str]:
    """Return the number before the rating in a name such as 12_7.txt, so that 12 is after 2."""
    digits = path.stem.partition("_")[0]
    return int(digits) if digits.isdecimal() else 0, path.name


def _of_parquet(files: Sequence[Path]) -> tuple[list[str], list[int]]:
    """Read the reviews of a part in the order of its rows."""
    number = {"0": 0, "1": 1} | {name: label for label, name in enumerate(CLASSES)}
    texts: list[str] = []
    labels: list[int] = []
    for file in files:
        rows = read_rows(file)
        for row, (text, label) in enumerate(
            zip(rows.column("text"), rows.column("label"), strict=True)
        ):
            if text is None:
                raise DataError(f"{rows.at(row)}: text is empty")
            if label not in number:
                hidden = "; -1 marks the reviews without labels" if label == "-1" else ""
                raise DataError(f"{rows.at(row)}: label is {label}, and must be 0 or 1{hidden}")
            texts.append(text)
            labels.append(number[label])
    return texts, labels
