"""The label of one annotator for each example."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kind import PATH, UNRELATED, Array, Rng, kind
from nlbench.data.noise.more._annotations import ANNOTATORS, Annotations, read_annotations
from nlbench.data.noise.relation import require_related


def check(examples: Examples, *, path: str, key: str, unrelated: bool) -> None:
    """Raise DataError unless the annotators gave a label to each training example."""
    found = read_annotations(Path(path), key, examples)
    if examples.clean is not None and not unrelated:
        first = _taken(found, np.zeros(len(found.labels)))
        require_related(examples.clean, first, examples.info.num_classes, path)


@kind(
    "annotators",
    PATH,
    ANNOTATORS,
    UNRELATED,
    source="the random annotator of CIFAR-N (ICLR 2022, arXiv:2110.12088)",
    needs_examples=True,
    check=check,
)
def draw(
    rng: Rng,
    clean: Array,
    C: int,
    *,
    path: str,
    key: str,
    unrelated: bool,
    examples: Examples,
) -> Array:
    """Take the label of one annotator for each example, drawn anew for each seed.

    All annotators who gave the example a label are equally likely, independently for each example.
    """
    return _taken(read_annotations(Path(path), key, examples), rng.random(len(clean)))


def _taken(found: Annotations, uniform: Array) -> Array:
    """Return the label of each example that a uniform number in [0, 1) chooses."""
    count = found.there.sum(1)
    # The product of a count and a number just below 1 can round up to the count.
    which = np.minimum((uniform * count).astype(np.int64), count - 1)
    column = (found.there.cumsum(1) > which[:, None]).argmax(1)
    return np.take_along_axis(found.labels, column[:, None], 1)[:, 0]
