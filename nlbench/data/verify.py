"""Compare what a dataset's file returns with what it promises, before anything uses it."""

from __future__ import annotations

import numpy as np

from nlbench.data.base import Dataset, ImageFiles, Images, Info
from nlbench.errors import DataError


def require_sound(data: Dataset, promised: Info) -> None:
    """Raise DataError, naming the dataset, unless its parts have the types, shapes and sizes.

    Args:
        promised: the `INFO` of the dataset's file. Sizes and classes that it leaves open (0) and
            label sets of a folder are those of `data.info`.
    """
    info = data.info
    _check_info(info, promised)
    _check_images(data.train_images, info, "train_images")
    _check_images(data.test_images, info, "test_images")
    _check_labels(data.test_labels, len(data.test_images), info, "test_labels")

    _require(
        set(data.label_sets) == set(info.label_sets),
        info,
        f"label_sets holds {_listed(data.label_sets)}, and INFO.label_sets names "
        f"{_listed(info.label_sets)}",
    )
    # Copies may lack images, and a dataset's file then warns of it.
    sizes = {"num_train": len(data.train_images), "num_test": len(data.test_images)}
    for name, size in sizes.items():
        expected = getattr(info, name)
        _require(
            size == expected or not expected or bool(data.warnings),
            info,
            f"there are {size} images, and INFO.{name} is {expected}; if that may be, say so in "
            f"warnings",
        )
    for name, labels in data.label_sets.items():
        _check_labels(labels, len(data.train_images), info, f"label_sets[{name!r}]")
    for name, (images, labels) in data.scored.items():
        _check_images(images, info, f"scored[{name!r}]")
        _check_labels(labels, len(images), info, f"scored[{name!r}]")
    _require(
        bool(data.fingerprint) and isinstance(data.fingerprint, str),
        info,
        f"fingerprint must be a text that is not empty, got {data.fingerprint!r}",
    )


def _check_info(info: Info, promised: Info) -> None:
    """Compare what was counted with what was known before."""
    if promised.num_classes:
        for name in ("num_classes", "shape", "label_sets"):
            found, expected = getattr(info, name), getattr(promised, name)
            _require(found == expected, info, f"info.{name} is {found}, and INFO says {expected}")
    _require(info.num_classes >= 2, info, f"num_classes must be at least 2, got {info.num_classes}")

    # A dataset with float features has no mean.
    pixels = len(info.shape) == 0 or (info.shape[-1:] == (3,) and bool(info.mean))
    if pixels:
        sizes = (len(info.mean), len(info.std))
        _require(
            sizes == (3, 3), info, f"mean and std must have 3 values each, for RGB, got {sizes}"
        )


def _check_images(images: Images, info: Info, name: str) -> None:
    if isinstance(images, ImageFiles):
        _require(info.shape == (), info, f"{name} is files, and INFO.shape is {info.shape}")
        return
    _require(
        isinstance(images, np.ndarray),
        info,
        f"{name} must be an array, got {type(images).__name__}",
    )
    allowed: type[np.generic] = np.uint8
    why = ""
    if info.vocabulary:
        allowed, why = np.int64, ", since INFO has a vocabulary"
    elif not info.mean:
        allowed, why = np.float32, ", since INFO has no mean"
    wanted = f"{np.dtype(allowed)} of shape (N, {', '.join(map(str, info.shape))}){why}"
    _require(
        images.dtype == allowed and images.shape[1:] == tuple(info.shape),
        info,
        f"{name} must be {wanted}, got {images.dtype} of shape {images.shape}",
    )


def _check_labels(labels: np.ndarray, count: int, info: Info, name: str) -> None:
    _require(
        isinstance(labels, np.ndarray),
        info,
        f"{name} must be an array, got {type(labels).__name__}",
    )
    _require(
        labels.dtype == np.int64 and labels.shape == (count,),
        info,
        f"{name} must be int64 of shape ({count},), as there are images, got {labels.dtype} of "
        f"shape {labels.shape}",
    )
    _require(count > 0, info, f"{name} is empty")
    low, high = int(labels.min()), int(labels.max())
    _require(
        low >= 0 and high < info.num_classes,
        info,
        f"{name} must be in [0, {info.num_classes}), got {low} to {high}",
    )


def _require(holds: bool, info: Info, message: str) -> None:
    if not holds:
        raise DataError(f"dataset {info.name}: {message}")


def _listed(names: object) -> str:
    return ", ".join(map(repr, names)) if isinstance(names, dict | tuple | list) else repr(names)
