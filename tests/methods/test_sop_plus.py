"""SOP+: the loss and its gradients, ten steps against a plain training, the strong view."""

import copy

import pytest
import torch
from lab import in_float64, make_run, make_task, no_views, train
from torch import nn

from nlbench import registry
from nlbench.method import Batch

FILES = registry.method_files()
SOPPlus = registry.load_method(FILES["sop-plus"])


def cut(square):
    return torch.minimum(square, torch.ones_like(square))


def reference(weak, strong, labels, u, v, lam_consistency, lam_balance):
    """Compute the batch's loss from the formulas, an example at a time.

    Args:
        weak: (B, C) logits, as `strong`.
        u: (B, 1).
        v: (B, C).
    """
    B, C = weak.shape
    loss, mean = 0.0, torch.zeros(C, dtype=weak.dtype)

    for b in range(B):
        y, guess = int(labels[b]), int(weak[b].argmax())
        log_p = weak[b] - torch.logsumexp(weak[b], 0)
        log_s = strong[b] - torch.logsumexp(strong[b], 0)
        a = []
        for k in range(C):
            # The noise s is u^2 at the label and -v^2 at the other classes. Cross entropy teaches
            # u, the squared residual teaches v.
            if k == y:
                noise = taught = cut(u[b, 0] ** 2)
            else:
                noise = -cut(v[b, k] ** 2)
                taught = noise.detach()
            a.append(torch.clamp(log_p[k].exp() + taught, min=1e-4))
            residual = float(k == guess) - float(k == y) + noise
            loss = loss + residual**2
            loss = loss + lam_consistency * log_p[k].exp().detach() * (log_p[k].detach() - log_s[k])
        q = torch.stack(a) / sum(a)
        loss = loss - q[y].log()
        mean = mean + q / B

    balance = -torch.clamp(mean, min=1e-4).log().sum() / C
    return loss / B + lam_balance * balance


