"""VolMinNet: T and the loss against formulas, T's optimiser, trainings against a plain one."""

import numpy as np
import pytest
import torch
from lab import in_float64, make_batch, make_logits, make_run, make_task, train

from nlbench import registry

VolMinNet = registry.load_method(registry.method_files()["volminnet"])


def random_W(C, seed=9):
    return (
        1.5 * torch.randn(C, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        - 2.0
    )


def T_of(W):
    """Build the identity with sigmoids off the diagonal, rows divided by their sum, by entries."""
    C = len(W)
    rows = []

    for i in range(C):
        entries = []
        for j in range(C):
            if i == j:
                entries.append(torch.ones((), dtype=W.dtype))
            else:
                entries.append(1 / (1 + torch.exp(-W[i, j])))
        row = torch.stack(entries)
        rows.append(row / row.sum())
    return torch.stack(rows)


def by_hand(logits, labels, W, lam):
    """Compute value and gradients to logits and W from p T itself, not from its logarithm."""
    z, W = logits.detach().double().requires_grad_(), W.detach().clone().requires_grad_()
    T = T_of(W)
    total = 0.0

    for b in range(len(z)):
        e = torch.exp(z[b] - z[b].max().detach())
        p = e / e.sum()
        # The probability of the noisy label: the sum over the clean labels i.
        total = total - torch.log((p * T[:, int(labels[b])]).sum())

    loss = total / len(z) + lam * torch.log(torch.abs(torch.linalg.det(T)))
    return loss.detach(), *torch.autograd.grad(loss, (z, W))


@pytest.mark.parametrize(
    ("C", "init", "diagonal"),
    [(10, -2.0, 0.4824330918943059), (100, -4.5, 0.478994), (2, 0.0, 2 / 3)],
)
def test_T_at_the_start(C, init, diagonal):
    """Expect 1 / (1 + (C - 1) sigmoid(init)) on the diagonal.

    sigmoid(-2) is 0.1192, sigmoid(-4.5) is 0.01099.
    """
    T = VolMinNet(make_task(N=200, C=C), init=init).T

    assert T.shape == (C, C)
    assert not T.requires_grad
    assert T.diagonal().tolist() == pytest.approx([diagonal] * C, rel=1e-4)

    off = T[~torch.eye(C, dtype=bool)]
    assert off.tolist() == pytest.approx([(1 - diagonal) / (C - 1)] * len(off), rel=1e-4)


def test_T_of_any_W():
    method = VolMinNet(make_task())
    method.W.data.copy_(random_W(10))
    torch.testing.assert_close(method.T, T_of(random_W(10)), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(method.T.sum(1), torch.ones(10, dtype=torch.float64))
    # Sigmoids of exactly 0 and 1.
    for W in (-2000.0, 2000.0):
        method.W.data.fill_(W)
        assert method.log_T().isfinite().all()
        torch.testing.assert_close(method.T, T_of(torch.full((10, 10), W, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-6)]
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10])
@pytest.mark.parametrize("lam", [0.0, 1e-4, 1.0])
def test_value_and_gradients(lam, C, stage, dtype, rtol, atol):
    task = make_task(N=13, C=C)
    method = VolMinNet(task, lam=lam)
    method.W.data.copy_(random_W(C))
    logits, batch = make_logits(13, C, stage).to(dtype), make_batch(task, torch.arange(13))
    expected, expected_grad, expected_W = by_hand(logits, batch.labels, random_W(C), lam)
    z = logits.clone().requires_grad_()
    loss = method.loss(z, batch)
    grad, grad_W = torch.autograd.grad(loss, (z, method.W))

    assert loss.dtype == dtype
    torch.testing.assert_close(loss.detach().double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad_W, expected_W, rtol=rtol, atol=atol)
    assert torch.equal(grad_W.diagonal(), torch.zeros(C, dtype=torch.float64))


def test_predictions_are_of_the_clean_label():
    task = make_task()
    method, run = VolMinNet(task), make_run(task)
    method.prepare(run)
    images = torch.randn(7, 6)
    run.networks[0].eval()
    assert torch.equal(method.predict(run, images), run.networks[0](images))


@pytest.mark.parametrize(
    "params", [{"T_momentum": 0.0, "T_lr": 20.0}, {"T_optimiser": "adam", "T_lr": 0.1}]
)
def test_T_learns_the_noise_of_a_network_that_knows_the_clean_labels(params):
    """With p one-hot at the clean label, the minimum is the matrix of noisy label frequencies."""
    rng = np.random.default_rng(0)
    clean = torch.arange(600) % 3
    true = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.15, 0.05, 0.8]], dtype=torch.float64)
    labels = torch.tensor([int(rng.choice(3, p=true[c].numpy())) for c in clean])
    task = make_task(N=600, C=3, epochs=1000)
    task.labels.copy_(labels)
    method, run = VolMinNet(task, lam=0.0, **params), make_run(task)
    method.prepare(run)
    logits = 30.0 * torch.nn.functional.one_hot(clean, 3).double()
    for _ in range(200):
        run.backward_step(method.loss(logits, make_batch(task, torch.arange(600))), "T")
    counts = torch.zeros(3, 3, dtype=torch.float64)
    for i, j in zip(clean.tolist(), labels.tolist(), strict=True):
        counts[i, j] += 1 / 200

    torch.testing.assert_close(method.T, counts, rtol=0, atol=1e-4)


