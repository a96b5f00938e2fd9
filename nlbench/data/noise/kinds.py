"""Kinds of label noise, one function for each.

Every flip is drawn from the clean labels, once, from the stream (seed, "noise"). What a kind draws
depends on the labels, its parameters and the seed, for instance-dependent noise also on the images,
and on nothing else. All draws go through uniform numbers in [0, 1): one per example decides whether
it flips, a second one decides the class it flips to. So for one seed the same examples flip first
at every rate.

Counts are exact: rate * n is taken in decimal, as the rate is written, and a half goes to the even
number. So 0.07 of 100 is 7, while the binary product 7.000000000000001 has the ceiling 8.

To add a kind, write a function under the decorator `_kind`, and a test beside the others. A kind
that needs a reader of its own has a file in `more/`, which is called after the kind. It counts in
the hash of those runs alone that use the kind.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np

from nlbench.data.base import Info
from nlbench.data.noise import more
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kind import KEY, KINDS, PATH, RATE, UNRELATED, Array, Kind, Param, Rng
from nlbench.data.noise.kind import kind as _kind
from nlbench.data.noise.label_files import check_labels, completed, read_label_file
from nlbench.data.noise.matrix_files import read_matrix
from nlbench.data.noise.relation import require_related

__all__ = ["KINDS", "Kind", "Param"]

# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

# The fine ids of each true superclass, in the order of the coarse ids.
CIFAR100_SUPERCLASSES = (
    (4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61),
    (0, 51, 53, 57, 83), (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24),
    (3, 42, 43, 88, 97), (12, 17, 37, 68, 76), (23, 33, 49, 60, 71), (15, 19, 21, 31, 38),
    (34, 63, 64, 66, 75), (26, 45, 77, 79, 99), (2, 11, 35, 46, 98), (27, 29, 44, 78, 93),
    (36, 50, 65, 74, 80), (47, 52, 56, 59, 96), (8, 13, 48, 58, 90), (41, 69, 81, 85, 89),
)  # fmt: skip

REST = Param(
    "rest",
    str,
    "clean: examples beyond the end of a shorter file keep their true labels",
    default="",
    added=True,
    choices=("clean",),
)


# ---- The kinds -----------------------------------------------------------------------------------


@_kind("symmetric", RATE, source="SL (ICCV 2019) and APL (ICML 2020)")
def _symmetric(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Flip round(rate * n_c) labels of each class, uniformly to the other classes.

    As in SL and APL; as in Patrini's codes in expectation.
    """
    # Both are drawn for all examples, so that the second does not depend on the rate.
    who, where = rng.random(len(clean)), rng.random(len(clean))
    # Offset 1..C-1 from the true class, so that the true class cannot come back.
    other = (clean + 1 + _choice(where, C - 1)) % C
    return np.where(_first_of_each_class(who, clean, C, rate), other, clean)


