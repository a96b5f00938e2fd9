"""What a file holds becomes class numbers, or is named with the row and the fix."""

import gzip
import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from nlbench.data.datasets import cifar10
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.label_files import check_labels, read_labels
from nlbench.errors import DataError

LABELS = [2, 0, 1, 1]
INFO = replace(
    cifar10.INFO, num_train=4, num_classes=3, num_test=2, class_names=("ant", "café", "fly")
)
NAMED = Examples(INFO, ())


def save(path, array):
    """Save an array, also one of objects."""
    np.save(path, array, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.array(LABELS),
        np.array(LABELS, np.uint8),
        np.array(LABELS, ">i4"),
        np.array(LABELS, np.float32),
        np.array(LABELS)[:, None],
        np.array(LABELS)[None],
        np.array(["2", "0", "1", "1"]),
    ],
    ids=["int64", "uint8", "big-endian", "float32", "column", "line", "text"],
)
def test_arrays(tmp_path, array):
    labels = read_labels(save(tmp_path / "x.npy", array))
    assert labels.tolist() == LABELS
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "label\nfly\nant\ncafé\ncafé\n"),
        ("x.csv", "label\nfly\nant\ncafe\u0301\ncafé\n"),
        ("x.csv", "index,class\n3,café\n2,café\n1,ant\n0,fly\n"),
        ("x.json", '["fly", "ant", "café", "café"]'),
        ("x.csv", "label\n2.0\n0.0\n1.0\n1.0\n"),
        ("x.txt", "2.000000000000000000e+00\n0.000e+00\n1.000e+00\n1.0e0\n"),
        ("x.tsv", "label\tscore\n2\t.1\n0\t.1\n1\t.1\n1\t.1\n"),
        ("X.CSV", '"label"\n"2"\n"0"\n"1"\n"1"\n'),
        ("x.json", "[2.0, 0.0, 1.0, 1.0]"),
    ],
)
def test_texts(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name, "", NAMED).tolist() == LABELS


def test_classes_whose_names_are_numbers(tmp_path):
    numbered = Examples(replace(INFO, class_names=("1", "2", "3")), ())
    (tmp_path / "x.csv").write_text("label\n3\n1\n2\n2\n")
    assert read_labels(tmp_path / "x.csv", "", numbered).tolist() == LABELS
    (tmp_path / "x.csv").write_text("label\n2\n0\n1\n1\n")
    assert read_labels(tmp_path / "x.csv", "", numbered).tolist() == LABELS


def test_archives_and_pickles(tmp_path):
    np.savez(tmp_path / "x.npz", noisy=LABELS, clean=[0, 0, 1, 1])
    assert read_labels(tmp_path / "x.npz", "noisy").tolist() == LABELS
    with pytest.raises(DataError, match="set key to one of: noisy, clean"):
        read_labels(tmp_path / "x.npz")
    for content in (LABELS, np.array(LABELS), {"a": LABELS}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        key = "a" if isinstance(content, dict) else ""
        assert read_labels(tmp_path / "x.pkl", key).tolist() == LABELS
    torch.save({"noisy": torch.tensor(LABELS)[:, None]}, tmp_path / "x.pth")
    assert read_labels(tmp_path / "x.pth", "noisy").tolist() == LABELS


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1, np.nan, np.nan]), "label at position 1 is nan .and 1 more., so there is no"),
        (np.array([1, np.inf]), "label at position 1 is inf, so there is no label"),
        (np.array([0.5, 1]), "must be integers of shape .N,., got float64, for example 0.5"),
        (np.array([True, False]), r"got bool of shape \(2,\); save labels.astype\(int\)"),
        (np.eye(3)[LABELS], r"one-hot labels of shape \(4, 3\); save labels.argmax\(1\)"),
        (np.eye(3, dtype=int)[LABELS], "one-hot labels"),
        (np.full((4, 3), 1 / 3), "probabilities of 3 classes for each of 4 examples .soft labels"),
        (np.arange(12).reshape(4, 3), r"got int64 of shape \(4, 3\); save the one column"),
        (np.array([[np.nan, 1], [0, 1]]), r"an array \(2, 2\) with NaN"),
        (np.zeros((2, 2, 2)), r"got float64 of shape \(2, 2, 2\)"),
        (np.array(3), r"got int64 of shape \(\)"),
        (np.array(["a", "b"]), "label at position 0 must be an integer, got 'a'"),
        (np.array(["1", ""]), "label at position 1 is empty, so there is no label"),
        (np.array([1, None]), "holds Python objects, which could run code.*numpy.save"),
        (np.array([(1, 2)], dtype="i4,i4"), "labels must be integers of shape"),
        (np.array([1 + 2j]), "labels must be integers of shape"),
    ],
)
def test_arrays_that_hold_something_else(tmp_path, array, words):
    path = save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=rf"x\.npy: .*{words}"):
        read_labels(path)


