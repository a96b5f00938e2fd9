"""The Jensen-Shannon loss against its definition, and against the losses that it lies between."""

import math

import pytest
import torch
from cases import CLASSES
from formulas import of_label, one_hot, softmax
from lab import make_batch, make_logits, make_task, value_and_grad

JS = CLASSES["js"]


def from_definition(logits, labels, pi):
    """Compute Z * (pi KL(Y || M) + (1 - pi) KL(p || M)) class by class, with 0 log 0 = 0."""
    B, C = logits.shape
    mean = 0.0
    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        total = math.fsum(math.exp(v - max(z)) for v in z)
        terms = []
        for k in range(C):
            p, Y = math.exp(z[k] - max(z)) / total, float(k == y)
            M = pi * Y + (1 - pi) * p
            if Y:
                terms.append(pi * math.log(1 / M))
            if p:
                terms.append((1 - pi) * p * math.log(p / M))
        mean += math.fsum(terms) / B
    return -mean / ((1 - pi) * math.log(1 - pi))


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 1e-4, 2e-6)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(
    ("params", "pi"), [({}, 0.7), ({"pi": 0.3}, 0.3), ({"pi": 0.1}, 0.1), ({"pi": 0.99}, 0.99)]
)
def test_value_and_gradient(params, pi, C, stage, dtype, rtol, atol):
    task, logits = make_task(N=33, C=C), make_logits(33, C, stage).to(dtype)
    batch = make_batch(task, torch.arange(33))
    loss, grad = value_and_grad(JS(task, **params), logits, batch)

    def weight(p):
        return p * math.log1p(pi / ((1 - pi) * p)) / -math.log(1 - pi)

    _, expected_grad = of_label(logits, batch.labels, lambda p: 0.0, weight)
    assert loss.dtype == dtype
    expected = from_definition(logits, batch.labels, pi)
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


def test_it_lies_between_cross_entropy_and_mae():
    task, logits = make_task(N=16), make_logits(16, 10, "early")
    batch = make_batch(task, torch.arange(16))
    p, Y = softmax(logits), one_hot(task.labels, 10)
    p_y = (p * Y).sum(1)

    loss, grad = value_and_grad(JS(task, pi=1e-6), logits, batch)
    assert float(loss) == pytest.approx(float(-p_y.log().mean()), rel=1e-4)
    torch.testing.assert_close(grad * 16, p - Y, rtol=1e-3, atol=1e-5)
    # The limit is reached as slowly as 1 / log(1 - pi).
    loss, grad = value_and_grad(JS(task, pi=1 - 1e-15), logits, batch)
    assert float(loss) == pytest.approx(float((1 - p_y).mean()), rel=0.1)


def test_an_example_without_hope_has_a_finite_loss_and_no_gradient():
    task = make_task(N=8)
    wrong = torch.zeros(8, 10)
    wrong[torch.arange(8), task.labels] = -400.0
    loss, grad = value_and_grad(JS(task), wrong, make_batch(task, torch.arange(8)))
    # Z * (0.7 log(1 / 0.7) + 0.3 log(1 / 0.3)) = 1.6913.
    assert float(loss) == pytest.approx(
        (0.7 * math.log(0.7) + 0.3 * math.log(0.3)) / (0.3 * math.log(0.3)), rel=1e-6
    )
    assert not grad.any()
