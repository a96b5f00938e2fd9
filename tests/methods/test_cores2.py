"""CORES2: its formula, its schedules by hand, and trainings against a plain re-implementation."""

import copy

import pytest
import torch
from lab import in_float64, make_batch, make_logits, make_run, make_task, train

from nlbench import registry
from nlbench.method import Task

CORES2 = registry.load_method(registry.method_files()["cores2"])


def by_hand(logits, labels, prior, beta, sieving):
    """Compute value, gradient and kept examples from the formula, one example at a time."""
    z = logits.detach().double().requires_grad_()
    kept, terms = [], []

    for b in range(len(z)):
        y = int(labels[b])
        ce = torch.logsumexp(z[b], 0) - z[b, y]
        p = torch.exp(z[b] - torch.logsumexp(z[b], 0))

        # The loss of each possible label, whose mean is the sieve's threshold.
        losses = -torch.log(p + 1e-8)
        kept.append(not sieving or bool((ce - losses.mean()).detach() <= 0))
        if kept[-1]:
            regulariser = 0.0
            for k in range(len(p)):
                regulariser = regulariser + prior[k] * losses[k]
            terms.append(ce - beta * regulariser)

    loss = sum(terms) / len(terms) if terms else z.sum() * 0.0
    (grad,) = torch.autograd.grad(loss, z)
    return loss.detach(), grad, kept


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-6)]
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10])
@pytest.mark.parametrize(
    ("epoch", "weight", "sieving"), [(0, 0.0, False), (25, 30 / 29, False), (60, 2.0, True)]
)
def test_value_and_gradient(epoch, weight, sieving, C, stage, dtype, rtol, atol):
    task = make_task(N=60, C=C, epochs=100)
    method = CORES2(task)
    method.on_epoch_start(None, epoch)
    index = torch.randperm(60, generator=torch.Generator().manual_seed(3))[:33]
    batch, logits = make_batch(task, index), make_logits(33, C, stage).to(dtype)
    prior = [float((task.labels == k).sum()) / 60 for k in range(C)]
    expected, expected_grad, kept = by_hand(logits, batch.labels, prior, weight, sieving)
    z = logits.clone().requires_grad_()
    loss = method.loss(z, batch)
    (grad,) = torch.autograd.grad(loss, z)

    assert loss.dtype == dtype
    torch.testing.assert_close(loss.detach().double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)
    assert method.kept[index].tolist() == kept

    if sieving:
        assert 0 < sum(kept) < 33
        # The 27 examples that are not in the batch stay kept.
        assert method.kept.sum() == 60 - 33 + sum(kept)


def test_a_sieve_by_hand():
    """Keep label 0, drop labels 1 and 2.

    With p = (0.5, 0.3, 0.2), -ln p is 0.693, 1.204, 1.609 and its mean 1.169.
    """
    labels = torch.tensor([0, 1, 2])
    task = Task(3, 3, labels, 100, 1, 3)
    method = CORES2(task, beta=0.0)
    method.on_epoch_start(None, 31)
    logits = torch.tensor([[0.5, 0.3, 0.2]] * 3, dtype=torch.float64).log()
    loss = method.loss(logits, make_batch(task, torch.arange(3)))

    assert method.kept.tolist() == [True, False, False]
    # -ln 0.5: a mean over the kept example, not over the batch.
    assert float(loss) == pytest.approx(0.6931471805599453, rel=1e-12)
    # The prior is counted again when the epoch ends, not before.
    assert method.prior.tolist() == pytest.approx([1 / 3] * 3)

    method.on_epoch_end(make_run(task), 31)
    assert method.prior.tolist() == [1.0, 0.0, 0.0]


def test_an_example_that_was_dropped_may_come_back():
    task = Task(2, 3, torch.tensor([0, 1]), 100, 1, 2)
    method = CORES2(task)
    method.on_epoch_start(None, 50)
    batch = make_batch(task, torch.arange(2))
    method.loss(torch.tensor([[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]]), batch)
    method.on_epoch_end(make_run(task), 50)

    assert method.kept.tolist() == [False, True]
    assert method.prior.tolist() == [0.0, 1.0, 0.0]

    method.loss(torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]), batch)
    method.on_epoch_end(make_run(task), 51)
    assert method.kept.tolist() == [True, True]
    assert method.prior.tolist() == [0.5, 0.5, 0.0]


def test_a_batch_of_which_nothing_is_kept():
    task = Task(4, 3, torch.tensor([0, 0, 1, 1]), 100, 1, 4)
    method = CORES2(task)
    method.on_epoch_start(None, 99)
    logits = torch.zeros(4, 3)
    logits[:, 2] = 5.0
    logits.requires_grad_()
    loss = method.loss(logits, make_batch(task, torch.arange(4)))
    (grad,) = torch.autograd.grad(loss, logits)

    assert float(loss.detach()) == 0.0
    assert torch.equal(grad, torch.zeros(4, 3))

    method.on_epoch_end(make_run(task), 99)
    assert method.prior.tolist() == [0.5, 0.5, 0.0]


