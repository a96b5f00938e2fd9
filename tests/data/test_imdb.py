"""IMDB: the authors' folder and Hugging Face's parquet files give the same arrays."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Imdb

from nlbench.data import catalogue
from nlbench.data.datasets import imdb
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing


@pytest.fixture
def small():
    return Imdb()


def load(data):
    return catalogue.open_dataset("imdb", "", Places(data, data.with_name("cache")), 0)


def plain_words(text):
    """Return the words of a small review: its texts have no apostrophes and only ASCII."""
    for sign in ("<br />", ",", ":", "!"):
        text = text.replace(sign, " ")
    return text.lower().split()


def check(dataset, small):
    counts = Counter(word for text in small.texts["train"] for word in plain_words(text))
    order = sorted(counts, key=lambda word: (-counts[word], word))
    number = {word: i + 2 for i, word in enumerate(order)}
    assert "br" not in number

    for part, rows in (("train", dataset.train_images), ("test", dataset.test_images)):
        assert rows.dtype == np.int64
        assert rows.shape == (24, 400)
        for text, row in zip(small.texts[part], rows, strict=True):
            words = [number.get(word, 1) for word in plain_words(text)]
            assert row.tolist() == words + [0] * (400 - len(words))
    assert dataset.label_sets["clean"].tolist() == dataset.test_labels.tolist() == small.labels
    # "test" is a word that the training texts lack.
    assert 1 in dataset.test_images
    assert 1 not in dataset.train_images


@pytest.mark.parametrize("place", ["aclImdb", "imdb/aclImdb", ""])
def test_the_folder_of_the_authors(small, tmp_path, place):
    small.write_folders(tmp_path / "data" / place)
    check(load(tmp_path / "data"), small)


@pytest.mark.parametrize("place", ["imdb", "imdb/plain_text"])
def test_parquet_files(small, tmp_path, place):
    small.write_parquet(tmp_path / "data" / place)
    check(load(tmp_path / "data"), small)


def test_both_layouts_have_one_fingerprint_and_name_the_classes(small, tmp_path):
    small.write_folders(tmp_path / "a" / "data")
    small.write_parquet(tmp_path / "b" / "data" / "imdb")
    one, other = load(tmp_path / "a" / "data"), load(tmp_path / "b" / "data")
    assert one.fingerprint == other.fingerprint
    assert one.info.class_names == ("neg", "pos")
    assert one.info.num_train == 24
    assert "IMDB has 25000 train reviews, and there are 24" in one.warnings

    small.texts["train"][0] += " lovely"
    small.write_folders(tmp_path / "c" / "data")
    assert load(tmp_path / "c" / "data").fingerprint != one.fingerprint


def test_what_is_missing_is_named_with_its_source(small, tmp_path):
    small.write_folders(tmp_path / "data" / "aclImdb")
    for path in (tmp_path / "data" / "aclImdb" / "test" / "pos").iterdir():
        path.unlink()
    (tmp_path / "data" / "aclImdb" / "test" / "pos").rmdir()
    with pytest.raises(DataMissing) as caught:
        load(tmp_path / "data")
    assert f"missing in {tmp_path / 'data'}: test/pos" in str(caught.value)
    assert "https://ai.stanford.edu/~amaas/data/sentiment/" in str(caught.value)
    assert imdb.find(tmp_path / "nothing").missing


def test_an_empty_folder_is_named(small, tmp_path):
    small.write_folders(tmp_path / "data")
    for path in (tmp_path / "data" / "test" / "pos").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"test/pos: holds no reviews \(\*\.txt\)"):
        load(tmp_path / "data")


def test_a_review_that_is_not_utf8_is_named_with_its_line(small, tmp_path):
    small.write_folders(tmp_path / "data")
    path = tmp_path / "data" / "train" / "neg" / "0_3.txt"
    path.write_bytes("so\nlàlà".encode("latin-1"))
    with pytest.raises(DataError, match=r"0_3\.txt:2: byte 4 is no UTF-8; save the file as UTF-8"):
        load(tmp_path / "data")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            -1,
            "row 0 .from 0.: label is -1, and must be 0 or 1; -1 marks the reviews without labels",
        ),
        (2, "row 0 .from 0.: label is 2, and must be 0 or 1"),
        (None, "row 0 .from 0.: label is None, and must be 0 or 1"),
    ],
)
def test_a_row_without_a_usable_label_is_refused(small, tmp_path, label, message):
    small.write_parquet(tmp_path / "data" / "imdb")
    table = pa.table({"text": ["good"], "label": pa.array([label], pa.int64())})
    pq.write_table(table, tmp_path / "data" / "imdb" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "data")
