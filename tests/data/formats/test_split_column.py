"""A list with the rows of several parts is refused, and one part of its own is not."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Folder, encoded

from nlbench.data.datasets import folder
from nlbench.data.formats.split_column import MOST_VALUES, require_one_part
from nlbench.data.places import Places
from nlbench.errors import DataError


@pytest.mark.parametrize(
    ("name", "cells", "part", "counts"),
    [
        ("split", ["train", "train", "test", "val"], "train", "train 2, test 1, val 1"),
        ("Data_Split", ["Train", "TEST"], "train", "Train 1, TEST 1"),
        ("subset", ["a", "b", "b"], "train", "b 2, a 1"),
        ("fold", ["0", "1", "2"], "train", "0 1, 1 1, 2 1"),
        ("is_test", ["0", "0", "1"], "train", "0 2, 1 1"),
        ("is_train", ["False"], "train", "False 1"),
        ("validation", ["True", "False"], "train", "True 1, False 1"),
        ("Usage", ["Public", "train"], "test", "Public 1, train 1"),
        ("Verwendung", ["Training", "test"], "train", "Training 1, test 1"),
        ("split", ["test", "test"], "train", "test 2"),
        ("set", ["train", ""], "train", "train 1, (empty) 1"),
    ],
)
def test_rows_of_several_parts_are_refused(tmp_path, name, cells, part, counts):
    words = f"the column {name!r} parts the rows ({counts})"
    with pytest.raises(DataError, match=re.escape(words)):
        require_one_part({name: cells}, part, tmp_path / f"{part}.csv")


@pytest.mark.parametrize(
    ("name", "cells", "part"),
    [
        ("split", ["train", "Training"], "train"),
        ("split", ["test", "test"], "test"),
        ("split", ["val"], "test"),
        ("Usage", ["Public", "Private"], "test"),
        ("is_test", ["0", "0"], "train"),
        ("fold", ["3", "3"], "train"),
        ("set", [str(i) for i in range(MOST_VALUES + 1)], "train"),
        ("sunset", ["a", "b"], "train"),
        ("camera", ["a", "b"], "train"),
        ("label_name", ["train", "test"], "train"),
    ],
)
def test_rows_of_one_part_and_other_columns_are_no_harm(tmp_path, name, cells, part):
    require_one_part({name: cells}, part, tmp_path / f"{part}.csv")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_folder_whose_training_rows_name_a_test_part_is_refused(tmp_path, form):
    path = tmp_path / "x"
    if form == "csv":
        Folder().write_csv(path)
        lines = (path / "train.csv").read_text().splitlines()
        parts = ["split", *(["train", "test"] * len(lines))]
        text = "\n".join(f"{line},{parts[i]}" for i, line in enumerate(lines))
        (path / "train.csv").write_text(text)
    else:
        path.mkdir()
        rows = {
            "image": [{"bytes": encoded(i % 2, i), "path": None} for i in range(4)],
            "label": [0, 1, 0, 1],
            "subset": ["train", "train", "test", None],
        }
        pq.write_table(pa.table(rows), path / "train.parquet")
    with pytest.raises(DataError, match=r"column '(split|subset)' parts the rows"):
        folder.load(Places(path, tmp_path / "cache"), 0)
