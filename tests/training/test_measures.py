"""The metrics that the test outputs of the last epoch give, against scikit-learn and by hand."""

import math
import warnings

import pytest
import torch
from sklearn import metrics as sklearn
from torch.nn import functional

from nlbench.training import measures


def made_up(n=400, classes=7, missing=()):
    """Return logits and labels of which the classes `missing` are never the true one."""
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(classes, (n,), generator=generator)
    for place in missing:
        labels[labels == place] = (place + 1) % classes
    logits = torch.randn(n, classes, generator=generator)
    # Right in about half of the cases, so that accuracy and confidence differ.
    logits += 1.5 * functional.one_hot(labels, classes)
    return logits, labels


@pytest.mark.parametrize("missing", [(), (2,), (0, 3)])
def test_the_measures_are_those_of_scikit_learn(missing):
    logits, labels = made_up(missing=missing)
    predicted = logits.argmax(1)
    found = measures.test_measures(logits, labels)

    # scikit-learn warns of a class that is predicted and never true, and leaves it out as well.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        balanced = sklearn.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)
    f1 = sklearn.f1_score(labels, predicted, average="macro")
    assert found["macro_f1"] == pytest.approx(f1, abs=1e-12)
    probs = logits.double().softmax(1).numpy()
    nll = sklearn.log_loss(labels, probs, labels=range(7))
    assert found["nll"] == pytest.approx(nll, abs=1e-12)

    recalls = measures.test_recall(logits, labels)
    expected = sklearn.recall_score(
        labels, predicted, labels=range(7), average=None, zero_division=0
    )
    for place, value in enumerate(recalls):
        if place in missing:
            assert value is None
        else:
            assert value == pytest.approx(expected[place])


def by_bins(probs, labels):
    """Return the calibration error of the definition, bin by bin."""
    confidence, predicted = probs.max(1), probs.argmax(1)
    error = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            accuracy = (predicted == labels)[inside].mean()
            error += inside.mean() * abs(accuracy - confidence[inside].mean())
    return error


def test_the_calibration_error_is_that_of_its_definition():
    logits, labels = made_up()
    probs = logits.double().softmax(1)
    found = measures.calibration_error(probs, labels)

    assert found == pytest.approx(by_bins(probs.numpy(), labels.numpy()), abs=1e-12)
    assert 0.02 < found < 0.5


def test_the_calibration_error_by_hand():
    # Two are 80% sure, of which one is right; one is quite sure, and right.
    probs = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1])
    assert measures.calibration_error(probs, labels) == pytest.approx(2 / 3 * 0.3)

    sure = torch.tensor([[1.0 + 1e-15, 0.0]], dtype=torch.float64)
    assert measures.calibration_error(sure, torch.tensor([0])) == pytest.approx(0)


def test_a_saturated_network_has_a_finite_likelihood():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    found = measures.test_measures(logits, torch.tensor([1, 1]))
    assert found["nll"] == pytest.approx(1e4)
    assert math.isfinite(found["ece"])
    assert found["macro_f1"] == pytest.approx((0 + 2 / 3) / 2)
    assert found["balanced_accuracy"] == 0.5
