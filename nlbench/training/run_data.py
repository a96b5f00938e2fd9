"""Run data."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from nlbench import streams
from nlbench.data import catalogue, stratified
from nlbench.data.base import Dataset, ImageFiles, Info
from nlbench.data.noise import label_files, measure, resolve
from nlbench.data.places import Places
from nlbench.errors import DataError, did_you_mean
from nlbench.plan.spec import RunSpec


@dataclass(frozen=True)
class RunData:
    """The data of one run, NumPy only. Label arrays are copies; images are the dataset's own where nothing is cut out.

    The images of the parts are (n, H, W, 3) uint8, (n, C, H, W) float32 or files, labels (n,) int64.
    """

    info: Info
    train_images: np.ndarray | ImageFiles
    labels: np.ndarray  # given
    clean_labels: np.ndarray | None  # for scoring only; None where nobody knows them, as the rates and T below
    val_images: np.ndarray | ImageFiles | None  # None without a validation part
    val_labels: np.ndarray | None  # given, as noisy as the training part's
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray  # the true ones
    train_index: np.ndarray  # (n,) ascending positions of the training part among all training examples
    val_index: np.ndarray  # likewise; empty without a validation part
    noise_rate_full: float | None  # measured on all N training examples
    noise_rate_train: float | None  # measured on the training part
    noise_rate_val: float | None
    labels_hash: str  # of all N given labels
    T: np.ndarray | None  # (C, C) float64, measured on the training part, T[i, j] = P(given j | clean i)
    variant: str  # how the pixels differ from the official data; empty where they do not
    warnings: tuple[str, ...]  # of the dataset's files, for the record
    checksums: dict[str, str]  # of the dataset's files, for the record
    scored: dict[str, tuple[np.ndarray | ImageFiles, np.ndarray]] = field(default_factory=dict)  # as in Dataset

    @property
    def num_train(self) -> int:
        return len(self.labels)

    @property
    def num_val(self) -> int:
        return len(self.val_index)

    @property
    def num_test(self) -> int:
        return len(self.test_labels)


def load_data(spec: RunSpec, data_dir: Path) -> RunData:
    """Read the dataset of a run, draw its noise and split it, all from the run's seed."""
    condition, protocol = spec.condition, spec.protocol
    places = Places.of_user(data_dir)
    dataset = catalogue.open_dataset(condition.dataset, condition.data_path, places, spec.seed)
    noise = None if condition.noise is None else {**condition.noise, "path": condition.noise_path}
    return prepare(
        dataset,
        labels=condition.labels,
        noise=noise,
        seed=spec.seed,
        val_fraction=protocol.val_fraction,
        subset=protocol.subset,
        stratify=protocol.stratify,
    )


def prepare(
    dataset: Dataset,
    *,
    seed: int,
    labels: str = "clean",
    noise: Mapping[str, Any] | None = None,
    val_fraction: float = 0.0,
    stratify: str = "clean",
    subset: int = 0,
) -> RunData:
    """The given labels of all training examples first, the split afterwards; both from `seed`.

    Args:
        labels: a label set of the dataset.
        noise: resolved by `noise.resolve`, drawn from the clean labels in place of a label set.
        val_fraction: of all N training examples, held out with their given labels: round(val_fraction * N), a half to
            the even number.
        stratify: "clean" or "given", the labels whose classes keep their proportions in each part. By clean labels
            the split of a seed is the same for every noise. Where they are unknown, by the given ones.
        subset: examples in the training part, drawn from what the validation part leaves; 0 takes all of that.
    Raises: ValueError for settings that cannot be, DataError for a noise file that cannot be used.
    """
    clean = dataset.clean_labels
    given = _given(dataset, labels, noise, seed)
    by = {"clean": given if clean is None else clean, "given": given}
    train, val = _split(by, val_fraction, stratify, subset, seed)
    _check_disjoint(dataset, train, val)
    info = dataset.info
    whole = len(train) == len(given)

    def rate(part: np.ndarray | slice) -> float | None:
        return None if clean is None or not len(given[part]) else measure.noise_rate(clean[part], given[part])

    return RunData(
        info=info,
        train_images=dataset.train_images if whole else dataset.train_images[train],
        labels=given[train],
        clean_labels=None if clean is None else clean[train],
        val_images=dataset.train_images[val] if len(val) else None,
        val_labels=given[val] if len(val) else None,
        test_images=dataset.test_images,
        test_labels=np.array(dataset.test_labels),
        scored=dataset.scored,
        train_index=train,
        val_index=val,
        noise_rate_full=rate(slice(None)),
        noise_rate_train=rate(train),
        noise_rate_val=rate(val),
        labels_hash=label_files.labels_hash(given),
        T=None if clean is None else measure.transition_matrix(clean[train], given[train], info.num_classes),
        variant=dataset.variant,
        warnings=dataset.warnings,
        checksums=dataset.checksums,
    )


def _given(dataset: Dataset, labels: str, noise: Mapping[str, Any] | None, seed: int) -> np.ndarray:
    if noise is not None:
        if labels != "clean":
            raise ValueError(f"labels {labels!r} and noise exclude each other: noise is drawn from the clean labels")
        if dataset.clean_labels is None:
            raise ValueError(f"{dataset.info.name}: no noise can be drawn where the true labels are unknown")
        images = None if isinstance(dataset.train_images, ImageFiles) else dataset.train_images
        return resolve.apply(noise, dataset.clean_labels, dataset.info, seed, images)
    if labels not in dataset.label_sets:
        known = ", ".join(dataset.label_sets)
        hint = did_you_mean(labels, dataset.label_sets)
        raise ValueError(f"{dataset.info.name} has no label set {labels!r}. It has: {known}.{hint}")
    return dataset.label_sets[labels]


def _split(
    labels: Mapping[str, np.ndarray], val_fraction: float, stratify: str, subset: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if stratify not in labels:
        raise ValueError(f"stratify must be one of {', '.join(labels)}, got {stratify!r}")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
    N = len(labels[stratify])
    num_val = round(Decimal(str(val_fraction)) * N)
    if num_val == N:
        raise ValueError(f"val_fraction {val_fraction} of {N} leaves no training example")
    if not 0 <= subset <= N - num_val:
        raise ValueError(f"subset must be in [0, {N - num_val}], got {subset}: {num_val} of {N} are for validation")
    val, train = stratified.split(labels[stratify], (num_val, subset or N - num_val), streams.rng(seed, "split"))
    return train, val


def _check_disjoint(dataset: Dataset, train: np.ndarray, val: np.ndarray) -> None:
    """A leak is a wrong result, so it is looked for even where the code above cannot make one.

    Also between the images that score: what is selected by a validation set must not be tested on it.
    """
    if len(np.intersect1d(train, val)) or len(np.unique(train)) < len(train) or len(np.unique(val)) < len(val):
        raise RuntimeError("the training and validation parts overlap")
    parts = {"training": dataset.train_images, "test": dataset.test_images}
    parts |= {name: images for name, (images, _) in dataset.scored.items()}
    for (one, ours), (other, theirs) in itertools.combinations(parts.items(), 2):
        if isinstance(ours, ImageFiles) and isinstance(theirs, ImageFiles):
            if len(both := np.intersect1d(ours.paths(), theirs.paths())):
                raise DataError(f"{os.fsdecode(both.flat[0])}: is both a {one} and a {other} image")
        elif isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray) and np.may_share_memory(ours, theirs):
            raise RuntimeError(f"{dataset.info.name}: {one} and {other} images are the same memory")
