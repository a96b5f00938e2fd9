"""Choose the test part of a folder that has none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlbench import streams
from nlbench.data import stratified


def choose_test(labels: Sequence[str], copies: Sequence[Sequence[int]], share: float) -> np.ndarray:
    """Choose test images, in each class a share of them. The same images are chosen each time.

    Nothing depends on a run's seed, so that all runs are tested on the same images. Copies of an
    image go to the same part as the image. A class of one image has no test image.

    Args:
        labels: N classes; "" for an image that must not be a test image.
        copies: groups of positions whose images have the same bytes.
        share: in (0, 1).
    Returns: (N,) bool.
    """
    # One image stands for its copies.
    first = np.arange(len(labels))
    for group in copies:
        first[list(group)] = min(group)
    counts: dict[str, int] = {}
    for i in np.unique(first):
        counts[labels[i]] = counts.get(labels[i], 0) + 1
    open_ = [i for i in np.unique(first) if labels[i] and counts[labels[i]] > 1]

    classes = np.array([labels[i] for i in open_])
    size = stratified.num_held_out(share, len(open_))
    chosen = np.zeros(len(labels), bool)
    if open_:
        (test,) = stratified.split(classes, (size,), streams.rng(0, "split-test"))
        chosen[np.array(open_)[test]] = True
        _keep_one(chosen, open_, classes)
    return chosen[first]


def _keep_one(chosen: np.ndarray, open_: Sequence[int], classes: np.ndarray) -> None:
    """Give a class one training image back if all of them were chosen. Writes to `chosen`."""
    positions = np.array(open_)
    for name in np.unique(classes):
        members = positions[classes == name]
        if chosen[members].all():
            chosen[members[0]] = False
