"""The loss of ALR: its warm-up, and targets of exactly zero.

What holds for every loss, its formula among it, is in test_loss_forms.py.
"""

import torch
import torch.nn.functional as F
from forms import LAM_E, make_given

from nlbench import ops


def test_the_warmup_is_cross_entropy_and_leaves_the_targets(backend):
    given = make_given(33, 10, "late")
    labels = torch.arange(38) % 10
    targets = F.one_hot(labels, 10).float()
    before = targets.clone()
    losses, dlogits = ops.alr_step(given.logits, given.index, targets, alpha=1.0, lam_e=0.0)
    z = given.logits.clone().requires_grad_()
    want = F.cross_entropy(z, labels[given.index], reduction="none")
    want.mean().backward()

    assert torch.equal(targets, before)
    torch.testing.assert_close(losses, want.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dlogits, z.grad, rtol=1e-5, atol=1e-8)


def test_a_target_of_zero_makes_an_impossible_class_cost_nothing(backend):
    logits = torch.tensor([[0.0, 1.0, float("-inf")], [0.0, 1.0, 2.0]])
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    losses, dlogits = ops.alr_step(logits, torch.tensor([0, 1]), targets, alpha=1.0, lam_e=LAM_E)
    assert losses.isfinite().all()
    assert dlogits.isfinite().all()