def test_confidence_earns_no_more_than_the_floor():
    """Stop at the floor, whatever the logits are.

    -log(p + 1e-8) is at most 18.4, so the loss stays above CE - 2 * 18.4.
    """
    task = Task(40, 10, torch.arange(40) % 10, 100, 1, 40)
    method = CORES2(task)
    method.on_epoch_start(None, 99)

    for gap in (50.0, 200.0, 400.0):
        logits = torch.zeros(40, 10)
        logits[torch.arange(40), task.labels] = gap
        loss = method.loss(logits, make_batch(task, torch.arange(40)))
        assert float(loss) == pytest.approx(-2 * 18.420680743952367 * 0.9, rel=1e-5)


@pytest.mark.parametrize(
    ("epochs", "weights", "first_sieved"),
    [
        # Ten epochs of 0, then a line over thirty from 0 to 2. The sieve begins after epoch 30.
        (100, [0.0] * 11 + [2 * i / 29 for i in range(1, 30)] + [2.0] * 60, 31),
        # The shares of the schedule are 1, 3 and 3.1 epochs.
        (10, [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], 3),
        # They are 0.5, 1.5 and 1.55 epochs, rounded to 1, 2 and 2.
        (5, [0.0, 0.0, 2.0, 2.0, 2.0], 2),
        # No part is shorter than one epoch.
        (2, [0.0, 0.0], 1),
    ],
)
def test_schedules_scale_with_the_training(epochs, weights, first_sieved):
    method = CORES2(make_task(epochs=epochs))
    got, sieving = [], []
    for epoch in range(epochs):
        method.on_epoch_start(None, epoch)
        got.append(method.weight)
        sieving.append(method.sieving)
    assert got == pytest.approx(weights, rel=1e-12)
    assert sieving == [False] * first_sieved + [True] * (epochs - first_sieved)


def test_without_warmup_and_with_the_sieve_from_the_first_epoch():
    method = CORES2(
        make_task(epochs=10), beta=1.0, warmup_share=0.0, ramp_share=0.5, sieve_share=0.0
    )
    got = []

    for epoch in range(10):
        method.on_epoch_start(None, epoch)
        got.append(method.weight)
        assert method.sieving

    assert got == pytest.approx([0.0, 0.25, 0.5, 0.75] + [1.0] * 6)


@pytest.mark.parametrize("sieve_share", [0.0, 0.31])
def test_a_training_equals_a_plain_one(sieve_share):
    """Compare weights, kept examples and prior over twelve epochs with loops over examples."""
    task = make_task(N=40, C=5, epochs=12)
    run, plain = in_float64(make_run(task, lr=0.05)), in_float64(make_run(task))
    method = CORES2(task, sieve_share=sieve_share)
    network = plain.networks[0]
    speed = [torch.zeros_like(w) for w in network.parameters()]
    # A share of 0.31 is 3.72 of twelve epochs. The warm-up is 1.2 of them, and the ramp 3.6.
    sieve = 0 if sieve_share == 0.0 else 4
    betas = [0.0, 0.0, 2 / 3, 4 / 3] + [2.0] * 8
    labels = task.labels.tolist()
    prior = [labels.count(k) / 40 for k in range(5)]
    kept, dropped_ever = [True] * 40, set()

    for epoch in range(12):
        train(method, run, [epoch])
        plain.begin_epoch(epoch)
        for index in plain.order().split(16):
            logits = network(plain.batch(index).images)
            _, dlogits, chosen = by_hand(
                logits, task.labels[index], prior, betas[epoch], epoch >= sieve
            )
            grads = torch.autograd.grad(logits, list(network.parameters()), dlogits)
            for i, keep in zip(index.tolist(), chosen, strict=True):
                kept[i] = keep
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w.sub_(0.05 * v)
        # The prior of the next epoch counts the labels that are kept.
        remaining = []
        for i in range(40):
            if kept[i]:
                remaining.append(labels[i])
            else:
                dropped_ever.add(i)
        prior = [remaining.count(k) / len(remaining) for k in range(5)]

        assert method.kept.tolist() == kept
        assert method.prior.tolist() == pytest.approx(prior, rel=1e-12)

    assert 0 < len(dropped_ever) < 40
    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_two_copies_share_nothing():
    task = make_task(epochs=100)
    one = CORES2(task)
    two = copy.deepcopy(one)
    one.on_epoch_start(None, 50)
    one.loss(
        -12.0 * torch.nn.functional.one_hot(task.labels, 10).float(),
        make_batch(task, torch.arange(40)),
    )

    assert not one.kept.any()
    assert two.kept.all()
