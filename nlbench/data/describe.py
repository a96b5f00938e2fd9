"""Say how many classes a dataset has, what they are called, and how many images each has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlbench.data.base import Dataset

# Names that one line of text has room for.
_NAMES_SHOWN = 5


def class_counts(labels: np.ndarray, num_classes: int) -> list[int]:
    """Return how many of the labels (N,) int64 each class has."""
    return np.bincount(labels, minlength=num_classes).tolist()


def in_short(dataset: Dataset) -> str:
    """Return classes and counts in a line, by the dataset's first label set."""
    info = dataset.info
    given = dataset.label_sets[info.label_sets[0]]
    train = class_counts(given, info.num_classes)
    test = class_counts(dataset.test_labels, info.num_classes)
    # Features are no images.
    what = "examples" if info.shape and not info.mean else "images"
    return (
        f"{info.title}: {classes_in_words(info.num_classes, info.class_names)}; "
        f"{sum(train)} training {what}, {per_class(train)}; {sum(test)} test {what}, "
        f"{per_class(test)}"
    )


def classes_in_words(count: int, names: Sequence[str]) -> str:
    """Return "3 classes (ant, bee, fly)"; of many classes the first names."""
    if not names:
        return f"{count} classes"
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{count} classes ({', '.join(names[:_NAMES_SHOWN])}{more})"


def per_class(counts: Sequence[int]) -> str:
    """Return "4 in each class" or "4 to 5 in each class"."""
    low, high = min(counts), max(counts)
    return f"{low} in each class" if low == high else f"{low} to {high} in each class"
