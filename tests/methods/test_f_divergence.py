"""f-divergences: the formulas, the switch after the warm-up, a training against a plain one."""

import copy
import math

import pytest
import torch
from cases import CLASSES
from lab import Names, Table, in_float64, make_run, make_task, train

FDivergence = CLASSES["f-divergence"]

# g(v), h(v), and their derivatives, as functions of a number.
FORMS = {
    "total-variation": (
        lambda v: math.tanh(v) / 2,
        lambda v: math.tanh(v) / 2,
        lambda v: (1 - math.tanh(v) ** 2) / 2,
        lambda v: (1 - math.tanh(v) ** 2) / 2,
    ),
    "jensen-shannon": (
        lambda v: math.log(2) - math.log(1 + math.exp(-v)),
        lambda v: v + math.log(1 + math.exp(-v)) - math.log(2),
        lambda v: 1 / (1 + math.exp(v)),
        lambda v: 1 / (1 + math.exp(-v)),
    ),
    "pearson": (lambda v: v, lambda v: v * v / 4 + v, lambda v: 1.0, lambda v: v / 2 + 1),
    "kl": (lambda v: v, lambda v: math.exp(v - 1), lambda v: 1.0, lambda v: math.exp(v - 1)),
    "jeffrey": (
        lambda v: v,
        lambda v: v + v * v / 4 + v**3 / 16,
        lambda v: 1.0,
        lambda v: 1 + v / 2 + 3 * v * v / 16,
    ),
}


def probabilities(z):
    top = max(z)
    total = math.fsum(math.exp(v - top) for v in z)
    return [math.exp(v - top) / total for v in z]


def by_hand(first, labels, second, y2, divergence):
    """Compute value, and gradients to both logits (B, C), a number at a time."""
    g, h, dg, dh = FORMS[divergence]
    loss, grads = 0.0, []
    for z, ys, value, slope, sign in ((first, labels, g, dg, -1), (second, y2, h, dh, 1)):
        grad = torch.zeros_like(z, dtype=torch.float64)
        for b in range(len(z)):
            p, y = probabilities(z[b].tolist()), int(ys[b])
            loss += sign * value(p[y]) / len(z)
            for c in range(len(p)):
                # The derivative of p_y is p_y (Y - p).
                grad[b, c] = sign * slope(p[y]) * p[y] * (float(c == y) - p[c]) / len(z)
        grads.append(grad)
    return loss, *grads


