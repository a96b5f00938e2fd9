"""ELR+: the authors' numbers, the formula, a plain re-implementation, switches, plan and ramps."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from lab import in_float64, make_run, make_task
from official import needs_vectors, official_examples, official_values
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nlbench import registry
from nlbench.method import Batch

ELRPlus, ELR, Ensemble = (
    registry.load_method(registry.method_files()[n]) for n in ("elr-plus", "elr", "ensemble")
)
OFF = {"networks": 1, "mixup_a": 0.0, "ema": False}
SWITCHES = [
    {},
    {"ema": False},
    {"networks": 1},
    {"mixup_a": 0.0},
    {"lam": 0.0},
    OFF,
    {"networks": 1, "ema": False},
    {"mixup_a": 0.0, "ema": False},
    {"ema_ramp_share": 0.0},
    {"beta": 0.9, "lam": 7.0, "lam_ramp_share": 0.8, "ema_ramp_share": 0.3, "mixup_a": 1.5},
]


def start(task, params=None, *, double=False, **more):
    """Make the method and its run, ready to train; with `double`, everything is float64."""
    method = ELRPlus(task, **(params or {}))
    run = make_run(task, method.num_networks, **more)
    if double:
        method.double()
        in_float64(run)
    method.prepare(run)
    return method, run


# ---- The loss of a step --------------------------------------------------------------------------


class Constant(nn.Module):
    """A network that returns the same logits whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images):
        return self.logits + 0.0


def one_step(method, k, step, logits, taught, labels, index, share, perm):
    """Take a step in which network k returns `logits`, and its teacher `taught`.

    Returns: the loss, its gradient to the logits, and what the step returned.
    """
    networks = [Constant(taught) for _ in range(method.num_networks)]
    networks[k] = Constant(logits)
    run = make_run(method.task, networks=networks)
    method.prepare(run)
    # With two networks the teacher is the other one, with one network it is its own copy.
    with torch.no_grad():
        method.teachers[k - 1].logits.copy_(taught)

    losses, stepped, backward_step = [], [], run.backward_step

    def recorded(loss, *names, **way):
        losses.append(loss.item())
        stepped.append(names)
        backward_step(loss, *names, **way)

    run.backward_step = recorded
    images = torch.zeros(len(index), 1)
    batch = Batch(images, labels, index, lambda index, view: images)
    returned = method.training_step(run, batch, k, step, share, perm)

    # One step, which moves the weights of network k alone.
    assert stepped == [(f"network{k}",)]
    return losses[0], run.networks[k].logits.grad, returned


def plain_step(logits, taught, labels, index, memory, share, perm, beta, lam, C):
    """Return the losses, example by example; `memory` (N, C) float64 is updated in place."""

    def softmax(z):
        e = torch.exp(z - z.max().detach())
        return e / e.sum()

    for b, i in enumerate(index.tolist()):
        memory[i] = beta * memory[i] + (1 - beta) * softmax(taught[b].double())
    rows = []

    for b in range(len(index)):
        other = int(perm[b])
        S = torch.zeros(C, dtype=torch.float64)
        S[labels[b]] += share
        S[labels[other]] += 1 - share
        q = share * memory[index[b]] + (1 - share) * memory[index[other]]
        # With 100 classes the authors weigh the labels by the targets.
        if C == 100:
            S = S * q / (S * q).sum()

        p = softmax(logits[b])
        # The clamp of the probabilities has a gradient only between its bounds.
        kept = torch.where((p >= 1e-4) & (p <= 1 - 1e-4), p, p.detach().clamp(1e-4, 1 - 1e-4))
        log_p = logits[b] - torch.logsumexp(logits[b], 0)
        rows.append(-(S * log_p).sum() + lam * torch.log(1 - (q * kept).sum()))
    return torch.stack(rows)


