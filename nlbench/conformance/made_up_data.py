"""Made up data."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlbench.data.base import Info
from nlbench.data.noise import measure
from nlbench.training.run_data import RunData

N, C, BATCH, EPOCHS = 70, 10, 16, 4  # five steps an epoch, the last of six examples


# --- the data ------------------------------------------------------------------------------------------------------


def make_data(
    *,
    classes: int,
    num: int,
    val: bool,
    pixels: bool,
    clean: bool,
    permuted: bool,
    other_test: bool,
    permuted_test: bool,
    told: Any,
) -> RunData:
    """Examples around a centre per class, 30% of them with a wrong label. Made anew each time: a copy that is kept is
    one more place where a method could find clean labels.
    """
    rng = np.random.default_rng(0)
    shape = (16, 16, 3) if pixels else (1, 8, 8)
    centres = rng.normal(size=(classes, *shape))

    def images(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values = centres[labels] + 0.5 * rng.normal(size=(len(labels), *shape))
        return (128 + 50 * values).clip(0, 255).astype(np.uint8) if pixels else values.astype(np.float32)

    def given(labels: np.ndarray) -> np.ndarray:
        wrong = rng.random(len(labels)) < (0.0 if clean else 0.3)
        return np.where(wrong, (labels + rng.integers(1, classes, len(labels))) % classes, labels)

    true = rng.permutation(num) % classes
    labels, train_images = given(true), images(true, rng)
    val_true = rng.integers(0, classes, 20)
    val_labels, val_images = given(val_true), images(val_true, rng)
    test_rng = np.random.default_rng(2 if other_test else 1)
    test_labels = test_rng.integers(0, classes, 40)
    test_images = images(test_labels, test_rng)
    if permuted_test:
        test_labels = test_rng.permutation(test_labels)
    mixed = rng.permutation(true) if permuted else true
    rate, T = (measure.noise_rate(mixed, labels), measure.transition_matrix(mixed, labels, classes))
    if "noise_rate" in told:  # declared, so it stays what it is
        rate = measure.noise_rate(true, labels)
    if "T" in told:
        T = measure.transition_matrix(true, labels, classes)
    mean, std = ((0.5,) * 3, (0.25,) * 3) if pixels else ((), ())
    return RunData(
        info=Info("check", "made-up examples", classes, num, 40, shape, mean=mean, std=std),
        train_images=train_images,
        labels=labels,
        clean_labels=mixed,
        val_images=val_images if val else None,
        val_labels=val_labels if val else None,
        test_images=test_images,
        test_labels=test_labels,
        train_index=np.arange(num),
        val_index=np.arange(num, num + 20) if val else np.arange(0),
        noise_rate_full=rate,
        noise_rate_train=rate,
        noise_rate_val=0.3 if val else None,
        labels_hash="",
        T=T,
        variant="",
        warnings=(),
        checksums={},
    )
