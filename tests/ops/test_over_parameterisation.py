"""SOP's loss and the two terms of SOP+: formulas, gradients, and which term teaches what."""

import math

import pytest
import torch
from formulas import sop_rows
from torch.nn import functional as F

from nlbench.ops.over_parameterisation import class_balance, consistency, sop_loss


def make_case(B, C, stage, seed=0):
    """Draw logits, labels, u and v.

    Late in training the network is confident, and squares are on both sides of 1, where they are
    cut.
    """
    g = torch.Generator().manual_seed(seed)
    logits_scale, noise_scale = {"early": (1.0, 0.3), "late": (12.0, 0.9)}[stage]
    labels = torch.randint(C, (B,), generator=g)
    draws = [torch.randn(B, k, generator=g, dtype=torch.float64) for k in (C, 1, C)]
    return logits_scale * draws[0], labels, noise_scale * draws[1], noise_scale * draws[2]


def far_from_clamps(z, labels, u, v, margin):
    """Mark rows whose masks are the same in float32.

    Their squares are not next to 1, and their shifted probabilities not next to 1e-4.
    """
    given = F.one_hot(labels, z.shape[1]).double()
    shifted = z.softmax(1) + (u**2).clamp(max=1) * given - (v**2).clamp(max=1) * (1 - given)
    near = ((shifted - 1e-4).abs() < margin).any(1) | ((v**2 - 1).abs() < margin).any(1)
    return ~(near | ((u**2 - 1).abs() < margin).any(1))


def grads(loss, *tensors):
    return torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True)


# float32 rounds a probability by 1e-7 of 1, which is 1e-3 of one at the floor; such rows are as far
# from it as 1e-5.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-5)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 101])
def test_value_and_gradients_match_the_formula(C, stage, dtype, rtol, atol):
    case = make_case(24, C, stage)
    keep = far_from_clamps(*case, 0 if dtype == torch.float64 else 1e-5)
    assert keep.sum() >= 18

    z, labels, u, v = (t[keep].to(dtype) if t.is_floating_point() else t[keep] for t in case)
    weights = torch.linspace(-1, 2, z.numel(), dtype=torch.float64).view_as(
        z
    )  # q has a gradient of its own
    results = []

    for compute, width in ((sop_rows, torch.float64), (sop_loss, dtype)):
        logits, noise_u, noise_v = (t.to(width).requires_grad_() for t in (z, u, v))
        rows, q = compute(logits, labels, noise_u, noise_v)
        assert rows.dtype == q.dtype == width
        of_rows = grads(rows.mean(), logits, noise_u, noise_v)
        of_q = grads((weights.to(width) * q).sum(), logits, noise_u, noise_v)
        results.append([t.detach().double() for t in (rows, q, *of_rows, *of_q)])

    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
    assert results[1][-1].abs().max() == 0  # V is detached in q


@pytest.mark.parametrize("stage", ["early", "late"])
def test_gradients_in_closed_form(stage):
    """By hand, with a = p + U - V and S its sum, m 1 where no clamp acts, o the one-hot argmax."""
    z, labels, u, v = (
        t.requires_grad_() if t.is_floating_point() else t for t in make_case(64, 10, stage, seed=3)
    )
    got = grads(sop_loss(z, labels, u, v)[0].sum(), z, u, v)

    with torch.no_grad():
        clamped = {"floor": 0, "u": 0, "v": 0}
        for b in range(64):
            y, p, o = int(labels[b]), torch.softmax(z[b], 0), F.one_hot(z[b].argmax(), 10).double()
            U, V = (
                float(min(u[b] ** 2, torch.ones(1))),
                v[b].square().clamp(max=1).index_fill(0, torch.tensor(y), 0),
            )
            raw = p - V
            raw[y] += U
            a, m = raw.clamp(min=1e-4), (raw >= 1e-4).double()
            S = a.sum()
            to_a = m / S
            to_a[y] -= m[y] / a[y]
            torch.testing.assert_close(got[0][b], p * (to_a - (to_a * p).sum()), rtol=0, atol=1e-12)
            to_u = 2 * u[b] * (to_a[y] + 2 * (o[y] + U - 1)) * (u[b] ** 2 <= 1)
            torch.testing.assert_close(got[1][b], to_u, rtol=1e-12, atol=1e-12)
            to_v = -4 * v[b] * (o - V) * (v[b] ** 2 <= 1)
            to_v[y] = 0
            torch.testing.assert_close(got[2][b], to_v, rtol=0, atol=1e-12)
            clamped["floor"] += int(m[y] == 0)
            clamped["u"] += int(u[b] ** 2 > 1)
            clamped["v"] += int((v[b] ** 2 > 1).sum())

    assert stage == "early" or all(clamped.values())  # each clamp acted somewhere