@needs_vectors
@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(("C", "beta", "lam"), [(10, 0.7, 3.0), (100, 0.9, 7.0)])
def test_the_authors_code_gives_the_same_numbers(C, beta, lam, stage, k):
    method = ELRPlus(make_task(C=C), beta=beta, lam=lam).double()
    for step in range(2):
        at = official_values(f"C{C}/{stage}/elrplus_beta{beta}_lam{lam}/step{step}/")
        loss, grad, _ = one_step(
            method, k, step, at["logits"], at["teacher_logits"], at["labels"], at["index"],
            float(at["mix_weight"]), at["mix_index"],
        )  # fmt: skip
        assert loss == pytest.approx(float(at["loss"]), abs=1e-12)
        torch.testing.assert_close(grad, at["grad"], rtol=0, atol=1e-12)
        # Each network has its own targets, and a step updates those of network k alone.
        own, other = method.targets, method.targets1
        if k == 1:
            own, other = other, own
        torch.testing.assert_close(own, at["targets_after"], rtol=0, atol=1e-12)
        assert not other.any()


@pytest.mark.parametrize("stage", ["early", "late"])
def test_an_example_equals_the_authors(stage):
    at = official_examples("elrplus_beta0.7_lam3.0", stage)
    method = ELRPlus(make_task(C=10), beta=0.7, lam=3.0).double()
    # The example is mixed with a second one, and the second one with itself.
    first = torch.tensor(at["logits"], dtype=torch.float64)
    second = torch.zeros(10, dtype=torch.float64)
    _, grad, _ = one_step(
        method, 0, 0, torch.stack([first, second]),
        torch.tensor(at["teacher_logits"], dtype=torch.float64), torch.tensor(at["labels"]),
        torch.tensor([3, 8]), at["mix_weight"], torch.tensor([1, 1]),
    )  # fmt: skip
    torch.testing.assert_close((2 * grad[0]).tolist(), at["gradient"], rtol=0, atol=1e-11)
    targets = method.targets[[3, 8]].tolist()
    torch.testing.assert_close(targets, at["targets"], rtol=0, atol=1e-12)


