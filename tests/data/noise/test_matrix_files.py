"""Matrices as people keep them are read; those that mean something else are named with the fix."""

import gzip
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from nlbench.data.datasets import cifar10
from nlbench.data.noise.matrix_files import matrix_warnings, read_matrix
from nlbench.data.noise.resolve import apply, resolve
from nlbench.errors import DataError, SuiteError

T3 = np.array([[0.8, 0.1, 0.1], [0, 1, 0], [0.25, 0.25, 0.5]])
INFO = replace(cifar10.INFO, num_train=30, num_classes=3)


def rows(T, separator):
    """Return a matrix as text."""
    return "\n".join(separator.join(f"{x:g}" for x in row) for row in np.asarray(T)) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("T.csv", rows(T3, ",").encode()),
        ("T.CSV", rows(T3, ", ").encode("utf-16")),
        ("T.csv", rows(T3, ";").encode("utf-8-sig")),
        ("T.tsv", rows(T3, "\t").replace("\n", "\r\n").encode()),
        ("T.txt", rows(T3, "   ").encode() + b"\n\n"),
        ("T.txt", rows(T3, ",").encode()),
        ("T.json", json.dumps(T3.tolist()).encode()),
        ("T.pkl", pickle.dumps(T3)),
        ("T.pkl", pickle.dumps(T3.tolist(), 0)),
        ("T.pickle", pickle.dumps(T3.astype(np.float64), 5)),
    ],
)
def test_formats(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_matrix(tmp_path / name, 3, unrelated=False), T3)
    assert matrix_warnings(tmp_path / name, 3) == ()


def test_tensors(tmp_path):
    torch.save(torch.tensor(T3), tmp_path / "T.pt")
    np.testing.assert_array_equal(read_matrix(tmp_path / "T.pt", 3), T3)
    np.savetxt(tmp_path / "T.txt", T3)
    np.testing.assert_array_equal(read_matrix(tmp_path / "T.txt", 3), T3)


@pytest.mark.parametrize(
    ("C", "decimals"), [(3, 2), (3, 4), (10, 2), (10, 3), (10, 4), (100, 3), (100, 4)]
)
def test_matrices_that_were_rounded_as_papers_print_them(tmp_path, C, decimals):
    rng = np.random.default_rng(1)
    T = 0.6 * np.eye(C) + 0.4 * rng.dirichlet(np.ones(C), C)
    printed = np.round(T, decimals)
    (tmp_path / "T.csv").write_text(rows(printed, ","))

    read = read_matrix(tmp_path / "T.csv", C, unrelated=False)
    np.testing.assert_allclose(read.sum(1), 1, atol=1e-12)
    assert abs(read - T).max() <= 0.6 * 10.0**-decimals + abs(printed.sum(1) - 1).max()
    warned = matrix_warnings(tmp_path / "T.csv", C)
    assert f"rounded to {decimals} decimals" in warned[0]


def test_an_exact_matrix_keeps_its_bits(tmp_path):
    T = np.random.default_rng(0).dirichlet(np.ones(3), 3)
    np.save(tmp_path / "T.npy", T)
    np.testing.assert_array_equal(read_matrix(tmp_path / "T.npy", 3), T)


@pytest.mark.parametrize("C", [10, 100])
def test_single_precision_and_six_digits(tmp_path, C):
    """Equal entries have equal errors, which add up."""
    T = 0.3 * np.eye(C) + 0.7 / (C - 1) * (1 - np.eye(C))
    np.save(tmp_path / "T.npy", T.astype(np.float32))
    (tmp_path / "T.csv").write_text(rows(T, ","))
    for name in ("T.npy", "T.csv"):
        np.testing.assert_allclose(read_matrix(tmp_path / name, C), T, atol=1e-5)


def test_the_identity_is_allowed_and_told(tmp_path):
    np.save(tmp_path / "T.npy", np.eye(3))
    noise = resolve({"kind": "matrix", "path": "T.npy"}, INFO, tmp_path)
    clean = np.arange(30) % 3
    np.testing.assert_array_equal(apply(noise, clean, INFO, 0), clean)
    assert "identity matrix, so no label is changed" in matrix_warnings(tmp_path / "T.npy", 3)[0]


OFF = [[0.9, 0.1, 0], [0, 0.7, 0.3], [0.2, 0.2, 0.6]]


