"""DISC: its sets by hand, its loss and ten steps against plain loops over examples, its warm-up, empty sets, resume."""

import copy
import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lab import Examples, make_run, make_task, no_views, small_network, train
from torch import nn

from nlbench import registry
from nlbench.method import Batch, Task

DISC = registry.load_method(registry.method_files()["disc"])


def make_batch(weak, strong, labels, index=None):
    index = torch.arange(len(labels)) if index is None else index
    return Batch(weak, labels, index, no_views, lambda index, k: strong)


# --- plain re-implementation: one example after the other, Python numbers where no gradient is needed ----------------


def ref_softmax(row):
    top = max(row)
    parts = [math.exp(x - top) for x in row]
    return [part / sum(parts) for part in parts]


def ref_divide(weak, strong, labels, taus, momentum):
    """A set's name and a label for each example; `taus`, a list of [weak, strong], is updated."""
    found = []
    for z_weak, z_strong, y, tau in zip(weak.tolist(), strong.tolist(), labels.tolist(), taus, strict=True):
        p = [ref_softmax(z_weak), ref_softmax(z_strong)]
        for view in (0, 1):
            tau[view] += (1 - momentum) * (max(p[view]) - tau[view])
        hits = sum(p[view][y] > tau[view] for view in (0, 1))
        mean = [(a + b) / 2 for a, b in zip(*p, strict=True)]
        bound = min((tau[0] + tau[1]) / 2 + 0.5, 0.99)
        if hits:
            found.append((("hard", "clean")[hits - 1], y))
        else:
            found.append(("purified" if max(mean) > bound else "none", mean.index(max(mean))))
    return found


def ref_ce(z, y):
    return torch.logsumexp(z, 0) - z[y]


