"""The data of one run: noisy labels and the split into training and validation part. NumPy only."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nlbench import streams
from nlbench.data import catalogue, stratified
from nlbench.data.base import Dataset, ImageFiles, Info
from nlbench.data.changes import Watched, since_planned
from nlbench.data.noise import label_files, measure, resolve
from nlbench.data.noise.examples import Examples
from nlbench.data.places import Places
from nlbench.errors import DataError, did_you_mean
from nlbench.plan.conditions import fingerprint_of
from nlbench.plan.spec import RunSpec


@dataclass(frozen=True)
class RunData:
    """The data of one run.

    Images are as in `Dataset`; labels are (n,) int64. Label
    arrays are copies. Images are the dataset's own arrays where nothing is left out.

    Attributes:
        labels: the given labels of the training part.
        clean_labels: the true ones, for scoring only, and -1 where one is unknown. None if they
            all are; then the noise rates and T are None, too.
        val_images: None without a validation part.
        val_labels: the given labels, as noisy as those of the training part.
        test_labels: the true ones.
        train_index: (n,) ascending positions of the training part among all training examples.
        val_index: likewise; empty without a validation part.
        noise_rate_full: measured on all N training examples, of which true labels are known.
        noise_rate_train: measured on the training part.
        labels_hash: of all N given labels.
        T: (C, C) float64, measured on the training part, T[i, j] = P(given j | clean i).
        variant: how the pixels differ from the official data; empty if they do not.
        warnings: about the dataset's files, for the record.
        checksums: of the dataset's files, for the record.
        scored: further images and labels to evaluate on, by name, as in `Dataset`.
        watched: the files of the images, of data that was read for a run.
    """

    info: Info
    train_images: np.ndarray | ImageFiles
    labels: np.ndarray
    clean_labels: np.ndarray | None
    val_images: np.ndarray | ImageFiles | None
    val_labels: np.ndarray | None
    test_images: np.ndarray | ImageFiles
    test_labels: np.ndarray
    train_index: np.ndarray
    val_index: np.ndarray
    noise_rate_full: float | None
    noise_rate_train: float | None
    noise_rate_val: float | None
    labels_hash: str
    T: np.ndarray | None
    variant: str
    warnings: tuple[str, ...]
    checksums: dict[str, str]
    scored: dict[str, tuple[np.ndarray | ImageFiles, np.ndarray]] = field(default_factory=dict)
    watched: Watched = field(default_factory=Watched)

    @property
    def num_known(self) -> int:
        """The number of examples in the training part whose true label is known."""
        return 0 if self.clean_labels is None else int((self.clean_labels >= 0).sum())

    @property
    def num_train(self) -> int:
        """The number of examples in the training part."""
        return len(self.labels)

    @property
    def num_val(self) -> int:
        """The number of examples in the validation part."""
        return len(self.val_index)

    @property
    def num_test(self) -> int:
        """The number of test examples."""
        return len(self.test_labels)


def load_data(spec: RunSpec, data_dir: Path) -> RunData:
    """Read the dataset of a run, draw its noise and split it, all from the run's seed.

    Raises: DataChanged where the data is not that of the run's key any more; DataError.
    """
    condition, protocol = spec.condition, spec.protocol
    places = Places.of_user(data_dir)
    dataset = catalogue.open_dataset(
        condition.dataset,
        condition.data_path,
        places,
        spec.seed,
        condition.folder_options,
    )
    found = fingerprint_of(dataset, condition.labels)
    if found != spec.fingerprint:
        files = catalogue.status(condition.dataset, data_dir).found.paths
        raise since_planned(dataset, found, spec.fingerprint, files, condition.data_path)

    noise = None if condition.noise is None else {**condition.noise, "path": condition.noise_path}
    data = prepare(
        dataset,
        labels=condition.labels,
        noise=noise,
        seed=spec.seed,
        val_fraction=protocol.val_fraction,
        subset=protocol.subset,
        stratify=protocol.stratify,
    )
    scored = [images for images, _ in data.scored.values()]
    watched = Watched.of([data.train_images, data.val_images, data.test_images, *scored])
    return replace(data, watched=watched)


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
    """Draw the given labels of all training examples, then split them. Both depend on `seed`.

    Args:
        labels: a label set of the dataset.
        noise: resolved by `noise.resolve`; drawn from the clean labels, instead of a label set.
        val_fraction: of all N training examples, held out with their given labels:
            round(val_fraction * N) of them, where a half is rounded to the even number.
        stratify: "clean" or "given": the labels whose classes keep their proportions in each part.
            With clean labels, the split of a seed is the same for every noise. If they are unknown,
            "clean" means the given ones.
        subset: size of the training part, drawn from what the validation part leaves; 0 for all.
    Raises: ValueError for impossible settings, DataError for a noise file that cannot be used.
    """
    # Labels are drawn for all examples before the split, so that the noise does not depend on which
    # of them are held out.
    clean = dataset.clean_labels
    known = dataset.partly_clean if clean is None else clean
    given = _given(dataset, labels, noise, seed)
    stratify_by = {"clean": given if clean is None else clean, "given": given}
    train, val = _split(stratify_by, val_fraction, stratify, subset, seed)
    _check_disjoint(dataset, train, val)

    warnings = dataset.warnings
    if noise is not None:
        warnings += resolve.warnings_of(noise, Examples.of(dataset))

    T = None
    if known is not None:
        T = _measured_T(known[train], given[train], dataset.info.num_classes, clean is None)

    # If nothing is left out, runs share the dataset's own array. Indexing would copy it.
    whole = len(train) == len(given)
    return RunData(
        info=dataset.info,
        train_images=dataset.train_images if whole else dataset.train_images[train],
        labels=given[train],
        clean_labels=None if known is None else known[train],
        val_images=dataset.train_images[val] if len(val) else None,
        val_labels=given[val] if len(val) else None,
        test_images=dataset.test_images,
        test_labels=np.array(dataset.test_labels),
        scored=dataset.scored,
        train_index=train,
        val_index=val,
        noise_rate_full=_noise_rate(known, given, slice(None)),
        noise_rate_train=_noise_rate(known, given, train),
        noise_rate_val=_noise_rate(known, given, val),
        labels_hash=label_files.labels_hash(given),
        T=T,
        variant=dataset.variant,
        warnings=warnings,
        checksums=dataset.checksums,
    )


def _noise_rate(
    clean: np.ndarray | None, given: np.ndarray, part: np.ndarray | slice
) -> float | None:
    if clean is None:
        return None
    there = clean[part] >= 0
    if not there.any():
        return None
    return measure.noise_rate(clean[part][there], given[part][there])


def _measured_T(
    clean: np.ndarray, given: np.ndarray, classes: int, partly: bool
) -> np.ndarray | None:
    """Measure T on the examples whose true label is known; None where they lack a class.

    Args:
        partly: only some true labels are known. A class that no known one has could be mistaken in
            any way. Where all are known, such a class has no example.
    """
    there = clean >= 0
    if partly and len(np.unique(clean[there])) < classes:
        return None
    return measure.transition_matrix(clean[there], given[there], classes)


def _given(dataset: Dataset, labels: str, noise: Mapping[str, Any] | None, seed: int) -> np.ndarray:
    """Return the given labels (N,) of all training examples."""
    if noise is None:
        if labels not in dataset.label_sets:
            known = ", ".join(dataset.label_sets)
            hint = did_you_mean(labels, dataset.label_sets)
            raise ValueError(
                f"{dataset.info.name} has no label set {labels!r}. It has: {known}.{hint}"
            )
        return dataset.label_sets[labels]

    if labels != "clean":
        raise ValueError(
            f"labels {labels!r} and noise exclude each other: noise is drawn from the clean labels"
        )
    # Noise would have to be drawn for the others, too, and nobody knows their classes.
    if dataset.clean_labels is None:
        raise ValueError(
            f"{dataset.info.name}: no noise can be drawn where the true labels are unknown"
        )
    images = None if isinstance(dataset.train_images, ImageFiles) else dataset.train_images
    examples = Examples.of(dataset)
    return resolve.apply(noise, dataset.clean_labels, dataset.info, seed, images, examples)


def _split(
    labels: Mapping[str, np.ndarray], val_fraction: float, stratify: str, subset: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ascending positions of the training part and of the validation part."""
    if stratify not in labels:
        raise ValueError(f"stratify must be one of {', '.join(labels)}, got {stratify!r}")
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")

    N = len(labels[stratify])
    num_val = stratified.num_held_out(val_fraction, N)
    if num_val == N:
        raise ValueError(f"val_fraction {val_fraction} of {N} leaves no training example")
    if not 0 <= subset <= N - num_val:
        raise ValueError(
            f"subset must be in [0, {N - num_val}], got {subset}: "
            f"{num_val} of {N} are for validation"
        )

    sizes = num_val, subset or N - num_val
    val, train = stratified.split(labels[stratify], sizes, streams.rng(seed, "split"))
    return train, val


