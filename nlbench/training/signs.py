"""Signs that a training did not work, although it ended. They are marked, and change no number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from nlbench.results.record import Metrics


def is_one_class(predicted: Tensor, labels: Tensor) -> bool:
    """Return whether `predicted` (n,) is one class, while the true `labels` (n,) are several."""
    return bool((predicted == predicted[0]).all()) and not bool((labels == labels[0]).all())


def signs_of(
    history: Sequence[Metrics],
    one_class: Sequence[bool],
    test_labels: Tensor,
    given: Tensor,
    train_logits: Tensor | None,
) -> dict[str, str]:
    """Return what is wrong with a training that ended, in words by the name of the sign.

        one-class         after the last epoch all test images are predicted as one class
        mostly-one-class  they were in more than half of the epochs
        never-learned     neither test images nor training images are predicted better than by the
                          most frequent class
        constant-loss     the loss was the same in all epochs
        not-finite        outputs for training images are NaN or infinite

    Args:
        history: the metrics of each epoch.
        one_class: whether all test images were predicted as one class, for each epoch.
        test_labels, given: the true labels of the test images, the given ones of the training part.
        train_logits: (N, C) after the last epoch; None if they were not computed.
    """
    signs = {}
    if one_class[-1]:
        signs["one-class"] = "it predicts one class for all test images"
    elif sum(one_class) > len(one_class) / 2:
        signs["mostly-one-class"] = (
            f"in {sum(one_class)} of {len(one_class)} epochs it predicted one class for all test "
            "images"
        )

    if train_logits is not None:
        accuracy = history[-1]["test_accuracy"] or 0.0
        agreement = float((train_logits.argmax(1) == given).double().mean())
        # A run that predicts one class is named so already.
        at_chance = accuracy <= _largest_share(test_labels) and agreement <= _largest_share(given)
        if at_chance and not one_class[-1]:
            signs["never-learned"] = (
                "it predicts neither test nor training labels better than the most frequent class"
            )
        bad = int((~train_logits.isfinite()).any(1).sum())
        if bad:
            signs["not-finite"] = f"its outputs for {bad} training images are not finite"

    losses = [metrics["loss"] or 0.0 for metrics in history]
    # A single epoch has only one loss. It is 0 if no step was taken through `backward_step`.
    constant = all(loss == losses[0] for loss in losses)
    if constant and math.isfinite(losses[0]) and (len(losses) > 1 or losses[0] == 0):
        signs["constant-loss"] = f"its loss was {losses[0]:g} in every epoch"
    return signs


def _largest_share(labels: Tensor) -> float:
    """Return the share of the most frequent label."""
    counts = np.bincount(labels.cpu().numpy())
    return float(counts.max() / counts.sum())
