"""Handwritten digits, 8x8 grey levels, as scikit-learn bundles them: nothing to download.

UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), its 1,797 test examples.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from nlbench import streams
from nlbench.data import stratified
from nlbench.data.base import Dataset, Found, Info, Source, fingerprint
from nlbench.data.places import Places

INFO = Info(
    name="digits",
    title="Digits",
    num_classes=10,
    num_train=1397,
    num_test=400,
    shape=(1, 8, 8),
    redrawn=True,
)
SOURCES: tuple[Source, ...] = ()


def find(data_dir: Path) -> Found:
    """Find them always: they come with scikit-learn."""
    return Found(paths=(), looked=(), missing=())


def load(places: Places, seed: int) -> Dataset:
    """Read 1,397 / 400 examples (N, 1, 8, 8) float32 in [0, 1].

    The test part is stratified and drawn anew for each seed.
    """
    grey_levels, labels = _of_scikit_learn()
    # Grey levels 0 to 16 are exact in float32.
    images = (grey_levels / 16).astype(np.float32)[:, None]

    sizes = (INFO.num_test, INFO.num_train)
    test, train = stratified.split(labels, sizes, streams.rng(seed, "split-test"))
    arrays = [images[train], images[test], labels[train], labels[test]]

    # Read-only, because several runs of a process share them.
    for array in arrays:
        array.flags.writeable = False

    train_images, test_images, train_labels, test_labels = arrays
    return Dataset(
        info=INFO,
        train_images=train_images,
        test_images=test_images,
        test_labels=test_labels,
        label_sets={"clean": train_labels},
        # Of all examples, before they are split: a run's key holds the seed as well.
        fingerprint=fingerprint(images, labels),
    )


def _of_scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Return the grey levels (1797, 8, 8), float64 from 0 to 16, and the labels (1797,) int64."""
    path = _file_of_scikit_learn()
    if path is None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target.astype(np.int64)

    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _file_of_scikit_learn() -> Path | None:
    """Return the file that `sklearn.datasets.load_digits` reads; None where it lies elsewhere.

    Importing sklearn.datasets takes over a second of processor time, because it imports pandas and
    scipy.stats. Every command that knows a run's key reads the digits, and most need neither.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    return None