def _check_disjoint(dataset: Dataset, train: np.ndarray, val: np.ndarray) -> None:
    """Check that no image is in two parts.

    Raises: RuntimeError for an overlap, DataError for files that are in two parts.
    """
    # `_split` cannot make such a leak, but if there were one, every result would be wrong.
    overlap = np.intersect1d(train, val)
    repeated = len(np.unique(train)) < len(train) or len(np.unique(val)) < len(val)
    if len(overlap) or repeated:
        raise RuntimeError("the training and validation parts overlap")

    # The images to score on are compared, too: what a validation set selects must not be tested on
    # that set.
    parts = {"training": dataset.train_images, "test": dataset.test_images}
    for name, (images, _) in dataset.scored.items():
        parts[name] = images
    for (one, ours), (other, theirs) in itertools.combinations(parts.items(), 2):
        if isinstance(ours, ImageFiles) and isinstance(theirs, ImageFiles):
            both = np.intersect1d(ours.paths(), theirs.paths())
            if len(both):
                path = os.fsdecode(both.flat[0])
                raise DataError(f"{path}: is both a {one} and a {other} image")
        elif _share_memory(ours, theirs):
            raise RuntimeError(f"{dataset.info.name}: {one} and {other} images are the same memory")


def _share_memory(one: np.ndarray | ImageFiles, other: np.ndarray | ImageFiles) -> bool:
    arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return arrays and np.may_share_memory(one, other)
