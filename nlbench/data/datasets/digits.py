"""Handwritten digits, 8x8 grey levels, as scikit-learn bundles them: nothing to download.

UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), its 1,797 test examples.
"""

from pathlib import Path

import numpy as np

from nlbench import streams
from nlbench.data import stratified
from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.places import Places

INFO = Info(name="digits", title="Digits", num_classes=10, num_train=1397, num_test=400, shape=(1, 8, 8), redrawn=True)
SOURCES: tuple[Source, ...] = ()


def find(data_dir: Path) -> Found:
    """Always there: it comes with scikit-learn."""
    return Found(paths=(), looked=(), missing=())


def load(places: Places, seed: int) -> Dataset:
    """1,397 / 400 examples (N, 1, 8, 8) float32 in [0, 1]; the test part is stratified and redrawn for each seed."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)[:, None]  # grey levels 0..16: exact in float32
    labels = bunch.target.astype(np.int64)
    test, train = stratified.split(labels, (INFO.num_test, INFO.num_train), streams.rng(seed, "split-test"))
    arrays = [images[train], images[test], labels[train], labels[test]]
    for array in arrays:
        array.flags.writeable = False
    return Dataset(
        info=INFO,
        train_images=arrays[0],
        test_images=arrays[1],
        test_labels=arrays[3],
        label_sets={"clean": arrays[2]},
        fingerprint=fingerprint(images, labels),
    )
