"""The scores that say how little a run believes a given label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """A number that a run keeps of each training example.

    Attributes:
        array: its name in predictions.npz, (N,).
        what: what it is, in words.
        suspicion: turns it into a number that is larger for a more suspicious label.
        missing: why a run may lack it.
    """

    name: str
    array: str
    what: str
    suspicion: Callable[[np.ndarray], np.ndarray]
    missing: str


_NO_LOGITS = "its steps return no logits, as those of mixup"

SCORES: Mapping[str, Score] = {
    score.name: score
    for score in (
        Score(
            "margin",
            "margin",
            "the logit of the given label minus the largest other one, mean over the epochs",
            lambda values: -values,
            _NO_LOGITS,
        ),
        Score(
            "own",
            "own_score",
            "what the method's own targets or weights give to the given label",
            lambda values: 1 - values,
            "its method keeps no target or weight of each example",
        ),
        Score(
            "prob",
            "train_prob",
            "the probability that the final network gives to the given label",
            lambda values: 1 - values,
            "it has so many images that they were not predicted",
        ),
        Score(
            "loss",
            "train_loss",
            "the cross entropy of the given label, mean over the training",
            lambda values: values,
            _NO_LOGITS,
        ),
    )
}

# Taken in this order where nobody names one. The margin was the best single score of "Benchmarking
# noisy label detection methods" (arXiv 2510.16211).
PREFERRED = ("margin", "loss", "prob")
