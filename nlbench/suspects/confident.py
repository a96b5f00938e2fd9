"""Find wrong labels by cleanlab's `find_label_issues`, to compare with.

Northcutt et al., "Confident Learning", JAIR 2021, arXiv:1911.00068. cleanlab is an optional extra.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass

import numpy as np

from nlbench.suspects.dataset import Truth
from nlbench.suspects.labelling import Labelling
from nlbench.suspects.ranking import NONE, Examples

NOT_INSTALLED = (
    "cleanlab is not installed, so its find_label_issues is not compared: "
    "`pip install 'nlbench[cleanlab]'`."
)


@dataclass(frozen=True)
class Probabilities:
    """Predicted probabilities of a row, as means over the seeds that have them.

    Attributes:
        index: (n,) positions in the dataset's training part.
        given: (n,) int64, the given labels.
        probs: (n, C) float64.
    """

    index: np.ndarray
    given: np.ndarray
    probs: np.ndarray

    def among(self, index: np.ndarray) -> Probabilities:
        """Return those of the examples that are in `index`, too."""
        there = np.isin(self.index, index)
        return Probabilities(self.index[there], self.given[there], self.probs[there])


@dataclass(frozen=True)
class Issues:
    """What cleanlab finds.

    Attributes:
        flagged: (n,) bool, the labels that it takes for wrong.
        suspicion: (n,) one minus its label quality score, the self-confidence.
    """

    flagged: np.ndarray
    suspicion: np.ndarray


def held_out(
    labelling: Labelling, row: str, examples: Examples, truth: Truth
) -> Probabilities | None:
    """Return the out-of-sample probabilities of a row; None where no run keeps any.

    Examples whose given label is not known are left out: a run keeps those of its training part.
    """
    parts = []
    for run in labelling.runs:
        if run.row == row and {"val_index", "val_probs"} <= run.arrays.keys():
            parts.append((run.arrays["val_index"], run.arrays["val_probs"]))
    if not parts:
        return None
    index, probs = _mean(parts)

    # Another seed may have been trained on it. Else the data says it.
    given = np.full(len(index), NONE, np.int64)
    if truth.given is not None:
        given = truth.given[index]
    else:
        places = np.searchsorted(examples.index, index).clip(max=len(examples.index) - 1)
        there = examples.index[places] == index
        given[there] = examples.given[places[there]]
    known = given != NONE
    if not known.any():
        return None
    return Probabilities(index[known], given[known], probs[known])


def trained_on(labelling: Labelling, row: str, examples: Examples) -> Probabilities | None:
    """Return the in-sample probabilities of a row; None where no run keeps any."""
    parts = []
    for run in labelling.runs:
        if run.row == row and "train_probs" in run.arrays:
            parts.append((run.index, run.arrays["train_probs"]))
    if not parts:
        return None
    index, probs = _mean(parts)
    return Probabilities(index, examples.given[np.searchsorted(examples.index, index)], probs)


def _mean(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of all parts, and the mean probabilities (n, C) of each example."""
    index = np.unique(np.concatenate([part for part, _ in parts])).astype(np.int64)
    total = np.zeros((len(index), parts[0][1].shape[1]))
    count = np.zeros(len(index))
    for part, probs in parts:
        places = np.searchsorted(index, part)
        total[places] += probs.astype(np.float64)
        count[places] += 1
    mean = total / count[:, None]
    # float16 has three digits, so the sum is not quite one.
    return index, mean / mean.sum(1, keepdims=True)


def find_issues(probabilities: Probabilities) -> Issues | None:
    """Return what cleanlab finds; None where it is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        return None
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given, probs = probabilities.given, probabilities.probs
    # Classes without a given label are not cleanlab's: it numbers those that are there.
    classes = np.unique(given)
    inside = probs[:, classes]
    inside = inside / np.maximum(inside.sum(1, keepdims=True), 1e-12)
    labels = np.searchsorted(classes, given)
    # It warns of small classes. In one process: more would be forked from this one.
    with warnings.catch_warnings(action="ignore"):
        flagged = find_label_issues(labels, inside, n_jobs=1)
        quality = get_label_quality_scores(labels, inside, method="self_confidence")
    return Issues(np.asarray(flagged, bool), 1 - np.asarray(quality))
