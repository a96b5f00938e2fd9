"""The regularisers towards the uniform distribution, against plain loops."""

import math

import pytest
import torch
from lab import make_logits

from nlbench.ops.uniform import divergence_from_uniform


@pytest.mark.parametrize("stage", ["early", "late"])
def test_divergence_from_uniform_matches_plain_loops(stage):
    logits = make_logits(7, 5, stage, seed=0).requires_grad_()
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    # KL(uniform || mean prediction) over five classes.
    expected = 0.0
    for k in range(5):
        mean = p[:, k].sum() / 7
        expected = expected + 0.2 * (math.log(0.2) - torch.log(mean))
    loss = divergence_from_uniform(logits.log_softmax(1))

    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    (grad,) = torch.autograd.grad(loss, logits)
    (expected_grad,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-11, atol=1e-12)
