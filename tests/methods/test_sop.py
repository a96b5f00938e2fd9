"""SOP: ten steps against a plain training, u and v and their optimiser."""

import copy

import pytest
import torch
from formulas import sop_rows
from lab import in_float64, make_batch, make_run, make_task, small_network, train
from torch.nn import functional as F

from nlbench import registry
from nlbench.method import Batch

SOP = registry.load_method(registry.method_files()["sop"])


def test_ten_steps_equal_a_plain_training():
    """Compare u, v and weights with dense gradients, SGD by hand and the formula per example."""
    # Three steps an epoch, the last of them of 5 examples.
    task = make_task(N=23, C=4, batch_size=9, epochs=4)
    rates = {"lr_u": 0.7, "lr_v": 1.9}
    method, run = SOP(task, **rates).double(), in_float64(make_run(task, lr=0.1))
    g = torch.Generator().manual_seed(1)
    # Values that are large enough to count within ten steps.
    with torch.no_grad():
        method.u.copy_(0.3 * torch.randn(23, 1, generator=g))
        method.v.copy_(0.3 * torch.randn(23, 4, generator=g))

    u, v = method.u.detach().clone(), method.v.detach().clone()
    start = u.clone(), v.clone()
    network = copy.deepcopy(run.networks[0])
    velocity = [torch.zeros_like(w) for w in network.parameters()]
    method.prepare(run)
    taken = 0

    for epoch in range(4):
        run.begin_epoch(epoch)
        for index in run.order().split(9):
            if taken == 10:
                break
            taken += 1
            batch = run.batch(index)
            method.training_step(run, batch)
            u.requires_grad_()
            v.requires_grad_()
            rows, _ = sop_rows(network(batch.images), task.labels[index], u[index], v[index])
            to_u, to_v, *to_weights = torch.autograd.grad(
                rows.mean(), [u, v, *network.parameters()]
            )
            u, v = (u - rates["lr_u"] * to_u).detach(), (v - rates["lr_v"] * to_v).detach()
            with torch.no_grad():
                for w, step, grad in zip(network.parameters(), velocity, to_weights, strict=True):
                    step.mul_(0.9).add_(grad)
                    w -= 0.1 * step

    assert taken == 10
    assert (u - start[0]).abs().max() > 0.05
    assert (v - start[1]).abs().max() > 0.05
    torch.testing.assert_close(method.u.detach(), u, rtol=0, atol=1e-12)
    torch.testing.assert_close(method.v.detach(), v, rtol=0, atol=1e-12)
    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-11)


def test_u_and_v_start_next_to_zero_from_the_seeded_stream():
    task = make_task(N=5000, C=10)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(SOP(task))

    for x in (drawn[0].u.detach(), drawn[0].v.detach()):
        assert float(x.std()) == pytest.approx(1e-8, rel=0.05)
        assert abs(float(x.mean())) < 5e-10

    assert drawn[0].u.shape == (5000, 1)
    assert drawn[0].v.shape == (5000, 10)
    assert torch.equal(drawn[0].u, drawn[1].u)
    assert torch.equal(drawn[0].v, drawn[1].v)
    assert not torch.equal(drawn[0].u, drawn[2].u)


def test_a_step_touches_the_batchs_rows_alone_at_constant_rates_of_their_own():
    task = make_task(N=40, C=10)
    method, run = SOP(task, lr_u=3.0, lr_v=5.0), make_run(task, schedule=lambda position: 0.01)
    method.prepare(run)
    with torch.no_grad():
        method.u.fill_(0.2)
        method.v.fill_(0.2)

    before = method.u.detach().clone(), method.v.detach().clone()
    index = torch.tensor([3, 17, 21, 39])
    run.begin_epoch(4)
    method.training_step(run, run.batch(index))
    others = torch.ones(40, dtype=torch.bool)
    others[index] = False

    for x, old, lr in zip((method.u, method.v), before, (3.0, 5.0), strict=True):
        assert x.grad.is_sparse
        assert x.grad._nnz() == 4
        assert torch.equal(x[others], old[others])
        torch.testing.assert_close(x.detach(), old - lr * x.grad.to_dense())

    assert (method.u.detach() - before[0])[index].abs().min() > 0
    assert [group["lr"] for group in run.optimisers["network0"].param_groups] == [0.1 * 0.01]
    assert [group["lr"] for group in run.optimisers["noise"].param_groups] == [3.0, 5.0]
    for group in run.optimisers["noise"].param_groups:
        assert group["momentum"] == group["weight_decay"] == group["dampening"] == 0


def test_a_wrongly_labelled_example_gets_its_noise_learnt():
    """Let a network be sure of another class: u and that class's v grow, others do not."""
    task = make_task(N=2, C=5, batch_size=2)
    task.labels[:] = torch.tensor([0, 1])
    method = SOP(task)
    optimiser = torch.optim.SGD(method.parameters(), lr=1.0)
    # The network is sure of class 2 where the label is 0, and of the label of the second example.
    logits = torch.tensor([[0.0, 0, 5, 0, 0], [0, 5, 0, 0, 0.0]])

    for _ in range(60):
        optimiser.zero_grad()
        method.loss(logits, make_batch(task, torch.tensor([0, 1]))).mean().backward()
        optimiser.step()

    U, V = method.u.detach().square()[:, 0], method.v.detach().square()
    assert U[0] > 0.8 > 1e-12 > U[1]
    assert V[0].argmax() == 2
    assert V[0, 2] > 0.99

    V[0, 2] = 0
    assert V.max() < 1e-12


def test_memory_of_u_and_v_is_all_the_state():
    assert set(SOP(make_task()).state_dict()) == {"u", "v"}


def test_labels_outside_the_batch_object_are_not_read():
    """The labels are the batch's: a batch with others gives another loss."""
    task = make_task()
    method, logits = SOP(task), torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    index = torch.arange(8)
    one = method.loss(logits, make_batch(task, index))
    two = method.loss(
        logits, Batch(torch.zeros(8, 1), (task.labels[index] + 1) % 10, index, lambda i, k: None)
    )

    assert not torch.equal(one, two)


def test_without_rates_it_is_cross_entropy():
    """u and v of 1e-8 change nothing that float32 sees, and at rate 0 they stay."""
    task = make_task()
    method, run = SOP(task, lr_u=0.0, lr_v=0.0), make_run(task)
    method.prepare(run)
    train(method, run, range(2))
    plain = make_run(task, networks=[small_network(task)])

    for epoch in range(2):
        plain.begin_epoch(epoch)
        for index in plain.order().split(16):
            batch = plain.batch(index)
            plain.backward_step(F.cross_entropy(plain.networks[0](batch.images), batch.labels))

    for a, b in zip(run.networks[0].parameters(), plain.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
