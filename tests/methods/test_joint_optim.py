"""Joint-Optim: its loss, both steps against a plain training, and its phases."""

import pytest
import torch
from cases import CLASSES
from formulas import one_hot, ref_ce, softmax
from lab import in_float64, make_logits, make_run, make_task, small_network
from plain import PlainSGD, assert_same_network

SHARES = {"first_share": 3 / 5, "start_share": 2 / 5, "average_share": 2 / 5}


def ref_loss(z, t, alpha, beta):
    """Return the loss of the first step, example by example, as the paper has it."""
    B, C = z.shape
    p = softmax(z)
    total, prior = 0, 0
    for b in range(B):
        log_p = z[b] - torch.logsumexp(z[b], 0)
        total = total - (t[b] * log_p).sum() - beta * (p[b] * log_p).sum()
    for k in range(C):
        prior = prior + torch.log((1 / C) / (p[:, k].sum() / B)) / C
    return total / B + alpha * prior


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_value_and_gradient_equal_the_formula(C, stage):
    method = CLASSES["joint-optim"](make_task(C=C), alpha=1.3, beta=0.7)
    z = make_logits(17, C, stage).requires_grad_()
    t = softmax(make_logits(17, C, "early", seed=5))
    (expected,) = torch.autograd.grad(ref_loss(z, t, 1.3, 0.7), z)
    loss = method.joint_loss(z, t)
    (grad,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(loss, ref_loss(z, t, 1.3, 0.7), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("epoch_size", [0, 15])
def test_both_steps_equal_a_plain_training(epoch_size):
    """Epochs 0 to 2 train the first network, the labels change after epochs 1 and 2."""
    task = make_task(N=23, C=4, batch_size=9, epochs=5)
    method = CLASSES["joint-optim"](task, **SHARES).double()
    run = in_float64(
        make_run(task, 2, lr=0.1, epoch_size=epoch_size, schedule=lambda position: 1 - position / 9)
    )
    plain = [PlainSGD(network) for network in run.networks]
    t, seen = one_hot(task.labels, 4), [[] for _ in range(23)]
    method.prepare(run)

    for epoch in range(5):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)
        for i, index in enumerate(run.order().split(9)):
            batch = run.batch(index)
            method.training_step(run, batch)
            own = plain[int(epoch >= 3)]
            z = own.network(batch.images)
            position = epoch + i / task.steps_per_epoch
            if epoch < 3:
                loss = ref_loss(z, t[index], 1.2, 0.8)
                own.lr = 0.1 * (1 - position / 9)
                for j, p in zip(index.tolist(), softmax(z.detach()), strict=True):
                    seen[j].append(p)
            else:
                loss = -(t[index] * z.log_softmax(1)).sum(1).mean()
                # The schedule of five epochs runs in the last two.
                own.lr = 0.1 * (1 - (position - 3) * 5 / 2 / 9)
            own.step(own.gradients(loss))
        method.on_epoch_end(run, epoch)
        if epoch in (1, 2):
            for j in range(23):
                if seen[j]:
                    t[j] = sum(seen[j][-2:]) / len(seen[j][-2:])

        torch.testing.assert_close(method.targets, t, rtol=0, atol=1e-12)
        # In evaluation mode, so that the passes leave the averages of batch norm alone.
        for network in run.networks:
            network.eval()
        expected = run.networks[int(epoch >= 3)](run.images.rows)
        assert torch.equal(method.predict(run, run.images.rows), expected)
        for network in run.networks:
            network.train()

    assert (t.argmax(1) != task.labels).any()
    for network, own in zip(run.networks, plain, strict=True):
        assert_same_network(network, own.network)


def test_the_second_network_starts_from_weights_of_its_own():
    task = make_task(epochs=5)
    run = make_run(task, 2)
    method = CLASSES["joint-optim"](task, **SHARES)
    method.prepare(run)
    before = [p.clone() for p in run.networks[1].parameters()]
    run.begin_epoch(0)
    method.on_epoch_start(run, 0)
    for index in run.order().split(16):
        method.training_step(run, run.batch(index))
    for old, new in zip(before, run.networks[1].parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(320, (70, 200, 10)), (32, (7, 20, 1)), (2, (1, 1, 1)), (1, (1, 1, 1))]
)
def test_the_phases_are_shares_of_the_training(epochs, expected):
    task = make_task(epochs=epochs)
    method = CLASSES["joint-optim"](task)
    method.prepare(make_run(task, 2))
    assert (method.start, method.first, method.recent.shape[1]) == expected
    assert list(method.begins.values()) == list(expected[:2])
    assert (method.alpha, method.beta) == (1.2, 0.8)


def test_the_loss_without_its_terms_is_cross_entropy():
    task = make_task()
    method = CLASSES["joint-optim"](task, alpha=0.0, beta=0.0)
    z, t = make_logits(40, 10, "early"), one_hot(task.labels, 10)
    torch.testing.assert_close(method.joint_loss(z, t), ref_ce(z, task.labels).mean())


def test_a_schedule_starts_anew_at_a_later_epoch():
    task = make_task(N=40, epochs=10)
    run = make_run(task, networks=[small_network(task)], schedule=lambda p: 1.0 - p / 10)
    run.restart_schedule("network0", 5)
    rates = []
    for epoch in range(10):
        run.begin_epoch(epoch)
        rates.append(run.rates_of_epoch("network0"))
        run.count_step("network0")
        assert run.optimisers["network0"].param_groups[0]["lr"] == pytest.approx(
            0.1 * (1 - max(0, epoch - 5) / 5)
        )
    assert rates[0] == rates[4] == (0.1,)
    assert rates[5] is None

    with pytest.raises(ValueError, match=r"no optimiser 'other'; registered: \['network0'\]"):
        run.restart_schedule("other", 5)
    with pytest.raises(ValueError, match=r"start must be in \[0, 10\), got 10"):
        run.restart_schedule("network0", 10)
