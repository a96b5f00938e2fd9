"""ELR+: the authors' numbers, the formula, a plain re-implementation, switches, plan and ramps."""

import copy
import itertools
import math

import lab
import numpy as np
import pytest
import torch
from lab import in_float64, make_run, make_task
from official import needs_vectors, official_values
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
    outputs = [logits if i == k else taught for i in range(2)]
    run = make_run(
        method.task, networks=[Constant(values) for values in outputs[: method.num_networks]]
    )
    method.prepare(run)
    with torch.no_grad():
        method.teachers[k - 1].logits.copy_(taught)
    losses = []
    keep, run.backward_step = (
        run.backward_step,
        lambda loss, *names, **way: (
            losses.append((loss.item(), names)),
            keep(loss, *names, **way),
        ),
    )
    images = torch.zeros(len(index), 1)
    batch = Batch(images, labels, index, lambda index, view: images)
    returned = method.training_step(run, batch, k, step, share, perm)

    assert [names for _, names in losses] == [(f"network{k}",)]
    return losses[0][0], run.networks[k].logits.grad, returned


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
        if C == 100:
            S = S * q / (S * q).sum()
        p = softmax(logits[b])
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
        own, other = (
            (method.targets, method.targets1) if k == 0 else (method.targets1, method.targets)
        )
        torch.testing.assert_close(own, at["targets_after"], rtol=0, atol=1e-12)
        assert not other.any()


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
    scale = {"early": 1.0, "late": 12.0}[stage]
    logits, taught = (
        scale * torch.randn(32, C, generator=generator, dtype=torch.float64) for _ in range(2)
    )
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
    assert torch.equal(returned, taught.to(dtype))  # the teacher's word on the unmixed examples
    assert not returned.requires_grad


def test_targets_are_not_clamped():
    """Move the targets to exactly 0 and 1 by a sure teacher; ELR's own update stops at 1e-4."""
    task = make_task(N=4, C=3, batch_size=4)
    taught = torch.full((4, 3), -50.0, dtype=torch.float64)
    taught[:, 1] = 50.0
    method = ELRPlus(task, beta=0.0).double()
    one_step(
        method,
        0,
        0,
        torch.zeros(4, 3).double(),
        taught,
        task.labels,
        torch.arange(4),
        0.7,
        torch.arange(4).flip(0),
    )

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
        self.task, self.beta, self.lam, self.mixup, self.ema, self.E, self.R = (
            task,
            beta,
            lam,
            mixup,
            ema,
            E,
            R,
        )
        self.lr, self.momentum = lr, momentum
        self.weights = [[p.detach().clone() for p in network.parameters()] for network in networks]
        self.averages = copy.deepcopy(self.weights)
        self.velocity = [[torch.zeros_like(p) for p in weights] for weights in self.weights]
        self.memory = [
            torch.zeros(task.num_train, task.num_classes, dtype=torch.float64) for _ in networks
        ]
        self.global_step, self.decays, self.ramps = 0, [], []

    def epoch(self, plan):
        """`plan`: for each network its list of (images, index, share, perm)."""
        for k, steps in enumerate(plan):
            for local, (images, index, share, perm) in enumerate(steps):
                self.step(k, self.global_step + local, images, index, share, perm)
        self.global_step += len(plan[0])

    def step(self, k, g, images, index, share, perm):
        if not self.mixup:
            share, perm = 1.0, torch.arange(len(index))
        teacher = 1 - k if len(self.weights) == 2 else 0
        taught = forward((self.averages if self.ema else self.weights)[teacher], images)
        weights = [p.clone().requires_grad_() for p in self.weights[k]]
        mixed = torch.stack(
            [share * images[b] + (1 - share) * images[perm[b]] for b in range(len(index))]
        )
        logits = forward(weights, mixed)
        r = math.exp(-5 * (1 - min(g, self.R) / self.R) ** 2) if self.R else 1.0
        rows = plain_step(
            logits, taught, self.task.labels[index], index, self.memory[k], share, perm,
            self.beta, r * self.lam, self.task.num_classes,
        )  # fmt: skip
        grads = torch.autograd.grad(rows.mean(), weights)
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


