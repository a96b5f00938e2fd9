"""ANL-CE and ANL-FL: the formula, its clamp, and the sum of the absolute weights."""

import math

import pytest
import torch
from cases import CLASSES
from lab import (
    in_float64,
    make_batch,
    make_logits,
    make_run,
    make_task,
    train,
    value_and_grad,
)

from nlbench.method import Task

ANL = CLASSES["anl"]
FLOOR = 1e-7


def by_hand(logits, labels, alpha, beta, gamma):
    """Compute value and gradient of the first two terms, a number at a time."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)
    A = -((1 - FLOOR) ** gamma) * math.log(FLOOR)

    for b in range(B):
        z, y = logits[b].double().tolist(), int(labels[b])
        log_sum = max(z) + math.log(math.fsum(math.exp(v - max(z)) for v in z))
        log_p = [v - log_sum for v in z]
        p = [math.exp(v) for v in log_p]

        # The factors of the focal loss are constants. 1 - p is the sum of the other p.
        others = [math.fsum(p[:k] + p[k + 1 :]) for k in range(C)]
        factor = [v**gamma for v in others]
        c = [-factor[k] * log_p[k] for k in range(C)]
        total = math.fsum(c)
        # Below the floor s is 0 and has no gradient.
        inside = [v >= FLOOR for v in p]
        s = [A - c[k] if inside[k] else 0.0 for k in range(C)]
        S = math.fsum(s)
        loss += (alpha * c[y] / total + beta * math.fsum(s[:y] + s[y + 1 :]) / S) / B

        for j in range(C):
            # d log p_k / dz_j = 1[k = j] - p_j.
            dc = [-factor[k] * (float(k == j) - p[j]) for k in range(C)]
            ds = [-dc[k] if inside[k] else 0.0 for k in range(C)]
            active = (dc[y] * total - c[y] * math.fsum(dc)) / total**2
            negative = -(ds[y] * S - s[y] * math.fsum(ds)) / S**2
            grad[b, j] = (alpha * active + beta * negative) / B

    return loss, grad


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 30])
@pytest.mark.parametrize(
    ("params", "alpha", "beta", "gamma"),
    [
        ({}, 5.0, 5.0, 0.0),
        ({"gamma": 0.5}, 5.0, 5.0, 0.5),
        ({"alpha": 0.0, "gamma": 2.0}, 0.0, 5.0, 2.0),
        ({"alpha": 10.0, "beta": 0.0, "gamma": 0.5}, 10.0, 0.0, 0.5),
    ],
    ids=str,
)
def test_value_and_gradient(params, alpha, beta, gamma, C, stage, dtype, rtol, atol):
    task, logits = make_task(N=40, C=C), make_logits(40, C, stage).to(dtype)
    # Only examples that float32 and float64 clamp alike. Near 1, few digits of 1 - p are left.
    p = logits.double().softmax(1)
    surest = 1 - {torch.float64: 1e-6, torch.float32: 1e-4}[dtype]
    away = ((p - FLOOR).abs() > 1e-11).all(1) & (p.amax(1) < surest)

    assert away.sum() >= 8
    logits, batch = logits[away], make_batch(task, torch.arange(40)[away])
    expected, expected_grad = by_hand(logits, batch.labels, alpha, beta, gamma)
    loss, grad = value_and_grad(ANL(task, **params), logits, batch)

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)
    if stage == "late" and C > 2:
        assert (p[away] < FLOOR).any()


def test_a_value_by_hand():
    """Compute two classes with p = (1/4, 3/4) and label 0, where A is 7 ln 10."""
    task = Task(1, 2, torch.tensor([0]), 6, 1, 1)
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    batch = make_batch(task, torch.tensor([0]))

    nce = math.log(4) / (math.log(4) + math.log(4 / 3))
    s = [16.11809565095832 - math.log(4), 16.11809565095832 - math.log(4 / 3)]
    expected = 2 * nce + 3 * s[1] / (s[0] + s[1])
    loss = ANL(task, alpha=2.0, beta=3.0).loss(logits, batch)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_a_label_without_hope_costs_as_much_as_the_terms_allow():
    task = make_task(N=8)
    batch = make_batch(task, torch.arange(8))
    right, wrong = torch.zeros(8, 10), torch.zeros(8, 10)
    right[torch.arange(8), task.labels] = 200.0
    wrong[torch.arange(8), (task.labels + 1) % 10] = 200.0

    for gamma in (0.0, 0.5):
        negative = ANL(task, alpha=0.0, beta=1.0, gamma=gamma)
        assert float(negative.loss(right, batch)) == pytest.approx(0.0, abs=1e-5)
        # The label has s = 0, and so it has no gradient either.
        loss, grad = value_and_grad(negative, wrong, batch)
        assert float(loss) == pytest.approx(1.0, abs=1e-6)
        assert not grad.any()


@pytest.mark.parametrize("delta", [5e-5, 0.01, 0.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_ten_steps_with_the_sum_of_the_absolute_weights(gamma, delta):
    """Compare with SGD with momentum on the gradient that is written out."""
    task = make_task(N=20, epochs=10, batch_size=20)
    run, plain = in_float64(make_run(task)), in_float64(make_run(task))
    losses, take = [], run.backward_step
    run.backward_step = lambda loss: (losses.append(loss.item()), take(loss))
    params = {} if delta == 5e-5 else {"delta": delta}
    train(ANL(task, gamma=gamma, **params), run, range(10))

    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]
    for epoch in range(10):
        plain.begin_epoch(epoch)
        batch = plain.batch(plain.order())
        logits = network(batch.images)
        loss, dlogits = by_hand(logits.detach(), batch.labels, 5.0, 5.0, gamma)
        grads = torch.autograd.grad(logits, list(network.parameters()), dlogits)

        size = 0.0
        with torch.no_grad():
            for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                # All weights count, those of the normalisation too.
                size += sum(abs(x) for x in w.flatten().tolist())
                sign = (w > 0).double() - (w < 0).double()
                v.mul_(0.9).add_(g + delta * sign)
                w.sub_(0.1 * v)
        assert losses[epoch] == pytest.approx(loss + delta * size, rel=1e-10)

    assert len(losses) == 10
    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_step_returns_the_logits_of_its_batch():
    task = make_task(N=16)
    run = make_run(task)
    run.begin_epoch(0)
    batch = run.batch(torch.arange(16))
    expected = run.networks[0](batch.images)
    assert torch.equal(ANL(task).training_step(run, batch), expected)
