"""The steps of MixMatch that DivideMix and PES share, against loops written from the formulas."""

import numpy as np
import pytest
import torch
from lab import make_logits

from nlbench.ops import mixmatch


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0, 1.25]])
def test_both_losses_match_plain_loops(stage, dtype, weights):
    logits = make_logits(9, 4, stage, seed=0)
    targets = make_logits(9, 4, "early", seed=1).softmax(1)
    z = logits.clone().requires_grad_()
    ce = squared = 0.0

    for b in range(9):
        total = sum(torch.exp(z[b, k] - z[b].max().detach()) for k in range(4))
        p = [torch.exp(z[b, k] - z[b].max().detach()) / total for k in range(4)]
        for k in range(4):
            w = 1.0 if weights is None else weights[k]
            if b < 5:
                ce = ce - w * targets[b, k] * (z[b, k] - z[b].max().detach() - torch.log(total)) / 5
            else:
                squared = squared + (p[k] - targets[b, k]) ** 2 / (4 * 4)

    for i, expected in enumerate((ce, squared)):
        (expected_grad,) = torch.autograd.grad(expected, z, retain_graph=True)
        own = logits.to(dtype).requires_grad_()
        w = None if weights is None else torch.tensor(weights, dtype=dtype)
        loss = mixmatch.semi_supervised_losses(own, targets.to(dtype), 5, w)[i]
        (grad,) = torch.autograd.grad(loss, own)
        rtol, atol = (1e-12, 1e-12) if dtype == torch.float64 else (1e-5, 1e-6)
        assert loss.dtype == dtype
        torch.testing.assert_close(loss.double(), expected.detach(), rtol=rtol, atol=atol)
        torch.testing.assert_close(grad.double(), expected_grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize("C", [2, 10, 1000])
def test_losses_are_finite_at_extreme_logits(C):
    logits = torch.full((8, C), -200.0)
    logits[:, 0] = 200.0  # no example leaves the other classes a probability that float32 can hold
    logits.requires_grad_()
    targets = torch.eye(C)[torch.arange(8) % C]
    ce, squared = mixmatch.semi_supervised_losses(logits, targets, 4)
    loss = ce + squared
    (grad,) = torch.autograd.grad(loss, logits)

    assert loss.isfinite()
    assert grad.isfinite().all()


def test_sharpen():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]], dtype=torch.float64)
    expected = torch.tensor(
        [[4 / 6, 1 / 6, 1 / 6], [0, 1, 0], [1 / 54, 4 / 54, 49 / 54]], dtype=torch.float64
    )
    torch.testing.assert_close(mixmatch.sharpen(p, 0.5), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(mixmatch.sharpen(p, 1.0), p, rtol=1e-12, atol=0)
    even = torch.full((1, 1000), 1e-3)  # 0.001 ** 20 is no float32: a plain power would give 0 / 0
    torch.testing.assert_close(mixmatch.sharpen(even, 0.05), even)


def test_mix_keeps_each_row_closer_to_itself():
    inputs, targets = torch.randn(6, 3, 2, 2), torch.randn(6, 4).softmax(1)
    shares = []
    for seed in range(40):
        again = np.random.default_rng(seed)
        drawn, perm = again.beta(0.75, 0.75), again.permutation(6)
        share = drawn if drawn > 0.5 else 1 - drawn
        mixed, mixed_targets = mixmatch.mix(inputs, targets, 0.75, np.random.default_rng(seed))
        for row in range(6):
            torch.testing.assert_close(
                mixed[row], share * inputs[row] + (1 - share) * inputs[perm[row]]
            )
            torch.testing.assert_close(
                mixed_targets[row], share * targets[row] + (1 - share) * targets[perm[row]]
            )
        shares.append(share)

    assert 0.5 <= min(shares) < 0.6 < 0.9 < max(shares) <= 1


@pytest.mark.parametrize(
    ("position", "start", "length", "expected"),
    [
        (0, 2, 4, 0),
        (2, 2, 4, 0),
        (3, 2, 4, 0.25),
        (4.5, 2, 4, 0.625),
        (6, 2, 4, 1),
        (60, 2, 4, 1),
        (2, 2, 0, 1),
    ],
)
def test_linear_ramp(position, start, length, expected):
    assert mixmatch.linear_ramp(position, start, length) == expected


@pytest.mark.parametrize(
    ("n", "sizes"), [(5, [5]), (8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (1, [1]), (3, [3])]
)
def test_chunks_never_end_in_a_lone_example(n, sizes):
    parts = mixmatch.chunks(torch.arange(n), 4)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(n))


def test_cycle_reshuffles_each_time_through():
    stream = mixmatch.cycle(torch.arange(10, 17), 3, np.random.default_rng(0))
    passes = [torch.cat([next(stream), next(stream)]).tolist() for _ in range(3)]
    assert passes[0] == list(range(10, 17))
    assert all(sorted(one) == passes[0] for one in passes)
    assert passes[0] != passes[1] != passes[2]