@pytest.mark.parametrize(
    ("C", "params"),
    [*((10, params) for params in SWITCHES), *((100, SWITCHES[i]) for i in (0, 2, -1))],
    ids=str,
)
def test_a_training_equals_a_plain_one(C, params):
    task = make_task(
        N=40, C=C, epochs=2, batch_size=8
    )  # five steps an epoch for each network: ten and twenty of all
    method, run = start(task, params, double=True)
    plain = Plain(
        task,
        run.networks,
        beta=params.get("beta", 0.7),
        lam=params.get("lam", 3.0),
        mixup=params.get("mixup_a", 1.0) > 0,
        ema=params.get("ema", True),
        E={0.3: 3}.get(params.get("ema_ramp_share"), 6),  # of ten steps; 40,000 of 70,400 are 5.7
        R={0.8: 8}.get(params.get("lam_ramp_share"), 0),
    )
    steps, decays = [], []
    keep, method.decay = (
        method.decay,
        lambda step: (steps.append(step), decays.append(keep(step)))[1] or decays[-1],
    )

    for epoch in range(2):
        run.begin_epoch(epoch)
        plain.epoch(plan_of(method, run, epoch))
        lab.train(method, run, [epoch])
        for k, network in enumerate(run.networks):
            pairs = itertools.chain(
                zip(network.parameters(), plain.weights[k], strict=True),
                zip(
                    method.teachers[k].parameters(),
                    (plain.averages if plain.ema else plain.weights)[k],
                    strict=True,
                ),
                [((method.targets, getattr(method, "targets1", None))[k], plain.memory[k])],
            )
            for got, expected in pairs:
                torch.testing.assert_close(got.detach(), expected, rtol=1e-9, atol=1e-10)

    networks = len(run.networks)
    assert steps == [epoch * 5 + i for epoch in range(2) for _ in range(networks) for i in range(5)]
    assert plain.global_step == 10
    assert decays == (pytest.approx(plain.decays, rel=1e-12) if plain.ema else [0.0] * len(steps))


