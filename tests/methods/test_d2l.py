"""D2L: its losses, the estimate of LID, the turning point, and a plain training through all."""

import math

import numpy as np
import pytest
import torch
from cases import CLASSES
from formulas import one_hot, softmax
from lab import (
    Names,
    Table,
    in_float64,
    make_batch,
    make_logits,
    make_run,
    make_task,
    value_and_grad,
)
from plain import PlainSGD, assert_same_network
from torch import nn


def helper(name):
    """Return a function of the method's file."""
    return CLASSES["d2l"].loss.__globals__[name]


def ref_lid(x, k=20, size=128):
    """Return the mean LID of the rows of x, one example after the other."""
    found = []
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        for i in range(len(rows)):
            r = sorted(float(np.linalg.norm(rows[i] - other)) for other in rows)[1 : k + 1]
            found.append(-len(r) / sum(math.log(a / r[-1] + 1e-8) for a in r))
    return sum(found) / len(found)


def ref_loss(z, y, share, before, alpha=0.1, beta=1.0):
    total = 0
    for b in range(len(z)):
        p = softmax(z[b : b + 1])[0]
        if share is not None:
            guess = int(z[b].argmax())
            inside = [q if 1e-7 <= q <= 1 - 1e-7 else q.detach().clamp(1e-7, 1 - 1e-7) for q in p]
            total = total - share * inside[y[b]].log() - (1 - share) * inside[guess].log()
            continue
        ce = torch.logsumexp(z[b], 0) - z[b, y[b]]
        others = sum(q if q >= 1e-7 else q.detach() * 0 + 1e-7 for q in p) - p[y[b]].clamp(1e-7)
        total = total + (ce if before == "ce" else alpha * ce - beta * math.log(1e-4) * others)
    return total / len(z)


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize(("share", "before"), [(None, "sce"), (None, "ce"), (0.3, "sce")])
def test_value_and_gradient_equal_the_formula(C, stage, share, before):
    task = make_task(N=23, C=C)
    method = CLASSES["d2l"](task, before=before)
    method.share = share
    index = torch.arange(17)
    logits = make_logits(17, C, stage)
    z = logits.clone().requires_grad_()
    expected = ref_loss(z, task.labels[index], share, before)
    (to_z,) = torch.autograd.grad(expected, z)
    loss, grad = value_and_grad(method, logits, make_batch(task, index))
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, to_z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [300, 128, 12])
def test_lid_equals_a_plain_estimate(n):
    x = torch.randn(n, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert helper("dimensionality")(x) == pytest.approx(ref_lid(x.numpy()), rel=1e-12)


def test_lid_is_near_the_dimension_and_unknown_without_distances():
    g = torch.Generator().manual_seed(0)
    for dimension in (2, 5):
        flat = torch.rand(1280, dimension, generator=g) @ torch.randn(dimension, 30, generator=g)
        assert helper("dimensionality")(flat) == pytest.approx(dimension, rel=0.4)
    assert helper("dimensionality")(torch.zeros(50, 3)) == 0
    assert helper("dimensionality")(torch.randn(2, 3)) == 0


@pytest.mark.parametrize(
    ("lids", "warmup", "expected"),
    [
        ([3, 1, 3, 1, 3, 9], 0, True),
        ([3, 1, 3, 1, 3, 4.1], 0, True),
        ([3, 1, 3, 1, 3, 4.1], 1, False),  # the window must come after the warm-up
        ([9, 3, 1, 3, 1, 3, 4.1], 1, True),  # only the last five count
        ([3, 1, 3, 1, 3, 4.0], 0, False),  # mean 2.2, deviation 0.98: the limit is 4.16
        ([0, 1, 3, 1, 3, 9], 0, False),
        ([0, 0, 0, 0, 0, 9], 0, False),
    ],
)
def test_the_turning_point(lids, warmup, expected):
    if lids[-1] == 4.1:
        lids = [*lids[:-1], 4.17]
    assert helper("is_turning_point")(list(map(float, lids)), warmup) is expected


def ref_turned(lids, warmup):
    """Return whether the LID rose above the five before it, in this epoch or an earlier one."""
    for now in range(warmup + 5, len(lids)):
        before = np.array(lids[now - 5 : now])
        if lids[now] > before.mean() + 2 * np.sqrt(((before - before.mean()) ** 2).mean()):
            return True
    return False


def test_a_plain_training_through_both_phases():
    """The training finds its turning point by itself."""
    task = make_task(N=40, C=4, batch_size=16, epochs=14, seed=13)
    method = CLASSES["d2l"](task, warmup_share=1 / 14).double()
    run = in_float64(make_run(task, lr=0.1))
    plain, lids, turned = PlainSGD(run.networks[0]), [], []
    for epoch in range(14):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)

        order = torch.randperm(40, generator=run.generator("lid"))
        plain.network.eval()
        x = plain.network[:3](run.images.rows[order]).detach()
        plain.network.train()
        lids.append(ref_lid(x.numpy()))
        turned.append(ref_turned(lids, 1))
        assert float(method.lids[epoch]) == pytest.approx(lids[-1], rel=1e-9)
        assert bool(method.turned) is turned[-1]
        share = math.exp(-epoch / 14 * lids[-1] / min(lids)) if turned[-1] else None
        assert method.share == (None if share is None else pytest.approx(share, rel=1e-9))

        for index in run.order().split(16):
            batch = run.batch(index)
            method.training_step(run, batch)
            z = plain.network(batch.images)
            plain.step(plain.gradients(ref_loss(z, task.labels[index], share, "sce")))
        assert_same_network(run.networks[0], plain.network, 1e-9)
    # It does not come as early as it can, and leaves some epochs to the new labels.
    assert 6 < turned.index(True) < 13


def test_the_turning_point_lasts():
    task = make_task(N=40, C=4, epochs=12)
    method, run = CLASSES["d2l"](task, warmup_share=0.0), make_run(task)
    method.lids[:5] = torch.tensor([0.2, 0.1, 0.2, 0.1, 0.2])
    run.begin_epoch(5)
    method.on_epoch_start(run, 5)
    assert method.turned
    lid = float(method.lids[5])
    assert method.share == pytest.approx(math.exp(-5 / 12 * lid / 0.1))
    # Also in an epoch with a lower LID.
    run.begin_epoch(6)
    method.on_epoch_start(run, 6)
    assert method.share == pytest.approx(math.exp(-6 / 12 * float(method.lids[6]) / 0.1))


def test_a_network_without_a_linear_layer_gives_its_outputs():
    task = make_task(N=40, C=4)
    logits = make_logits(40, 4, "early").float()
    run = make_run(task, networks=[nn.Sequential(Table(logits))], images=Names(40))
    found = helper("features")(run, torch.arange(40))
    torch.testing.assert_close(found, logits)


def test_the_features_are_the_inputs_of_the_last_linear_layer():
    task = make_task(N=40, C=4)
    run = make_run(task)
    index = torch.tensor([5, 3, 39])
    found = helper("features")(run, index)
    network = run.networks[0].eval()
    torch.testing.assert_close(found, network[:3](run.images.rows[index]).detach())
    # Nothing remains at the network.
    assert not network[3]._forward_pre_hooks


def test_the_defaults_are_those_of_the_authors_code():
    method = CLASSES["d2l"](make_task(epochs=120))
    assert (method.before, method.alpha, method.beta, method.warmup) == ("sce", 0.1, 1.0, 40)
    assert method.begins == {"the search for the turning point": 45}
    assert one_hot(torch.tensor([1]), 2).tolist() == [[0.0, 1.0]]
