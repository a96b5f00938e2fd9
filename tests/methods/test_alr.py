"""ALR: ten steps against the formula in float64, its warm-up, and its fixed point."""

import pytest
import torch
from cases import CLASSES, ready
from formulas import one_hot, ref_ce, softmax
from lab import make_batch, make_logits, make_run, make_task, value_and_grad


def ref_alr(z, y, memory, index, alpha, lam_e, refining):
    if not refining:
        return ref_ce(z, y)
    p = softmax(z)
    with torch.no_grad():
        memory[index] = alpha * memory[index] + (1 - alpha) * p
    log_p = z - torch.logsumexp(z, 1, keepdim=True)
    return -(memory[index] * log_p).sum(1) - lam_e * (p * log_p).sum(1)


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_ten_steps_of_alr(C, stage):
    task = make_task(N=23, C=C, epochs=10)
    run = make_run(task)
    method = ready("alr", {"alpha": 0.8, "lam_e": 0.3, "warmup_share": 0.4}, task)
    memory = one_hot(task.labels, C)

    for epoch in range(10):  # a step is an epoch here: the warm-up is epochs 0 to 3
        method.on_epoch_start(run, epoch)
        index = torch.randperm(23, generator=torch.Generator().manual_seed(epoch))[:17]
        logits = make_logits(17, C, stage, seed=epoch).float()
        z = logits.double().requires_grad_()
        rows = ref_alr(z, task.labels[index], memory, index, 0.8, 0.3, refining=epoch >= 4)
        (expected,) = torch.autograd.grad(rows.mean(), z)
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        torch.testing.assert_close(method.targets.double(), memory, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(loss.double(), rows.mean().detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-6)
        if epoch < 4:
            assert torch.equal(method.targets, one_hot(task.labels, C).float())


def test_alr_without_entropy_keeps_a_fixed_point():
    """With t = p nothing but the entropy term moves the prediction (SELC is ALR at lam_e = 0)."""
    task = make_task(N=16)
    logits, batch = make_logits(16, 10, "early").float(), make_batch(task, torch.arange(16))
    for lam_e, moves in ((0.0, False), (0.1, True)):
        method = ready("alr", {"lam_e": lam_e, "warmup_share": 0.0}, task)
        method.targets.copy_(logits.softmax(1))
        _, grad = value_and_grad(method, logits, batch)
        assert (grad.abs().max() > 1e-5) == moves


@pytest.mark.parametrize(
    ("epochs", "share", "warmup"), [(200, 0.2, 40), (40, 0.2, 8), (2, 0.2, 1), (10, 0.0, 0)]
)
def test_alr_warmup_scales_with_the_training(epochs, share, warmup):
    task = make_task(epochs=epochs)
    method, run = CLASSES["alr"](task, warmup_share=share), make_run(task)
    phases = []
    for epoch in range(epochs):
        method.on_epoch_start(run, epoch)
        phases.append(float(method.refining))
    assert phases == [0.0] * warmup + [1.0] * (epochs - warmup)
