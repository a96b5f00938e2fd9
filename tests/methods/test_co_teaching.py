"""Co-teaching: the exchange of examples and the steps, against a plain re-implementation."""

import copy
import math

import lab
import pytest
import torch
from lab import in_float64, make_task, train

from nlbench import registry

CoTeaching = registry.load_method(registry.method_files()["co-teaching"])


def told(rate, **more):
    return make_task(told={"noise_rate": rate}, **more)


def two_networks(task, scale):
    """In float64; `scale` times the last layer, 12 for the confident networks of late training."""
    networks = [lab.small_network(task, 3 + i).double() for i in range(2)]
    with torch.no_grad():
        for network in networks:
            network[-1].weight.mul_(scale)
    return networks


def double_run(task, networks, schedule=lambda position: 1.0, lr=0.05):
    return in_float64(lab.make_run(task, networks=networks, schedule=schedule, lr=lr))


# ---- The re-implementation -----------------------------------------------------------------------


def cross_entropies(z, labels):
    """Return a loss per example, by a loop."""
    losses = []
    for b, y in enumerate(labels.tolist()):
        top = z[b].max()
        total = torch.exp(z[b] - top).sum()
        losses.append(torch.log(total) + top - z[b, y])
    return losses


def forgotten(epoch, ramp, rate):
    return rate if epoch >= ramp else rate * epoch / ramp


def weights_of(network):
    """Return copies of a network's weights."""
    return [p.detach().clone() for p in network.parameters()]


def smallest(losses, count):
    """Return the positions of the `count` smallest losses, the smallest first."""
    values = [loss.item() for loss in losses]
    return sorted(range(len(values)), key=values.__getitem__)[:count]


def momentum_step(network, velocity, loss, lr):
    """Take a step of SGD with momentum 0.9, in place."""
    grads = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        for i, (weight, grad) in enumerate(zip(network.parameters(), grads, strict=True)):
            velocity[i] = grad if velocity[i] is None else 0.9 * velocity[i] + grad
            weight -= lr * velocity[i]


def plain_co_teaching(task, run, networks, rate, ramp, epochs, schedule, lr):
    """Every step's picks (two lists of positions in the batch), losses, and weights after it."""
    velocities = [[None] * len(list(network.parameters())) for network in networks]
    for epoch in range(epochs):
        run.begin_epoch(epoch)
        for step, index in enumerate(run.order().split(task.batch_size)):
            images, labels = run.batch(index).images, task.labels[index]
            rate_now = lr * schedule(epoch + step / task.steps_per_epoch)
            count = math.floor((1 - forgotten(epoch, ramp, rate)) * len(index))

            rows, picks = [], []
            for network in networks:
                rows.append(cross_entropies(network(images), labels))
                picks.append(smallest(rows[-1], count))

            # Each network learns from the examples that the other one picked. Both losses are
            # computed before a network takes its step.
            losses = []
            for i in range(2):
                losses.append(torch.stack(rows[i])[picks[1 - i]].sum() / count)
            for i in range(2):
                momentum_step(networks[i], velocities[i], losses[i], rate_now)

            yield picks, torch.stack(losses).tolist(), [weights_of(n) for n in networks]


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_ten_steps_of_the_exchange(scale):
    def schedule(position):
        return 1.0 - 0.05 * position

    # Batches of 16, 16 and 8.
    task = told(0.37, N=40, epochs=8, batch_size=16)
    networks = two_networks(task, scale)
    plain_run, plain_networks = double_run(task, networks), copy.deepcopy(networks)
    expected = list(
        plain_co_teaching(
            task, plain_run, plain_networks, 0.37, ramp=2, epochs=4, schedule=schedule, lr=0.05
        )
    )

    assert len(expected) == 12

    run = double_run(task, copy.deepcopy(networks), schedule)
    watch, weights = lab.Watch(run), []
    method = CoTeaching(task, ramp_share=0.25)
    step = method.training_step

    def kept(run, batch):
        logits = step(run, batch)
        weights.append([weights_of(network) for network in run.networks])
        # A step returns the logits of network 0, in the order of the batch.
        assert torch.equal(logits, watch.logits[0])
        return logits

    method.training_step = kept
    method.prepare(run)
    train(method, run, range(4))

    assert len(watch.steps) == 2 * len(expected)
    for at, (picks, losses, after) in enumerate(expected):
        for i in range(2):
            names, loss, grads = watch.steps[2 * at + i]
            assert names == (f"network{i}",)
            # The loss of a network has no gradient to the other one.
            assert grads[1 - i] is None
            assert grads[i].abs().sum(1).nonzero().squeeze(1).tolist() == sorted(picks[1 - i])
            assert float(loss) == pytest.approx(losses[i], rel=1e-11)
            torch.testing.assert_close(weights[at][i], after[i], rtol=1e-9, atol=1e-12)

    counts, exchanged = [], 0
    for picks, _, _ in expected:
        counts.append(len(picks[0]))
        exchanged += set(picks[0]) != set(picks[1])

    # The kept share is 1, then 1 - 0.37 / 2, then 1 - 0.37, of each batch and rounded down.
    assert counts == [16, 16, 8, 13, 13, 6, 10, 10, 5, 10, 10, 5]
    # Where both pick the same examples, a method without the exchange would pass.
    assert exchanged >= 3


