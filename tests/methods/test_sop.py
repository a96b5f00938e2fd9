"""SOP and nlbench.ops.over_parameterisation: formulas, gradients, trajectory, and what teaches u and v."""

import copy
import io
import math
import re

import pytest
import torch
from lab import make_batch, make_run, make_task, small_network, train
from torch.nn import functional as F

from nlbench import registry
from nlbench.method import Batch
from nlbench.ops.over_parameterisation import class_balance, consistency, sop_loss

SOP = registry.load_method(registry.method_files()["sop"])


# --- the formula, one example and one class at a time ------------------------------------------------------------


def at_most_1(square):
    return square if square <= 1 else torch.ones_like(square)


def reference_row(z, y, u, v):
    """-log q_y + the squared error, and q, for one example: z and v (C,), u 0-d. Only the given class has a U."""
    C = len(z)
    shifted = []
    for k in range(C):
        p = torch.exp(z[k] - torch.logsumexp(z, 0))
        noisy = p + at_most_1(u * u) if k == y else p - at_most_1(v[k] * v[k]).detach()
        shifted.append(noisy if noisy >= 1e-4 else torch.full_like(p, 1e-4))
    total = sum(shifted)
    guess = max(range(C), key=z.tolist().__getitem__)
    error = torch.zeros((), dtype=z.dtype)
    for k in range(C):
        if k == y:
            error = error + (float(k == guess) + at_most_1(u * u) - 1) ** 2
        else:
            error = error + (float(k == guess) - at_most_1(v[k] * v[k])) ** 2
    return error - torch.log(shifted[y] / total), torch.stack(shifted) / total


def reference_rows(z, labels, u, v):
    pairs = [reference_row(z[b], int(labels[b]), u[b, 0], v[b]) for b in range(len(z))]
    return torch.stack([row for row, _ in pairs]), torch.stack([q for _, q in pairs])


def make_case(B, C, stage, seed=0):
    """Logits, labels, u and v; late: a confident network, and noise on both sides of where it is cut at 1."""
    g = torch.Generator().manual_seed(seed)
    logits_scale, noise_scale = {"early": (1.0, 0.3), "late": (12.0, 0.9)}[stage]
    labels = torch.randint(C, (B,), generator=g)
    draws = [torch.randn(B, k, generator=g, dtype=torch.float64) for k in (C, 1, C)]
    return logits_scale * draws[0], labels, noise_scale * draws[1], noise_scale * draws[2]


def far_from_clamps(z, labels, u, v, margin):
    """Rows whose masks are the same in float32: squares not next to 1, shifted probabilities not next to 1e-4."""
    given = F.one_hot(labels, z.shape[1]).double()
    shifted = z.softmax(1) + (u**2).clamp(max=1) * given - (v**2).clamp(max=1) * (1 - given)
    near = ((shifted - 1e-4).abs() < margin).any(1) | ((v**2 - 1).abs() < margin).any(1)
    return ~(near | ((u**2 - 1).abs() < margin).any(1))


def grads(loss, *tensors):
    return torch.autograd.grad(loss, tensors, retain_graph=True, materialize_grads=True)


# float32 rounds a probability by 1e-7 of 1, which is 1e-3 of one at the floor; such rows are as far from it as 1e-5.
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-5)], ids=str)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 101])
def test_value_and_gradients_match_the_formula(C, stage, dtype, rtol, atol):
    case = make_case(24, C, stage)
    keep = far_from_clamps(*case, 0 if dtype == torch.float64 else 1e-5)
    assert keep.sum() >= 18
    z, labels, u, v = (t[keep].to(dtype) if t.is_floating_point() else t[keep] for t in case)
    weights = torch.linspace(-1, 2, z.numel(), dtype=torch.float64).view_as(z)  # q has a gradient of its own
    results = []
    for compute, width in ((reference_rows, torch.float64), (sop_loss, dtype)):
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
    z, labels, u, v = (t.requires_grad_() if t.is_floating_point() else t for t in make_case(64, 10, stage, seed=3))
    got = grads(sop_loss(z, labels, u, v)[0].sum(), z, u, v)
    with torch.no_grad():
        clamped = {"floor": 0, "u": 0, "v": 0}
        for b in range(64):
            y, p, o = int(labels[b]), torch.softmax(z[b], 0), F.one_hot(z[b].argmax(), 10).double()
            U, V = float(min(u[b] ** 2, torch.ones(1))), v[b].square().clamp(max=1).index_fill(0, torch.tensor(y), 0)
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


