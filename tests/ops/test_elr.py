"""The loss of ELR: the authors' own values, many visits, and where its clamp acts.

What holds for every loss, its formula among it, is in test_loss_forms.py.
"""

import pytest
import torch
from forms import BETA, LAM, Elr, close, make_given, off_the_bounds
from official import needs_vectors, official_values

from nlbench import ops


@needs_vectors
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("C", "beta", "lam"), [(10, 0.7, 3.0), (100, 0.9, 7.0)])
def test_elr_follows_the_authors_code_over_four_steps(backend, C, beta, lam, stage, dtype, tol):
    targets = torch.zeros(40, C, dtype=dtype)
    for step in range(4):
        of = official_values(f"C{C}/{stage}/elr_beta{beta}_lam{lam}/step{step}/")
        logits = of["logits"].to(dtype).requires_grad_()
        loss = ops.elr_loss(logits, of["labels"], of["index"], targets, beta=beta, lam=lam)
        loss.backward()
        keep = off_the_bounds(of["logits"])
        assert keep.any()
        close(loss.detach(), of["loss"], tol)
        close(logits.grad[keep], of["grad"][keep], tol)
        close(targets, of["targets_after"], tol)


def test_targets_in_float32_stay_good_over_many_visits(backend):
    given = make_given(128, 10, "late")
    given.targets.zero_()
    exact = given.copied()
    exact.targets = exact.targets.double()
    for _ in range(20):
        want_losses, want_grad, exact.targets = Elr.formula(exact)
        losses, dlogits = Elr.step(given)

    keep = off_the_bounds(given.logits)
    # Now the targets agree with the model, and their rounding to float32 shows where 1 - <t, q> is
    # small.
    close(losses, want_losses, 1e-5)
    close(dlogits[keep], want_grad[keep], 5e-5)
    close(given.targets, exact.targets, 5e-7)


def test_the_clamp_passes_gradient_at_its_bound(backend):
    # With equal logits every probability is 1e-4, the lower bound itself.
    C = 10_000
    labels, index = torch.tensor([1]), torch.tensor([0])

    for dtype in (torch.float32, torch.float64):
        targets = torch.zeros(1, C, dtype=dtype)
        targets[0, 0] = 1.0
        logits = torch.zeros(1, C, dtype=dtype)
        _, dlogits = ops.elr_step(logits, labels, index, targets, beta=0.5, lam=1.0)
        t0, rest = 0.5 + 0.5e-4, 0.5e-4
        s = (t0 + (C - 1) * rest) * 1e-4
        # It would be 1e-4 if the clamp held the gradient back.
        want = 1e-4 + 1e-4 / (1 - s) * (s - t0)
        assert float(dlogits[0, 0]) == pytest.approx(want, rel=1e-5)


def test_a_saturated_row_gets_cross_entropy_alone(backend):
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 0.1, 0.2]])
    targets = torch.full((2, 3), 1 / 3)
    labels, index = torch.tensor([1, 2]), torch.tensor([0, 1])
    _, dlogits = ops.elr_step(logits, labels, index, targets, beta=BETA, lam=LAM)
    torch.testing.assert_close(dlogits[0], torch.tensor([0.5, -0.5, 0.0]))


def test_a_loss_scaler_reaches_the_gradient_of_float16_logits_before_it_is_rounded():
    torch.manual_seed(0)
    B, C = 1024, 10
    z = (torch.randn(B, C) * 3).half()
    labels, index, targets = torch.randint(0, C, (B,)), torch.arange(B), torch.full((B, C), 0.09)
    gradients = []

    for logits in (z.clone().requires_grad_(), z.float().requires_grad_()):
        loss = ops.elr_loss(logits, labels, index, targets.clone(), beta=0.7, lam=3.0)
        (loss * 65536).backward()
        gradients.append(logits.grad.float())

    half, full = gradients
    torch.testing.assert_close(half, full, rtol=1e-3, atol=1e-4)