@pytest.mark.parametrize(
    ("T", "words"),
    [
        (np.transpose(OFF), "row 0 adds up to 1.1; its columns do, so it is transposed.*Save T.T"),
        (np.transpose(np.round(np.array(OFF) + 0.001, 2)), "it is transposed"),
        (
            100 * np.array(OFF),
            "row 0 adds up to 100; its entries are percentages: divide it by 100",
        ),
        ([[90, 10, 0], [0, 5, 5], [1, 1, 6]], "its entries are counts: divide each row by its sum"),
        (np.array(OFF) / 3, "it holds joint probabilities: divide each row by its sum"),
        (
            [[0.9, 0.1, 0], [0, 1, 0], [0, 0.3, 0.6]],
            "row 2 adds up to 0.9; rounding does not explain",
        ),
        ([[0.9, 0.1, 0], [0, 1, 0], [0, 0.3, 0.654321]], "rounding does not explain that"),
        ([[1, 0, 0], [0, 1.5, -0.5], [0, 0, 1]], "smallest entry is -0.5"),
        ([[1, 0, 0], [0, math.nan, 0], [0, 0, 1]], "T holds probabilities, and not nan"),
        ([[1, 0, 0], [0, math.inf, 0], [0, 0, 1]], "T holds probabilities, and not inf"),
        ([[1, 0], [0, 1]], r"must be 3 x 3, got shape \(2, 2\)"),
        (np.vstack([np.arange(3), OFF]), "leave out its first row if the classes are numbered"),
        (np.hstack([np.arange(3)[:, None], OFF]), "leave out its first column if the"),
        (np.pad(OFF, [(1, 0), (1, 0)]), "leave out its first row and column if the"),
        ([0.1, 0.2, 0.7], r"must be 3 x 3, got shape \(3,\)"),
        # Thousandths that were all rounded to 0 are no small error.
        (0.9 * np.eye(3), "rounding does not explain that. If it is meant, divide each row"),
        # The noise rate on the diagonal.
        (
            0.2 * np.eye(3) + 0.4 * (1 - np.eye(3)),
            r"T\[0, 0\] is 0.2, and the largest other .* 0.4",
        ),
        (np.full((3, 3), 1 / 3), "no class keeps its label more often.*`unrelated: true`"),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], "no class keeps its label more often"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_what_is_wrong_is_said_with_the_fix(tmp_path, T, words, suffix):
    path = tmp_path / f"T{suffix}"
    if suffix == ".npy":
        np.save(path, T)
    else:
        path.write_text("\n".join(",".join(map(repr, map(float, np.atleast_1d(r)))) for r in T))
        if np.ndim(T) == 1:
            words = "must be 3 x 3"
    with pytest.raises(SuiteError, match=rf"noise\.path: .*T\{suffix}: .*{words}"):
        resolve({"kind": "matrix", "path": path.name}, INFO, tmp_path)


def test_labels_may_be_meant_to_be_unrelated(tmp_path):
    np.save(tmp_path / "T.npy", np.full((3, 3), 1 / 3))
    noise = {"kind": "matrix", "path": "T.npy", "unrelated": True}
    resolved = resolve(noise, INFO, tmp_path)
    assert len(set(apply(resolved, np.zeros(30, np.int64), INFO, 0).tolist())) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "T.csv",
            b"a,b,c\n0.9,0.1,0\n0,1,0\n0,0,1\n",
            ":1: a line of numbers must be here, .*'a,b,c'",
        ),
        ("T.csv", b"x,1,0,0\ny,0,1,0\nz,0,0,1\n", ":1: .*'x' is none; leave names of classes out"),
        ("T.csv", b",0,1,2\n0,1,0,0\n1,0,1,0\n2,0,0,1\n", ":1: a line of numbers must be here"),
        ("T.csv", b"0,9;0,1;0\n0;1;0\n0;0;1\n", ":1: .*'0,9' is none; write a point in place"),
        ("T.csv", b"1,0,0\n0,1\n0,0,1\n", ":2: .*this row of T has 2 entries, the first one 3"),
        ("T.csv", b"1,0,0\n0,x,0\n0,0,1\n", ":2: not a matrix of numbers: 'x' is none"),
        ("T.json", b"[[1, 0], [0", ": cannot be read as JSON .* was it cut off"),
        ("T.json", b"[" * 100_000, ": is nested too deeply"),
        ("T.json", b'{"T": [[1]]}', r": holds several things by name \(T\); save T alone"),
        ("T.json", b"[[1, 0], [0]]", ": not a matrix of numbers"),
        ("T.npy", b"<!doctype html>", ": is a web page"),
        ("T.npy", b"version https://git-lfs.github.com/spec/v1", ": is a Git LFS pointer"),
        ("T.npy", pickle.dumps(T3), ": is a pickle, .*give its name the end .pkl"),
        ("T.npy", gzip.compress(b"x", mtime=0), ": is a gzip file"),
        ("T.pkl", b"\x93NUMPY\x01\x00v\x00{", ": is a NumPy array.*the end .npy"),
        (
            "T.pkl",
            pickle.dumps(print),
            ": refused, because its pickle asks for builtins.print.*save",
        ),
        ("T.mat", b"MATLAB 5.0", ": a matrix is read from .*not from '.mat'; numpy.save"),
        ("T", b"1 0", ": a matrix is read from .*not from 'such files'"),
    ],
)
def test_files_that_hold_no_matrix(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name.replace('.', '.')}{words}"):
        read_matrix(tmp_path / name, 3)


def test_damaged_arrays_end_in_a_message(tmp_path):
    np.save(tmp_path / "whole.npy", T3)
    whole = (tmp_path / "whole.npy").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "T.npy").write_bytes(damaged[: rng.integers(0, len(whole) + 1)])
        try:
            read_matrix(tmp_path / "T.npy", 3)
        except DataError as error:
            refused += "T.npy" in str(error)
    assert refused > 250