# The reference reads float32 logits as they are; 1 - <q, p> of a confident network keeps fewer
# digits of them.
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-11, 1e-12), (torch.float32, 2e-5, 2e-7)], ids=str
)
@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10, 100])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.5])
def test_loss_and_gradient_match_the_formula(share, C, stage, dtype, rtol, atol):
    generator = torch.Generator().manual_seed(C)
    task = make_task(C=C, N=64, batch_size=32)
    index = torch.randperm(64, generator=generator)[:32]
    # Scaled by 12, the predictions are as confident as late in a training.
    scale = {"early": 1.0, "late": 12.0}[stage]
    logits = scale * torch.randn(32, C, generator=generator, dtype=torch.float64)
    taught = scale * torch.randn(32, C, generator=generator, dtype=torch.float64)
    perm = torch.randperm(32, generator=generator)
    method = ELRPlus(task, beta=0.6, lam=2.0)
    if dtype == torch.float64:
        method.double()
    loss, grad, returned = one_step(
        method, 0, 5, logits.to(dtype), taught.to(dtype), task.labels[index], index, share, perm
    )
    z, memory = logits.to(dtype).double().requires_grad_(), torch.zeros(64, C, dtype=torch.float64)
    rows = plain_step(
        z, taught.to(dtype), task.labels[index], index, memory, share, perm, 0.6, 2.0, C
    )
    (expected,) = torch.autograd.grad(rows.mean(), z)

    assert loss == pytest.approx(
        float(rows.mean().detach()), rel=max(rtol, 1e-6 * (dtype == torch.float32))
    )
    torch.testing.assert_close(grad.double(), expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(method.targets.double(), memory, rtol=rtol, atol=atol)
    # A step returns the logits of the teacher, which sees the examples without mixing.
    assert torch.equal(returned, taught.to(dtype))
    assert not returned.requires_grad


def test_targets_are_not_clamped():
    """Move the targets to exactly 0 and 1 by a sure teacher; ELR's own update stops at 1e-4."""
    task = make_task(N=4, C=3, batch_size=4)
    taught = torch.full((4, 3), -50.0, dtype=torch.float64)
    taught[:, 1] = 50.0
    method = ELRPlus(task, beta=0.0).double()
    logits, index = torch.zeros(4, 3).double(), torch.arange(4)
    one_step(method, 0, 0, logits, taught, task.labels, index, 0.7, index.flip(0))

    # The other classes have a probability of exp(-100), which is about 4e-44.
    assert float((method.targets - torch.tensor([0.0, 1.0, 0.0])).abs().max()) < 1e-40


@pytest.mark.parametrize(
    ("C", "params", "weighs"),
    [(99, {}, False), (100, {}, True), (101, {}, False), (100, {"lam": 0.0}, False),
     (100, {"weigh_labels": "no"}, False), (10, {"weigh_labels": "yes"}, True)],
)  # fmt: skip
def test_labels_are_weighed_with_100_classes_or_when_asked_for(C, params, weighs):
    assert ELRPlus(make_task(C=C), **params).weighs == weighs


@pytest.mark.parametrize("weigh", ["yes", "no"])
def test_the_targets_weigh_the_mixed_labels(weigh):
    """Labels 0 and 1 mixed evenly, targets 0.9 and 0.1: the mixture becomes 0.9 and 0.1."""
    C = 100
    task = make_task(N=2, C=C, batch_size=2)
    labels, index = torch.tensor([0, 1]), torch.arange(2)
    taught = torch.full((2, C), -200.0, dtype=torch.float64)
    taught[:, 0], taught[:, 1] = math.log(0.9), math.log(0.1)
    method = ELRPlus(task, lam=0.0, weigh_labels=weigh).double()
    _, grad, _ = one_step(
        method, 0, 0, torch.zeros(2, C).double(), taught, labels, index, 0.5, torch.tensor([1, 0])
    )
    # Equal logits give p = 1/C, and the gradient of cross entropy is p less the labels.
    S = [0.9, 0.1] if weigh == "yes" else [0.5, 0.5]
    expected = torch.full((2, C), 1 / C, dtype=torch.float64)
    expected[:, :2] -= torch.tensor(S, dtype=torch.float64)

    torch.testing.assert_close(grad, expected / 2, rtol=1e-12, atol=1e-15)


def test_labels_that_the_targets_rule_out_stay_as_they_are():
    """Keep the mixture where its targets are 0 at both labels: in float32 exp(-200) is 0."""
    task = make_task(N=2, C=100, batch_size=2)
    labels, index, taught = torch.tensor([0, 1]), torch.arange(2), torch.zeros(2, 100)
    taught[:, 7] = 200.0
    method = ELRPlus(task, lam=0.0, weigh_labels="yes")
    _, grad, _ = one_step(
        method, 0, 0, torch.zeros(2, 100), taught, labels, index, 0.75, torch.tensor([1, 0])
    )
    expected = torch.full((2, 100), 0.01)
    expected[:, :2] -= torch.tensor([[0.75, 0.25], [0.25, 0.75]])

    torch.testing.assert_close(grad, expected / 2)


# ---- A training against a plain re-implementation ------------------------------------------------


def forward(weights, x):
    """Linear, batch normalisation with the batch's statistics, ReLU, Linear."""
    W1, b1, gamma, shift, W2, b2 = weights
    h = x @ W1.T + b1
    h = (h - h.mean(0)) / torch.sqrt(h.var(0, unbiased=False) + 1e-5) * gamma + shift
    return h.clamp(min=0) @ W2.T + b2


class Plain:
    """ELR+ as described, slowly and in float64: weights as lists, SGD and averages by hand."""

    def __init__(
        self,
        task,
        networks,
        *,
        beta=0.7,
        lam=3.0,
        mixup=True,
        ema=True,
        E=0.0,
        R=0.0,
        lr=0.1,
        momentum=0.9,
    ):
        self.task, self.beta, self.lam = task, beta, lam
        self.mixup, self.ema = mixup, ema
        # Steps until the decay of the averages (E) and lam (R) reach their full values.
        self.E, self.R = E, R
        self.lr, self.momentum = lr, momentum

        self.weights, self.velocity, self.memory = [], [], []
        for network in networks:
            weights = [p.detach().clone() for p in network.parameters()]
            self.weights.append(weights)
            self.velocity.append([torch.zeros_like(p) for p in weights])
            memory = torch.zeros(task.num_train, task.num_classes, dtype=torch.float64)
            self.memory.append(memory)
        self.averages = copy.deepcopy(self.weights)
        self.global_step, self.decays, self.ramps = 0, [], []

    def epoch(self, plan):
        """Train by `plan`, which has a list of (images, index, share, perm) for each network."""
        for k, steps in enumerate(plan):
            for local, (images, index, share, perm) in enumerate(steps):
                # The authors' trainer counts steps from 1.
                self.step(k, self.global_step + local + 1, images, index, share, perm)
        self.global_step += len(plan[0])

    def step(self, k, g, images, index, share, perm):
        if not self.mixup:
            share, perm = 1.0, torch.arange(len(index))
        teacher = 1 - k if len(self.weights) == 2 else 0
        taught = forward((self.averages if self.ema else self.weights)[teacher], images)
        weights = [p.clone().requires_grad_() for p in self.weights[k]]
        mixed = torch.empty_like(images)
        for b in range(len(index)):
            mixed[b] = share * images[b] + (1 - share) * images[perm[b]]
        logits = forward(weights, mixed)

        # Both ramps are exp(-5 (1 - x)^2) of the share x that is over, which ends at 1.
        r = math.exp(-5 * (1 - min(g, self.R) / self.R) ** 2) if self.R else 1.0
        rows = plain_step(
            logits, taught, self.task.labels[index], index, self.memory[k], share, perm,
            self.beta, r * self.lam, self.task.num_classes,
        )  # fmt: skip
        grads = torch.autograd.grad(rows.mean(), weights)
        d = min(1 - 1 / (g + 1), 0.997)
        if self.E:
            d = 0.997 * math.exp(-5 * (1 - min(g + 1, self.E) / self.E) ** 2)

        for p, v, average, grad in zip(
            self.weights[k], self.velocity[k], self.averages[k], grads, strict=True
        ):
            v.mul_(self.momentum).add_(grad)
            p.sub_(self.lr * v)
            average.copy_(d * average + (1 - d) * p)

        self.decays.append(d)
        self.ramps.append(r)


def plan_of(method, run, epoch):
    """Return what each network sees in the epoch, as plain tensors, with the method's own draws."""
    plan = [[] for _ in run.networks]
    for batch, k, _, share, perm in method.batches(run, epoch):
        plan[k].append((batch.view(k), batch.index, share, perm))
    return plan


def assert_close(got, expected, rtol, atol):
    """Check that two sequences of tensors are equally long and close."""
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("C", "params"),
    [*((10, params) for params in SWITCHES), *((100, SWITCHES[i]) for i in (0, 2, -1))],
    ids=str,
)
def test_a_training_equals_a_plain_one(C, params):
    # Five steps an epoch for each network, so ten in all.
    task = make_task(N=40, C=C, epochs=2, batch_size=8)
    method, run = start(task, params, double=True)
    plain = Plain(
        task,
        run.networks,
        beta=params.get("beta", 0.7),
        lam=params.get("lam", 3.0),
        mixup=params.get("mixup_a", 1.0) > 0,
        ema=params.get("ema", True),
        # The share of ten steps. The default, 40,000 of the authors' 70,400 steps, gives 5.7.
        E={0.3: 3, 0.0: 0}.get(params.get("ema_ramp_share"), 6),
        R={0.8: 8}.get(params.get("lam_ramp_share"), 0),
    )
    steps, decays, decay = [], [], method.decay

    def recorded(step):
        steps.append(step)
        decays.append(decay(step))
        return decays[-1]

    method.decay = recorded
    expected_steps = []

    for epoch in range(2):
        run.begin_epoch(epoch)
        plain.epoch(plan_of(method, run, epoch))
        lab.train(method, run, [epoch])

        for k, network in enumerate(run.networks):
            # Without averages a network's copy follows its weights.
            taught = plain.averages[k] if plain.ema else plain.weights[k]
            targets = method.targets if k == 0 else method.targets1
            assert_close(network.parameters(), plain.weights[k], rtol=1e-9, atol=1e-10)
            assert_close(method.teachers[k].parameters(), taught, rtol=1e-9, atol=1e-10)
            assert_close([targets], [plain.memory[k]], rtol=1e-9, atol=1e-10)
            # Both networks of an epoch count its steps from the same start.
            expected_steps += range(5 * epoch, 5 * epoch + 5)

    assert steps == expected_steps
    assert plain.global_step == 10
    if plain.ema:
        assert decays == pytest.approx(plain.decays, rel=1e-12)
    else:
        assert decays == [0.0] * len(steps)


