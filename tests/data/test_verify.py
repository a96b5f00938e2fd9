"""A dataset's file that returns something else than it promises is named."""

from dataclasses import replace

import numpy as np
import pytest

from nlbench.data import catalogue
from nlbench.data.base import Dataset, ImageFiles, Info
from nlbench.data.places import Places
from nlbench.errors import DataError

PIXELS = Info("bars", "Bars", 3, 4, 2, (8, 8, 3), ("given", "clean"), (0.5,) * 3, (0.2,) * 3)
FEATURES = replace(PIXELS, shape=(1, 8, 8), mean=(), std=())
FILES = replace(PIXELS, shape=(), num_train=0, num_test=0)


def made(info):
    """Return a sound dataset."""
    if info.shape:
        kind = np.uint8 if info.mean else np.float32
        train, test = (np.zeros((n, *info.shape), kind) for n in (4, 2))
    else:
        train, test = (ImageFiles(None, np.array(["a"] * n, "S")) for n in (4, 2))
    labels = np.array([0, 1, 2, 1])
    label_sets = {"given": labels, "clean": labels}
    return Dataset(info, train, test, np.array([0, 2]), label_sets, "0123")


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Return opened(data, INFO), which opens a dataset whose file returns `data`."""

    class Module:
        def __init__(self, data, info):
            self.data, self.INFO = data, info

        def load(self, places, seed):
            return self.data

    def open_(data, info):
        monkeypatch.setattr(catalogue, "dataset", lambda name: Module(data, info))
        return catalogue.open_dataset("bars", "", Places(tmp_path, tmp_path), 0)

    return open_


@pytest.mark.parametrize("info", [PIXELS, FEATURES, FILES])
def test_a_sound_dataset_passes(opened, info):
    assert opened(made(info), info).info == info


CHANGES = {
    "test_labels must be int64 of shape (2,), as there are images, got int32": {
        "test_labels": np.zeros(2, np.int32)
    },
    "test_labels must be int64 of shape (2,), as there are images, got float64": {
        "test_labels": np.zeros(2)
    },
    "test_labels must be int64 of shape (2,), as there are images, got int64 of shape (3,)": {
        "test_labels": np.zeros(3, np.int64)
    },
    "test_labels must be in [0, 3), got 0 to 3": {"test_labels": np.array([0, 3])},
    "test_labels must be an array, got list": {"test_labels": [0, 1]},
    "label_sets['given'] must be in [0, 3), got -1 to 2": {
        "label_sets": {"given": np.array([-1, 0, 1, 2]), "clean": np.array([0, 1, 2, 1])}
    },
    "label_sets holds 'given', and INFO.label_sets names 'given', 'clean'": {
        "label_sets": {"given": np.array([0, 1, 2, 1])}
    },
    "train_images must be uint8 of shape (N, 8, 8, 3), got float64 of shape (4, 8, 8, 3)": {
        "train_images": np.zeros((4, 8, 8, 3))
    },
    "train_images must be uint8 of shape (N, 8, 8, 3), got uint8 of shape (4, 3, 8, 8)": {
        "train_images": np.zeros((4, 3, 8, 8), np.uint8)
    },
    "there are 1 images, and INFO.num_test is 2; if that may be": {
        "test_images": np.zeros((1, 8, 8, 3), np.uint8),
        "test_labels": np.zeros(1, np.int64),
    },
    "fingerprint must be a text that is not empty, got ''": {"fingerprint": ""},
    "info.num_classes is 4, and INFO says 3": {"info": replace(PIXELS, num_classes=4)},
    "mean and std must have 3 values each": {"info": replace(PIXELS, std=(0.2,))},
    "scored['val'] must be int64 of shape (1,)": {
        "scored": {"val": (np.zeros((1, 8, 8, 3), np.uint8), np.zeros(2, np.int64))}
    },
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_difference_is_named(opened, message):
    with pytest.raises(DataError) as caught:
        opened(replace(made(PIXELS), **CHANGES[message]), PIXELS)
    assert str(caught.value).startswith("dataset bars: ")
    assert message in str(caught.value)


def test_features_are_float32(opened):
    data = replace(made(FEATURES), train_images=np.zeros((4, 1, 8, 8)))
    with pytest.raises(DataError, match=r"must be float32 .*, since INFO has no mean, got float64"):
        opened(data, FEATURES)
