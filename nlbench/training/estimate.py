"""Estimate the noise rate of a run's training labels, where a suite says `noise_rate: estimate`."""

from __future__ import annotations

import numpy as np

from nlbench.plan.spec import ESTIMATE, RunSpec
from nlbench.training.run_state import RunState


def needs_estimate(spec: RunSpec) -> bool:
    """Return whether the run's method is told a noise rate that is still to be estimated."""
    return "noise_rate" in spec.told and spec.told["noise_rate"].identity == ESTIMATE


def estimated_noise_rate(state: RunState) -> float:
    """Estimate the noise rate from the given labels alone, by a helper network.

    The network is trained by cross entropy for as many epochs as the run has, and keeps the weights
    that are best on held-out given labels. It is the one that `forward` and `backward` use, so all
    of them share it.

    Raises: FitHeld, Diverged, as `HelperNetworks.fit`.
    """
    network = state.fit("warm-up", "ce", state.task.epochs)
    probs = state.predict_train(network).double().softmax(1).cpu().numpy()
    return off_diagonal(confident_joint(probs, state.task.labels.cpu().numpy()))


def confident_joint(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate the joint distribution of given and true labels, (C, C) float64 with sum 1.

    An example counts as one of class j if probs[:, j] reaches the mean of probs[:, j] over the
    examples whose given label is j; of several such classes the most probable one counts. Each row,
    which is a given label, is then scaled to the share of the examples with that label.

    Source: Northcutt, Jiang and Chuang, JAIR 2021, arXiv:1911.00068, equations 1 to 3. They use
    probabilities of examples that the network was not trained on. Here the network has seen most of
    them, and was stopped early instead. So the noise rate comes out too low, most of all where a
    class is mistaken for a single other one.

    Args:
        probs: (N, C), rows sum to 1.
        labels: (N,) int64, the given labels.
    """
    C = probs.shape[1]
    counts = np.bincount(labels, minlength=C)
    thresholds = np.full(C, np.inf)
    for j in np.flatnonzero(counts):
        thresholds[j] = probs[labels == j, j].mean()

    confident = np.where(probs >= thresholds, probs, -1.0)
    counted = confident.max(1) >= 0
    joint = np.zeros((C, C))
    np.add.at(joint, (labels[counted], confident[counted].argmax(1)), 1)

    # A given label without a confident example is taken as right.
    totals = joint.sum(1, keepdims=True)
    joint = np.where(totals > 0, joint / np.maximum(totals, 1), np.eye(C))
    return joint * counts[:, None] / counts.sum()


def off_diagonal(joint: np.ndarray) -> float:
    """Return the share of examples whose given label is not the true one, by their joint."""
    # Rounding may leave a number just below zero.
    return max(0.0, float(1 - np.trace(joint)))
