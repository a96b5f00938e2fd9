"""Digits: there is nothing to download, and each seed draws another stratified split."""

import subprocess
import sys

import numpy as np

from nlbench.data.datasets import digits
from nlbench.data.places import Places


def test_digits(tmp_path):
    a = digits.load(Places(tmp_path, tmp_path), 0)
    again = digits.load(Places(tmp_path, tmp_path), 0)
    b = digits.load(Places(tmp_path, tmp_path), 1)

    assert a.train_images.shape == (1397, 1, 8, 8)
    assert a.test_images.shape == (400, 1, 8, 8)
    assert a.train_images.dtype == np.float32
    assert (a.train_images.min(), a.train_images.max()) == (0, 1)

    assert a.fingerprint == b.fingerprint
    np.testing.assert_array_equal(a.train_images, again.train_images)
    assert not np.array_equal(a.test_labels, b.test_labels)

    # Nothing is missing and nothing was written.
    assert digits.find(tmp_path).missing == ()
    assert list(tmp_path.iterdir()) == []


def test_test_part_is_stratified_and_nothing_is_lost(tmp_path):
    from sklearn.datasets import load_digits

    whole = np.bincount(load_digits().target)
    pixels = np.unique((load_digits().data / 16).astype("f4"), axis=0)

    for seed in range(3):
        dataset = digits.load(Places(tmp_path, tmp_path), seed)
        test = np.bincount(dataset.test_labels)

        assert (np.abs(test - 400 * whole / 1797) < 1).all()
        assert (np.bincount(dataset.clean_labels) + test == whole).all()

        images = np.concatenate([dataset.train_images, dataset.test_images]).reshape(1797, 64)
        assert np.array_equal(np.unique(images, axis=0), pixels)


def test_they_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey_levels, labels = digits._of_scikit_learn()
    np.testing.assert_array_equal(grey_levels, bunch.images)
    np.testing.assert_array_equal(labels, bunch.target)
    assert (grey_levels.dtype, labels.dtype) == (np.float64, np.int64)


def test_where_scikit_learn_keeps_its_file_elsewhere_it_is_asked_for_them(tmp_path, monkeypatch):
    usual = digits.load(Places(tmp_path, tmp_path), 0)
    monkeypatch.setattr(digits, "_file_of_scikit_learn", lambda: None)
    asked = digits.load(Places(tmp_path, tmp_path), 0)

    assert asked.fingerprint == usual.fingerprint
    np.testing.assert_array_equal(asked.train_images, usual.train_images)
    np.testing.assert_array_equal(asked.clean_labels, usual.clean_labels)


def test_they_are_read_without_importing_scikit_learn(tmp_path):
    code = f"""
import sys
from pathlib import Path
from nlbench.data.datasets import digits
from nlbench.data.places import Places
digits.load(Places(Path({str(tmp_path)!r}), Path({str(tmp_path)!r})), 0)
print(sorted({{"sklearn", "scipy", "pandas", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