def test_without_its_parts_it_is_elr():
    """Only the clamp in the update of the targets differs, and it acts on sure predictions only."""
    task = make_task(N=40, batch_size=8)
    bare, run = start(task, OFF, double=True)
    elr, elr_run = ELR(task).double(), in_float64(make_run(task))
    lab.train(bare, run, range(2))
    lab.train(elr, elr_run, range(2))

    # No prediction is near the clamp at 1e-4.
    assert (run.predict_train(run.networks[0]).softmax(1) > 2e-4).all()
    torch.testing.assert_close(bare.targets, elr.targets, rtol=1e-10, atol=1e-12)
    mine, theirs = run.networks[0].parameters(), elr_run.networks[0].parameters()
    assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_without_mixup_and_regulariser_it_is_an_ensemble():
    """Weights, orders of batches and views are the same, so that like is compared with like."""
    task = make_task(N=40, batch_size=8)
    method, run = start(task, {"mixup_a": 0.0, "lam": 0.0}, double=True)
    other = in_float64(make_run(task, 2))
    lab.train(method, run, range(3))
    lab.train(Ensemble(task), other, range(3))

    for one, two in zip(run.networks, other.networks, strict=True):
        assert_close(one.parameters(), two.parameters(), rtol=1e-10, atol=1e-12)


