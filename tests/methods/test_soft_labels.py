"""SELC and SAT: formula, ten steps against a plain training, and what sets them apart."""

import pytest
import torch
from cases import CLASSES
from formulas import one_hot, ref_ce, softmax
from lab import in_float64, make_batch, make_logits, make_run, make_task, value_and_grad
from plain import PlainSGD, assert_same_network

both = pytest.mark.parametrize("name", ["selc", "sat"])


def ref_loss(name, z, t):
    """Return the mean loss for soft labels t that hold the batch already, example by example."""
    total = 0
    for b in range(len(z)):
        log_p = z[b] - torch.logsumexp(z[b], 0)
        row = -sum(t[b, k] * log_p[k] for k in range(z.shape[1]))
        if name == "sat":
            row = row * max(t[b]) * len(z) / sum(max(other) for other in t)
        total = total + row
    return total / len(z)


@both
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_value_and_gradient_equal_the_formula(name, C, stage):
    task = make_task(N=23, C=C)
    method, run = CLASSES[name](task, momentum=0.7, warmup_share=1 / 6).double(), make_run(task)
    memory = one_hot(task.labels, C)
    for epoch in range(4):
        method.on_epoch_start(run, epoch)
        index = torch.randperm(23, generator=torch.Generator().manual_seed(epoch))[:17]
        logits = make_logits(17, C, stage, seed=epoch)
        if epoch >= 1:
            memory[index] = 0.7 * memory[index] + 0.3 * softmax(logits)

        z = logits.clone().requires_grad_()
        expected = ref_loss(name, z, memory[index])
        if epoch < 1:
            torch.testing.assert_close(expected, ref_ce(z, task.labels[index]).mean())
        (to_z,) = torch.autograd.grad(expected, z)
        # The fast form is a step of its own, and must not see the update of the other one.
        saved = method.targets.clone()
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        updated = method.targets.clone()
        method.targets.copy_(saved)
        losses, dlogits = method.loss_and_grad(logits, make_batch(task, index))

        for value in (loss, losses.mean()):
            torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
        for value in (grad, dlogits):
            torch.testing.assert_close(value, to_z, rtol=0, atol=1e-12)
        for value in (updated, method.targets):
            torch.testing.assert_close(value, memory, rtol=0, atol=1e-12)


@both
def test_ten_steps_equal_a_plain_training(name):
    # Three steps an epoch, the last of them of 5 examples; the first epoch is the warm-up.
    task = make_task(N=23, C=4, batch_size=9, epochs=4)
    method = CLASSES[name](task, momentum=0.6, warmup_share=1 / 4).double()
    run = in_float64(make_run(task, lr=0.1))
    plain, memory, taken = PlainSGD(run.networks[0]), one_hot(task.labels, 4), 0
    method.prepare(run)

    for epoch in range(4):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)
        for index in run.order().split(9):
            if taken == 10:
                break
            taken += 1
            batch = run.batch(index)
            method.training_step(run, batch)
            z = plain.network(batch.images)
            if epoch >= 1:
                memory[index] = 0.6 * memory[index] + 0.4 * softmax(z.detach())
            plain.step(plain.gradients(ref_loss(name, z, memory[index])))

    assert taken == 10
    assert (memory.argmax(1) != task.labels).any()
    torch.testing.assert_close(method.targets, memory, rtol=0, atol=1e-12)
    assert_same_network(run.networks[0], plain.network)


@both
@pytest.mark.parametrize(
    ("epochs", "share", "warmup"), [(200, 0.3, 60), (40, 0.15, 6), (2, 0.15, 1), (10, 0.0, 0)]
)
def test_the_warm_up_scales_with_the_training(name, epochs, share, warmup):
    task = make_task(epochs=epochs)
    method, run = CLASSES[name](task, warmup_share=share), make_run(task)
    phases = []
    for epoch in range(epochs):
        method.on_epoch_start(run, epoch)
        phases.append(method.keep < 1)

    assert phases == [False] * warmup + [True] * (epochs - warmup)
    assert list(method.begins.values()) == [warmup]


def test_the_defaults_are_those_of_the_authors():
    task = make_task(epochs=200)
    assert (CLASSES["selc"](task).momentum, CLASSES["selc"](task).warmup) == (0.9, 30)
    assert (CLASSES["sat"](task).momentum, CLASSES["sat"](task).warmup) == (0.9, 60)


def test_selc_is_alr_without_entropy():
    task = make_task(N=16)
    logits, batch = make_logits(16, 10, "early").float(), make_batch(task, torch.arange(16))
    selc, run = CLASSES["selc"](task, warmup_share=0.0), make_run(task)
    alr = CLASSES["alr"](task, lam_e=0.0, warmup_share=0.0)
    for method in (selc, alr):
        method.on_epoch_start(run, 0)

    for ours, theirs in zip(
        value_and_grad(selc, logits, batch), value_and_grad(alr, logits, batch), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(selc.targets, alr.targets)


def test_an_example_in_doubt_counts_less_in_sat():
    """With soft labels at 1 and at 0.5, the weights are 4/3 and 2/3."""
    method = CLASSES["sat"](make_task(N=2, C=4))
    method.targets.copy_(torch.tensor([[0.0, 1, 0, 0], [0.5, 0.5, 0, 0]]))
    weights = method.weights(torch.tensor([0, 1]))
    torch.testing.assert_close(weights, torch.tensor([4 / 3, 2 / 3]))
