"""ELR: ten steps against the formula in float64, and the authors' own values."""

import pytest
import torch
from cases import CLASSES, ready
from formulas import clipped, ref_ce, softmax
from lab import make_batch, make_logits, make_task, no_views, value_and_grad
from official import needs_vectors, official_examples, official_values

from nlbench.method import Batch


def ref_elr(z, y, memory, index, beta, lam):
    p = clipped(z, 1e-4, 1 - 1e-4)
    with torch.no_grad():
        memory[index] = beta * memory[index] + (1 - beta) * p / p.sum(1, keepdim=True)
    return ref_ce(z, y) + lam * torch.log(1 - (memory[index] * p).sum(1))


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_ten_steps_of_elr(C, stage):
    task = make_task(N=23, C=C)
    method = ready("elr", {"beta": 0.9, "lam": 7.0}, task)
    memory = torch.zeros(23, C, dtype=torch.float64)

    for step in range(10):
        index = torch.randperm(23, generator=torch.Generator().manual_seed(step))[:17]
        # Much of one direction, so that predictions agree with the memory, as they do late in
        # training.
        common = make_logits(23, C, stage, seed=99)[index]
        logits = (common + make_logits(17, C, "early", seed=step)).float()
        z = logits.double().requires_grad_()
        losses = ref_elr(z, task.labels[index], memory, index, 0.9, 7.0)
        (expected,) = torch.autograd.grad(losses.mean(), z)
        loss, grad = value_and_grad(method, logits, make_batch(task, index))
        # Late, 1 - <t, p> is down to 1e-4 of 1, where float32 keeps three digits.
        rtol, atol = (1e-4, 1e-6) if stage == "early" else (1e-2, 1e-4)
        torch.testing.assert_close(method.targets.double(), memory, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(loss.double(), losses.mean().detach(), rtol=rtol, atol=atol)
        keep = ((softmax(z.detach()) - 1e-4).abs() > 1e-6).all(1)
        torch.testing.assert_close(grad.double()[keep], expected[keep], rtol=rtol, atol=atol)


@pytest.mark.parametrize("stage", ["early", "late"])
def test_an_example_equals_the_authors_over_four_steps(stage):
    method = CLASSES["elr"](make_task(C=10), beta=0.7, lam=3.0).double()
    for at in official_examples("elr_beta0.7_lam3.0", stage):
        logits = torch.tensor([at["logits"]], dtype=torch.float64)
        batch = Batch(logits, torch.tensor([at["label"]]), torch.tensor([0]), no_views)
        _, grad = value_and_grad(method, logits, batch)
        torch.testing.assert_close(grad[0].tolist(), at["gradient"], rtol=0, atol=1e-11)
        torch.testing.assert_close(method.targets[0].tolist(), at["targets"], rtol=0, atol=1e-12)


@needs_vectors
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("C", "beta", "lam"), [(10, 0.7, 3.0), (100, 0.9, 7.0)])
def test_elr_equals_the_authors_over_four_steps(C, beta, lam, stage):
    method = CLASSES["elr"](make_task(C=C), beta=beta, lam=lam).double()
    for step in range(4):
        at = official_values(f"C{C}/{stage}/elr_beta{beta}_lam{lam}/step{step}/")
        batch = Batch(at["logits"], at["labels"], at["index"], no_views)
        loss, grad = value_and_grad(method, at["logits"], batch)
        torch.testing.assert_close(loss, at["loss"], rtol=0, atol=1e-12)
        torch.testing.assert_close(grad, at["grad"], rtol=0, atol=1e-12)
        torch.testing.assert_close(method.targets, at["targets_after"], rtol=0, atol=1e-12)