def ref_loss(network, weak, strong, labels, found, lam_h, q, draws):
    """After the warm-up. Weak rows before strong ones, as in the method, so that its draws mean the same here."""
    B = len(labels)
    total, images, targets = 0.0, [], []
    logits = network(torch.cat([weak, strong]))
    for row in range(2 * B):
        kind, label = found[row % B]
        y = int(labels[row % B])
        if kind == "clean":
            total = total + ref_ce(logits[row], y) / (2 * B)
        if kind == "hard":
            p_y = torch.exp(logits[row][y] - torch.logsumexp(logits[row], 0))
            total = total + lam_h * (1 - p_y**q) / q / (2 * B)
        if kind != "none":
            images.append((weak, strong)[row // B][row % B])
            targets.append(label)
    if not images:
        return logits.sum() * 0
    share, order = draws.beta(5.0, 5.0), draws.permutation(len(images))
    mixed = network(torch.stack([share * a + (1 - share) * images[k] for a, k in zip(images, order, strict=True)]))
    for row, k in enumerate(order):
        total = total + share * ref_ce(mixed[row], targets[row]) / (2 * B)
        total = total + (1 - share) * ref_ce(mixed[row], targets[k]) / (2 * B)
    return total


def ref_draws(run):
    return np.random.default_rng(int(torch.randint(2**62, (), generator=run.generator("mixup"))))


# --- sets ------------------------------------------------------------------------------------------------------------

# p weak, p strong, label, thresholds before -> set; momentum 0.9, so a threshold moves by a tenth of the way.
BY_HAND = [
    ([0.7, 0.2, 0.1], [0.6, 0.3, 0.1], 0, (0.2, 0.2), "clean"),
    ([0.3, 0.4, 0.3], [0.3, 0.4, 0.3], 0, (0.2, 0.2), "clean"),  # thresholds 0.22: not the top class, yet above
    ([0.7, 0.2, 0.1], [0.2, 0.6, 0.2], 0, (0.2, 0.2), "hard"),  # strong: threshold 0.24
    ([0.1, 0.8, 0.1], [0.8, 0.1, 0.1], 0, (0.2, 0.2), "hard"),
    ([0.3, 0.6, 0.1], [0.3, 0.6, 0.1], 0, (0.28, 0.28), "none"),  # 0.3 is above 0.28, not above 0.9 * 0.28 + 0.06
    ([0.02, 0.96, 0.02], [0.02, 0.94, 0.04], 0, (0.0, 0.0), "purified"),  # 0.95 > 0.095 + 0.5
    ([0.02, 0.96, 0.02], [0.02, 0.04, 0.94], 0, (0.0, 0.0), "none"),  # each view is sure, their mean is not
    ([0.02, 0.96, 0.02], [0.04, 0.62, 0.34], 0, (0.3, 0.3), "none"),  # 0.79 < (0.366 + 0.332) / 2 + 0.5 = 0.849
    ([0.02, 0.96, 0.02], [0.04, 0.76, 0.20], 0, (0.3, 0.3), "purified"),  # 0.86 > (0.366 + 0.346) / 2 + 0.5 = 0.856
    ([0.006, 0.988, 0.006], [0.006, 0.988, 0.006], 0, (0.9, 0.9), "none"),  # the bound is never above 0.99
    ([0.004, 0.992, 0.004], [0.004, 0.992, 0.004], 0, (0.9, 0.9), "purified"),
]


@pytest.mark.parametrize("together", [True, False])
def test_sets_of_predictions_by_hand(together):
    N = len(BY_HAND)
    weak, strong, labels, taus = (torch.tensor([case[k] for case in BY_HAND]) for k in range(4))
    method = DISC(Task(N, 3, labels, 6, 1, N), momentum=0.9)
    method.thresholds.copy_(taus)
    kinds = [""] * N
    for index in [torch.arange(N).flip(0)] if together else torch.arange(N).split(1):
        probs = torch.stack([weak[index], strong[index]])
        clean, hard, purified, guess = method.divide(probs, make_batch(weak, strong, labels[index], index))
        for k, i in enumerate(index.tolist()):
            names = [name for name, mask in (("clean", clean), ("hard", hard), ("purified", purified)) if mask[k]]
            assert len(names) <= 1
            kinds[i] = names[0] if names else "none"
            if kinds[i] == "purified":
                assert guess[k] == 1
    assert kinds == [case[4] for case in BY_HAND]
    for i, case in enumerate(BY_HAND):
        expected = [0.9 * case[3][view] + 0.1 * max(case[view]) for view in (0, 1)]
        assert method.thresholds[i].tolist() == pytest.approx(expected, rel=1e-6)


def test_thresholds_start_at_one_over_N_and_only_those_of_the_batch_move():
    task = make_task(N=40)
    method = DISC(task)
    assert method.thresholds.shape == (40, 2)
    assert torch.equal(method.thresholds, torch.full((40, 2), 1 / 40))
    probs = torch.rand(2, 5, 10, generator=torch.Generator().manual_seed(0)).softmax(2)
    index = torch.tensor([7, 3, 39, 0, 12])
    method.divide(probs, make_batch(None, None, task.labels[index], index))
    for i in range(40):
        for view in (0, 1):
            at = index.tolist().index(i) if i in index else None
            expected = 1 / 40 if at is None else 0.99 / 40 + 0.01 * float(probs[view, at].max())
            assert float(method.thresholds[i, view]) == pytest.approx(expected, rel=1e-6)


# --- loss ------------------------------------------------------------------------------------------------------------


class Recorder(SimpleNamespace):
    """A run whose network gives the images back as logits, and which keeps the loss instead of stepping."""

    def __init__(self, epoch, network=None):
        super().__init__(epoch=epoch, networks=[network or nn.Identity()])

    def generator(self, name):
        return torch.Generator().manual_seed(sum(map(ord, name)))

    def backward_step(self, loss, *names):
        self.loss = loss


def views_of(stage, B, C, seed):
    scale = {"early": 1.0, "late": 12.0}[stage]
    generator = torch.Generator().manual_seed(seed)
    weak = scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    strong = weak + 0.5 * scale * torch.randn(B, C, generator=generator, dtype=torch.float64)
    labels = torch.randint(C, (B,), generator=generator)
    labels[::3] = weak[::3].argmax(1)
    return weak, strong, labels


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("C", "tau"), [(10, 0.1), (10, 0.3), (100, 0.008)])
def test_loss_and_gradients_match_the_formula(C, tau, stage, dtype, tolerance):
    B = 48
    weak, strong, labels = (t.to(dtype) if t.is_floating_point() else t for t in views_of(stage, B, C, seed=C))
    method = DISC(Task(B, C, labels, 6, 1, B), lam_h=0.2, warmup_share=0.0)
    method.thresholds = torch.full((B, 2), tau, dtype=dtype)
    run = Recorder(epoch=3)
    method.on_epoch_start(run, 3)
    mine = [weak.clone().requires_grad_(), strong.clone().requires_grad_()]
    logits = method.training_step(run, make_batch(*mine, labels))
    assert torch.equal(logits, weak)  # those of the first Batch, for the online counts
    assert run.loss.dtype == dtype
    got = torch.autograd.grad(run.loss, mine)

    theirs = [weak.double().requires_grad_(), strong.double().requires_grad_()]
    taus = [[tau, tau] for _ in range(B)]
    found = ref_divide(*theirs, labels, taus, 0.99)
    expected = ref_loss(nn.Identity(), *theirs, labels, found, 0.2, 0.7, ref_draws(run))
    kinds = {kind for kind, _ in found}
    assert {"clean", "hard", "none"} <= kinds
    assert "purified" in kinds or stage == "early"
    torch.testing.assert_close(run.loss.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance)
    for a, b in zip(got, torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("C", [2, 10, 1000])
def test_finite_at_extreme_logits(C):
    labels = torch.arange(6) % C
    weak = torch.zeros(6, C)
    weak[0, labels[0]], weak[1, labels[1]], weak[2] = 200.0, -200.0, 200.0
    weak[3] = -200.0
    weak[3, labels[3]] = 200.0
    weak[4] = 200.0
    weak[4, labels[4]] = -200.0
    weak[5] = torch.linspace(-200, 200, C)
    method = DISC(Task(6, C, labels, 6, 1, 6), warmup_share=0.0)
    run = Recorder(epoch=0)
    method.on_epoch_start(run, 0)
    for strong in (weak.clone(), -weak, weak.flip(0)):
        views = [weak.clone().requires_grad_(), strong.requires_grad_()]
        method.training_step(run, make_batch(*views, labels))
        assert run.loss.isfinite()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(run.loss, views))
        assert method.thresholds.isfinite().all()


# --- warm-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "share", "warmup"), [(200, 0.1, 20), (200, 15 / 200, 15), (40, 0.1, 4), (3, 0.1, 1), (10, 0.0, 0)]
)
def test_warmup_is_cross_entropy_on_both_views_and_moves_the_thresholds(epochs, share, warmup):
    weak, strong, labels = views_of("early", 12, 10, seed=2)
    method = DISC(Task(12, 10, labels, epochs, 1, 12), warmup_share=share).double()
    ce = [sum(float(ref_ce(z, int(y))) for z, y in zip(view, labels, strict=True)) / 12 for view in (weak, strong)]
    tau = 1 / 12
    for epoch in range(min(epochs, warmup + 2)):
        seen = []
        run = Recorder(epoch, lambda images, seen=seen: (seen.append(len(images)), images)[1])
        method.on_epoch_start(run, epoch)
        method.training_step(run, make_batch(weak, strong, labels))
        warm = epoch < warmup
        assert (float(run.loss) == pytest.approx(sum(ce) / 2, rel=1e-12)) == warm
        assert seen[0] == 24
        assert (len(seen) == 1) == warm  # no mixed images yet
        tau = 0.99 * tau + 0.01 * max(ref_softmax(weak[0].tolist()))
        assert float(method.thresholds[0, 0]) == pytest.approx(tau, rel=1e-5)