def test_the_volume_term_shrinks_the_volume():
    """With nothing else to learn from, off-diagonal entries grow."""
    task = make_task()
    method, run = VolMinNet(task, lam=1.0), make_run(task)
    method.prepare(run)
    before = method.T
    run.backward_step(method.loss(torch.zeros(40, 10), make_batch(task, torch.arange(40))), "T")
    assert torch.linalg.det(method.T) < torch.linalg.det(before)


@pytest.mark.parametrize(
    ("epochs", "params", "factors"),
    [
        # The authors' schedule.
        (80, {}, [1.0] * 30 + [0.1] * 30 + [0.01] * 20),
        (8, {}, [1.0] * 3 + [0.1] * 3 + [0.01] * 2),
        (4, {"first_drop_share": 0.25, "second_drop_share": 1.0}, [1.0, 0.1, 0.1, 0.1]),
        (1, {}, [1.0]),
    ],
)
def test_the_rate_of_T_drops_at_the_same_shares_of_the_training(epochs, params, factors):
    """Check that the network keeps the protocol's schedule, which is constant here."""
    task = make_task(N=4, epochs=epochs)
    method, run = VolMinNet(task, T_lr=0.5, **params), make_run(task, lr=0.1)
    method.prepare(run)
    rates = []

    for epoch in range(epochs):
        train(method, run, [epoch])
        rates.append(run.optimisers["T"].param_groups[0]["lr"])
        assert run.optimisers["network0"].param_groups[0]["lr"] == 0.1

    assert rates == pytest.approx([0.5 * factor for factor in factors], rel=1e-12)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_training_equals_a_plain_one(optimiser):
    """Compare T's and the network's weights with steps written out, in eight epochs of three."""
    task = make_task(N=40, C=5, epochs=8)
    run, plain = in_float64(make_run(task)), in_float64(make_run(task))
    method = VolMinNet(task, lam=0.01, T_lr=0.3, T_optimiser=optimiser)
    method.prepare(run)
    train(method, run, range(8))
    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]
    W = torch.full((5, 5), -2.0, dtype=torch.float64)
    first, second, steps = torch.zeros_like(W), torch.zeros_like(W), 0

    for epoch in range(8):
        plain.begin_epoch(epoch)
        # The rate of T drops by ten after 3/8 and 6/8 of the training.
        rate = [0.3, 0.03, 0.003][epoch // 3]
        for index in plain.order().split(16):
            logits = network(plain.batch(index).images)
            _, dlogits, dW = by_hand(logits, task.labels[index], W, 0.01)
            grads = torch.autograd.grad(logits, list(network.parameters()), dlogits)
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w.sub_(0.1 * v)
            steps += 1
            if optimiser == "sgd":
                first = 0.9 * first + dW
                W = W - rate * first
            else:
                first, second = 0.9 * first + 0.1 * dW, 0.999 * second + 0.001 * dW**2
                unbiased = (second / (1 - 0.999**steps)).sqrt()
                W = W - rate * (first / (1 - 0.9**steps)) / (unbiased + 1e-8)

    torch.testing.assert_close(method.W.detach(), W, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(method.T, T_of(W), rtol=1e-8, atol=1e-10)
    assert (W + 2.0).abs().max() > 0.1
    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
