"""Two networks of cross entropy, each against a plain training; network 0 against `ce`."""

import copy

import pytest
import torch
from lab import in_float64, make_run, make_task, small_network, train

from nlbench import registry

FILES = registry.method_files()
ENSEMBLE, CE = (registry.load_method(FILES[name]) for name in ("ensemble", "ce"))


def start(task, seeds=(3, 4), **more):
    run = make_run(task, networks=[small_network(task, seed) for seed in seeds], **more)
    method = ENSEMBLE(task)
    method.prepare(run)
    return method, run


def falling(position):
    return 1.0 - position / 10


def equal(a, b):
    """Return whether two networks have the same state, bit for bit."""
    for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        if not torch.equal(x, y):
            return False
    return True


def test_network_0_is_bit_for_bit_that_of_cross_entropy():
    task = make_task()
    method, run = start(task, schedule=falling)
    train(method, run, range(6))
    alone = make_run(task, networks=[small_network(task, 3)], schedule=falling)
    train(CE(task), alone, range(6))
    assert equal(run.networks[0], alone.networks[0])


def test_neither_network_depends_on_the_other():
    task = make_task()
    networks = {}
    for seeds in ((3, 4), (5, 4), (3, 6)):
        method, run = start(task, seeds)
        train(method, run, range(3))
        networks[seeds] = run.networks

    assert equal(networks[3, 4][1], networks[5, 4][1])
    assert equal(networks[3, 4][0], networks[3, 6][0])
    assert not equal(networks[3, 4][0], networks[5, 4][0])


def test_each_epoch_shows_each_network_every_example_once_in_an_order_of_its_own():
    task = make_task()
    method, run = start(task)
    orders = []

    for epoch in range(3):
        run.begin_epoch(epoch)
        first, second, sizes = [], [], []
        for a, b in method.batches(run, epoch):
            first += a.index.tolist()
            second += b.index.tolist()
            sizes.append((len(a), len(b)))

        assert sizes == [(16, 16), (16, 16), (8, 8)]
        assert first == run.order().tolist()
        for order in (first, second):
            assert sorted(order) == list(range(40))
            orders.append(tuple(order))

    assert len(set(orders)) == 6


@pytest.mark.parametrize("which", [0, 1])
def test_ten_steps_against_a_plain_re_implementation(which):
    task = make_task(N=40, epochs=5, batch_size=20)
    (method, run), (_, source) = start(task, schedule=falling), start(task)
    in_float64(run)
    in_float64(source)
    network = copy.deepcopy(run.networks[which])
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    step = 0

    for epoch in range(5):
        train(method, run, [epoch])
        source.begin_epoch(epoch)
        order = source.order()
        # Network 1 shuffles the order of the run once more.
        if which == 1:
            generator = source.generator("order of network 1")
            order = order[torch.randperm(40, generator=generator)]

        for index in order.split(20):
            logits = network(source.batch(index).view(which))
            loss = 0.0
            for z, y in zip(logits, task.labels[index], strict=True):
                loss = loss + (torch.logsumexp(z, 0) - z[y]) / 20
            network.zero_grad()
            loss.backward()

            # Two steps an epoch, and `falling` takes a tenth of the learning rate an epoch.
            with torch.no_grad():
                for name, p in network.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + p.grad
                    p -= 0.1 * (1 - step / 2 / 10) * velocity[name]
            step += 1
        for name, value in run.networks[which].state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-10, atol=1e-12)


def test_the_mean_of_the_raw_logits_predicts():
    task = make_task()
    method, run = start(task)
    for network in run.networks:
        network.eval()
    rows = torch.randn(50, 6)
    # With larger logits a network outvotes the other one. With probabilities it would not.
    run.networks[1][3].weight.data *= 20
    one, two = (network(rows) for network in run.networks)

    torch.testing.assert_close(method.predict(run, rows), (one + two) / 2)
    assert not torch.equal((one + two).argmax(1), (one.softmax(1) + two.softmax(1)).argmax(1))


def test_a_last_batch_of_one_is_split_alike_for_both():
    task = make_task(N=33)
    method, run = start(task)
    run.begin_epoch(0)
    assert [(len(a), len(b)) for a, b in method.batches(run, 0)] == [(16, 16), (16, 16), (1, 1)]
