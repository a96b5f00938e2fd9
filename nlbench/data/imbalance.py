"""Class-imbalanced subsets of a dataset's training examples.

Cao, Wei, Gaidon, Arechiga & Ma, NeurIPS 2019, arXiv:1906.07413 (LDAM), and their code,
kaidic/LDAM-DRW: of C classes with n = N / C examples on average, class c keeps

    exp    n * ratio ** (c / (C - 1))        from n down to n * ratio
    step   n for c < C // 2, else n * ratio

rounded down. The test part stays as it is. A dataset's name holds its imbalance, as in
"cifar10@exp-0.01", so that keys and records say all about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nlbench import streams
from nlbench.data.base import Dataset, Info
from nlbench.data.noise.label_files import labels_hash
from nlbench.files import short_hash

Kind = Literal["exp", "step"]

_SUFFIX = re.compile(r"@(?P<kind>exp|step)-(?P<ratio>\d+(?:\.\d+)?(?:e-\d+)?)$")


@dataclass(frozen=True)
class Imbalance:
    """How unequal the classes are made.

    Attributes:
        ratio: examples of the smallest class over those of the largest, in (0, 1).
    """

    kind: Kind
    ratio: float

    @property
    def suffix(self) -> str:
        """The end of the name of such a dataset."""
        return f"@{self.kind}-{self.ratio!r}"

    @property
    def words(self) -> str:
        """The end of its title."""
        return f"{self.kind} {self.ratio:g}"

    def counts(self, num_train: int, num_classes: int) -> list[int]:
        """Return how many examples each class keeps of `num_train`, at least 1."""
        most = num_train / num_classes
        if self.kind == "step":
            factors = [1.0 if c < num_classes // 2 else self.ratio for c in range(num_classes)]
        else:
            factors = [self.ratio ** (c / (num_classes - 1)) for c in range(num_classes)]
        return [max(1, int(most * factor)) for factor in factors]


def parse(name: str) -> tuple[str, Imbalance | None]:
    """Return the name of a dataset without its imbalance, and that."""
    match = _SUFFIX.search(name)
    if match is None:
        return name, None
    kind: Kind = "exp" if match["kind"] == "exp" else "step"
    return name[: match.start()], Imbalance(kind, float(match["ratio"]))


def about(info: Info, imbalance: Imbalance) -> Info:
    """Return what is known of a subset before it is drawn: not how many examples it has."""
    return replace(
        info,
        name=info.name + imbalance.suffix,
        title=f"{info.title} {imbalance.words}",
        num_train=0,
    )


def subset(data: Dataset, imbalance: Imbalance) -> Dataset:
    """Return a dataset with the training examples that an imbalance keeps, in their order.

    The classes are those of the true labels, where all of them are known, and else of the first
    label set. Nothing depends on a run's seed: the same examples are kept in every run. With a
    smaller ratio some of them are kept, and no others.
    """
    by = data.clean_labels
    if by is None:
        by = data.label_sets[data.info.label_sets[0]]
    counts = imbalance.counts(len(by), data.info.num_classes)
    kept, lacking = [], []
    for c, count in enumerate(counts):
        members = np.flatnonzero(by == c)
        kept.append(streams.rng(0, "imbalance", c).permutation(members)[:count])
        # A dataset whose classes are nearly equal is no reason to warn.
        if len(members) < 0.9 * count:
            lacking.append(f"{_name(data.info, c)} {len(members)} of {count}")
    index = np.sort(np.concatenate(kept))

    warnings = data.warnings
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        warnings += (
            f"{data.info.title}: imbalance {imbalance.words}: classes with fewer examples than it "
            f"gives them keep all: {', '.join(lacking[:5])}{more}",
        )
    words = f"{data.fingerprint} {imbalance.suffix}"
    # That of a dataset that is drawn anew for each seed must be the same for all of them.
    if not data.info.redrawn:
        words += f" {labels_hash(index)}"
    return replace(
        data,
        info=replace(about(data.info, imbalance), num_train=len(index)),
        train_images=data.train_images[index],
        label_sets={name: labels[index] for name, labels in data.label_sets.items()},
        partly_clean=None if data.partly_clean is None else data.partly_clean[index],
        fingerprint=short_hash(words.encode()),
        warnings=warnings,
    )


def _name(info: Info, c: int) -> str:
    return info.class_names[c] if info.class_names else f"class {c}"
