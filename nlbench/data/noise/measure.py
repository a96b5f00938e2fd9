"""Measure noise: the fraction of wrong labels and the transition matrix."""

from __future__ import annotations

import numpy as np


def noise_rate(clean: np.ndarray, given: np.ndarray) -> float:
    """Return the fraction of given labels that are wrong."""
    return float(np.mean(clean != given))


def transition_matrix(clean: np.ndarray, given: np.ndarray, num_classes: int) -> np.ndarray:
    """Count T (C, C) float64, T[i, j] = P(given j | clean i).

    A class without examples keeps its label.
    """
    # One number for each pair of labels, so that one pass counts the whole matrix.
    pairs = np.bincount(clean * num_classes + given, minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes)
    totals = counts.sum(1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.eye(num_classes))