# --- which term teaches what -------------------------------------------------------------------------------------


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
    # The guess pulls its own entry up, the others are pulled down, and the label's has no part in anything.
    assert to_v[0].tolist() == pytest.approx([0.0, -4 * 0.1 * (0 - 0.01), -4 * 0.1 * (1 - 0.01)], rel=1e-12)


def test_the_network_learns_nothing_from_the_squared_error():
    """At U = V = 0 what reaches the logits is cross entropy's p - Y; the one-hot guess carries no gradient."""
    z, labels, _, _ = make_case(16, 10, "early")
    u, v = torch.zeros(16, 1, dtype=torch.float64), torch.zeros(16, 10, dtype=torch.float64)
    z.requires_grad_()
    rows, q = sop_loss(z, labels, u, v)
    torch.testing.assert_close(q, z.softmax(1), rtol=0, atol=1e-12)
    wrong = z.argmax(1) != labels
    torch.testing.assert_close(rows - F.cross_entropy(z, labels, reduction="none"), 2 * wrong.double())
    (to_z,) = grads(rows.sum(), z)
    torch.testing.assert_close(to_z, z.detach().softmax(1) - F.one_hot(labels, 10), rtol=0, atol=1e-12)
    assert wrong.any()


def test_learnt_noise_takes_the_label_off_the_network():
    """With U = 1 at a wrong label and V = 1 at the network's class, q is sure of the label whatever the logits are."""
    z = torch.tensor([[0.0, 8.0, 0.0]], dtype=torch.float64, requires_grad=True)
    u, v = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
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
    assert float(sop_loss(z, torch.tensor([0]), u, v)[1][0, 0].detach()) > 0.999  # as at U = 1 exactly


def test_below_the_floor_the_cross_entropy_teaches_u_nothing():
    """p_y is 5e-5 or 5e-4: only above the floor does -log q_y reach u, which it then does with 1 / p_y."""
    u = torch.full((1, 1), 1e-8, dtype=torch.float64, requires_grad=True)
    v = torch.zeros(1, 3, dtype=torch.float64)
    for p_y, reaches in ((5e-5, 0.0), (5e-4, 1 / 5e-4 - 1)):
        z = torch.tensor([[p_y, 0.7, 0.3 - p_y]], dtype=torch.float64).log()
        (to_u,) = grads(sop_loss(z, torch.tensor([0]), u, v)[0].sum(), u)
        assert float(to_u) == pytest.approx(-2e-8 * (reaches + 2), rel=1e-6)


def test_finite_at_extreme_logits_and_noise():
    for C in (2, 10, 1000):
        z = 200.0 * torch.eye(C)[torch.tensor([0, 0, 1, 1])] - 200.0 * torch.eye(C)[torch.tensor([1, 1, 0, 0])]
        z.requires_grad_()
        for u, v in ((0.0, 0.0), (1.0, 1.0), (1e3, 1e3), (0.0, 1e3)):
            u, v = torch.full((4, 1), u, requires_grad=True), torch.full((4, C), v, requires_grad=True)
            rows, q = sop_loss(z, torch.tensor([0, 1, 0, 1]), u, v)
            assert rows.isfinite().all()
            assert all(g.isfinite().all() for g in grads(rows.mean() + q.square().sum(), z, u, v))


# --- the two terms of SOP+ ---------------------------------------------------------------------------------------


