"""PENCIL: its losses, the path of its label distributions, and its three stages."""

import pytest
import torch
from cases import CLASSES
from formulas import one_hot, ref_ce, softmax
from lab import in_float64, make_batch, make_logits, make_run, make_task, value_and_grad
from plain import PlainSGD, assert_same_network

VALUES = {"alpha": 0.7, "beta": 0.3, "lam": 40.0}
forms = pytest.mark.parametrize("form", ["code", "paper"])


def ref_second(z, y, u, form):
    """Return the batch mean of the second stage, which autograd differentiates by z and by u."""
    C, total = z.shape[1], 0
    for b in range(len(z)):
        p, q = softmax(z[b : b + 1])[0], softmax(u[b : b + 1])[0]
        log_p = z[b] - torch.logsumexp(z[b], 0)
        log_q = u[b] - torch.logsumexp(u[b], 0)
        divergence = (p * (log_p - log_q)).sum()
        entropy = -(p * log_p).sum()
        again = q if form == "code" else log_q
        compatibility = torch.logsumexp(again, 0) - again[y[b]]
        total = total + divergence / C + VALUES["alpha"] * compatibility
        total = total + VALUES["beta"] * entropy / C
    return total / len(z)


def ref_third(z, u):
    log_p, log_q = z.log_softmax(1), u.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).mean()


@forms
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_value_gradient_and_step_of_u_equal_the_formula(C, stage, form):
    task = make_task(N=23, C=C)
    method = CLASSES["pencil"](task, compatibility=form, **VALUES).double()
    index = torch.randperm(23, generator=torch.Generator().manual_seed(1))[:17]
    logits, batch = make_logits(17, C, stage), make_batch(task, index)
    # Distributions that have left the given labels.
    method.u.add_(make_logits(23, C, "early", seed=5))

    for now in (1, 2, 3):
        method.stage = now
        before = method.u.clone()
        z, u = logits.clone().requires_grad_(), before[index].requires_grad_()
        if now == 1:
            expected = ref_ce(z, task.labels[index]).mean()
        elif now == 2:
            expected = ref_second(z, task.labels[index], u, form)
        else:
            expected = ref_third(z, u)
        to_z, to_u = torch.autograd.grad(expected, [z, u], allow_unused=True)

        loss, grad = value_and_grad(method, logits, batch)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad, to_z, rtol=0, atol=1e-12)
        after = before.clone()
        if now == 2:
            after[index] -= VALUES["lam"] * to_u
            assert (after - before).abs().max() > 0.01
        torch.testing.assert_close(method.u, after, rtol=0, atol=1e-11)


@forms
def test_all_stages_equal_a_plain_training(form):
    # Three steps an epoch, the last of them of 5 examples: epochs 0, 1-2 and 3 are the stages.
    task = make_task(N=23, C=4, batch_size=9, epochs=4)
    method = CLASSES["pencil"](
        task, first_share=1 / 4, second_share=2 / 4, compatibility=form, **VALUES
    ).double()
    run = in_float64(make_run(task, lr=0.1))
    plain, u = PlainSGD(run.networks[0]), 10 * one_hot(task.labels, 4)
    method.prepare(run)

    for epoch in range(4):
        run.begin_epoch(epoch)
        method.on_epoch_start(run, epoch)
        for index in run.order().split(9):
            batch = run.batch(index)
            method.training_step(run, batch)
            z = plain.network(batch.images)
            if epoch == 0:
                loss = ref_ce(z, task.labels[index]).mean()
            elif epoch < 3:
                own = u[index].requires_grad_()
                loss = ref_second(z, task.labels[index], own, form)
                (to_u,) = torch.autograd.grad(loss, own, retain_graph=True)
                u[index] = u[index] - VALUES["lam"] * to_u
            else:
                loss = ref_third(z, u[index])
            plain.step(plain.gradients(loss))

    assert (u - 10 * one_hot(task.labels, 4)).abs().max() > 0.1
    torch.testing.assert_close(method.u, u, rtol=0, atol=1e-11)
    torch.testing.assert_close(method.targets, softmax(u), rtol=0, atol=1e-11)
    assert_same_network(run.networks[0], plain.network)


@pytest.mark.parametrize(
    ("epochs", "stages"), [(320, [70, 130, 120]), (32, [7, 13, 12]), (2, [1, 1, 0])]
)
def test_the_stages_are_shares_of_the_training(epochs, stages):
    task = make_task(epochs=epochs)
    method, run = CLASSES["pencil"](task), make_run(task)
    found = []
    for epoch in range(epochs):
        method.on_epoch_start(run, epoch)
        found.append(method.stage)

    assert [found.count(stage) for stage in (1, 2, 3)] == stages
    assert found == sorted(found)
    assert list(method.begins.values()) == [stages[0], stages[0] + stages[1]]


def test_stages_without_epochs_are_left_out():
    method, run = CLASSES["pencil"](make_task(), first_share=0.0, second_share=0.0), None
    method.on_epoch_start(run, 0)
    assert method.stage == 3


def test_the_defaults_are_those_of_the_authors_code():
    method = CLASSES["pencil"](make_task())
    assert (method.alpha, method.beta, method.lam) == (0.4, 0.1, 600.0)
    assert method.compatibility == "code"
    torch.testing.assert_close(method.u, 10 * one_hot(method.task.labels, 10).float())
