"""The made-up examples that `nlbench check` trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from nlbench.conformance.trial import Trial
from nlbench.data.base import Info
from nlbench.data.noise import measure
from nlbench.training.run_data import RunData

WRONG = 0.3
NUM_VAL = 20
NUM_TEST = 40


def make_data(trial: Trial, told: Collection[str]) -> RunData:
    """Make examples around one centre per class; of the labels 30% are wrong.

    They are made anew for each training: a copy that is kept is one more place where a method could
    find clean labels.

    Args:
        told: the privileged information that the method declares.
    """
    rng = np.random.default_rng(0)
    shape = (16, 16, 3) if trial.pixels else (1, 8, 8)
    centres = rng.normal(size=(trial.classes, *shape))

    # All classes have equally many examples, as far as the number allows.
    true = rng.permutation(trial.num) % trial.classes
    labels = _given(true, trial, rng)
    images = _images(true, centres, trial, rng)

    # Drawn without a validation part, too, so that the training examples do not depend on it.
    val_true = rng.integers(0, trial.classes, NUM_VAL)
    val_labels = _given(val_true, trial, rng)
    val_images = _images(val_true, centres, trial, rng)

    # They have their own generator, so that the training examples do not depend on the test set.
    test_rng = np.random.default_rng(2 if trial.other_test else 1)
    test_labels = test_rng.integers(0, trial.classes, NUM_TEST)
    test_images = _images(test_labels, centres, trial, test_rng)
    if trial.other_test_labels:
        test_labels = test_rng.permutation(test_labels)

    clean = true
    if trial.other_clean_labels:
        clean = rng.permutation(true)
    # Information that the method declares stays the same when the clean labels are permuted,
    # because the method may use it.
    rate_from = true if "noise_rate" in told else clean
    T_from = true if "T" in told else clean

    info = Info("check", "made-up examples", trial.classes, trial.num, NUM_TEST, shape)
    if trial.pixels:
        info = dataclasses.replace(info, mean=(0.5,) * 3, std=(0.25,) * 3)
    data = RunData(
        info=info,
        train_images=images,
        labels=labels,
        clean_labels=clean,
        val_images=None,
        val_labels=None,
        test_images=test_images,
        test_labels=test_labels,
        train_index=np.arange(trial.num),
        val_index=np.arange(0),
        noise_rate_full=measure.noise_rate(rate_from, labels),
        noise_rate_train=measure.noise_rate(rate_from, labels),
        noise_rate_val=None,
        labels_hash="",
        T=measure.transition_matrix(T_from, labels, trial.classes),
        variant="",
        warnings=(),
        checksums={},
    )
    if not trial.val:
        return data
    return dataclasses.replace(
        data,
        val_images=val_images,
        val_labels=val_labels,
        val_index=trial.num + np.arange(NUM_VAL),
        noise_rate_val=WRONG,
    )


def _given(true: np.ndarray, trial: Trial, rng: np.random.Generator) -> np.ndarray:
    """Return labels of which 30% are wrong, or none in a clean trial."""
    rate = 0.0 if trial.clean else WRONG
    # A clean trial draws the same numbers, so its examples are those of the usual trial.
    wrong = rng.random(len(true)) < rate
    # An offset of at least 1, so that a wrong label is never the true one.
    other = (true + rng.integers(1, trial.classes, len(true))) % trial.classes
    return np.where(wrong, other, true)


def _images(
    true: np.ndarray, centres: np.ndarray, trial: Trial, rng: np.random.Generator
) -> np.ndarray:
    """Return an example near the centre of each class in `true`: uint8 images, or float32."""
    values = centres[true] + 0.5 * rng.normal(size=(len(true), *centres.shape[1:]))
    if trial.pixels:
        return (128 + 50 * values).clip(0, 255).astype(np.uint8)
    return values.astype(np.float32)