def test_class_balance_by_hand():
    q = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = class_balance(q)
    assert float(loss.detach()) == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(1e-4)) / 3, rel=1e-12)
    (grad,) = grads(loss, q)
    expected = [-1 / (3 * 0.7 * 2), -1 / (3 * 0.3 * 2), 0.0]  # no gradient at a class below the floor
    assert grad.tolist() == [pytest.approx(expected, rel=1e-12)] * 2
    assert float(class_balance(torch.full((4, 5), 0.2, dtype=torch.float64))) == pytest.approx(math.log(5), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_consistency_matches_the_formula(scale):
    g = torch.Generator().manual_seed(0)
    weak, strong = scale * torch.randn(2, 8, 5, generator=g, dtype=torch.float64)
    weak.requires_grad_()
    strong.requires_grad_()
    rows = consistency(weak, strong)
    p, p_strong = weak.detach().softmax(1), strong.detach().softmax(1)
    for b in range(8):
        by_hand = sum(float(p[b, k]) * math.log(float(p[b, k]) / float(p_strong[b, k])) for k in range(5))
        assert float(rows[b].detach()) == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    (to_strong,) = torch.autograd.grad(rows.sum(), strong, retain_graph=True)
    torch.testing.assert_close(to_strong, p_strong - p, rtol=0, atol=1e-12)
    assert torch.autograd.grad(rows.sum(), weak, allow_unused=True) == (None,)


def test_consistency_is_finite_where_probabilities_vanish():
    weak, strong = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    assert consistency(weak, strong).tolist() == [400.0]
    assert consistency(weak, weak).tolist() == [0.0]


# --- the method --------------------------------------------------------------------------------------------------


def doubled(run):
    """The same run in float64: images and network."""
    run.images.rows = run.images.rows.double()
    run.networks[0].double()
    return run


def test_ten_steps_equal_a_plain_training():
    """u, v and weights after ten steps beside dense gradients, own SGD and the formula one example at a time."""
    task = make_task(N=23, C=4, batch_size=9, epochs=4)  # 3 steps an epoch, the last of 5 examples
    rates = {"lr_u": 0.7, "lr_v": 1.9}
    method, run = SOP(task, **rates).double(), doubled(make_run(task, lr=0.1))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():  # large enough to count within ten steps
        method.u.copy_(0.3 * torch.randn(23, 1, generator=g))
        method.v.copy_(0.3 * torch.randn(23, 4, generator=g))
    u, v = method.u.detach().clone(), method.v.detach().clone()
    start = u.clone(), v.clone()
    network = copy.deepcopy(run.networks[0])
    velocity = [torch.zeros_like(w) for w in network.parameters()]
    method.prepare(run)
    taken = 0
    for epoch in range(4):
        run.begin_epoch(epoch)
        for index in run.order().split(9):
            if taken == 10:
                break
            taken += 1
            batch = run.batch(index)
            method.training_step(run, batch)
            u.requires_grad_()
            v.requires_grad_()
            rows, _ = reference_rows(network(batch.images), task.labels[index], u[index], v[index])
            to_u, to_v, *to_weights = torch.autograd.grad(rows.mean(), [u, v, *network.parameters()])
            u, v = (u - rates["lr_u"] * to_u).detach(), (v - rates["lr_v"] * to_v).detach()
            with torch.no_grad():
                for w, step, grad in zip(network.parameters(), velocity, to_weights, strict=True):
                    step.mul_(0.9).add_(grad)
                    w -= 0.1 * step
    assert taken == 10
    assert (u - start[0]).abs().max() > 0.05
    assert (v - start[1]).abs().max() > 0.05
    torch.testing.assert_close(method.u.detach(), u, rtol=0, atol=1e-12)
    torch.testing.assert_close(method.v.detach(), v, rtol=0, atol=1e-12)
    for a, b in zip(run.networks[0].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-11)


def test_u_and_v_start_next_to_zero_from_the_seeded_stream():
    task = make_task(N=5000, C=10)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(SOP(task))
    for x in (drawn[0].u.detach(), drawn[0].v.detach()):
        assert float(x.std()) == pytest.approx(1e-8, rel=0.05)
        assert abs(float(x.mean())) < 5e-10
    assert drawn[0].u.shape == (5000, 1)
    assert drawn[0].v.shape == (5000, 10)
    assert torch.equal(drawn[0].u, drawn[1].u)
    assert torch.equal(drawn[0].v, drawn[1].v)
    assert not torch.equal(drawn[0].u, drawn[2].u)


def test_a_step_touches_the_batchs_rows_alone_at_constant_rates_of_their_own():
    task = make_task(N=40, C=10)
    method, run = SOP(task, lr_u=3.0, lr_v=5.0), make_run(task, schedule=lambda position: 0.01)
    method.prepare(run)
    with torch.no_grad():
        method.u.fill_(0.2)
        method.v.fill_(0.2)
    before = method.u.detach().clone(), method.v.detach().clone()
    index = torch.tensor([3, 17, 21, 39])
    run.begin_epoch(4)
    method.training_step(run, run.batch(index))
    others = torch.ones(40, dtype=torch.bool)
    others[index] = False
    for x, old, lr in zip((method.u, method.v), before, (3.0, 5.0), strict=True):
        assert x.grad.is_sparse
        assert x.grad._nnz() == 4
        assert torch.equal(x[others], old[others])
        torch.testing.assert_close(x.detach(), old - lr * x.grad.to_dense())
    assert (method.u.detach() - before[0])[index].abs().min() > 0
    assert [group["lr"] for group in run.optimisers["network0"].param_groups] == [0.1 * 0.01]
    assert [group["lr"] for group in run.optimisers["noise"].param_groups] == [3.0, 5.0]
    for group in run.optimisers["noise"].param_groups:
        assert group["momentum"] == group["weight_decay"] == group["dampening"] == 0


def test_a_wrongly_labelled_example_gets_its_noise_learnt():
    """A network that is sure of another class: u and that class's v go up from 1e-8, a right example's do not."""
    task = make_task(N=2, C=5, batch_size=2)
    task.labels[:] = torch.tensor([0, 1])
    method = SOP(task)
    optimiser = torch.optim.SGD(method.parameters(), lr=1.0)
    logits = torch.tensor([[0.0, 0, 5, 0, 0], [0, 5, 0, 0, 0.0]])  # the first says 2
    for _ in range(60):
        optimiser.zero_grad()
        method.loss(logits, make_batch(task, torch.tensor([0, 1]))).mean().backward()
        optimiser.step()
    U, V = method.u.detach().square()[:, 0], method.v.detach().square()
    assert U[0] > 0.8 > 1e-12 > U[1]
    assert V[0].argmax() == 2
    assert V[0, 2] > 0.99
    V[0, 2] = 0
    assert V.max() < 1e-12


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_training_equals_uninterrupted(stop):
    def start():
        torch.manual_seed(11)
        task = make_task()
        method, run = SOP(task), make_run(task)
        method.prepare(run)
        return method, run

    def state(method, run):
        optimisers = {name: optimiser.state_dict() for name, optimiser in run.optimisers.items()}
        return {"method": method.state_dict(), "network": run.networks[0].state_dict(), "optimisers": optimisers}

    whole, whole_run = start()
    train(whole, whole_run, range(6))
    first, first_run = start()
    train(first, first_run, range(stop))
    file = io.BytesIO()
    torch.save(state(first, first_run), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    method, run = start()
    method.load_state_dict(saved["method"])
    run.networks[0].load_state_dict(saved["network"])
    for name, optimiser in run.optimisers.items():
        optimiser.load_state_dict(saved["optimisers"][name])
    train(method, run, range(stop, 6))
    for a, b in ((method, whole), (run.networks[0], whole_run.networks[0])):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert whole.u.abs().max() > 1e-7  # it learnt something


def test_memory_of_u_and_v_is_all_the_state():
    assert set(SOP(make_task()).state_dict()) == {"u", "v"}


def test_labels_outside_the_batch_object_are_not_read():
    """The labels are the batch's: a batch with others gives another loss."""
    task = make_task()
    method, logits = SOP(task), torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    index = torch.arange(8)
    one = method.loss(logits, make_batch(task, index))
    two = method.loss(logits, Batch(torch.zeros(8, 1), (task.labels[index] + 1) % 10, index, lambda i, k: None))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr_u": -1.0}, "lr_u must be finite and >= 0, got -1.0"),
        ({"lr_v": -0.5}, "lr_v must be finite and >= 0, got -0.5"),
        ({"lr_u": math.inf}, "lr_u must be finite and >= 0, got inf"),
        ({"lr_v": math.nan}, "lr_v must be finite and >= 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused(params, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SOP(make_task(), **params)


def test_without_rates_it_is_cross_entropy():
    """u and v of 1e-8 change nothing that float32 sees, and at rate 0 they stay."""
    task = make_task()
    method, run = SOP(task, lr_u=0.0, lr_v=0.0), make_run(task)
    method.prepare(run)
    train(method, run, range(2))
    plain = make_run(task, networks=[small_network(task)])
    for epoch in range(2):
        plain.begin_epoch(epoch)
        for index in plain.order().split(16):
            batch = plain.batch(index)
            plain.backward_step(F.cross_entropy(plain.networks[0](batch.images), batch.labels))
    for a, b in zip(run.networks[0].parameters(), plain.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
