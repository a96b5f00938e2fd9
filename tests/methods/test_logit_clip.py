"""LogitClip: both forms of the clip, value and gradient by hand, and its bound."""

import math

import pytest
import torch
from cases import CLASSES
from lab import make_batch, make_logits, make_task, value_and_grad

from nlbench.method import Task

LogitClip = CLASSES["logit-clip"]


def by_hand(logits, labels, bound, length):
    """Compute value and gradient where logits longer than `bound` get the norm `length`."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        norm = math.sqrt(math.fsum(v * v for v in z))
        n = norm + 1e-7
        clips = n > bound
        seen = [v * length / n for v in z] if clips else z
        total = math.fsum(math.exp(v) for v in seen)
        r = [math.exp(v) / total - float(c == y) for c, v in enumerate(seen)]
        loss += (math.log(total) - seen[y]) / B

        along = math.fsum(v * w for v, w in zip(z, r, strict=True))
        for c in range(C):
            changed = length * (r[c] - z[c] * along / (norm * n)) / n
            grad[b, c] = (changed if clips else r[c]) / B

    return loss, grad


FORMS = [
    ({}, 1.0, 1.0),
    ({"norm": 2.5}, 2.5, 2.5),
    ({"norm": 0.5}, 0.5, 0.5),
    # The official form clips where the norm is above 1 / norm.
    ({"official": True}, 1.0, 1.0),
    ({"norm": 2.5, "official": True}, 0.4, 2.5),
    ({"norm": 2 / 3, "official": True}, 1.5, 2 / 3),
]


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 1e-5, 1e-6)], ids=str
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 12.0])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(("params", "bound", "length"), FORMS, ids=str)
def test_value_and_gradient(params, bound, length, C, scale, dtype, rtol, atol):
    task = make_task(N=33, C=C)
    logits = (scale * make_logits(33, C, "early")).to(dtype)
    batch = make_batch(task, torch.arange(33))
    loss, grad = value_and_grad(LogitClip(task, **params), logits, batch)
    expected, expected_grad = by_hand(logits, batch.labels, bound, length)

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


def test_values_by_hand():
    """Compute the logits (3, 4), whose norm is 5, and (0.3, 0.4) with label 0."""
    task = Task(2, 2, torch.tensor([0, 0]), 6, 1, 2)
    batch = make_batch(task, torch.tensor([0]))

    def loss(logits, **params):
        return float(LogitClip(task, **params).loss(torch.tensor([logits]).double(), batch))

    # The difference of the logits decides the loss: 0.2 after the clip to 1, 0.1 without a clip.
    assert loss([3.0, 4.0]) == pytest.approx(math.log(1 + math.exp(0.2)), rel=1e-7)
    assert loss([0.3, 0.4]) == pytest.approx(math.log(1 + math.exp(0.1)), rel=1e-7)
    # Clipped to 2. The official form does so to a norm of 1 as well, as that is above 1/2.
    assert loss([3.0, 4.0], norm=2.0) == pytest.approx(math.log(1 + math.exp(0.4)), rel=1e-7)
    longer = loss([0.6, 0.8], norm=2.0, official=True)
    assert longer == pytest.approx(math.log(1 + math.exp(0.4)), rel=1e-6)
    assert loss([0.6, 0.8], norm=2.0) == pytest.approx(math.log(1 + math.exp(0.2)), rel=1e-7)


@pytest.mark.parametrize("norm", [0.5, 1.0, 2.5])
def test_the_loss_is_bounded(norm):
    task = make_task(N=8)
    wrong = torch.zeros(8, 10)
    wrong[torch.arange(8), task.labels] = -300.0
    wrong[torch.arange(8), (task.labels + 1) % 10] = 300.0
    loss = LogitClip(task, norm=norm).loss(wrong, make_batch(task, torch.arange(8)))
    # The bound of the docstring has all other logits at the largest value.
    one = math.exp(norm * math.sqrt(2))
    assert math.log(1 + one) < float(loss) < math.log(1 + 9 * one)


def test_logits_of_0_have_the_gradient_of_cross_entropy():
    task = make_task(N=8)
    batch = make_batch(task, torch.arange(8))
    zeros = torch.zeros(8, 10, dtype=torch.float64)
    clip, ce = (value_and_grad(CLASSES[n](task), zeros, batch) for n in ("logit-clip", "ce"))
    torch.testing.assert_close(clip, ce, rtol=1e-12, atol=1e-15)