@pytest.mark.parametrize("scale", [1.0, 12.0])
@pytest.mark.parametrize("divergence", [None, *FORMS])
def test_value_and_gradient(divergence, scale):
    task = make_task(N=12, C=5, batch_size=6)
    g = torch.Generator().manual_seed(2)
    logits = scale * torch.randn(12, 5, generator=g, dtype=torch.float64)
    network = Table(logits.clone())
    run = make_run(task, networks=[network], lr=0.0, images=Names(12))
    run.begin_epoch(5)
    method = FDivergence(task, **({"divergence": divergence} if divergence else {}))
    y2 = torch.tensor([4, 3, 2, 1, 0, 0])
    first, second = torch.arange(6), torch.arange(6, 12)
    returned = method.training_step(run, run.batch(first), run.batch(second), y2)

    expected, own, other = by_hand(
        logits[first], task.labels[first], logits[second], y2, divergence or "total-variation"
    )
    assert run.take_loss() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    grad = torch.cat([own, other])
    torch.testing.assert_close(network.logits.grad, grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(returned.detach(), logits[:6], rtol=1e-12, atol=0)


def test_the_warm_up_is_cross_entropy_with_a_floor():
    task = make_task(N=6, C=5, batch_size=6)
    logits = 12 * torch.randn(6, 5, generator=torch.Generator().manual_seed(2)).double()
    network = Table(logits.clone())
    run = make_run(task, networks=[network], lr=0.0, images=Names(6))
    run.begin_epoch(0)
    FDivergence(task).training_step(run, run.batch(torch.arange(6)))
    loss, grad = 0.0, torch.zeros_like(logits)
    for b in range(6):
        p, y = probabilities(logits[b].tolist()), int(task.labels[b])
        loss -= math.log(p[y] + 1e-5) / 6
        for c in range(5):
            grad[b, c] = p[y] / (p[y] + 1e-5) * (p[c] - float(c == y)) / 6
    assert run.take_loss() == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(network.logits.grad, grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("epochs", "params", "warmup"),
    [
        (340, {}, 240),
        (12, {}, 8),
        (1, {}, 1),
        (12, {"warmup_share": 0.0}, 0),
        (12, {"warmup_share": 1.0}, 12),
    ],
)
def test_which_batches_come_when(epochs, params, warmup):
    task = make_task(N=20, C=5, epochs=epochs)
    method, run = FDivergence(task, **params), make_run(task, images=Names(20))
    assert method.begins == {"the divergence": warmup}

    for epoch in {0, max(warmup - 1, 0), min(warmup, epochs - 1), epochs - 1}:
        run.begin_epoch(epoch)
        items = list(method.batches(run, epoch))
        alone = not isinstance(items[0], tuple)
        assert alone == (epoch < warmup)
        index = [item if alone else item[0] for item in items]
        assert torch.cat([batch.index for batch in index]).tolist() == run.order().tolist()


def test_peers_are_images_and_labels_of_other_examples():
    task = make_task(N=40, C=5, epochs=6)
    method, run = FDivergence(task, warmup_share=0.0), make_run(task, images=Names(40))
    run.begin_epoch(2)
    items = list(method.batches(run, 2))
    images = torch.cat([other.images.argmax(1) for _, other, _ in items])
    labels = torch.cat([labels for _, _, labels in items])
    assert sorted(images.tolist()) == list(range(40))
    assert labels.sort().values.tolist() == task.labels.sort().values.tolist()
    assert labels.tolist() != task.labels[images].tolist()
    assert labels.tolist() != task.labels[run.order()].tolist()


def start(scores=None, epochs=6, **params):
    """Make a method, and a run whose validation gives these accuracies, one after the other."""
    task = make_task(N=40, C=5, epochs=epochs)
    run = in_float64(make_run(task, lr=0.05))
    if scores is not None:
        left = iter(scores)
        run.validate = lambda network: next(left)
    method = FDivergence(task, **params)
    method.prepare(run)
    return method, run


def test_it_goes_on_from_the_best_network_of_the_warm_up():
    # One accuracy is asked for in `prepare`, and one after each of the four epochs. The first of
    # two that are equal counts.
    method, run = start([0.0, 0.2, 0.6, 0.6, 0.3])
    states = []
    for epoch in range(4):
        train(method, run, [epoch])
        states.append(copy.deepcopy(run.networks[0].state_dict()))

    run.begin_epoch(4)
    method.on_epoch_start(run, 4)
    for name, value in run.networks[0].state_dict().items():
        assert torch.equal(value, states[1][name]), name
    assert method.best_accuracy == 0.6
    # It is loaded once.
    train(method, run, [4])
    after = copy.deepcopy(run.networks[0].state_dict())
    method.on_epoch_start(run, 5)
    for name, value in run.networks[0].state_dict().items():
        assert torch.equal(value, after[name]), name


def test_without_a_validation_part_it_goes_on_from_the_current_network():
    method, run = start()
    train(method, run, range(4))
    before = copy.deepcopy(run.networks[0].state_dict())
    method.on_epoch_start(run, 4)
    for name, value in run.networks[0].state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not hasattr(method, "best")


def plain_loss(network, plain, item, divergence):
    """Compute the loss of a step from tensors of the plain training."""

    def at(images, labels):
        z = network(images)
        return torch.exp(z - torch.logsumexp(z, 1, keepdim=True))[range(len(z)), labels]

    if not isinstance(item, tuple):
        return -(at(plain.batch(item.index).images, item.labels) + 1e-5).log().mean()
    batch, other, y2 = item
    v = at(plain.batch(batch.index).images, batch.labels)
    w = at(plain.batch(other.index).images, y2)
    if divergence == "kl":
        return (w - 1).exp().mean() - v.mean()
    return (w.tanh() / 2).mean() - (v.tanh() / 2).mean()


@pytest.mark.parametrize("divergence", ["total-variation", "kl"])
def test_a_training_equals_a_plain_one(divergence):
    """Compare weights over all phases: four epochs of warm-up, the best network, two epochs."""
    scores = [0.0, 0.2, 0.1, 0.7, 0.3]
    method, run = start(scores, divergence=divergence)
    train(method, run, range(6))
    _, plain = start(scores)
    other = FDivergence(plain.task, divergence=divergence)

    network, best = plain.networks[0], None
    speed = [torch.zeros_like(w) for w in network.parameters()]
    for epoch in range(6):
        plain.begin_epoch(epoch)
        if epoch == 4:
            network.load_state_dict(best)
        for item in list(other.batches(plain, epoch)):
            loss = plain_loss(network, plain, item, divergence)
            grads = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w.sub_(0.05 * v)
        if epoch == 2:
            best = copy.deepcopy(network.state_dict())

    for name, value in network.state_dict().items():
        torch.testing.assert_close(run.networks[0].state_dict()[name], value, rtol=1e-8, atol=1e-9)
