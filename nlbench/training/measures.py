"""What the outputs for the test images say after the last epoch, besides the accuracy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nlbench.results.record import Metrics

# Of the expected calibration error.
BINS = 15


def test_measures(logits: Tensor, labels: Tensor) -> Metrics:
    """Return the metrics of the test part that its probabilities and classes give.

        balanced_accuracy  mean of the recall over the classes that have test images
        macro_f1           mean of F1 over the classes that are a true or a predicted class
        ece                expected calibration error, see `calibration_error`
        nll                mean negative log-likelihood of the true classes, in nats

    The probabilities are the softmax of what the method's `predict` returns. All is computed in
    float64 on the CPU.

    Args:
        logits: (n, C), finite.
        labels: (n,) int64, the true classes.
    """
    logits, labels = logits.double().cpu(), labels.cpu()
    counts = confusion(logits.argmax(1), labels, logits.shape[1])
    recalls = [value for value in recall(counts) if value is not None]
    return {
        "balanced_accuracy": sum(recalls) / len(recalls),
        "macro_f1": macro_f1(counts),
        "ece": calibration_error(logits.softmax(1), labels),
        "nll": float(functional.cross_entropy(logits, labels)),
    }


def test_recall(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Return the recall of each class of the test images. See `recall` and `test_measures`."""
    return recall(confusion(logits.argmax(1).cpu(), labels.cpu(), logits.shape[1]))


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how often a true class is predicted as each class, (C, C) int64, true class first."""
    places = classes * labels + predicted
    return torch.bincount(places, minlength=classes * classes).view(classes, classes)


def recall(counts: Tensor) -> list[float | None]:
    """Return the share of each class's examples that are predicted right; None without examples.

    Args:
        counts: (C, C), as `confusion` returns them.
    """
    right, totals = counts.diagonal().tolist(), counts.sum(1).tolist()
    return [r / total if total else None for r, total in zip(right, totals, strict=True)]


def macro_f1(counts: Tensor) -> float:
    """Return the mean over classes of F1 = 2 right / (examples + predictions).

    A class counts if it is the true or the predicted class of an example, as in scikit-learn.

    Args:
        counts: (C, C), as `confusion` returns them.
    """
    sizes = (counts.sum(1) + counts.sum(0)).tolist()
    scores = []
    for right, size in zip(counts.diagonal().tolist(), sizes, strict=True):
        if size:
            scores.append(2 * right / size)
    return sum(scores) / len(scores)


def calibration_error(probs: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error, in [0, 1].

        sum over bins m of  n_m / n * |accuracy_m - confidence_m|

    The confidence of a prediction is the largest of its probabilities. Bin m of 15, counted from 1,
    holds the confidences in ((m - 1) / 15, m / 15].

    Source: Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv:1706.04599, equation 3.

    Args:
        probs: (n, C) float64, rows sum to 1.
        labels: (n,) int64.
    """
    confidence, predicted = probs.max(1)
    right = (predicted == labels).to(probs.dtype)
    # Rounding may leave a confidence just above 1.
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1

    # In one bin the difference of the sums is n_m * (accuracy_m - confidence_m).
    gaps = torch.zeros(BINS, dtype=probs.dtype).index_add_(0, bins, right - confidence)
    return float(gaps.abs().sum()) / len(labels)
