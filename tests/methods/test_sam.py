"""SAM: ten steps of each base against a plain training, and what the second pass leaves alone."""

import copy

import pytest
import torch
from cases import CLASSES
from formulas import one_hot, ref_ce, softmax
from lab import in_float64, make_run, make_task
from plain import PlainSGD, assert_same_network

from nlbench.method import Method


def ref_loss(base, z, y, memory, index):
    """Return the mean loss, and the memory after it."""
    if base == "ce":
        return ref_ce(z, y).mean(), memory
    p = softmax(z)
    if base == "gce":
        p_y = (p * one_hot(y, z.shape[1])).sum(1)
        return ((1 - p_y**0.7) / 0.7).mean(), memory

    # ELR, whose running average takes in the clamped prediction, divided by its sum.
    memory = memory.clone()
    clamped = p.detach().clamp(1e-4, 1 - 1e-4)
    memory[index] = 0.7 * memory[index] + 0.3 * clamped / clamped.sum(1, keepdim=True)
    inside = p.clamp(1e-4, 1 - 1e-4)
    return (ref_ce(z, y) + 3 * (1 - (memory[index] * inside).sum(1)).log()).mean(), memory


def ref_shifts(weights, gradients, rho, adaptive):
    total = 0.0
    for w, g in zip(weights, gradients, strict=True):
        total += float((((w.abs() if adaptive else 1) * g) ** 2).sum())
    scale = rho / (total**0.5 + 1e-12)
    shifts = []
    for w, g in zip(weights, gradients, strict=True):
        shifts.append(scale * (w**2 if adaptive else 1) * g)
    return shifts