# ---- How much is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "params", "expected"),
    [
        # The ramp takes T_k = 10 epochs of 200, the same share of another length, and one at least.
        (200, {}, {0: 1.0, 1: 0.96, 5: 0.8, 9: 0.64, 10: 0.6, 11: 0.6, 199: 0.6}),
        (40, {}, {0: 1.0, 1: 0.8, 2: 0.6, 39: 0.6}),
        (10, {}, {0: 1.0, 1: 0.6, 9: 0.6}),
        (20, {"ramp_share": 0.5}, {0: 1.0, 5: 0.8, 10: 0.6, 19: 0.6}),
        (200, {"rate_factor": 0.5}, {0: 1.0, 5: 0.9, 10: 0.8}),
        (200, {"rate_factor": 0.0}, {0: 1.0, 5: 1.0, 10: 1.0}),
    ],
)
def test_the_kept_share_follows_the_ramp(epochs, params, expected):
    method = CoTeaching(told(0.4, epochs=epochs), **params)
    for epoch, keep in expected.items():
        method.on_epoch_start(None, epoch)
        assert method.keep == pytest.approx(keep, abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "B", "count"),
    [
        # (1 - 0.8) * 10 is 1.9999999999999996 in floating point, and still two are kept.
        (0.8, 10, 2),
        # The authors' code rounds 9.6 down.
        (0.4, 16, 9),
        (0.0, 7, 7),
        # 0.16 of an example: a pick is never empty.
        (0.99, 16, 1),
        (1.0, 16, 1),
        (0.4, 1, 1),
    ],
)
def test_how_many_are_kept(rate, B, count):
    method = CoTeaching(told(rate))
    method.on_epoch_start(None, 5)
    rows = torch.rand(B, generator=torch.Generator().manual_seed(B))
    picked = method.smallest(rows)
    assert sorted(rows[picked].tolist()) == sorted(rows.tolist())[:count]


def test_a_factor_that_asks_for_more_than_all_keeps_one():
    method = CoTeaching(told(0.6), rate_factor=3.0)
    method.on_epoch_start(None, 5)
    assert method.smallest(torch.tensor([3.0, 1.0, 2.0])).tolist() == [1]


def test_equal_losses_are_taken_in_the_order_of_the_batch():
    method = CoTeaching(told(0.5))
    method.on_epoch_start(None, 5)
    # Late in training many losses are exactly 0 in float32.
    rows = torch.zeros(64)
    assert method.smallest(rows).tolist() == list(range(32))


# ---- State, arguments, prediction ----------------------------------------------------------------


def test_the_rate_is_told_and_read_only_when_training():
    assert CoTeaching.told == ("noise_rate",)
    assert CoTeaching.num_networks == 2
    method = CoTeaching(make_task(told={}))
    with pytest.raises(AttributeError, match="not told noise_rate"):
        method.on_epoch_start(None, 1)


def test_network_0_predicts():
    task = told(0.4)
    run = lab.make_run(task, 2)
    images = torch.randn(5, 6)
    for network in run.networks:
        network.eval()
    assert torch.equal(CoTeaching(task).predict(run, images), run.networks[0](images))