def test_without_its_parts_it_is_elr():
    """Only the clamp in the update of the targets differs, and it acts on sure predictions only."""
    task = make_task(N=40, batch_size=8)
    bare, run = start(task, OFF, double=True)
    elr, elr_run = ELR(task).double(), in_float64(make_run(task))
    lab.train(bare, run, range(2))
    lab.train(elr, elr_run, range(2))

    assert (run.predict_train(run.networks[0]).softmax(1) > 2e-4).all()
    torch.testing.assert_close(bare.targets, elr.targets, rtol=1e-10, atol=1e-12)
    for a, b in zip(run.networks[0].parameters(), elr_run.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_without_mixup_and_regulariser_it_is_an_ensemble():
    """Weights, orders of batches and views are the same, so that like is compared with like."""
    task = make_task(N=40, batch_size=8)
    method, run = start(task, {"mixup_a": 0.0, "lam": 0.0}, double=True)
    other = in_float64(make_run(task, 2))
    lab.train(method, run, range(3))
    lab.train(Ensemble(task), other, range(3))

    for one, two in zip(run.networks, other.networks, strict=True):
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# ---- The plan ------------------------------------------------------------------------------------


def test_each_network_sees_every_example_once_with_its_one_label():
    task = make_task(N=40, batch_size=16)
    method, run = start(task)
    seen = {}

    for epoch in range(2):
        run.begin_epoch(epoch)
        items = list(method.batches(run, epoch))
        assert [k for _, k, *_ in items] == [0, 0, 0, 1, 1, 1]
        assert [step for _, _, step, *_ in items] == [3 * epoch + i for i in (0, 1, 2, 0, 1, 2)]
        for k in range(2):
            own = [item for item in items if item[1] == k]
            index = torch.cat([batch.index for batch, *_ in own])
            assert index.sort().values.tolist() == list(range(40))
            labels = torch.cat([batch.labels for batch, *_ in own])
            assert torch.equal(labels, task.labels[index])
            seen[epoch, k] = index.tolist(), [share for *_, share, _ in own]
            for batch, _, _, share, perm in own:
                assert perm.sort().values.tolist() == list(range(len(batch)))
                assert 0.5 <= share <= 1
        assert (
            seen[epoch, 0][0] == run.order().tolist()
        )  # the first network's is every method's order
        again = [
            (batch.index.tolist(), share, perm.tolist())
            for batch, _, _, share, perm in method.batches(run, epoch)
        ]
        assert again == [
            (batch.index.tolist(), share, perm.tolist()) for batch, _, _, share, perm in items
        ]

    assert len({tuple(order) for order, _ in seen.values()}) == 4
    assert len({tuple(shares) for _, shares in seen.values()}) == 4


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
        items = list(method.batches(run, epoch))
        assert [len(batch) for batch, *_ in items] == 2 * sizes
        assert [step for _, _, step, *_ in items] == 2 * [
            epoch * len(sizes) + i for i in range(len(sizes))
        ]

    if N > 1:
        lab.train(method, run, range(2))
        assert all(p.isfinite().all() for network in run.networks for p in network.parameters())


def test_the_second_network_has_its_own_view_and_teachers_see_unmixed_examples():
    task = make_task(N=40, batch_size=16)
    method, run = start(task)
    seen = []

    for name, module in [("network", n) for n in run.networks] + [
        ("teacher", t) for t in method.teachers
    ]:
        which = sum(1 for label, *_ in seen if label == name)
        module.register_forward_pre_hook(
            lambda m, x, name=name, which=which: seen.append((name, m, x[0]))
        )

    for item in method.batches(run, 0):
        batch, k, _, share, perm = item
        seen.clear()
        method.training_step(run, *item)
        images = batch.images if k == 0 else batch.view(1)
        (first, network, mixed), (second, teacher, unmixed) = seen
        assert (first, second) == ("network", "teacher")
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
    for step, decay in ((1, 0.0067), (17_600, 0.21), (40_000, 0.997), (60_000, 0.997)):
        assert method.decay(step - 1) == pytest.approx(
            decay, abs={1: 5e-5, 17_600: 5e-3}.get(step, 0)
        )

    assert method.decay(39_998) < 0.997
    # A fifth of the length, a fifth of the ramp.
    assert ELRPlus(make_task(N=352 * 128, epochs=40, batch_size=128)).ema_ramp == 8_000

    cifar100 = make_task(N=352 * 128, epochs=250, batch_size=128)
    share = 40_000 / (250 * 352)
    method = ELRPlus(cifar100, ema_ramp_share=share, lam_ramp_share=share)

    assert (method.ema_ramp, method.lam_ramp) == (40_000, 40_000)
    assert ELRPlus(cifar100).lam_ramp == 0
    assert ELRPlus(make_task(), ema_ramp_share=0.0).decay(0) == 0.997


def test_the_ramp_of_lam_weighs_the_regulariser_alone():
    task = make_task(N=16, epochs=10, batch_size=16)  # ten steps, of which the ramp takes five
    generator = torch.Generator().manual_seed(0)
    logits, taught = (
        torch.randn(16, 10, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    rest = (logits, taught, task.labels, torch.arange(16), 0.8, torch.arange(16).flip(0))

    def loss(step, **params):
        return one_step(ELRPlus(task, **params).double(), 0, step, *rest)[0]

    ce, full = loss(0, lam=0.0), loss(0)
    for step, factor in (
        (0, math.exp(-5)),
        (2, math.exp(-5 * 0.36)),
        (4, math.exp(-5 * 0.04)),
        (5, 1.0),
        (9, 1.0),
    ):
        assert loss(step, lam_ramp_share=0.5) == pytest.approx(ce + factor * (full - ce), rel=1e-12)


def test_copies_keep_to_training_mode_and_batch_statistics_of_their_own():
    task = make_task()
    method, run = start(task)
    method.eval()
    method.train()  # as the harness does before an epoch
    for network in run.networks:
        network[1].running_mean.fill_(1e6)
    for item in method.batches(run, 0):
        method.training_step(run, *item)

    for teacher in method.teachers:
        assert teacher.training
        assert (
            teacher[1].running_mean.abs().max() < 10
        )  # its own batches', not an average of the network's
        assert not any(p.requires_grad for p in teacher.parameters())


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
