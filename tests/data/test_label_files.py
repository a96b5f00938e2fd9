"""Label files: written labels come back, and files of other tools are read.

A file that cannot be read is named in the error.
"""

import hashlib
import json
import pickle
import struct

import numpy as np
import pytest
import torch

from nlbench.data.noise.label_files import labels_hash, read_labels, write_labels
from nlbench.errors import DataError

LABELS = np.array([3, 0, 2, 2, 9, 1])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json", ".pt"])
def test_written_labels_come_back(tmp_path, suffix):
    path = tmp_path / f"labels{suffix}"
    path.write_text("something older")
    write_labels(path, LABELS.astype(np.int32))
    back = read_labels(path)
    np.testing.assert_array_equal(back, LABELS)
    assert back.dtype == np.int64
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_peoples_tools_read_them(tmp_path):
    for suffix in (".npy", ".json", ".pt"):
        write_labels(tmp_path / f"labels{suffix}", LABELS)
    assert json.loads((tmp_path / "labels.json").read_text()) == LABELS.tolist()
    assert np.load(tmp_path / "labels.npy").dtype == np.int64
    tensor = torch.load(tmp_path / "labels.pt", weights_only=True)
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == LABELS.tolist()


def test_hash_is_of_little_endian_int64():
    for dtype in (np.uint8, ">i8"):
        assert labels_hash(LABELS.astype(dtype)) == labels_hash(LABELS)
    content = struct.pack("<10q", *range(10))
    assert labels_hash(np.arange(10)) == hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(
    "text",
    [
        "3\n0\n2\n2\n9\n1\n",
        "label\n3\n0\n2\n2\n9\n1\n",
        "index,label\n0,3\n1,0\n2,2\n3,2\n4,9\n5,1\n",
        "index,label\n5,1\n4,9\n3,2\n2,2\n1,0\n0,3\n",
        "score, label\r\n.5, 3\r\n.1, 0\r\n.9, 2\r\n.9, 2\r\n.2, 9\r\n.4, 1\r\n\r\n",
        "\ufefflabel\n3\n0\n2\n2\n9\n1",
    ],
)
def test_csv_of_other_people(tmp_path, text):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_labels(tmp_path / "x.csv"), LABELS)


def test_pt_of_other_people(tmp_path):
    for value in (LABELS, LABELS.tolist(), torch.from_numpy(LABELS)):
        torch.save(value, tmp_path / "x.pt")
        np.testing.assert_array_equal(read_labels(tmp_path / "x.pt"), LABELS)
    (tmp_path / "x.pt").write_bytes(
        pickle.dumps({"worse_label": LABELS, "clean_label": LABELS * 0})
    )
    np.testing.assert_array_equal(read_labels(tmp_path / "x.pt", "worse_label"), LABELS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.mat", b"1\n", [".npy, .npz, .pt", "not from '.mat'; numpy.save('labels.npy', labels)"]),
        ("x.npy", b"\x93NUMPY", ["is no array that NumPy reads, truncated or damaged"]),
        ("x.npy", b"", ["is empty"]),
        ("x.npy", pickle.dumps([1]), ["is a pickle, and not what its name says"]),
        ("x.json", b"[1, 2", ["cannot be read as JSON"]),
        ("x.json", b"[" * 100_000, ["is nested too deeply"]),
        ("x.json", b'{"a": 1}', ["its column 'key' names images"]),
        ("x.json", b"[{}, {}]", ["entry 0 is an empty mapping"]),
        ("x.json", b"[1, 100000000000000000000000000]", ["must be an integer, got 1000"]),
        ("x.json", b'[{"label": 1}, {"lable": 1}]', ["entry 1 must have the names label"]),
        ("x.json", b"3", ["holds a number, not a list"]),
        ("x.json", b"[1, null]", ["label at position 1 is empty, so there is no label"]),
        ("x.json", b"[1, NaN]", ["label at position 1 is nan, so there is no label"]),
        ("x.json", b"[1, 2.5]", ["label at position 1 must be an integer, got 2.5"]),
        ("x.json", b"[1, [2]]", ["one integer per example"]),
        ("x.json", b"[true, false]", ["must be an integer, got True"]),
        ("x.csv", b"klass\n1\n", ["no column 'label'", "klass"]),
        ("x.csv", b"label\n1\nx\n", ["x.csv:3: label must be an integer, got 'x'"]),
        ("x.csv", b"index,label\n0,1\n2,1\n", ["index", "exactly once"]),
        ("x.csv", b"index,label\n0,1\n2\n", ["x.csv:3: has 1 values, expected 2"]),
        ("x.csv", b"1,2\n3,4\n", ["2 columns"]),
        ("x.csv", b"\xff\xfe", ["holds no labels"]),
        ("x.pt", b"abc", ["x.pt"]),
        ("x.pt", pickle.dumps({"worse_label": [1]}), ["set key to one of: worse_label"]),
    ],
)
def test_unreadable_label_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / name)
    for word in (name, *words):
        assert word in str(caught.value)


def test_wrong_key_gets_a_hint(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"worse_label": [1]}))
    with pytest.raises(DataError, match="Did you mean 'worse_label'"):
        read_labels(tmp_path / "x.pt", "worst_label")
    np.save(tmp_path / "x.npy", LABELS)
    with pytest.raises(DataError, match="leave the key out"):
        read_labels(tmp_path / "x.npy", "worse_label")


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"\.npy, \.pt, \.csv, \.json"):
        write_labels(tmp_path / "x.txt", LABELS)
    with pytest.raises(DataError, match="cannot be written"):
        write_labels(tmp_path / "nowhere" / "x.npy", LABELS)
