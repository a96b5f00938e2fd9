"""The asymmetric losses `agce`, `aul`, `ael` and `nce-agce` against their formulas."""

import math

import pytest
import torch
from cases import CLASSES
from formulas import of_label
from lab import make_batch, make_logits, make_task, value_and_grad

from nlbench.method import Task


def agce(a, q):
    """Return value and weight of AGCE as functions of p_y."""
    return (
        lambda p: ((a + 1) ** q - (a + p) ** q) / q,
        lambda p: p * (a + p) ** (q - 1),
    )


def aul(a, q):
    return (
        lambda p: ((a - p) ** q - (a - 1) ** q) / q,
        lambda p: p * (a - p) ** (q - 1),
    )


def ael(a):
    return lambda p: math.exp(-p / a), lambda p: p / a * math.exp(-p / a)


ONE_TERM = [
    ("agce", {}, agce(0.6, 0.6)),
    ("agce", {"a": 4.0, "q": 0.2}, agce(4.0, 0.2)),
    ("agce", {"a": 1.8, "q": 3.0}, agce(1.8, 3.0)),
    ("aul", {}, aul(5.5, 3.0)),
    ("aul", {"a": 3.0, "q": 0.1}, aul(3.0, 0.1)),
    ("ael", {}, ael(2.5)),
    ("ael", {"a": 0.5}, ael(0.5)),
]
precisions = pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-14), (torch.float32, 1e-5, 2e-6)], ids=str
)


@precisions
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(("name", "params", "formula"), ONE_TERM)
def test_value_and_gradient(name, params, formula, C, stage, dtype, rtol, atol):
    task, logits = make_task(N=33, C=C), make_logits(33, C, stage).to(dtype)
    batch = make_batch(task, torch.arange(33))
    loss, grad = value_and_grad(CLASSES[name](task, **params), logits, batch)
    expected, expected_grad = of_label(logits, batch.labels, *formula)

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


def nce_by_hand(logits, labels):
    """Compute the mean of log p_y / sum_k log p_k and its gradient, a number at a time."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        top = max(z) + math.log(math.fsum(math.exp(v - max(z)) for v in z))
        log_p, S = [v - top for v in z], math.fsum(v - top for v in z)
        loss += log_p[y] / S / B
        for c in range(C):
            p_c = math.exp(log_p[c])
            grad[b, c] = ((float(c == y) - p_c) * S - log_p[y] * (1 - C * p_c)) / S**2 / B

    return loss, grad


@precisions
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(
    ("params", "alpha", "beta", "a", "q"),
    [
        ({}, 1.0, 4.0, 6.0, 1.5),
        ({"alpha": 10.0, "beta": 0.1, "a": 1.8, "q": 3.0}, 10.0, 0.1, 1.8, 3.0),
        ({"alpha": 0.0}, 0.0, 4.0, 6.0, 1.5),
        ({"beta": 0.0}, 1.0, 0.0, 6.0, 1.5),
    ],
    ids=str,
)
def test_both_terms_of_nce_agce(params, alpha, beta, a, q, C, stage, dtype, rtol, atol):
    task, logits = make_task(N=33, C=C), make_logits(33, C, stage).to(dtype)
    batch = make_batch(task, torch.arange(33))
    loss, grad = value_and_grad(CLASSES["nce-agce"](task, **params), logits, batch)
    nce, nce_grad = nce_by_hand(logits, batch.labels)
    other, other_grad = of_label(logits, batch.labels, *agce(a, q))

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(alpha * nce + beta * other, rel=rtol)
    expected = alpha * nce_grad + beta * other_grad
    torch.testing.assert_close(grad.double(), expected, rtol=rtol, atol=beta * atol + alpha * atol)


def at_a_quarter(name, **params):
    """Return the loss of one example with p = (1/4, 3/4) and label 0."""
    task = Task(1, 2, torch.tensor([0]), 6, 1, 1)
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    return float(CLASSES[name](task, **params).loss(logits, make_batch(task, torch.tensor([0]))))


def test_values_by_hand():
    assert at_a_quarter("agce", a=1.0, q=2.0) == pytest.approx((4 - 1.25**2) / 2, rel=1e-12)
    assert at_a_quarter("aul", a=2.0, q=2.0) == pytest.approx((1.75**2 - 1) / 2, rel=1e-12)
    assert at_a_quarter("ael", a=0.25) == pytest.approx(0.36787944117144233, rel=1e-12)
    # NCE is ln(1/4) / (ln(1/4) + ln(3/4)).
    nce = 1.3862943611198906 / 1.6739764335716716
    expected = 2 * nce + 3 * (4 - 1.25**2) / 2
    assert at_a_quarter("nce-agce", alpha=2.0, beta=3.0, a=1.0, q=2.0) == pytest.approx(
        expected, rel=1e-12
    )


def test_agce_is_next_to_gce_where_a_is_next_to_0():
    task, logits = make_task(N=16), make_logits(16, 10, "early")
    batch = make_batch(task, torch.arange(16))
    agce = value_and_grad(CLASSES["agce"](task, a=1e-9, q=0.7), logits, batch)
    gce = value_and_grad(CLASSES["gce"](task, q=0.7), logits, batch)
    torch.testing.assert_close(agce, gce, rtol=1e-6, atol=1e-8)
