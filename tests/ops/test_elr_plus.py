"""The loss of ELR+ and the update of targets: formulas and the authors' own values.

What holds for every loss is in test_loss_forms.py.
"""

import pytest
import torch
import torch.nn.functional as F
from forms import LAM, SIZES, close, make_given, off_the_bounds
from official import needs_vectors, official_values

from nlbench import ops


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float64, 1e-13), (torch.float32, 5e-7), (torch.float16, 5e-7)]
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("B", "C"), SIZES)
def test_update_targets_matches_the_formula(backend, B, C, stage, dtype, tol, clamp):
    given = make_given(B, C, stage, dtype)
    logits, index, targets = given.logits, given.index, given.targets
    p = logits.double().softmax(1)
    q = p.clamp(1e-4, 1 - 1e-4)
    new = q / q.sum(1, keepdim=True) if clamp else p
    want = targets.double().clone()
    want[index] = 0.7 * want[index] + 0.3 * new
    before, logits_before = targets.clone(), logits.clone()

    assert ops.update_targets(logits, index, targets, beta=0.7, clamp=clamp) is None
    close(targets, want, tol)
    assert torch.equal(logits, logits_before)

    rest = torch.ones(len(targets), dtype=torch.bool)
    rest[index] = False
    assert torch.equal(targets[rest], before[rest])


def test_update_targets_of_an_empty_batch(backend):
    given = make_given(0, 10)
    before = given.targets.clone()
    ops.update_targets(given.logits, given.index, given.targets, beta=0.7, clamp=True)
    assert torch.equal(given.targets, before)


@needs_vectors
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("C", "beta", "lam"), [(10, 0.7, 3.0), (100, 0.9, 7.0)])
def test_elr_plus_follows_the_authors_code(backend, C, beta, lam, stage, dtype, tol):
    targets = torch.zeros(40, C, dtype=dtype)
    for step in range(2):
        of = official_values(f"C{C}/{stage}/elrplus_beta{beta}_lam{lam}/step{step}/")
        taught = of["teacher_logits"].to(dtype)
        ops.update_targets(taught, of["index"], targets, beta=beta, clamp=False)
        weight, order = float(of["mix_weight"]), of["mix_index"]
        one_hot, own = F.one_hot(of["labels"], C).to(dtype), targets[of["index"]]
        soft, mixed = (weight * x + (1 - weight) * x[order] for x in (one_hot, own))
        # The authors reweight the labels by the target's belief in them, for this class count
        # alone.
        if C == 100:
            soft = soft * mixed / (soft * mixed).sum(1, keepdim=True)
        logits = of["logits"].to(dtype).requires_grad_()
        loss = ops.elr_loss_soft(logits, soft, mixed, lam=lam)
        loss.backward()
        keep = off_the_bounds(of["logits"])
        assert keep.any()
        close(loss.detach(), of["loss"], tol)
        close(logits.grad[keep], of["grad"][keep], tol)
        close(targets, of["targets_after"], tol)


def test_with_one_hot_labels_it_is_elr(backend):
    given = make_given(33, 10, "late", torch.float64)
    index, targets = given.index, given.targets
    losses, dlogits = ops.elr_step(given.logits, given.labels, index, targets, beta=0.7, lam=LAM)
    labels = F.one_hot(given.labels, 10).double()
    soft_losses, soft_dlogits = ops.elr_step_soft(given.logits, labels, targets[index], lam=LAM)
    torch.testing.assert_close(soft_losses, losses, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(soft_dlogits, dlogits, rtol=1e-8, atol=1e-10)


def test_an_impossible_class_costs_nothing_without_a_label_and_everything_with_one(backend):
    logits = torch.tensor([[0.0, 1.0, float("-inf")]])
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    losses, _ = ops.elr_step_soft(logits, soft, torch.zeros(1, 3), lam=LAM)
    want = -(logits[0, :2].log_softmax(0) * 0.5).sum()
    torch.testing.assert_close(losses[0], want)
    soft = torch.tensor([[0.0, 0.0, 1.0]])
    losses, _ = ops.elr_step_soft(logits, soft, torch.zeros(1, 3), lam=LAM)
    assert losses[0] == float("inf")