class Table(nn.Module):
    """A network that returns the logits it holds, and notes what it was shown."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.shown = nn.Parameter(logits), []

    def forward(self, images):
        self.shown.append(images.clone())
        # A copy, since the step that follows updates the table in place.
        return self.logits * 1


def step(C, scale, noise, dtype, params):
    """Take a training step on eight examples with given logits.

    Returns: loss and gradients of the step, and of the reference.
    """
    g = torch.Generator().manual_seed(C)
    task = make_task(N=20, C=C)
    index = torch.randperm(20, generator=g)[:8]
    logits = (scale * torch.randn(16, C, generator=g, dtype=torch.float64)).to(dtype)
    network = Table(logits.clone())
    run = make_run(task, networks=[network], lr=1.0)
    method = SOPPlus(task, **params).to(dtype)
    with torch.no_grad():
        method.u.copy_(noise * torch.randn(20, 1, generator=g))
        method.v.copy_(noise * torch.randn(20, C, generator=g))

    u, v = (x.detach()[index].double().requires_grad_() for x in (method.u, method.v))
    weak, strong = (z.double().requires_grad_() for z in logits.chunk(2))
    method.prepare(run)
    run.begin_epoch(0)
    returned = method.training_step(run, run.batch(index))

    assert torch.equal(returned.detach(), logits[:8])
    expected = reference(
        weak, strong, task.labels[index], u, v, method.lam_consistency, method.lam_balance
    )
    expected_grads = torch.autograd.grad(expected, (weak, strong, u, v))
    got = (
        *network.logits.grad.chunk(2),
        method.u.grad.to_dense()[index],
        method.v.grad.to_dense()[index],
    )
    return run.take_loss(), float(expected.detach()), got, expected_grads


# float32 carries 1e-7 of 1 into probabilities, which is 1e-3 of one at the floor.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-4, 1e-5)], ids=str
)
@pytest.mark.parametrize(("scale", "noise"), [(1.0, 0.3), (12.0, 0.9)], ids=["early", "late"])
@pytest.mark.parametrize("C", [3, 10])
@pytest.mark.parametrize("params", [{}, {"lam_consistency": 0.0, "lam_balance": 7.0}], ids=str)
def test_value_and_gradients_match_the_formula(params, C, scale, noise, dtype, rtol, atol):
    loss, expected, got, expected_grads = step(C, scale, noise, dtype, params)
    assert loss == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-5)
    for one, two in zip(got, expected_grads, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=rtol, atol=atol)


def test_the_defaults_are_the_authors_weights():
    method = SOPPlus(make_task())
    assert (method.lam_consistency, method.lam_balance) == (0.9, 0.1)


def test_both_terms_off_it_is_sop():
    SOP = registry.load_method(FILES["sop"])
    task = make_task(C=4)
    results = []

    for cls, params in ((SOP, {}), (SOPPlus, {"lam_consistency": 0.0, "lam_balance": 0.0})):
        torch.manual_seed(0)
        method = cls(task, **params)
        # Batch normalisation would see the strong half of SOP+, so the network has none.
        network = nn.Linear(6, 4)
        run = make_run(task, networks=[network])
        method.prepare(run)
        train(method, run, range(4))
        results.append([network.weight.detach(), method.u.detach(), method.v.detach()])

    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_weak_view_gets_nothing_from_consistency_and_the_strong_one_nothing_else():
    """Expect CE's p - Y at the weak logits, and 0.9 (p_strong - p) at the strong ones.

    u = v = 0, and there is no balance term.
    """
    task = make_task(N=8, C=5)
    g = torch.Generator().manual_seed(0)
    network = Table(torch.randn(16, 5, generator=g, dtype=torch.float64))
    p, p_strong = network.logits.detach().softmax(1).chunk(2)
    run = make_run(task, networks=[network])
    method = SOPPlus(task, lam_balance=0.0).double()
    with torch.no_grad():
        method.u.zero_()
        method.v.zero_()

    method.prepare(run)
    method.training_step(run, run.batch(torch.arange(8)))
    weak, strong = network.logits.grad.chunk(2)
    Y = nn.functional.one_hot(task.labels, 5)

    torch.testing.assert_close(weak, (p - Y) / 8, rtol=0, atol=1e-12)
    torch.testing.assert_close(strong, 0.9 * (p_strong - p) / 8, rtol=0, atol=1e-12)


def test_the_second_half_is_the_strong_view_of_the_same_examples():
    task = make_task(N=8, C=5)
    images, strong = torch.randn(8, 6), torch.randn(8, 6)
    asked = []

    def strengthen(index, k):
        asked.append((index.tolist(), k))
        return strong

    network = Table(torch.randn(16, 5))
    run = make_run(task, networks=[network])
    method = SOPPlus(task)
    method.prepare(run)
    index = torch.arange(8)
    method.training_step(run, Batch(images, task.labels, index, no_views, strengthen))

    assert asked == [(index.tolist(), 0)]
    assert torch.equal(network.shown[0], torch.cat([images, strong]))


def test_ten_steps_equal_a_plain_training():
    task = make_task(N=23, C=4, batch_size=9, epochs=4)
    run = in_float64(make_run(task, lr=0.1))
    method = SOPPlus(task, lr_u=0.7, lr_v=1.9).double()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
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
            method.training_step(run, run.batch(index))
            u.requires_grad_()
            v.requires_grad_()
            batch = run.batch(index)
            strong = run.images.strong(index, run.draws("strong0"), 0)
            weak_logits, strong_logits = network(torch.cat([batch.images, strong])).chunk(2)
            labels = task.labels[index]
            loss = reference(weak_logits, strong_logits, labels, u[index], v[index], 0.9, 0.1)
            to_u, to_v, *to_weights = torch.autograd.grad(loss, [u, v, *network.parameters()])
            u, v = (u - 0.7 * to_u).detach(), (v - 1.9 * to_v).detach()
            with torch.no_grad():
                for w, moved, grad in zip(network.parameters(), velocity, to_weights, strict=True):
                    moved.mul_(0.9).add_(grad)
                    w -= 0.1 * moved

    assert taken == 10
    assert (u - start[0]).abs().max() > 0.05
    assert (v - start[1]).abs().max() > 0.05
    torch.testing.assert_close(method.u.detach(), u, rtol=0, atol=1e-12)
    torch.testing.assert_close(method.v.detach(), v, rtol=0, atol=1e-12)
    for a, b in zip(
        run.networks[0].state_dict().values(), network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_a_batch_of_one_trains():
    # Batches of 16 and 1.
    task = make_task(N=17)
    method, run = SOPPlus(task), make_run(task)
    method.prepare(run)
    train(method, run, range(3))
    for w in (*run.networks[0].parameters(), *method.parameters()):
        assert w.isfinite().all()


def test_u_and_v_have_constant_rates_and_sparse_gradients():
    task = make_task(N=40)
    method, run = SOPPlus(task, lr_u=3.0, lr_v=5.0), make_run(task, schedule=lambda position: 0.01)
    method.prepare(run)
    run.begin_epoch(4)
    method.training_step(run, run.batch(torch.tensor([3, 17, 21])))

    assert [group["lr"] for group in run.optimisers["noise"].param_groups] == [3.0, 5.0]
    for x in (method.u, method.v):
        assert x.grad.is_sparse
        assert x.grad._nnz() == 3