@_kind("symmetric-inclusive", RATE, source="ELR (NeurIPS 2020) and DivideMix (ICLR 2020)")
def _symmetric_inclusive(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Redraw ceil(rate * N) labels uniformly over all classes, the true one too.

    As in ELR, equation 1, and DivideMix. So rate * (C - 1) / C of the labels are wrong.
    """
    who, where = rng.random(len(clean)), rng.random(len(clean))

    # The lowest numbers, so that a higher rate redraws the same examples and further ones.
    count = math.ceil(Decimal(str(rate)) * len(clean))
    drawn = np.argsort(who, kind="stable")[:count]

    given = clean.copy()
    given[drawn] = _choice(where[drawn], C)
    return given


@_kind(
    "asymmetric", RATE, source="Patrini et al., CVPR 2017, arXiv:1609.03683", class_ids="cifar10"
)
def _asymmetric(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Flip round(rate * n_c) of truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.

    Five of the ten classes flip, so rate / 2 of the labels are wrong.
    """
    # A class that does not flip is its own target.
    target = np.arange(C)
    target[list(CIFAR10_PAIRS)] = list(CIFAR10_PAIRS.values())
    # All are chosen before any is changed. Several public codes pick the dogs after cats became
    # dogs, and so flip some cats back: r - r^2 of them end up wrong there.
    return _map(rng, clean, target, rate)


@_kind(
    "asymmetric-superclass",
    RATE,
    source="the text of Patrini et al., CVPR 2017",
    class_ids="cifar100",
)
def _asymmetric_superclass(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Flip round(rate * n_c) of each class to the next fine id in its true superclass, circular."""
    target = np.arange(C)
    for members in CIFAR100_SUPERCLASSES:
        target[list(members)] = np.roll(members, -1)
    return _map(rng, clean, target, rate)


@_kind(
    "asymmetric-block", RATE, source="the codes of Patrini et al. and of ELR", class_ids="cifar100"
)
def _asymmetric_block(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Flip round(rate * n_c) of each class to the next of five consecutive fine ids, circular.

    As in Patrini's and ELR's codes.
    """
    classes = np.arange(C)
    return _map(rng, clean, classes - classes % 5 + (classes + 1) % 5, rate)


@_kind("asymmetric-swap", RATE, source="the codes of SL and of SOP", class_ids="cifar100")
def _asymmetric_swap(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Swap round(rate * n_c) labels of two random classes in each block of five consecutive ids.

    As in SL's and SOP's codes.
    """
    target = np.arange(C)
    # A copy, because the loop writes to `target`.
    for block in target.reshape(-1, 5).copy():
        # Two random classes are the first two of the block in random order.
        first, second = block[np.argsort(rng.random(5), kind="stable")[:2]]
        target[first], target[second] = second, first
    return _map(rng, clean, target, rate)


@_kind("pair-flip", RATE, source="Co-teaching (NeurIPS 2018, arXiv:1804.06872)")
def _pair_flip(rng: Rng, clean: Array, C: int, *, rate: float) -> Array:
    """Flip round(rate * n_c) labels of each class c to class (c + 1) mod C."""
    return _map(rng, clean, (np.arange(C) + 1) % C, rate)


@_kind("matrix", PATH, UNRELATED, source="class-dependent noise, as in Patrini et al., CVPR 2017")
def _matrix(rng: Rng, clean: Array, C: int, *, path: str, unrelated: bool) -> Array:
    """Draw each label from row T[clean] of a transition matrix in a file.

    T[i, j] = P(noisy j | clean i). The labels are drawn independently.
    """
    cumulated = read_matrix(Path(path), C, unrelated=unrelated).cumsum(1)

    # A file may be rounded, so that a line of it does not add up to 1 exactly.
    cumulated /= cumulated[:, -1:]
    # The last class takes what the others leave, so that no rounding can lead out of range.
    return (rng.random(len(clean))[:, None] >= cumulated[clean, :-1]).sum(1)


# Version 1 standardised the pixels, as `instance-dependent-standardised` does now.
@_kind(
    "instance-dependent",
    RATE,
    source="Xia et al., NeurIPS 2020, arXiv:2006.07836",
    needs_images=True,
    version=2,
)
def _instance_dependent(
    rng: Rng, clean: Array, C: int, *, rate: float, images: Array, info: Info
) -> Array:
    """Draw a flip rate around `rate` for each example, and the wrong class from its raw pixels.

    As in Xia et al., NeurIPS 2020, data.py, whose pixels are 0 to 255. Example i of class y has
    features x, its pixels (or its values, where it is no uint8 image):

        q    from a normal (rate, 0.1) truncated to [0, 1]
        W_y  (features, C) of standard normals
        s    x W_y without its entry y
        the label is y with probability 1 - q, else drawn from softmax(s)

    Raw pixels are all positive, so the classes with the largest column sums of W_y take most wrong
    labels of class y. Float64 throughout. Near 0 and 1 the truncation moves the mean rate inwards
    (to 0.92 at 1). A rate of 0 changes nothing.
    """
    return _by_features(rng, clean, C, rate, images, lambda part: part)


@_kind(
    "instance-dependent-standardised",
    RATE,
    source="the code of DISC (CVPR 2023)",
    needs_images=True,
)
def _instance_dependent_standardised(
    rng: Rng, clean: Array, C: int, *, rate: float, images: Array, info: Info
) -> Array:
    """Draw as `instance-dependent` does, but from pixels standardised per channel.

    As in the code of DISC (JackYFL/DISC). The wrong labels of a class go to about three times as
    many classes.
    """
    mean, std = _pixel_scale(images, info)
    return _by_features(rng, clean, C, rate, images, lambda part: (part - mean) / std)


@_kind(
    "file",
    PATH,
    KEY,
    UNRELATED,
    REST,
    source="labels of your own",
    needs_examples=True,
    redrawn=False,
)
def _file(
    rng: Rng,
    clean: Array,
    C: int,
    *,
    path: str,
    key: str,
    unrelated: bool,
    rest: str,
    examples: Examples,
) -> Array:
    """Read the labels from a file, such as .csv, .npy, .pt or .json; all seeds get the same.

    They are in the order of the training images, or put in it by a column that names these.
    """
    found = read_label_file(Path(path), key, examples)
    labels = completed(found, clean) if rest else found.labels
    check_labels(labels, len(clean), C, path, examples.info.num_test)
    if not unrelated:
        found.require_same_truth(clean, path)
        require_related(clean[: len(found.labels)], found.labels, C, path)
    return labels


# ---- What they share -----------------------------------------------------------------------------


def _map(rng: Rng, clean: Array, target: Array, rate: float) -> Array:
    """Flip round(rate * n_c) labels of each class c to target[c]."""
    flipped = _first_of_each_class(rng.random(len(clean)), clean, len(target), rate)
    return np.where(flipped, target[clean], clean)


def _first_of_each_class(who: Array, clean: Array, C: int, rate: float) -> Array:
    """Return (N,) bool: in each class the round(rate * n_c) examples with the lowest `who`."""
    chosen = np.zeros(len(clean), bool)
    for c in range(C):
        members = np.flatnonzero(clean == c)

        # Ranks and not a threshold, so that counts are exact, and a stable sort, so that
        # all machines choose the same examples.
        count = round(Decimal(str(rate)) * len(members))
        chosen[members[np.argsort(who[members], kind="stable")[:count]]] = True
    return chosen


def _choice(uniform: Array, n: int) -> Array:
    """Return integers in [0, n) from uniform numbers in [0, 1)."""
    # The product of n and a number just below 1 can round up to n.
    return np.minimum((uniform * n).astype(np.int64), n - 1)


def _by_features(
    rng: Rng,
    clean: Array,
    C: int,
    rate: float,
    images: Array,
    features_of: Callable[[Array], Array],
) -> Array:
    """Draw instance-dependent noise; see the kind of that name.

    Args:
        features_of: makes the features (n, ...) of images (n, ...) float64.
    """
    given = clean.copy()
    # The truncation would give a rate of 0 a mean above it.
    if rate == 0:
        return given

    # Drawn before the loop, so that they do not depend on the number of features.
    flip_rate, uniform = _truncated_normal(rng, rate, len(clean)), rng.random(len(clean))
    for c in range(C):
        # One class at a time: float64 features of all images would not fit into memory.
        members = np.flatnonzero(clean == c)
        features = features_of(images[members].astype(np.float64)).reshape(len(members), -1)

        scores = features @ rng.standard_normal((math.prod(images.shape[1:]), C))
        # Its exponential is 0: the true class is never drawn as the wrong one.
        scores[:, c] = -np.inf
        # The largest score is subtracted, so that no exponential overflows.
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances *= (flip_rate[members] / chances.sum(1))[:, None]

        # One draw from (1 - q on the true class, q * softmax elsewhere): below q it is another one.
        other = np.minimum((uniform[members, None] >= chances.cumsum(1)).sum(1), C - 1)
        given[members] = np.where(uniform[members] < flip_rate[members], other, c)
    return given


def _truncated_normal(rng: Rng, mean: float, size: int) -> Array:
    """Draw from a normal (mean, 0.1), again where a value falls outside [0, 1]."""
    values = rng.normal(mean, 0.1, size)

    # Rejected values are replaced together, in the order of the examples.
    while len(outside := np.flatnonzero((values < 0) | (values > 1))):
        values[outside] = rng.normal(mean, 0.1, len(outside))
    return values


def _pixel_scale(images: Array, info: Info) -> tuple[Array, Array]:
    """Return mean and std per channel, ready to broadcast.

    They are the dataset's constants for uint8 images (N, H, W, C), and measured for float features
    (N, C, ...).
    """
    if images.dtype == np.uint8:
        return 255 * np.array(info.mean), 255 * np.array(info.std)
    axes = (0, *range(2, images.ndim))
    mean = images.mean(axes, np.float64, keepdims=True)
    return mean, images.std(axes, np.float64, keepdims=True)


# ---- Kinds with a file of their own --------------------------------------------------------------


def _load_more() -> None:
    """Import the files in `more/`, each of which registers the kind that it is called after."""
    for found in pkgutil.iter_modules(more.__path__):
        if not found.name.startswith("_"):
            importlib.import_module(f"{more.__name__}.{found.name}")


_load_more()
