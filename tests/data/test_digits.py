"""Digits: there is nothing to download, and each seed draws another stratified split."""

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
