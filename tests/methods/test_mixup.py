"""mixup: the images that the network sees, the loss on them, and what is known of the draws."""

import math

import lab
import pytest
import torch
from lab import in_float64, make_task, train
from torch import nn

from nlbench import registry

Mixup = registry.load_method(registry.method_files()["mixup"])


def double_run(task, network, **more):
    return in_float64(lab.make_run(task, networks=[network], **more))


def unmix(mixed, images):
    """Find (l, perm) of mixed = l * images + (1 - l) * images[perm] from the images alone.

    Row i gives a candidate l for each partner, exact where the row is mixed with that partner; the
    true l is the one that all rows agree on. A row that is mixed with itself agrees with every l.
    """
    # The first row that is mixed with another one.
    first = 0
    while torch.allclose(mixed[first], images[first], rtol=0, atol=1e-12):
        first += 1

    for share in candidates(mixed, images, first):
        perm = []
        for i, row in enumerate(mixed):
            error = (row - share * images[i] - (1 - share) * images).abs().amax(1)
            perm.append(int(error.argmin()))
            if error.min() > 1e-9:
                break
        else:
            return share, perm

    raise AssertionError("no one l and permutation explain the mixed images")


def candidates(mixed, images, i):
    """Yield each share l with which row i is a mixture of images i and another one."""
    for j in range(len(images)):
        if j != i:
            direction, moved = images[i] - images[j], mixed[i] - images[j]
            share = float((moved @ direction) / (direction @ direction))
            if torch.allclose(moved, share * direction, rtol=0, atol=1e-9):
                yield share


def seen_by(network):
    """Return a list that each input of the network is added to."""
    inputs = []
    network.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach().clone()))
    return inputs


def ce(z, y):
    top = z.max()
    return top + torch.log(torch.exp(z - top).sum()) - z[y]


@pytest.mark.parametrize("scale", [1.0, 12.0])
@pytest.mark.parametrize("a", [0.3, 1.0, 4.0])
def test_ten_steps(a, scale):
    def schedule(position):
        return 1.0 - 0.05 * position

    def start():
        network = lab.small_network(task)
        with torch.no_grad():
            network[-1].weight.mul_(scale)
        return double_run(task, network, schedule=schedule, lr=0.05)

    # Batches of 16, 16 and 8.
    task = make_task(N=40, epochs=6, batch_size=16)
    run = start()
    method, inputs, losses, weights = Mixup(task, a=a), seen_by(run.networks[0]), [], []
    step, backward_step = method.training_step, run.backward_step
    run.backward_step = lambda loss: (losses.append(loss.item()), backward_step(loss))

    def kept(run, batch):
        # A step returns no logits, as those of mixed images belong to no example.
        assert step(run, batch) is None
        weights.append([weight.detach().clone() for weight in run.networks[0].parameters()])

    method.training_step = kept
    method.prepare(run)
    train(method, run, range(4))

    assert len(inputs) == len(losses) == 12

    plain = start()
    network, at, shares = plain.networks[0], 0, []
    velocity = [torch.zeros_like(weight) for weight in network.parameters()]

    for epoch in range(4):
        plain.begin_epoch(epoch)
        for number, index in enumerate(plain.order().split(16)):
            images, labels = plain.batch(index).images, task.labels[index].tolist()
            share, perm = unmix(inputs[at], images)
            shares.append(share)
            assert sorted(perm) == list(range(len(index)))

            mixed, loss = torch.empty_like(images), 0.0
            for i, j in enumerate(perm):
                mixed[i] = share * images[i] + (1 - share) * images[j]
            z = network(mixed)
            for i, j in enumerate(perm):
                loss = loss + share * ce(z[i], labels[i]) + (1 - share) * ce(z[i], labels[j])
            loss = loss / len(index)

            grads = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for i, (weight, grad) in enumerate(zip(network.parameters(), grads, strict=True)):
                    velocity[i] = 0.9 * velocity[i] + grad
                    weight -= 0.05 * schedule(epoch + number / task.steps_per_epoch) * velocity[i]
            assert losses[at] == pytest.approx(loss.item(), rel=1e-9)
            torch.testing.assert_close(
                weights[at], list(network.parameters()), rtol=1e-7, atol=1e-9
            )
            at += 1

    # Each batch of each epoch draws its own l.
    assert len({round(share, 6) for share in shares}) == 12


def draws(a, epochs=100, seed=0, N=40):
    """Return (l, perm) of each batch, found from the inputs of a cheap network on fixed batches."""
    task = make_task(N=N, epochs=epochs, batch_size=4)
    run = double_run(task, nn.Linear(6, task.num_classes), seed=seed)
    inputs, batches = seen_by(run.networks[0]), []
    method = Mixup(task, a=a)
    method.batches = lambda run, epoch: map(run.batch, torch.arange(N).split(4))
    step = method.training_step
    method.training_step = lambda run, batch: (batches.append(batch.images), step(run, batch))[1]
    train(method, run, range(epochs))
    found = []

    for mixed, images in zip(inputs, batches, strict=True):
        # One of the 24 permutations of four is the identity, which shows nothing about l.
        if not torch.allclose(mixed, images, rtol=0, atol=1e-12):
            found.append(unmix(mixed, images))
    return found


@pytest.mark.parametrize("a", [0.5, 1.0, 8.0])
def test_l_is_beta_distributed_and_on_both_sides_of_a_half(a):
    shares = torch.tensor([share for share, _ in draws(a)], dtype=torch.float64)
    # The variance of Beta(a, a).
    n, variance = len(shares), 1 / (4 * (2 * a + 1))

    assert n > 900
    # Bounds of four standard errors. The mean of max(l, 1 - l) would be far above.
    assert abs(shares.mean() - 0.5) < 4 * math.sqrt(variance / n)
    assert abs((shares < 0.5).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(n)
    assert float(shares.var()) == pytest.approx(variance, rel=0.15)
    assert abs(torch.corrcoef(torch.stack([shares[1:], shares[:-1]]))[0, 1]) < 4 / math.sqrt(n)


def test_every_permutation_comes_as_often():
    count = {}
    for _, perm in draws(1.0):
        if len(set(perm)) == 4:
            count[tuple(perm)] = count.get(tuple(perm), 0) + 1

    # All but the identity, which `draws` leaves out.
    assert len(count) == 23
    # Chi square with 22 degrees of freedom is above 48 with a probability of about 0.001.
    mean = sum(count.values()) / 23
    assert sum((value - mean) ** 2 / mean for value in count.values()) < 48


def test_draws_come_from_the_seed_and_the_epoch_alone():
    first, again, other = draws(1.0, 3), draws(1.0, 3), draws(1.0, 3, seed=1)
    assert first == again
    assert [share for share, _ in first] != [share for share, _ in other]
    # The global generator does not matter.
    torch.manual_seed(99)
    assert draws(1.0, 3) == first


def test_a_batch_of_one_is_itself():
    task = make_task(N=1, batch_size=16)
    run = lab.make_run(task, networks=[nn.Linear(6, 10)])
    inputs = seen_by(run.networks[0])
    train(Mixup(task), run, range(2))
    run.begin_epoch(1)
    torch.testing.assert_close(inputs[1], run.batch(torch.tensor([0])).images)
    assert run.networks[0].weight.isfinite().all()