# ---- The plan ------------------------------------------------------------------------------------


def steps_of(method, run, epoch):
    """Return (network, step, index, labels, share, perm) of each step, as numbers and lists."""
    steps = []
    for batch, k, step, share, perm in method.batches(run, epoch):
        steps.append((k, step, batch.index.tolist(), batch.labels.tolist(), share, perm.tolist()))
    return steps


def test_each_network_sees_every_example_once_with_its_one_label():
    task = make_task(N=40, batch_size=16)
    method, run = start(task)
    orders, all_shares = set(), set()

    for epoch in range(2):
        run.begin_epoch(epoch)
        steps = steps_of(method, run, epoch)
        # 40 examples are three steps a network; both networks count from the same step.
        first = 3 * epoch
        assert [k for k, *_ in steps] == [0, 0, 0, 1, 1, 1]
        assert [step for _, step, *_ in steps] == 2 * [first, first + 1, first + 2]

        for k in range(2):
            order, shares = [], []
            for _, _, index, labels, share, perm in steps[3 * k : 3 * k + 3]:
                assert labels == task.labels[index].tolist()
                assert sorted(perm) == list(range(len(index)))
                assert 0.5 <= share <= 1
                order += index
                shares.append(share)

            assert sorted(order) == list(range(40))
            orders.add(tuple(order))
            all_shares.add(tuple(shares))
            # The first network has the order that every method has.
            if k == 0:
                assert order == run.order().tolist()

        assert steps_of(method, run, epoch) == steps

    # Each network of each epoch has its own draws.
    assert len(orders) == 4
    assert len(all_shares) == 4


