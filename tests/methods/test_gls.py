"""Generalised label smoothing against its formula, for rates on both sides of 0."""

import math

import pytest
import torch
from lab import in_float64, make_batch, make_logits, make_run, make_task, train, value_and_grad

from nlbench import registry

GLS = registry.load_method(registry.method_files()["gls"])
RATES = [0.8, 0.1, 0.0, -0.4, -1.0, -8.0]


def smoothed(logits, labels, rate):
    """Cross entropy with soft labels, written out; and its gradient p - label, over B."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        z = logits[b].double().tolist()
        top = max(z)
        log_sum = top + math.log(sum(math.exp(v - top) for v in z))
        for k in range(C):
            label = rate / C + (1 - rate if k == int(labels[b]) else 0.0)
            loss += label * (log_sum - z[k]) / B
            grad[b, k] = (math.exp(z[k] - log_sum) - label) / B
    return loss, grad


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 1e-5, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize("rate", RATES)
def test_value_and_gradient(rate, C, stage, dtype, rtol, atol):
    task = make_task(N=33, C=C)
    logits = make_logits(33, C, stage).to(dtype)
    expected, expected_grad = smoothed(logits, task.labels, rate)
    loss, grad = value_and_grad(GLS(task, rate=rate), logits, make_batch(task, torch.arange(33)))
    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol, abs=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


def test_a_value_by_hand():
    """Two classes, p = (3/4, 1/4), label 0: -(1 - r) ln 3/4 - r (ln 3/4 + ln 1/4) / 2."""
    task = make_task(N=1, C=2)
    task.labels.zero_()
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)

    for rate, expected in (
        (0.0, 0.2876820724517809),
        (0.5, 0.5623351446188083),
        (-2.0, -0.8109302162163288),
    ):
        loss = GLS(task, rate=rate).loss(logits, make_batch(task, torch.tensor([0])))
        assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_rate_0_is_cross_entropy_and_a_positive_rate_is_label_smoothing():
    task = make_task(N=33)
    logits, batch = make_logits(33, 10, "late"), make_batch(task, torch.arange(33))
    for rate in (0.0, 0.1, 0.8):
        expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=rate)
        torch.testing.assert_close(
            GLS(task, rate=rate).loss(logits, batch), expected, rtol=1e-12, atol=0
        )


def test_a_negative_rate_has_no_lower_bound_and_a_bounded_gradient():
    task = make_task(N=1)
    batch = make_batch(task, torch.tensor([0]))
    # The loss is -|r| (C - 1) / C times the gap.
    for gap, bound in ((50.0, -180.0), (200.0, -720.0), (400.0, -1440.0)):
        logits = torch.zeros(1, 10)
        logits[0, task.labels[0]] = gap
        loss, grad = value_and_grad(GLS(task, rate=-4.0), logits, batch)
        assert float(loss) == pytest.approx(bound, rel=1e-5)
        assert float(grad.abs().sum()) == pytest.approx(2 * 4.0 * 0.9, rel=1e-5)


@pytest.mark.parametrize("rate", [0.1, -1.0])
def test_ten_steps_of_training(rate):
    """Compare with SGD with momentum on the gradient that is written out."""
    task = make_task(N=20, epochs=10, batch_size=20)
    run, plain = make_run(task, lr=0.01), make_run(task)
    in_float64(run)
    in_float64(plain)
    method = GLS(task, rate=rate)
    train(method, run, range(10))
    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]

    for epoch in range(10):
        plain.begin_epoch(epoch)
        batch = plain.batch(plain.order())
        network.train()
        logits = network(batch.images)
        _, dlogits = smoothed(logits.detach(), batch.labels, rate)
        grads = torch.autograd.grad(logits, list(network.parameters()), dlogits)
        with torch.no_grad():
            for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                v.mul_(0.9).add_(g)
                w.sub_(0.01 * v)

    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
