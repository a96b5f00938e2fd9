"""T-Revision: its losses and three trainings, against plain re-implementations."""

import copy
import math

import helper_networks
import lab
import pytest
import torch
from lab import Helper, in_float64, make_batch, make_logits, make_task

from nlbench import registry, streams
from nlbench.ops.transition import estimate_T

TRevision = registry.load_method(registry.method_files()["t-revision"])


def some_T(C, seed=0):
    """Return a transition matrix with false zeros in it."""
    T = torch.rand(C, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    T[T < 0.3] = 0.0
    T = T + 2 * torch.eye(C, dtype=torch.float64)
    return T / T.sum(1, keepdim=True)


def plain_losses(z, labels, T, *, through):
    """Return beta * CE of each example by a loop; `through`: whether beta has a gradient."""
    losses = []
    for row, y in zip(z, labels.tolist(), strict=True):
        p = torch.exp(row - row.max()) / torch.exp(row - row.max()).sum()
        beta = p[y] / sum(p[i] * T[i, y] for i in range(len(p)))
        losses.append((beta if through else beta.detach()) * -torch.log(p[y]))
    return torch.stack(losses)


def plain_revised(T, dT):
    rows = []
    for row in T + dT:
        row = torch.relu(row)
        rows.append(row / row.sum())
    return torch.stack(rows)


def ready(task, T, dT=None):
    method = TRevision(task)
    method.first_T.copy_(T)
    if dT is not None:
        with torch.no_grad():
            method.dT.copy_(dT)
    return method


@pytest.mark.parametrize("stage", ["early", "late"])
def test_the_weighted_loss_and_its_gradient(stage):
    task = make_task(N=16)
    method, T = ready(task, some_T(10)), some_T(10)
    # Only dT is revised, and this loss does not see it.
    with torch.no_grad():
        method.dT.fill_(3.0)
    z = make_logits(16, 10, stage).requires_grad_()
    expected = plain_losses(z, task.labels, T, through=False)
    losses = method.weighted_loss(z, make_batch(task, torch.arange(16)))
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-13)
    grads = [torch.autograd.grad(value.mean(), z)[0] for value in (losses, expected)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stage", ["early", "late"])
def test_the_revised_loss_and_its_gradients(stage):
    task = make_task(N=16)
    T = some_T(10)
    # Some entries of T + dT are below 0.
    dT = 0.2 * torch.randn(10, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    method = ready(task, T, dT)
    z, free = make_logits(16, 10, stage).requires_grad_(), dT.clone().requires_grad_()

    expected = plain_losses(z, task.labels, plain_revised(T, free), through=True).mean()
    loss = method.loss(z, make_batch(task, torch.arange(16)))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-13)
    mine = torch.autograd.grad(loss, [z, method.dT])
    torch.testing.assert_close(
        mine, torch.autograd.grad(expected, [z, free]), rtol=1e-11, atol=1e-12
    )
    assert mine[1].abs().max() > 1e-4


def test_the_revised_matrix_has_rows_of_sum_1_and_no_negative_entry():
    dT = torch.full((10, 10), -0.1, dtype=torch.float64)
    method = ready(make_task(), some_T(10), dT)
    assert (method.T >= 0).all()
    assert (method.T == 0).any()
    torch.testing.assert_close(method.T.sum(1), torch.ones(10, dtype=torch.float64))
    torch.testing.assert_close(method.T, plain_revised(some_T(10), dT))
    assert not method.T.requires_grad


def test_which_networks_are_trained_before_the_run():
    task = make_task(N=200, epochs=40, told={})
    trained, estimator = lab.small_network(task, 11), Helper(task).eval()
    calls = []

    def fit(run, key, loss, epochs, *, keep, scores=None, start=None):
        calls.append((key, epochs, keep))
        if key == "warm-up":
            assert loss == "ce"
            assert start is None
            return estimator
        assert (start, scores) == (estimator, method.noisy_posterior)
        # T is known by now.
        assert not torch.equal(method.first_T, torch.eye(10, dtype=torch.float64))
        assert loss == method.weighted_loss
        return copy.deepcopy(trained).eval()

    method, run = TRevision(task), lab.make_run(task, fit=fit)
    method.prepare(run)
    assert calls == [("warm-up", 4, "best-accuracy"), ("weighted", 40, "best-accuracy")]
    expected = estimate_T(Helper(task).logits.detach().double().softmax(1))
    torch.testing.assert_close(method.first_T, expected, rtol=1e-6, atol=1e-9)
    # The run begins with the weights of the second network.
    for a, b in zip(run.networks[0].parameters(), trained.parameters(), strict=True):
        assert torch.equal(a, b)
    assert list(run.optimisers) == ["network0"]
    (group,) = run.optimisers["network0"].param_groups
    assert (group["lr"], group["weight_decay"]) == (5e-7, 1e-4)
    assert method.dT is group["params"][-1]


def plain_adam(params, grads, state, step, lr, decay):
    """Take a step of Adam with weight decay in the gradient, in place."""
    with torch.no_grad():
        for k, (p, g) in enumerate(zip(params, grads, strict=True)):
            g = g + decay * p
            m, v = state.get(k, (torch.zeros_like(p), torch.zeros_like(p)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            state[k] = m, v
            p -= lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)


def test_the_steps_of_the_revision_equal_plain_ones():
    task = make_task(N=40, C=4, epochs=4, told={})
    network = lab.small_network(task).double()
    plain = copy.deepcopy(network)

    # A schedule of the protocol, which the revision does not follow.
    run = lab.make_run(task, networks=[network], schedule=lambda position: 0.1)
    run = in_float64(run)
    method = TRevision(task, revision_lr=0.01, revision_decay=0.1)
    method.prepare(run)
    T, dT = method.first_T.clone(), torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    params, state, at = [*plain.parameters(), dT], {}, 0
    for epoch in range(4):
        lab.train(method, run, [epoch])
        for index in run.order().split(16):
            at += 1
            z = plain(run.batch(index).images)
            loss = plain_losses(z, task.labels[index], plain_revised(T, dT), through=True).mean()
            plain_adam(params, torch.autograd.grad(loss, params), state, at, 0.01, 0.1)

    assert at == 12
    mine = [*run.networks[0].parameters(), method.dT]
    torch.testing.assert_close(
        [p.detach() for p in mine], [p.detach() for p in params], rtol=1e-7, atol=1e-9
    )
    assert method.dT.abs().max() > 0.01


def test_all_three_trainings_equal_plain_ones(tmp_path, monkeypatch):
    """Compare the estimate, the weighted training that goes on from it, and the revision."""
    task = make_task(N=60, C=4, epochs=6, told={}, seed=7)
    helpers = helper_networks.helpers_in(tmp_path, monkeypatch, "t-revision")
    run = helper_networks.run_with(helpers.fit, task, networks=[lab.small_network(task, 20)])
    method = TRevision(task, warmup_share=5 / 6, anchor="argmax", revision_lr=0.01)
    method.prepare(run)
    lab.train(method, run, range(6))

    # Step 1, and T from the anchors: each class has the example with its largest probability.
    first = streams.derive(0, "fit-warm-up") % 10_000
    warm_up = helper_networks.PlainFit(run, "warm-up", 5, lab.small_network(task, first).double())
    warm_up.train(lambda z, y: -torch.log(torch.softmax(z, 1))[range(len(y)), y], lambda z: z)
    warm_up.network.load_state_dict(warm_up.kept)
    with torch.no_grad():
        p = torch.softmax(warm_up.network.eval()(run.images.rows), 1)
    T = torch.stack([p[int(p[:, i].argmax())] for i in range(4)])
    torch.testing.assert_close(method.first_T, T, rtol=1e-9, atol=1e-12)

    # Step 2.
    weighted = helper_networks.PlainFit(run, "weighted", 6, warm_up.network)
    weighted.train(
        lambda z, y: plain_losses(z, y, T, through=False),
        lambda z: torch.stack(
            [sum(row[i] * T[i] for i in range(4)) for row in torch.softmax(z, 1)]
        ),
    )
    plain = weighted.network
    plain.load_state_dict(weighted.kept)

    # Step 3.
    plain.train()
    dT = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    params, state, at = [*plain.parameters(), dT], {}, 0
    for epoch in range(6):
        run.begin_epoch(epoch)
        for index in run.order().split(16):
            at += 1
            z = plain(run.batch(index).images)
            loss = plain_losses(z, task.labels[index], plain_revised(T, dT), through=True).mean()
            plain_adam(params, torch.autograd.grad(loss, params), state, at, 0.01, 1e-4)
    for mine, theirs in zip([*run.networks[0].parameters(), method.dT], params, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=1e-7, atol=1e-9)
    # Both times the weights that are kept are neither the first ones nor the last ones.
    for accuracies in (warm_up.accuracies, weighted.accuracies):
        assert accuracies.index(max(accuracies)) == 1


def test_the_labels_that_choose_the_weighted_network_are_those_of_p_T():
    T = some_T(10)
    method, z = ready(make_task(N=16), T), make_logits(16, 10, "early")
    p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
    expected = [[sum(row[i] * T[i, j] for i in range(10)) for j in range(10)] for row in p]
    torch.testing.assert_close(
        method.noisy_posterior(z), torch.tensor(expected), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("gap", [60.0, 150.0, 400.0])
def test_a_label_without_probability_has_finite_gradients(gap):
    task = make_task(N=16)
    method = ready(task, torch.eye(10, dtype=torch.float64))
    z = torch.zeros(16, 10)
    z[torch.arange(16), task.labels] = -gap
    z.requires_grad_()
    loss = method.loss(z, make_batch(task, torch.arange(16)))
    for value in (loss, *torch.autograd.grad(loss, [z, method.dT])):
        assert value.isfinite().all()


def test_a_label_that_no_class_can_become_has_a_finite_weight():
    task = lab.Task(2, 3, torch.tensor([0, 0]), 4, 1, 4)
    dT = torch.zeros(3, 3, dtype=torch.float64)
    dT[0, 0], dT[0, 1] = -1.0, 1.0
    method = ready(task, torch.eye(3, dtype=torch.float64), dT)
    assert (method.T[:, 0] == 0).all()

    # p_y is one half, and beta 1 / 1e-7.
    z = torch.tensor([[0.0, 0.0, -200.0]] * 2, dtype=torch.float64, requires_grad=True)
    loss = method.loss(z, make_batch(task, torch.arange(2)))
    assert loss.item() == pytest.approx(1e7 * math.log(2), rel=1e-12)
    for grad in torch.autograd.grad(loss, [z, method.dT]):
        assert grad.isfinite().all()


@pytest.mark.parametrize(("epochs", "lengths"), [(200, (20, 200)), (6, (1, 6)), (1, (1, 1))])
def test_the_helper_trainings_scale_with_the_run(epochs, lengths):
    method = TRevision(make_task(epochs=epochs))
    assert (method.warmup, method.weighted) == lengths
