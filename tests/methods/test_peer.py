"""Peer loss: its weights by epoch, what its peers are, and a training against a plain one."""

import numpy as np
import pytest
import torch
from cases import CLASSES
from lab import Names, Table, in_float64, make_run, make_task, train

Peer = CLASSES["peer"]
RAMPS = {
    "cifar10-uniform": (300, {0: 0, 19: 0, 20: 0, 39: 0.1, 40: 1, 89: 2, 139: 2.5, 239: 3.3}),
    "cifar10-sparse": (300, {19: 0, 39: 1, 40: 1, 89: 2, 90: 2, 139: 5, 239: 10, 240: 10}),
    "cifar100-uniform": (250, {0: 0, 99: 0, 100: 0.95, 249: 0.95}),
    "cifar100-sparse": (250, {109: 0, 110: 0, 129: 2, 130: 2, 199: 10, 200: 10, 249: 20}),
}


@pytest.mark.parametrize("ramp", RAMPS)
def test_the_weights_are_those_of_the_authors(ramp):
    epochs, known = RAMPS[ramp]
    alphas = Peer(make_task(epochs=epochs), ramp=ramp).alphas
    assert len(alphas) == epochs
    assert {e: alphas[e] for e in known} == pytest.approx(known, abs=1e-12)
    assert (np.diff(alphas) >= 0).all()


def test_the_pieces_are_straight_and_the_last_one_is_cut_off():
    alphas = Peer(make_task(epochs=300)).alphas
    # Twenty epochs from 0 to 0.1, and fifty from 1 to 2.
    assert alphas[21] == pytest.approx(0.1 / 19)
    assert alphas[41] == pytest.approx(1 + 1 / 49)
    # Epoch 299 is the 60th of the hundred that lead from 3.3 to 5.
    assert alphas[299] == pytest.approx(3.3 + 1.7 * 59 / 99)
    sparse = Peer(make_task(epochs=300), ramp="cifar10-sparse").alphas
    assert sparse[299] == pytest.approx(10 + 10 * 59 / 99)


@pytest.mark.parametrize(("epochs", "begins"), [(300, 21), (30, 3), (6, 1), (1, 1)])
def test_a_shorter_training_has_the_weights_of_the_same_shares(epochs, begins):
    method, whole = Peer(make_task(epochs=epochs)), Peer(make_task(epochs=300))
    assert method.alphas == [whole.alphas[e * 300 // epochs] for e in range(epochs)]
    assert method.begins == {"the peer term": begins}


def floored_ce(z, labels):
    """Compute the mean of -log(p_y + 1e-5), an example at a time."""
    loss = 0.0
    for row, y in zip(z, labels.tolist(), strict=True):
        p = torch.exp(row - torch.logsumexp(row, 0))
        loss = loss - torch.log(p[y] + 1e-5) / len(z)
    return loss


def planned(N=40, epochs=12, seed=0, epoch_size=0):
    task = make_task(N=N, C=5, epochs=epochs)
    run = make_run(task, images=Names(N), seed=seed, epoch_size=epoch_size)
    return Peer(task), run


def drawn(method, run, epoch):
    """Return (index, positions of x1, y2) of each batch of an epoch; images name their examples."""
    run.begin_epoch(epoch)
    items = []
    for batch, other, labels in method.batches(run, epoch):
        items.append((batch.index, other.images.argmax(1), labels))
    return items


def test_peers_are_other_examples_and_labels_of_yet_others():
    method, run = planned()
    items = drawn(method, run, 3)
    assert [len(part) for item in items for part in item] == [16] * 6 + [8] * 3
    index, images, labels = (torch.cat(parts) for parts in zip(*items, strict=True))

    # Each example is once an image, and its label is once a label; all three orders differ, and
    # none is that of the dataset.
    assert index.tolist() == run.order().tolist()
    assert sorted(images.tolist()) == list(range(40))
    assert images.tolist() != index.tolist()
    assert labels.sort().values.tolist() == run.task.labels.sort().values.tolist()
    assert images.tolist() != list(range(40))
    for order in (index, images, torch.arange(40)):
        assert labels.tolist() != run.task.labels[order].tolist()


def test_peers_come_from_the_seed_and_the_epoch_alone():
    def said(seed, epoch):
        method, run = planned(seed=seed)
        items = drawn(method, run, epoch)
        return [(images.tolist(), labels.tolist()) for _, images, labels in items]

    first = said(0, 3)
    torch.manual_seed(99)
    assert said(0, 3) == first
    assert said(0, 4) != first
    assert said(1, 3) != first


def test_in_shorter_epochs_there_are_as_many_peers_as_examples():
    method, run = planned(epoch_size=20)
    sizes = [[len(part) for part in item] for item in drawn(method, run, 0)]
    assert sizes == [[16] * 3, [4] * 3]


@pytest.mark.parametrize("scale", [1.0, 12.0])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 4.3])
def test_value_and_gradient(alpha, scale):
    task = make_task(N=12, C=5, batch_size=6)
    g = torch.Generator().manual_seed(2)
    logits = scale * torch.randn(12, 5, generator=g, dtype=torch.float64)
    network = Table(logits.clone())
    run = make_run(task, networks=[network], lr=0.0, images=Names(12))
    run.begin_epoch(2)
    method = Peer(task)
    method.alphas[2] = alpha
    y2 = torch.tensor([4, 3, 2, 1, 0, 0])
    first, second = torch.arange(6), torch.tensor([1, 11, 0, 7, 8, 9])
    returned = method.training_step(run, run.batch(first), run.batch(second), y2)

    z = logits.clone().requires_grad_()
    own, peer = floored_ce(z[first], task.labels[first]), floored_ce(z[second], y2)
    expected = own - alpha * peer
    (grad,) = torch.autograd.grad(expected, z)
    assert run.take_loss() == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(network.logits.grad, grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(returned.detach(), logits[:6], rtol=1e-12, atol=0)


@pytest.mark.parametrize("ramp", ["cifar10-uniform", "cifar100-sparse"])
def test_a_training_equals_a_plain_one(ramp):
    """Compare weights and the averages of the normalisation over twelve epochs."""
    task = make_task(N=40, C=5, epochs=12)
    run, plain = (in_float64(make_run(task, lr=0.05)) for _ in range(2))
    method = Peer(task, ramp=ramp)
    length = 300 if ramp == "cifar10-uniform" else 250
    whole = Peer(make_task(epochs=length), ramp=ramp).alphas
    train(method, run, range(12))

    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]
    for epoch in range(12):
        plain.begin_epoch(epoch)
        items = [(b.index, x.index, y) for b, x, y in method.batches(plain, epoch)]
        for index, other, labels in items:
            # Two passes, each with a normalisation of its own.
            own = floored_ce(network(plain.batch(index).images), task.labels[index])
            peer = floored_ce(network(plain.batch(other).images), labels)
            loss = own - whole[epoch * length // 12] * peer
            grads = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w.sub_(0.05 * v)

    for name, value in network.state_dict().items():
        torch.testing.assert_close(run.networks[0].state_dict()[name], value, rtol=1e-8, atol=1e-9)