# --- trainings -------------------------------------------------------------------------------------------------------


class Sharp(nn.Module):
    """A small network whose confidence comes quickly."""

    def __init__(self, task):
        super().__init__()
        self.body = small_network(task)

    def forward(self, rows):
        return 4 * self.body(rows)


def double_run(task, lr=0.1):
    network = Sharp(task).double()
    run = make_run(task, networks=[network], lr=lr)
    run._images.rows = run._images.rows.double()
    return run


def test_ten_steps_against_a_plain_re_implementation():
    task = make_task(N=40, C=4, epochs=5, batch_size=20)
    run = double_run(task)
    method = DISC(task, momentum=0.8, lam_h=0.4, warmup_share=0.2).double()
    method.thresholds.fill_(1 / 40)
    network, start = copy.deepcopy(run.networks[0]), copy.deepcopy(run.networks[0].state_dict())
    taus = [[1 / 40, 1 / 40] for _ in range(40)]
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    source = double_run(task)  # the same order and augmentations
    method.prepare(run)
    count = {"clean": 0, "hard": 0, "purified": 0, "none": 0}
    for epoch in range(5):
        train(method, run, [epoch])
        source._begin_epoch(epoch)
        draws = ref_draws(source)
        for index in source.order().split(20):
            batch = source.batch(index)
            weak, strong = batch.images, batch.strong(0)
            assert not torch.equal(weak, strong)
            with torch.no_grad():  # a look at the logits that leaves the batch norm's statistics alone
                logits = copy.deepcopy(network)(torch.cat([weak, strong]))
            rows = [taus[i] for i in index.tolist()]
            found = ref_divide(logits[:20], logits[20:], batch.labels, rows, 0.8)
            if epoch < 1:
                logits = network(torch.cat([weak, strong]))
                loss = sum(ref_ce(z, int(y)) for z, y in zip(logits, [*batch.labels, *batch.labels], strict=True)) / 40
            else:
                loss = ref_loss(network, weak, strong, batch.labels, found, 0.4, 0.7, draws)
                for kind, _ in found:
                    count[kind] += 1
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, p in network.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + p.grad
                    p -= 0.1 * velocity[name]
        torch.testing.assert_close(method.thresholds, torch.tensor(taus, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(run.networks[0].state_dict()[name], value, rtol=1e-8, atol=1e-10)
    assert min(count.values()) >= 3, count
    assert any(not torch.equal(start[name], value) for name, value in network.state_dict().items())


def test_resumed_training_equals_uninterrupted():
    def start():
        task = make_task(N=33)  # the last batch of an epoch is one example: its two views are what batch norm sees
        run = make_run(task)
        method = DISC(task, momentum=0.9)
        method.prepare(run)
        return method, run

    whole, whole_run = start()
    train(whole, whole_run, range(6))
    assert all(p.isfinite().all() for p in whole_run.networks[0].parameters())
    for stop in (1, 3, 5):
        first, first_run = start()
        train(first, first_run, range(stop))
        file = io.BytesIO()
        parts = first, first_run.networks[0], first_run._optimisers["network0"]
        torch.save([*(part.state_dict() for part in parts), first_run.step], file)
        file.seek(0)
        *states, step = torch.load(file, weights_only=True)
        method, run = start()
        for part, state in zip((method, run.networks[0], run._optimisers["network0"]), states, strict=True):
            part.load_state_dict(state)
        run.step = step
        train(method, run, range(stop, 6))
        for a, b in ((method, whole), (run.networks[0], whole_run.networks[0])):
            assert a.state_dict().keys() == b.state_dict().keys()
            assert all(torch.equal(a.state_dict()[key], b.state_dict()[key]) for key in a.state_dict())


def test_without_a_selected_example_the_weights_stay():
    task = make_task(N=20, C=4, batch_size=20)
    run = make_run(task)
    run.optimise(run.networks[0].parameters(), lambda p: torch.optim.SGD(p, lr=0.1), "network0")  # no momentum
    method = DISC(task, warmup_share=0.0)
    method.thresholds.fill_(1.0)
    before = [p.detach().clone() for p in run.networks[0].parameters()]
    train(method, run, [0])
    assert run._take_loss() == 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, run.networks[0].parameters(), strict=True))