@pytest.mark.parametrize("base", ["ce", "gce", "elr"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_ten_steps_equal_a_plain_training(base, adaptive):
    task = make_task(N=23, C=4, batch_size=9, epochs=4)
    method = CLASSES["sam"](task, base=base, rho=0.3, adaptive=adaptive).double()
    run = in_float64(make_run(task, lr=0.1))
    plain, taken = PlainSGD(run.networks[0]), 0
    memory = torch.zeros(23, 4, dtype=torch.float64)
    method.prepare(run)

    for epoch in range(4):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)
        for index in run.order().split(9):
            if taken == 10:
                break
            taken += 1
            batch, y = run.batch(index), task.labels[index]
            logits = method.training_step(run, batch)
            z = plain.network(batch.images)
            torch.testing.assert_close(logits.detach(), z.detach(), rtol=0, atol=1e-11)
            loss, after = ref_loss(base, z, y, memory, index)
            torch.testing.assert_close(float(run.losses[-1][1]), float(loss), rtol=0, atol=1e-11)

            # A copy of the network takes the second pass, so that nothing of it can remain.
            weights = [w.detach() for w in plain.network.parameters()]
            moved = ref_shifts(weights, plain.gradients(loss), 0.3, adaptive)
            nearby = copy.deepcopy(plain.network)
            for w, e in zip(nearby.parameters(), moved, strict=True):
                w.data.add_(e)
            second, _ = ref_loss(base, nearby(batch.images), y, memory, index)
            plain.step(list(torch.autograd.grad(second, list(nearby.parameters()))))
            memory = after

    assert taken == 10
    ours, theirs = run.networks[0], plain.network
    # Only the count of batches knows of the second pass; with a fixed momentum it has no effect.
    theirs[1].num_batches_tracked.copy_(ours[1].num_batches_tracked)
    assert_same_network(ours, theirs, 1e-10)
    if base == "elr":
        torch.testing.assert_close(method.targets, memory, rtol=0, atol=1e-11)
        torch.testing.assert_close(method.own_labels(), memory, rtol=0, atol=1e-11)
    else:
        assert method.targets is None


def test_a_radius_of_0_is_the_base_itself():
    task = make_task()
    method, run = CLASSES["sam"](task, base="gce", rho=0.0), make_run(task)
    base, plain = CLASSES["gce"](task), make_run(task)
    run.begin_epoch(0)
    plain.begin_epoch(0)
    for index in run.order().split(16):
        method.training_step(run, run.batch(index))
        base.training_step(plain, plain.batch(index))
    for a, b in zip(run.networks[0].parameters(), plain.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_batch_norm_has_its_momentum_back_after_a_step():
    task = make_task()
    method, run = CLASSES["sam"](task), make_run(task)
    run.begin_epoch(0)
    method.training_step(run, run.batch(torch.arange(16)))
    assert run.networks[0][1].momentum == 0.1


def test_a_frozen_weight_stays():
    task = make_task()
    method, run = CLASSES["sam"](task), make_run(task)
    run.networks[0][0].weight.requires_grad_(False)
    before = run.networks[0][0].weight.clone()
    run.begin_epoch(0)
    method.training_step(run, run.batch(torch.arange(16)))
    assert torch.equal(run.networks[0][0].weight, before)


def test_a_step_sees_each_image_twice():
    task = make_task()
    method, run = CLASSES["sam"](task), make_run(task)
    seen = []
    run.networks[0].register_forward_hook(lambda module, args, z: seen.append(len(args[0])))
    run.begin_epoch(0)
    method.training_step(run, run.batch(torch.arange(16)))
    assert seen == [16, 16]


def test_the_defaults_and_the_hooks_of_the_base():
    task = make_task(epochs=200)
    method = CLASSES["sam"](task)
    assert (method.rho, method.adaptive, type(method.base)) == (0.05, False, CLASSES["ce"])

    selc = CLASSES["sam"](task, base="selc")
    assert selc.begins == {"label correction": 30}
    selc.on_epoch_start(make_run(task), 40)
    assert selc.base.keep == 0.9


BASES = CLASSES["sam"].__init__.__globals__["BASES"]
bases = pytest.mark.parametrize("base", sorted(BASES))


@bases
def test_six_steps_around_each_base(base):
    """The reference takes the loss from the base itself, and moves weights and state plainly."""
    task = make_task(N=23, C=4, batch_size=12, epochs=3)
    method = CLASSES["sam"](task, base=base, rho=0.3).double()
    run = in_float64(make_run(task, lr=0.1))
    plain, own = PlainSGD(run.networks[0]), CLASSES[base](task).double()
    method.prepare(run)

    for epoch in range(3):
        run.begin_epoch(epoch)
        for one in (method, own):
            one.on_epoch_start(run, epoch)
        for index in run.order().split(12):
            batch = run.batch(index)
            method.training_step(run, batch)
            before = copy.deepcopy(own.state_dict())
            loss = own.loss(plain.network(batch.images), batch).mean()
            after = copy.deepcopy(own.state_dict())

            weights = [w.detach() for w in plain.network.parameters()]
            moved = ref_shifts(weights, plain.gradients(loss), 0.3, False)
            nearby = copy.deepcopy(plain.network)
            for w, e in zip(nearby.parameters(), moved, strict=True):
                w.data.add_(e)
            own.load_state_dict(before)
            second = own.loss(nearby(batch.images), batch).mean()
            own.load_state_dict(after)
            plain.step(list(torch.autograd.grad(second, list(nearby.parameters()))))

    plain.network[1].num_batches_tracked.copy_(run.networks[0][1].num_batches_tracked)
    assert_same_network(run.networks[0], plain.network, 1e-10)
    assert method.couples_examples == own.couples_examples
    if hasattr(own, "targets"):
        torch.testing.assert_close(method.targets, own.targets, rtol=0, atol=1e-11)


def test_every_loss_of_one_network_can_be_a_base():
    """They override nothing but the loss and what happens before an epoch."""
    allowed = {"__init__", "loss", "gradient_parts", "on_epoch_start"}
    found = set()
    for name, cls in CLASSES.items():
        hooks = {word for word in vars(cls) if callable(vars(Method).get(word))}
        if "loss" in hooks and hooks <= allowed:
            found.add(name)
    # PENCIL moves its labels by a gradient of its own, and D2L looks at the network in each epoch.
    # The further hooks of GCE are for its truncated form, which is not the default.
    assert found - {"pencil", "d2l"} | {"gce"} == set(BASES)


@bases
def test_each_base_is_the_method_of_that_name(base):
    assert type(CLASSES["sam"](make_task(), base=base).base) is CLASSES[base]