def test_v_learns_from_the_squared_error_alone_and_u_from_both():
    """An unsure network that guesses class 2 for an example labelled 0, u = v = 0.1."""
    z = torch.tensor([[0.0, -1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    u = torch.full((1, 1), 0.1, dtype=torch.float64, requires_grad=True)
    v = torch.full((1, 3), 0.1, dtype=torch.float64, requires_grad=True)
    _, to_u, to_v = grads(sop_loss(z, torch.tensor([0]), u, v)[0].sum(), z, u, v)
    p = z.detach().softmax(1)[0]
    total = float(p.sum()) + 0.01 - 0.02
    of_ce, of_error = 0.2 * (1 / total - 1 / (float(p[0]) + 0.01)), 0.2 * 2 * (0.01 - 1)

    assert of_ce < -0.5
    assert float(to_u) == pytest.approx(of_ce + of_error, rel=1e-12)
    # The guess pulls its own entry up, the others are pulled down, and the label's has no part in
    # anything.
    assert to_v[0].tolist() == pytest.approx(
        [0.0, -4 * 0.1 * (0 - 0.01), -4 * 0.1 * (1 - 0.01)], rel=1e-12
    )


def test_the_network_learns_nothing_from_the_squared_error():
    """At U = V = 0 the logits get cross entropy's p - Y; the one-hot guess carries no gradient."""
    z, labels, _, _ = make_case(16, 10, "early")
    u, v = torch.zeros(16, 1, dtype=torch.float64), torch.zeros(16, 10, dtype=torch.float64)
    z.requires_grad_()
    rows, q = sop_loss(z, labels, u, v)

    torch.testing.assert_close(q, z.softmax(1), rtol=0, atol=1e-12)
    wrong = z.argmax(1) != labels
    torch.testing.assert_close(
        rows - F.cross_entropy(z, labels, reduction="none"), 2 * wrong.double()
    )

    (to_z,) = grads(rows.sum(), z)
    torch.testing.assert_close(
        to_z, z.detach().softmax(1) - F.one_hot(labels, 10), rtol=0, atol=1e-12
    )
    assert wrong.any()


def test_learnt_noise_takes_the_label_off_the_network():
    """With U = 1 at a wrong label and V = 1 at the network's class, q is sure of the label."""
    z = torch.tensor([[0.0, 8.0, 0.0]], dtype=torch.float64, requires_grad=True)
    u, v = (
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64),
    )
    rows, _ = sop_loss(z, torch.tensor([0]), u, v)

    assert float(rows.detach()) < 1e-3
    (to_z,) = grads(rows.sum(), z)
    (alone,) = grads(sop_loss(z, torch.tensor([0]), 0 * u, 0 * v)[0].sum(), z)

    assert float(to_z.abs().max()) < 1e-3 < 0.9 < float(alone.abs().max())


def test_beyond_1_the_noise_is_cut_and_stays():
    for size, moves in ((0.9, True), (1.1, False), (-1.1, False)):
        u = torch.full((1, 1), size, dtype=torch.float64, requires_grad=True)
        v = torch.full((1, 3), size, dtype=torch.float64, requires_grad=True)
        z = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)
        to_u, to_v = grads(sop_loss(z, torch.tensor([0]), u, v)[0].sum(), u, v)
        assert bool(to_u.abs().sum() > 0) == moves
        assert bool(to_v.abs().sum() > 0) == moves

    assert (
        float(sop_loss(z, torch.tensor([0]), u, v)[1][0, 0].detach()) > 0.999
    )  # as at U = 1 exactly


def test_below_the_floor_the_cross_entropy_teaches_u_nothing():
    """With p_y of 5e-5 or 5e-4, -log q_y reaches u only above the floor, and then with 1 / p_y."""
    u = torch.full((1, 1), 1e-8, dtype=torch.float64, requires_grad=True)
    v = torch.zeros(1, 3, dtype=torch.float64)
    for p_y, reaches in ((5e-5, 0.0), (5e-4, 1 / 5e-4 - 1)):
        z = torch.tensor([[p_y, 0.7, 0.3 - p_y]], dtype=torch.float64).log()
        (to_u,) = grads(sop_loss(z, torch.tensor([0]), u, v)[0].sum(), u)
        assert float(to_u) == pytest.approx(-2e-8 * (reaches + 2), rel=1e-6)


def test_finite_at_extreme_logits_and_noise():
    for C in (2, 10, 1000):
        z = (
            200.0 * torch.eye(C)[torch.tensor([0, 0, 1, 1])]
            - 200.0 * torch.eye(C)[torch.tensor([1, 1, 0, 0])]
        )
        z.requires_grad_()
        for u, v in ((0.0, 0.0), (1.0, 1.0), (1e3, 1e3), (0.0, 1e3)):
            u, v = (
                torch.full((4, 1), u, requires_grad=True),
                torch.full((4, C), v, requires_grad=True),
            )
            rows, q = sop_loss(z, torch.tensor([0, 1, 0, 1]), u, v)
            assert rows.isfinite().all()
            assert all(g.isfinite().all() for g in grads(rows.mean() + q.square().sum(), z, u, v))


def test_class_balance_by_hand():
    q = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = class_balance(q)
    assert float(loss.detach()) == pytest.approx(
        -(math.log(0.7) + math.log(0.3) + math.log(1e-4)) / 3, rel=1e-12
    )

    (grad,) = grads(loss, q)
    expected = [
        -1 / (3 * 0.7 * 2),
        -1 / (3 * 0.3 * 2),
        0.0,
    ]  # no gradient at a class below the floor

    assert grad.tolist() == [pytest.approx(expected, rel=1e-12)] * 2
    assert float(class_balance(torch.full((4, 5), 0.2, dtype=torch.float64))) == pytest.approx(
        math.log(5), rel=1e-12
    )


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_consistency_matches_the_formula(scale):
    g = torch.Generator().manual_seed(0)
    weak, strong = scale * torch.randn(2, 8, 5, generator=g, dtype=torch.float64)
    weak.requires_grad_()
    strong.requires_grad_()
    rows = consistency(weak, strong)
    p, p_strong = weak.detach().softmax(1), strong.detach().softmax(1)

    for b in range(8):
        by_hand = sum(
            float(p[b, k]) * math.log(float(p[b, k]) / float(p_strong[b, k])) for k in range(5)
        )
        assert float(rows[b].detach()) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)

    (to_strong,) = torch.autograd.grad(rows.sum(), strong, retain_graph=True)
    torch.testing.assert_close(to_strong, p_strong - p, rtol=0, atol=1e-12)
    assert torch.autograd.grad(rows.sum(), weak, allow_unused=True) == (None,)


def test_consistency_is_finite_where_probabilities_vanish():
    weak, strong = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    assert consistency(weak, strong).tolist() == [400.0]
    assert consistency(weak, weak).tolist() == [0.0]
