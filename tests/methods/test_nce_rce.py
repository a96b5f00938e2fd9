"""NCE + RCE against its formula and against values that the authors' own code computed."""

import math

import numpy as np
import pytest
import torch
from lab import (
    in_float64,
    make_batch,
    make_logits,
    make_run,
    make_task,
    no_views,
    train,
    value_and_grad,
)
from official import needs_vectors, official_examples, official_values

from nlbench import registry
from nlbench.method import Batch, Task

NCERCE = registry.load_method(registry.method_files()["nce-rce"])


def softmax(z):
    top = max(z)
    log_sum = top + math.log(sum(math.exp(v - top) for v in z))
    return [v - log_sum for v in z], [math.exp(v - log_sum) for v in z]


def by_hand(logits, labels, alpha, beta):
    """Compute value and gradient, a class at a time; RCE's gradient has the mask of its clamp."""
    B, C = logits.shape
    loss, grad = 0.0, torch.zeros(B, C, dtype=torch.float64)

    for b in range(B):
        log_p, p = softmax(logits[b].double().tolist())
        y, S = int(labels[b]), sum(log_p)
        loss += alpha * log_p[y] / S / B

        # RCE takes the log of the one-hot label, clipped at 1e-4: 0 at the label, log(1e-4) at
        # the other classes. The clamp of p at 1e-7 stops the gradient below it.
        a, mean = [0.0] * C, 0.0
        for k in range(C):
            A = 0.0 if k == y else math.log(1e-4)
            loss -= beta * max(p[k], 1e-7) * A / B
            if p[k] >= 1e-7:
                a[k] = -A
            mean += a[k] * p[k]

        for c in range(C):
            nce = (((c == y) - p[c]) * S - log_p[y] * (1 - C * p[c])) / S**2
            grad[b, c] = (alpha * nce + beta * p[c] * (a[c] - mean)) / B
    return loss, grad


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (10.0, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_value_and_gradient(alpha, beta, C, stage, dtype, rtol):
    task, logits = make_task(N=33, C=C), make_logits(33, C, stage).to(dtype)
    # Only examples that float32 and float64 mask alike: no probability is at the bound itself.
    p = logits.double().softmax(1)
    away = ((p - 1e-7).abs() > 1e-11).all(1)

    assert away.sum() >= 25
    logits, batch = logits[away], make_batch(task, torch.arange(33)[away])
    expected, expected_grad = by_hand(logits, batch.labels, alpha, beta)
    loss, grad = value_and_grad(NCERCE(task, alpha=alpha, beta=beta), logits, batch)

    assert loss.dtype == dtype
    assert float(loss) == pytest.approx(expected, rel=rtol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=10 * rtol, atol=rtol)


def test_a_value_by_hand():
    """Compute two classes with p = (3/4, 1/4) and label 0.

    NCE = ln(3/4) / (ln(3/4) + ln(1/4)), RCE = ln(1e4) / 4.
    """
    task = Task(1, 2, torch.tensor([0]), 6, 1, 1)
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    loss = NCERCE(task).loss(logits, make_batch(task, torch.tensor([0])))

    assert float(loss) == pytest.approx(
        0.2876820724517809 / 1.6739764335716716 + 2.302585092994046, rel=1e-12
    )


def test_nce_lies_between_0_and_1_and_rce_between_0_and_its_constant():
    task = make_task(N=8)
    batch = make_batch(task, torch.arange(8))
    nce, rce = NCERCE(task, alpha=1.0, beta=0.0), NCERCE(task, alpha=0.0, beta=1.0)
    right, wrong = torch.zeros(8, 10), torch.zeros(8, 10)
    right[torch.arange(8), task.labels] = 200.0
    wrong[torch.arange(8), task.labels] = -200.0

    assert float(nce.loss(right, batch)) == pytest.approx(0.0, abs=1e-6)
    # -log p is 200 at the label, and log 9 at each of the nine other classes.
    assert float(nce.loss(wrong, batch)) == pytest.approx(1.0, abs=0.12)
    # The clamp leaves 1e-7 to each of the other classes.
    assert float(rce.loss(right, batch)) == pytest.approx(9 * 1e-7 * 9.210340371976182, rel=1e-3)
    assert float(rce.loss(wrong, batch)) == pytest.approx(9.210340371976182, rel=1e-6)


PARTS = [
    ("nce", {"alpha": 1.0, "beta": 0.0}, 1.0),
    # Their one-hot labels are float32 before they are clipped, so that their log 0 is rounded to
    # float32.
    ("rce", {"alpha": 0.0, "beta": 1.0}, float(np.log(np.float32(1e-4))) / math.log(1e-4)),
]


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("part", "params", "scale"), PARTS)
def test_the_gradients_of_examples_equal_the_authors(part, params, scale, stage):
    for at in official_examples("losses", stage):
        logits = torch.tensor([at["logits"]], dtype=torch.float64)
        labels = torch.tensor([at["label"]])
        method = NCERCE(Task(1, 10, labels, 6, 1, 1), **params)
        batch = Batch(logits, labels, torch.arange(1), no_views)
        _, grad = value_and_grad(method, logits, batch)
        expected = at["gradients"][part]
        torch.testing.assert_close((scale * grad[0]).tolist(), expected, rtol=0, atol=1e-11)


@needs_vectors
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [10, 100])
@pytest.mark.parametrize(("part", "params", "scale"), PARTS)
def test_both_parts_equal_the_authors(part, params, scale, C, stage):
    values = official_values(f"C{C}/{stage}/")
    logits, labels = values["logits"], values["labels"]
    B = len(labels)
    method = NCERCE(Task(B, C, labels, 6, 1, B), **params)
    loss, grad = value_and_grad(method, logits, Batch(logits, labels, torch.arange(B), no_views))
    torch.testing.assert_close(scale * loss, values[f"{part}/loss"], rtol=0, atol=1e-12)
    torch.testing.assert_close(scale * grad, values[f"{part}/grad"], rtol=0, atol=1e-12)


def test_ten_steps_of_training():
    """Compare with SGD with momentum on the gradient that is written out."""
    task = make_task(N=20, epochs=10, batch_size=20)
    run, plain = make_run(task), make_run(task)
    in_float64(run)
    in_float64(plain)
    train(NCERCE(task, alpha=2.0, beta=0.5), run, range(10))
    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]

    for epoch in range(10):
        plain.begin_epoch(epoch)
        batch = plain.batch(plain.order())
        logits = network(batch.images)
        _, dlogits = by_hand(logits.detach(), batch.labels, 2.0, 0.5)
        grads = torch.autograd.grad(logits, list(network.parameters()), dlogits)
        with torch.no_grad():
            for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                v.mul_(0.9).add_(g)
                w.sub_(0.1 * v)

    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
