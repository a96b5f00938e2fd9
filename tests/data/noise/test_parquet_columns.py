"""Parquet files with several columns of labels: taken by plain names, or asked about."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import encoded

from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.errors import DataError


@pytest.fixture
def load(tmp_path):
    """Return load(train, ...), which writes a file for each dict of columns and reads them."""

    def write(*shards):
        root = tmp_path / "f"
        root.mkdir(exist_ok=True)
        for i, columns in enumerate(shards):
            columns = {"image": [encoded(j, i) for j in range(4)], **columns}
            name = f"train-{i:05}-of-{len(shards):05}.parquet"
            pq.write_table(pa.table(columns), root / name)
        test = {"image": [encoded(j, 9) for j in range(2)], "label": [0, 1]}
        pq.write_table(pa.table(test), root / "test.parquet")
        return folder.load(Places(root, tmp_path / "cache"), 0)

    return write


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("noisy_label", "label"),
        ("label", "clean_label"),
        ("label_noisy", "true_label"),
        ("y", "gt"),
    ],
)
def test_plain_names(load, given, clean):
    dataset = load({clean: [0, 1, 0, 1], given: [0, 1, 1, 1]})
    assert dataset.label_sets["given"].tolist() == [0, 1, 1, 1]
    assert dataset.label_sets["clean"].tolist() == [0, 1, 0, 1]
    told = [line for line in dataset.warnings if f"given labels are {given!r}" in line]
    assert len(told) == (clean != "clean_label")


def test_names_that_do_not_tell(load):
    with pytest.raises(
        DataError, match=r"'worse_label', 'aggre_label' may all be labels; which are"
    ):
        load({"worse_label": [0, 1, 0, 1], "aggre_label": [0, 1, 1, 1]})


def test_files_with_other_columns(load):
    labels = {"label": [0, 1, 0, 1]}
    with pytest.raises(
        DataError, match=r"its labels are 'label', and .* has 'noisy_label'; give all"
    ):
        load({**labels, "noisy_label": [0, 1, 1, 1]}, labels)