def test_shares_are_beta_draws_above_a_half():
    task = make_task(N=4000, batch_size=2)
    for a in (1.0, 4.0):
        method, run = start(task, {"mixup_a": a, "networks": 1})
        shares = np.array([share for *_, share, _ in method.batches(run, 0)])
        drawn = np.random.default_rng(0).beta(a, a, 200_000)
        assert shares.mean() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.012)
        assert shares.min() >= 0.5

    method, run = start(task, {"mixup_a": 0.0})
    assert {share for *_, share, _ in method.batches(run, 0)} == {1.0}


@pytest.mark.parametrize(
    ("N", "sizes"), [(33, [16, 17]), (32, [16, 16]), (34, [16, 16, 2]), (1, [1])]
)
def test_a_trailing_batch_of_one_example_joins_the_one_before(N, sizes):
    task = make_task(N=N, batch_size=16)
    method, run = start(task)
    for epoch in range(2):
        steps = steps_of(method, run, epoch)
        first = epoch * len(sizes)
        assert [len(index) for _, _, index, *_ in steps] == 2 * sizes
        assert [step for _, step, *_ in steps] == 2 * list(range(first, first + len(sizes)))

    # Batch normalisation cannot train on a single example.
    if N > 1:
        lab.train(method, run, range(2))
        for network in run.networks:
            for p in network.parameters():
                assert p.isfinite().all()


def test_the_second_network_has_its_own_view_and_teachers_see_unmixed_examples():
    task = make_task(N=40, batch_size=16)
    method, run = start(task)
    seen = []
    for module in (*run.networks, *method.teachers):
        module.register_forward_pre_hook(lambda module, x: seen.append((module, x[0])))

    for item in method.batches(run, 0):
        batch, k, _, share, perm = item
        seen.clear()
        method.training_step(run, *item)

        images = batch.images if k == 0 else batch.view(1)
        (network, mixed), (teacher, unmixed) = seen
        assert network is run.networks[k]
        assert teacher is method.teachers[1 - k]
        assert torch.equal(unmixed, images)
        torch.testing.assert_close(mixed, share * images + (1 - share) * images[perm])

    assert not torch.equal(batch.view(1), batch.images)


# ---- The averaged copies -------------------------------------------------------------------------


def authors_task():
    return make_task(N=352 * 128, epochs=200, batch_size=128)


def test_the_ramp_of_the_decay_is_the_authors():
    method = ELRPlus(authors_task())
    assert method.ema_ramp == 40_000
    # The first two values are rounded to their last digit.
    for step, decay, rounding in (
        (1, 0.0067, 5e-5),
        (17_600, 0.21, 5e-3),
        # The authors' argument is the step, counted from 1, plus 1.
        (39_999, 0.997, 0),
        (60_000, 0.997, 0),
    ):
        assert method.decay(step - 1) == pytest.approx(decay, abs=rounding)

    assert method.decay(39_997) < 0.997
    assert method.decay(0) == 0.997 * math.exp(-5 * (1 - 2 / 40_000) ** 2)
    # A fifth of the length, a fifth of the ramp.
    assert ELRPlus(make_task(N=352 * 128, epochs=40, batch_size=128)).ema_ramp == 8_000

    cifar100 = make_task(N=352 * 128, epochs=250, batch_size=128)
    share = 40_000 / (250 * 352)
    method = ELRPlus(cifar100, ema_ramp_share=share, lam_ramp_share=share)

    assert (method.ema_ramp, method.lam_ramp) == (40_000, 40_000)
    assert ELRPlus(cifar100).lam_ramp == 0