@pytest.mark.parametrize("kind", ["clean", "hard", "purified"])
def test_a_single_selected_example_is_enough(kind):
    weak = torch.full((6, 4), 0.0, dtype=torch.float64)
    strong, labels = weak.clone(), torch.zeros(6, dtype=torch.int64)
    top = {"clean": (0, 0), "hard": (0, 2), "purified": (2, 2)}[kind]
    weak[2, top[0]] = strong[2, top[1]] = 8.0
    method = DISC(Task(6, 4, labels, 6, 1, 6), warmup_share=0.0).double()
    method.thresholds.fill_(1.0)
    method.thresholds[2] = 0.3
    run = Recorder(epoch=0)
    method.on_epoch_start(run, 0)
    method.training_step(run, make_batch(weak.requires_grad_(), strong, labels))
    found = ref_divide(weak, strong, labels, [[0.3, 0.3] if i == 2 else [1.0, 1.0] for i in range(6)], 0.99)
    assert [name for name, _ in found] == ["none", "none", kind, "none", "none", "none"]
    expected = ref_loss(nn.Identity(), weak, strong, labels, found, 1.0, 0.7, ref_draws(run))
    assert float(run.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    (grad,) = torch.autograd.grad(run.loss, weak)
    assert grad.isfinite().all()
    assert torch.equal(grad.abs().sum(1) > 0, torch.arange(6) == 2)


def test_alike_views_leave_nothing_hard():
    task = make_task(N=40, C=4, epochs=4)
    run = make_run(task)
    run._images = Examples(40, 7)
    run._images.strong = lambda index, draws, seed: run._images.augmented(index, run._draws(0))
    method = DISC(task, warmup_share=0.0)
    divide, sizes = method.divide, []

    def spy(probs, batch):
        clean, hard, purified, guess = divide(probs, batch)
        sizes.append([int(clean.sum()), int(hard.sum())])
        return clean, hard, purified, guess

    method.divide = spy
    train(method, run, range(4))
    clean, hard = (sum(column) for column in zip(*sizes, strict=True))
    assert clean > 50
    assert hard == 0


def test_given_tensors_are_left_alone():
    weak, strong, labels = views_of("late", 24, 10, seed=5)
    task = Task(24, 10, labels.clone(), 6, 1, 24)
    method = DISC(task, warmup_share=0.0).double()
    run = Recorder(epoch=0)
    method.on_epoch_start(run, 0)
    before = [t.clone() for t in (weak, strong, labels)]
    method.training_step(run, make_batch(weak, strong, labels))
    assert all(torch.equal(a, b) for a, b in zip(before, (weak, strong, labels), strict=True))
    assert torch.equal(task.labels, labels)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"momentum": 1.0}, "momentum must be in (0, 1), got 1.0"),
        ({"momentum": 0.0}, "momentum must be in (0, 1), got 0.0"),
        ({"lam_h": -0.5}, "lam_h must be finite and >= 0, got -0.5"),
        ({"q": 0.0}, "q must be in (0, 1], got 0.0"),
        ({"q": 1.5}, "q must be in (0, 1], got 1.5"),
        ({"alpha": 0.0}, "alpha must be finite and above 0, got 0.0"),
        ({"warmup_share": 1.5}, "warmup_share must be in [0, 1], got 1.5"),
        ({"warmup_share": -0.1}, "warmup_share must be in [0, 1], got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(params, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DISC(make_task(), **params)