@pytest.mark.parametrize(
    "cell", ["", "nan", "NaN", "NaT", "None", "N/A", "NA", "null", "-1", "unknown", "?", "inf"]
)
def test_cells_without_a_class_are_named_by_their_line(tmp_path, cell):
    (tmp_path / "x.csv").write_text(f"index,label\n0,1\n\n1,{cell}\n2,0\n3,{cell}\n")
    with pytest.raises(
        DataError, match=r"x\.csv:4: label is .* .and 1 more., so there is no label"
    ):
        read_labels(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text(f'label\n1\n"{cell}"\n0\n')
    with pytest.raises(DataError, match=r"y\.csv:3: label is .*, so there is no label"):
        read_labels(tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "label\n1\nfly\n",
            ":2: label must be an integer from 0, or a class .ant, café, fly., got '1'",
        ),
        ("label\nfly\nflyy\n", ":3: label must be .*, got 'flyy'. Did you mean 'fly'"),
        ("label\n1\n1.5\n", ":3: label must be an integer from 0, .* got '1.5'"),
        ("label\n1\n0x1\n", ":3: .* got '0x1'"),
        ("label\n1\n9007199254740993.0\n", ":3: label must be"),
    ],
)
def test_cells_that_are_no_class_of_the_dataset(tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"x\.csv{words}"):
        read_labels(tmp_path / "x.csv", "", NAMED)


def test_columns_of_noisy_and_true_labels(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("label,label_noisy\n0,2\n0,0\n1,1\n1,1\n")
    assert read_labels(path).tolist() == LABELS
    assert read_labels(path, "label").tolist() == [0, 0, 1, 1]
    path.write_text("worse,aggre_label,random_label1\n2,0,1\n")
    with pytest.raises(
        DataError, match=r"x\.csv:1: 'aggre_label', 'random_label1' may all be labels"
    ):
        read_labels(path)
    path.write_text("index,clean_label\n0,1\n")
    with pytest.raises(DataError, match=r"'clean_label' holds true labels.*key: COLUMN"):
        read_labels(path)
    with pytest.raises(DataError, match="has no column 'noisy', only 'index', 'clean_label'"):
        read_labels(path, "noisy")


@pytest.mark.parametrize(
    ("count", "why"),
    [
        (60_000, "as many as training and test examples together; save those of the 50000"),
        (45_000, "Is a validation part left out of it"),
        (10_000, "are these the labels of the test set"),
        (50_001, "is the first one a header"),
        (100_000, "that is 2 for each; keep one label"),
        (7, "7 labels, it must have one for each of 50000 training examples; save one for each"),
    ],
)
def test_the_likely_reason_of_a_wrong_number(count, why):
    with pytest.raises(DataError, match=why):
        check_labels(np.zeros(count, np.int64), 50_000, 10, "x.npy", 10_000)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([1, 2, 3, 1], "got 3 at position 2; are the classes numbered from 1. Subtract 1"),
        ([0, -1, 2, -1], "got -1 at position 1 and 1 more; a negative number often says"),
        (
            [0, 1, 2, 7],
            r"must be in \[0, 3\), got 7 at position 3; does the file have other classes",
        ),
    ],
)
def test_the_likely_reason_of_labels_out_of_range(labels, why):
    with pytest.raises(DataError, match=why):
        check_labels(np.array(labels), 4, 3, "x.npy")


def zipped(**files):
    """Return a zip archive as bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", b"<!DOCTYPE html>\n<html>", "is a web page .HTML.*Raw"),
        ("x.pt", b"\n\n<html>", "is a web page"),
        ("x.json", b"<html></html>", "is a web page"),
        ("x.npy", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs"),
        ("x.pt", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("x.npy", gzip.compress(b"x", mtime=0), "is a gzip file.*gunzip"),
        ("x.npy", zipped(a="b"), "is a zip archive"),
        ("x.npy", pickle.dumps([1]), "is a pickle.*the end .pkl"),
        ("x.pt", b"\x93NUMPY\x01\x00", "is a NumPy array.*the end .npy"),
        ("x.csv", zipped(a="b"), "is a zip archive.*Excel"),
        ("x.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook; save it as CSV|Excel"),
        ("x.pt", b"", "is empty"),
        ("x.pt", zipped(a="b"), "not one of torch.save"),
        (
            "x.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'shape': (",
            "no array that NumPy reads",
        ),
        ("x.npz", zipped(a="b"), "holds|no array"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*({words})"):
        read_labels(tmp_path / name)


def test_torch_files_of_an_unknown_zip_version(tmp_path):
    torch.save(torch.tensor(LABELS), tmp_path / "x.pt")
    content = (tmp_path / "x.pt").read_bytes()
    # The version that is needed to unpack stands in each entry of the directory.
    (tmp_path / "x.pt").write_bytes(
        content.replace(b"PK\x01\x02\x00\x00\x00\x00", b"PK\x01\x02\x00\x00\xff\x00")
    )
    with pytest.raises(DataError, match=r"x\.pt: cannot be read \(zip file version"):
        read_labels(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.pkl", "x.csv", "x.json", "x.txt"])
def test_damaged_files_end_in_a_message(tmp_path, name):
    path = tmp_path / name
    labels = np.arange(40) % 3
    if name == "x.npz":
        np.savez(path, labels)
    elif name == "x.npy":
        np.save(path, labels)
    elif name == "x.pt":
        torch.save(torch.tensor(labels), path)
    elif name == "x.pkl":
        path.write_bytes(pickle.dumps(labels))
    elif name == "x.json":
        path.write_text(json.dumps(labels.tolist()))
    else:
        lines = [f"{i},{label}" for i, label in enumerate(labels)]
        path.write_text("\n".join(["index,label", *lines]))
    whole = path.read_bytes()

    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)])
        try:
            read_labels(path, "arr_0" if name == "x.npz" else "")
        except DataError as error:
            refused += name in str(error)
    assert refused > 50
