"""GJS: its definition, which views it sees, and ten steps against a plain training."""

import math

import pytest
import torch
from cases import CLASSES
from lab import (
    Examples,
    Names,
    Table,
    in_float64,
    make_batch,
    make_logits,
    make_run,
    make_task,
    train,
    value_and_grad,
)
from torch import nn

GJS = CLASSES["gjs"]


def from_definition(first, second, labels, pi):
    """Compute the mean loss from its definition, a number at a time.

    Args:
        first: (B, C) float64 logits of one view, as `second` of the other.
    """
    B, C = first.shape
    loss = 0.0
    for b in range(B):
        views = []
        for z in (first[b], second[b]):
            log_p = z - torch.logsumexp(z, 0)
            views.append([(log_p[k].exp(), log_p[k]) for k in range(C)])
        for k in range(C):
            M = sum((1 - pi) / 2 * view[k][0] for view in views)
            if k == int(labels[b]):
                M = M + pi
                loss = loss - pi * M.log()
            for view in views:
                p, log_p = view[k]
                loss = loss + (1 - pi) / 2 * p * (log_p - M.log())
    return -loss / B / ((1 - pi) * math.log(1 - pi))


def step(C, scale, dtype, params):
    """Take a step on eight examples with given logits.

    Returns: loss and gradient of the step, and the logits (8, C) of both views.
    """
    task = make_task(N=8, C=C, batch_size=8)
    g = torch.Generator().manual_seed(C)
    logits = (scale * torch.randn(8, C, generator=g, dtype=torch.float64)).to(dtype)
    network = Table(logits.clone())
    run = make_run(task, networks=[network], lr=0.0, images=Half(8))
    run.begin_epoch(0)
    returned = GJS(task, **params).training_step(run, run.batch(torch.arange(8)))
    first, second = logits, logits * torch.tensor([1.0, -0.5]).repeat(4)[:, None].to(dtype)
    assert torch.equal(returned.detach(), first)
    return run.take_loss(), network.logits.grad, first, second, task.labels


class Half(Names):
    """Names of which the second strong view of every second example is -1/2 of the first."""

    views = 0

    def strong(self, index, draws, seed):
        self.views += 1
        factor = torch.where((index % 2 == 1) & (self.views == 2), -0.5, 1.0)
        return factor[:, None] * self.rows[index]


@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-13), (torch.float32, 1e-4, 2e-6)], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 12.0])
@pytest.mark.parametrize("C", [2, 10])
@pytest.mark.parametrize(
    ("params", "pi"), [({}, 0.9), ({"pi": 0.3}, 0.3), ({"pi": 0.1}, 0.1)], ids=str
)
def test_value_and_gradient(params, pi, C, scale, dtype, rtol, atol):
    loss, grad, first, second, labels = step(C, scale, dtype, params)
    z1, z2 = (z.double().requires_grad_() for z in (first, second))
    expected = from_definition(z1, z2, labels, pi)
    g1, g2 = torch.autograd.grad(expected, (z1, z2))
    # Both views are made of one table: the second is the table times 1 or -0.5.
    factor = torch.tensor([1.0, -0.5], dtype=torch.float64).repeat(4)[:, None]

    assert loss == pytest.approx(float(expected.detach()), rel=rtol)
    torch.testing.assert_close(grad.double(), g1 + factor * g2, rtol=rtol, atol=atol)


@pytest.mark.parametrize("pi", [0.1, 0.9])
def test_with_equal_views_it_is_js(pi):
    task, logits = make_task(N=16), make_logits(16, 10, "early")
    one = value_and_grad(CLASSES["js"](task, pi=pi), logits, make_batch(task, torch.arange(16)))
    run = make_run(task, networks=[Table(logits.clone())], lr=0.0, images=Names(16))
    run.images.strong = lambda index, draws, seed: run.images.rows[index]
    run.begin_epoch(0)
    GJS(task, pi=pi).training_step(run, run.batch(torch.arange(16)))
    assert run.take_loss() == pytest.approx(float(one[0]), rel=1e-12)
    torch.testing.assert_close(run.networks[0].logits.grad, one[1], rtol=1e-12, atol=1e-14)


class TwoViews(Examples):
    """Examples with strong views that differ from each other and from the plain one."""

    def strong(self, index, draws, seed):
        return self.rows[index] + 0.5 * draws[index] + 1.0


def test_ten_steps_with_two_separate_passes():
    """Compare weights and the averages of the normalisation with a plain training."""
    task = make_task(N=20, C=4, epochs=5, batch_size=10)
    images = TwoViews(20, 7)
    run, plain = (in_float64(make_run(task, lr=0.05, images=images)) for _ in range(2))
    train(GJS(task), run, range(5))

    network, speed = plain.networks[0], None
    for epoch in range(5):
        plain.begin_epoch(epoch)
        network.train()
        for index in plain.order().split(10):
            batch = plain.batch(index)
            first = network(batch.strong(0))
            second = network(batch.strong(1))
            assert not torch.equal(batch.strong(0), batch.strong(1))
            loss = from_definition(first, second, batch.labels, 0.9)
            grads = torch.autograd.grad(loss, list(network.parameters()))
            speed = speed or [torch.zeros_like(w) for w in network.parameters()]
            with torch.no_grad():
                for w, v, g in zip(network.parameters(), speed, grads, strict=True):
                    v.mul_(0.9).add_(g)
                    w.sub_(0.05 * v)

    ours, theirs = run.networks[0].state_dict(), network.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-9, atol=1e-11)
    norm = next(m for m in run.networks[0] if isinstance(m, nn.BatchNorm1d))
    # Two passes a step.
    assert int(norm.num_batches_tracked) == 20
