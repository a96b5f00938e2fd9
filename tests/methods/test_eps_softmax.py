"""Epsilon-softmax with CE and MAE: the formula, and where its first term passes a gradient."""

import math

import pytest
import torch
from cases import CLASSES
from lab import make_batch, make_logits, make_task, value_and_grad

from nlbench.method import Task

EpsSoftmax = CLASSES["eps-softmax"]


def by_hand(logits, labels, alpha, beta, m):
    """Compute value and gradient, a number at a time."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        total = math.fsum(math.exp(v - max(z)) for v in z)
        p = [math.exp(v - max(z)) / total for v in z]
        others = math.fsum(p[:y] + p[y + 1 :])

        # One minus (p_y + m) / (m + 1) is (1 - p_y) / (m + 1).
        if z[y] == max(z):
            ce, weight = -math.log1p(-others / (m + 1)), p[y] / (p[y] + m)
        else:
            ce, weight = -math.log(max(p[y] / (m + 1), 1e-8)), float(p[y] / (m + 1) > 1e-8)
        loss += (alpha * ce + beta * 2 * others) / B
        for c in range(C):
            # The gradient of 1 - p_y is p_y (p - Y).
            grad[b, c] = (alpha * weight + 2 * beta * p[y]) * (p[c] - float(c == y)) / B

    return loss, grad


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 1e-5, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(
    ("params", "alpha", "beta", "m"),
    [
        ({}, 0.01, 5.0, 1e5),
        ({"alpha": 0.02, "m": 1e3}, 0.02, 5.0, 1e3),
        ({"alpha": 1.0, "beta": 0.0, "m": 3.0}, 1.0, 0.0, 3.0),
        ({"alpha": 1.0, "beta": 0.1, "m": 0.0}, 1.0, 0.1, 0.0),
    ],
    ids=str,
)
def test_value_and_gradient(params, alpha, beta, m, C, stage, dtype, rtol, atol):
    task, logits = make_task(N=33, C=C), make_logits(33, C, stage).to(dtype)
    batch = make_batch(task, torch.arange(33))
    # Some examples are right, as random labels rarely are.
    logits[:5] = logits[:5].scatter(1, batch.labels[:5, None], float(logits.max()) + 1)
    expected, expected_grad = by_hand(logits, batch.labels, alpha, beta, m)
    loss, grad = value_and_grad(EpsSoftmax(task, **params), logits, batch)

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("p_y", "passes"),
    # The clamp lies at p_y = 1e-8 * (1e5 + 1). Above a half the label is the largest entry.
    [(0.00099, False), (0.00101, True), (0.3, True), (0.6, False)],
)
def test_the_first_term_acts_on_examples_that_are_wrong_and_not_hopeless(p_y, passes):
    task = Task(1, 2, torch.tensor([0]), 6, 1, 1)
    logits = torch.tensor([[p_y, 1 - p_y]], dtype=torch.float64).log()
    method = EpsSoftmax(task, alpha=1.0, beta=0.0)
    _, grad = value_and_grad(method, logits, make_batch(task, torch.tensor([0])))
    # Where the label is right, a gradient of p_y / (p_y + m) is left.
    expected = p_y - 1 if passes else 0.0
    assert float(grad[0, 0]) == pytest.approx(expected, rel=1e-9, abs=1e-5)


def test_a_value_by_hand():
    """Compute p = (1/4, 3/4) and both labels, with m = 1: p' is (1/8, 7/8)."""
    task = Task(2, 2, torch.tensor([0, 1]), 6, 1, 2)
    logits = torch.tensor([[0.0, math.log(3.0)]] * 2, dtype=torch.float64)
    loss = EpsSoftmax(task, alpha=2.0, beta=3.0, m=1.0).loss(
        logits, make_batch(task, torch.arange(2))
    )
    expected = (2 * math.log(8) + 3 * 1.5 + 2 * math.log(8 / 7) + 3 * 0.5) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-12)