def test_without_a_ramp_the_average_is_the_mean_of_all_steps_at_first():
    """As the authors have it for Clothing1M and WebVision, where `ema_update` is false."""
    method = ELRPlus(make_task(), ema_ramp_share=0.0)
    assert [method.decay(step) for step in (0, 1, 2)] == pytest.approx([1 / 2, 2 / 3, 3 / 4])
    assert method.decay(330) < 0.997
    assert method.decay(333) == 0.997
    # A ramp is never rounded away.
    assert ELRPlus(make_task(N=16, batch_size=16, epochs=1), ema_ramp_share=0.01).ema_ramp == 1


def test_the_ramp_of_lam_weighs_the_regulariser_alone():
    # Ten steps, of which the ramp takes five.
    task = make_task(N=16, epochs=10, batch_size=16)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 10, generator=generator, dtype=torch.float64)
    taught = torch.randn(16, 10, generator=generator, dtype=torch.float64)
    rest = (logits, taught, task.labels, torch.arange(16), 0.8, torch.arange(16).flip(0))

    def loss(step, **params):
        return one_step(ELRPlus(task, **params).double(), 0, step, *rest)[0]

    ce, full = loss(0, lam=0.0), loss(0)
    for step, factor in (
        # The authors count the first step as 1.
        (0, math.exp(-5 * 0.64)),
        (2, math.exp(-5 * 0.16)),
        (3, math.exp(-5 * 0.04)),
        (4, 1.0),
        (9, 1.0),
    ):
        assert loss(step, lam_ramp_share=0.5) == pytest.approx(ce + factor * (full - ce), rel=1e-12)


def test_copies_keep_to_training_mode_and_batch_statistics_of_their_own():
    task = make_task()
    method, run = start(task)
    # Training calls these two before an epoch.
    method.eval()
    method.train()
    for network in run.networks:
        network[1].running_mean.fill_(1e6)
    for item in method.batches(run, 0):
        method.training_step(run, *item)

    for teacher in method.teachers:
        assert teacher.training
        # The mean is one of the copy's batches. An average of the network's 1e6 would be larger.
        assert teacher[1].running_mean.abs().max() < 10
        for p in teacher.parameters():
            assert not p.requires_grad


def test_without_averaging_the_network_itself_teaches_and_is_not_disturbed():
    """Its batch statistics are of its own batches alone, as if it taught nobody."""
    method, run = start(make_task(), {"ema": False})
    for item in method.batches(run, 0):
        batch, k, *_ = item
        other = run.networks[1 - k]
        before = copy.deepcopy(other)
        returned = method.training_step(run, *item)
        for a, b in zip(other.buffers(), before.buffers(), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(returned, before(batch.view(k)))


# ---- State, prediction, arguments ----------------------------------------------------------------


def test_memories_are_two_and_start_at_zero():
    task = make_task()
    method, run = start(task)
    assert not method.targets.any()
    assert not method.targets1.any()

    lab.train(method, run, range(3))
    # Probabilities sum to one, so after three updates the targets sum to 1 - beta^3.
    for targets in (method.targets, method.targets1):
        torch.testing.assert_close(targets.sum(1), torch.full((40,), 1 - 0.7**3))
    assert not torch.allclose(method.targets, method.targets1, atol=1e-3)
    assert "targets1" not in dict(ELRPlus(task, networks=1).named_buffers())
    assert ELRPlus(task, networks=1).num_networks == 1
    assert (ELRPlus.num_networks, method.num_networks, method.told) == (1, 2, ())


def test_the_mean_of_the_networks_raw_logits_predicts():
    task = make_task()
    for networks in (1, 2):
        method, run = start(task, {"networks": networks})
        lab.train(method, run, range(1))
        images = run.images.rows[:7]
        expected = sum(network.eval()(images) for network in run.networks) / networks
        torch.testing.assert_close(method.predict(run, images), expected)


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.is_nonzero.default,
            torch.ops.aten._to_copy.default,
        ), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("C", [10, 100])
def test_a_step_does_not_make_the_host_wait(C):
    method, run = start(make_task(C=C))
    for item in method.batches(run, 0):
        with NoWaiting():
            method.training_step(run, *item)
