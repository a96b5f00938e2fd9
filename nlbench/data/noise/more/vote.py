"""The labels of several annotators, combined into one for each example."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from nlbench.data.noise.examples import Examples
from nlbench.data.noise.kind import PATH, UNRELATED, Array, Param, Rng, kind
from nlbench.data.noise.more._annotations import ANNOTATORS, Annotations, read_annotations
from nlbench.data.noise.relation import require_related
from nlbench.errors import DataError

BY = Param(
    "by",
    str,
    "how labels are combined; dawid-skene needs nlbench[crowd]",
    default="majority",
    choices=("majority", "dawid-skene"),
)


def check(examples: Examples, *, path: str, key: str, by: str, unrelated: bool) -> None:
    """Raise DataError unless the annotators gave a label to each example, and can be combined."""
    found = read_annotations(Path(path), key, examples)
    if by == "dawid-skene":
        _require_dawid_skene(found, path)
    if examples.clean is not None and not unrelated:
        require_related(examples.clean, _majority(found), examples.info.num_classes, path)


@kind(
    "vote",
    PATH,
    ANNOTATORS,
    BY,
    UNRELATED,
    source="the aggregate labels of CIFAR-N (ICLR 2022); Dawid and Skene, Applied Statistics 1979",
    needs_examples=True,
    redrawn=False,
    check=check,
)
def draw(
    rng: Rng,
    clean: Array,
    C: int,
    *,
    path: str,
    key: str,
    by: str,
    unrelated: bool,
    examples: Examples,
) -> Array:
    """Combine the labels of several annotators; all seeds get the same.

    The majority is the label that most annotators gave; of several such labels the one whose first
    annotator stands first. dawid-skene weighs annotators by how often they confuse each pair of
    classes, estimated by expectation maximisation from their labels alone, in crowd-kit.
    """
    found = read_annotations(Path(path), key, examples)
    if by == "majority":
        return _majority(found)
    _require_dawid_skene(found, path)
    return _dawid_skene(found)


def _majority(found: Annotations) -> Array:
    """Return the label (N,) that most annotators gave; of equals the first."""
    votes = np.zeros(found.labels.shape, np.int64)
    for column in found.labels.T:
        votes += found.labels == column[:, None]
    votes[~found.there] = 0

    first = votes.argmax(1)
    return np.take_along_axis(found.labels, first[:, None], 1)[:, 0]


def _require_dawid_skene(found: Annotations, path: str) -> None:
    if not found.named:
        raise DataError(
            f"{path}: has lists of different lengths, which do not say which annotator gave which "
            f"label, and dawid-skene needs to know; `by: majority` does not"
        )
    if importlib.util.find_spec("crowdkit") is None:
        raise DataError(
            "dawid-skene needs crowd-kit, which is not installed: pip install 'nlbench[crowd]'"
        )


def _dawid_skene(found: Annotations) -> Array:
    """Return the most likely label (N,) of the model of Dawid and Skene."""
    # Imported here, because everything else does without these.
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    task, worker = np.nonzero(found.there)
    answers = pd.DataFrame({"task": task, "worker": worker, "label": found.labels[task, worker]})
    combined = DawidSkene(n_iter=100).fit_predict(answers)
    return combined.sort_index().to_numpy(np.int64)
