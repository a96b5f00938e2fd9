"""UNICON: its split and plan, its targets, and six epochs against a plain re-implementation."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64, make_logits

from nlbench.methods.unicon import UNICON
from nlbench.ops import unicon as parts


def softmax_row(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def plain_divergence(p, y):
    """Return the Jensen-Shannon divergence of one prediction and one label."""
    total = 0.0
    for k, value in enumerate(p):
        own = 1.0 if k == y else 0.0
        middle = (value + own) / 2 + 1e-10
        total += 0.5 * value * math.log((value + 1e-10) / middle)
        total += 0.5 * own * math.log((own + 1e-10) / middle)
    return total


# ---- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("C", [2, 10])
def test_the_divergence_equals_loops(C, stage):
    p = make_logits(12, C, stage).softmax(1)
    labels = torch.arange(12) % C
    found = parts.label_divergence(p, labels).tolist()
    expected = [
        plain_divergence(row, y) for row, y in zip(p.tolist(), labels.tolist(), strict=True)
    ]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert max(found) <= math.log(2) + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_targets_equal_loops(temperature):
    views = [make_logits(4, 3, "early", seed) for seed in range(4)]
    own, other = (torch.nn.Linear(3, 3).double() for _ in range(2))
    labels = torch.tensor([2, 0, 1, 1])
    d = torch.tensor([0.1, 0.499, 0.5, 0.6], dtype=torch.float64)
    found = parts.targets(own, other, views[:2], views[2:], labels, d[:, None], temperature)

    def rows(network, x):
        return [softmax_row(z) for z in network(x).tolist()]

    expected = [[], []]
    for b, w in enumerate([1.0, 1.0, 0.5, 0.4]):
        p, q = (rows(own, x)[b] for x in views[:2])
        four = [rows(network, x)[b] for network in (own, other) for x in views[2:]]
        refined = [(1 - w) * (p[k] + q[k]) / 2 + w * (k == int(labels[b])) for k in range(3)]
        guess = [sum(row[k] for row in four) / 4 for k in range(3)]
        for kind, soft in enumerate((refined, guess)):
            powers = [v ** (1 / temperature) for v in soft]
            expected[kind].append([v / sum(powers) for v in powers])
    refined, guesses = expected
    wanted = torch.tensor(refined * 2 + guesses * 2, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("epochs", "params", "warmup", "ramp"),
    [
        (351, {}, 10, 16.0),
        (351, {"warmup_share": 30 / 351}, 30, 16.0),
        (40, {}, 1, 16 * 40 / 351),
        (6, {"warmup_share": 0.0, "ramp_share": 0.5}, 0, 3.0),
    ],
)
def test_schedule(epochs, params, warmup, ramp):
    method = UNICON(lab.make_task(epochs=epochs), **params)
    assert method.warmup == warmup
    assert method.ramp == pytest.approx(ramp)


def test_constants():
    method = UNICON(lab.make_task())
    assert (method.lambda_u, method.lambda_c, method.alpha) == (30.0, 0.025, 4.0)
    assert (method.temperature, method.contrast_temperature) == (0.5, 0.05)


def test_the_projection_has_two_layers_and_128_outputs():
    network = lab.small_network(lab.make_task()).double()
    head = parts.projection(network, 10)
    assert [tuple(p.shape) for p in head.parameters()] == [(16, 16), (16,), (128, 16), (128,)]
    x = torch.randn(5, 16, dtype=torch.float64)
    torch.testing.assert_close(head(x), head[2](head[0](x).clamp(min=0)))
    without = torch.nn.Sequential(lab.Table(torch.zeros(3, 7)))
    assert parts.projection(without, 7)[0].in_features == 7


def test_the_split_is_balanced_and_a_small_class_is_labelled_as_a_whole():
    # By hand: the network predicts each label with the probability that is given here.
    labels = torch.tensor([0] * 8 + [1] * 3 + [2] * 1)
    given = [0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.1, 0.2, 0.15, 0.05]
    task = lab.make_task(N=12, C=3)
    task.labels = labels
    method, run = UNICON(task, warmup_share=0.0), lab.make_run(task, 2)
    logits = torch.zeros(12, 3)
    for i, p in enumerate(given):
        logits[i] = math.log((1 - p) / 2)
        logits[i, labels[i]] = math.log(p)
    run.predict_train = lambda network, part: logits
    method.on_epoch_start(run, 0)

    # Eight of twelve are below the mean: two of each class. Class 2 has but one.
    assert method.share == pytest.approx(8 / 12)
    assert method.labelled.nonzero().flatten().tolist() == [0, 1, 9, 10, 11]
    for i, p in enumerate(given):
        row = [(1 - p) / 2] * 3
        row[labels[i]] = p
        assert float(method.divergence[i]) == pytest.approx(
            plain_divergence(row, labels[i]), rel=1e-5
        )
    trust = method.own_labels()
    assert float(trust[0]) == pytest.approx(1 - float(method.divergence[0]) / math.log(2), rel=1e-6)


def test_unlabelled_batches_are_as_large_as_their_share_asks():
    task = lab.make_task(N=64, C=4)
    method, run = UNICON(task, warmup_share=1 / 6, ramp_share=0.5), lab.make_run(task, 2)
    method.labelled.copy_(torch.arange(64) < 25)
    method.share = 0.75
    run.begin_epoch(2)
    steps = list(method.batches(run, 2))

    assert [step[0] for step in steps] == [0, 0, 1, 1]
    for half in (steps[:2], steps[2:]):
        assert sorted(i for _, x, *_ in half for i in x.index.tolist()) == list(range(25))
        # 16 / (2 * 0.75) = 10.67.
        assert [len(x) for _, x, *_ in half] == [16, 9]
        assert [len(u) for _, _, u, *_ in half] == [10, 10]
        # The ramp has run for an epoch of three; 25 // 16 + 1 steps are an epoch.
        assert [lam for *_, lam, _ in half] == pytest.approx([10.0, 15.0])
    assert steps[0][1].index.tolist() != steps[2][1].index.tolist()


@pytest.mark.parametrize("labelled", [0, 1, 39, 40])
def test_a_split_without_two_sides_is_an_epoch_of_warm_up(labelled):
    task = lab.make_task()
    method, run = UNICON(task, warmup_share=0.0), lab.make_run(task, 2)
    method.labelled.copy_(torch.arange(40) < labelled)
    steps = list(method.batches(run, 3))
    assert [len(step) for step in steps] == [2] * 6
    for i in range(2):
        seen = [k for step in steps for k in step[1].index.tolist() if step[0] == i]
        assert sorted(seen) == list(range(40))


def test_predicts_by_summed_logits():
    task = lab.make_task()
    run, images = lab.make_run(task, 2), torch.randn(5, 6)
    expected = sum(network.eval()(images) for network in run.networks)
    torch.testing.assert_close(UNICON(task).predict(run, images), expected)


# ---- A whole training ----------------------------------------------------------------------------


class Plain:
    """UNICON from its formulas, example by example; only the streams of draws are shared."""

    def __init__(self, method, run, *, penalty):
        self.run, self.penalty = run, penalty
        self.networks = copy.deepcopy(run.networks)
        self.heads = copy.deepcopy(method.projections)
        self.optimisers = []
        for network, head in zip(self.networks, self.heads, strict=True):
            weights = [*network.parameters(), *head.parameters()]
            self.optimisers.append(torch.optim.SGD(weights, lr=0.1, momentum=0.9))

    def draws(self, name):
        seed = int(torch.randint(2**62, (), generator=self.run.generator(name)))
        return np.random.default_rng(seed)

    def rows(self, network, images):
        with torch.no_grad():
            return [softmax_row(z) for z in network(images).tolist()]

    def split(self):
        labels, C = self.run.task.labels.tolist(), self.run.task.num_classes
        first, second = (self.rows(net.eval(), self.run.images.rows) for net in self.networks)
        self.d = []
        for p, q, y in zip(first, second, labels, strict=True):
            self.d.append(plain_divergence([(a + b) / 2 for a, b in zip(p, q, strict=True)], y))
        mean = sum(self.d) / len(self.d)
        below = sum(d < mean for d in self.d)
        self.S, self.labelled = below / len(self.d), set()
        for k in range(C):
            members = sorted((i for i, y in enumerate(labels) if y == k), key=lambda i: self.d[i])
            self.labelled |= set(members[: int(below / C)])

    def epoch(self, epoch, warmup, ramp):
        N, B = self.run.task.num_train, self.run.task.batch_size
        if epoch >= warmup:
            self.split()
        for i in range(2):
            rng, mixing = self.draws(f"plan{i}"), self.draws(f"mix{i}")
            order = self.run.order().numpy()
            if i == 1:
                order = order[rng.permutation(N)]
            if epoch < warmup:
                for start in range(0, N, B):
                    self.warm_step(i, self.run.batch(torch.from_numpy(order[start : start + B])))
                continue

            given = [k for k in order.tolist() if k in self.labelled]
            waiting = [k for k in order.tolist() if k not in self.labelled]
            size, queue = int(B / (2 * self.S)), []
            pieces = [given[s : s + B] for s in range(0, len(given), B)]
            if len(pieces[-1]) == 1 and len(pieces) > 1:
                pieces[-2:] = [pieces[-2] + pieces[-1]]
            for step, piece in enumerate(pieces):
                if not queue:
                    if step:
                        waiting = [waiting[k] for k in rng.permutation(len(waiting))]
                    queue = [waiting[s : s + size] for s in range(0, len(waiting), size)]
                    if len(queue) > 1 and len(queue[-1]) == 1:
                        queue[-2:] = [queue[-2] + queue[-1]]
                position = epoch + step / (len(given) // B + 1)
                lam = 30.0 * min(max((position - warmup) / ramp, 0.0), 1.0)
                x, u = (
                    self.run.batch(torch.tensor(piece)),
                    self.run.batch(torch.tensor(queue.pop(0))),
                )
                self.mixed_step(i, x, u, lam, mixing)

    def warm_step(self, i, batch):
        z = self.networks[i].train()(batch.images)
        p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
        loss = 0.0
        for b, y in enumerate(batch.labels.tolist()):
            loss = loss - torch.log(p[b, y]) / len(batch)
            if self.penalty:
                loss = loss + (p[b] * torch.log(p[b])).sum() / len(batch)
        self.step(i, loss)

    def sharp(self, p):
        squares = [v * v for v in p]
        return [v / sum(squares) for v in squares]

    def mixed_step(self, i, x, u, lam, rng):
        own, other = self.networks[i].train(), self.networks[1 - i].eval()
        four = [self.rows(net, u.view(k)) for net in (own, other) for k in (0, 1)]
        guesses = [
            self.sharp([sum(c) / 4 for c in zip(*rows, strict=True)])
            for rows in zip(*four, strict=True)
        ]
        two = [self.rows(own, x.view(k)) for k in (0, 1)]
        refined = []
        for p, q, k, y in zip(*two, x.index.tolist(), x.labels.tolist(), strict=True):
            # The method keeps d in float32.
            d = float(np.float32(self.d[k]))
            w = 1.0 if d < 0.5 else 1 - d
            mean = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
            refined.append(self.sharp([w * (c == y) + (1 - w) * v for c, v in enumerate(mean)]))

        projected = []
        for k in (0, 1):
            first, _, second = self.heads[i]
            features = own[:-1](u.strong(k))
            hidden = features @ first.weight.T + first.bias
            projected.append(hidden.clamp(min=0) @ second.weight.T + second.bias)
        z = torch.cat(projected)
        z = z / (z**2).sum(1, keepdim=True).sqrt()
        e, U = torch.exp(z @ z.T / 0.05), len(u)
        contrast = 0.0
        for a in range(2 * U):
            partner = (a + U) % (2 * U)
            contrast = contrast - torch.log(e[a, partner] / (e[a].sum() - e[a, a])) / (2 * U)

        inputs = torch.cat([x.strong(0), x.strong(1), u.strong(0), u.strong(1)])
        targets = torch.tensor(refined * 2 + guesses * 2, dtype=torch.float64)
        share = rng.beta(4.0, 4.0)
        share, perm = max(share, 1 - share), rng.permutation(len(inputs))
        logits = own(share * inputs + (1 - share) * inputs[perm])
        mixed = share * targets + (1 - share) * targets[perm]
        p, n = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True), 2 * len(x)
        C = p.shape[1]
        ce = -(mixed[:n] * torch.log(p[:n])).sum() / n
        squared = ((p[n:] - mixed[n:]) ** 2).sum() / (2 * U * C)
        uniform = (torch.log(1 / C / p.mean(0)) / C).sum()
        self.step(i, ce + lam * squared + 0.025 * contrast + uniform)

    def step(self, i, loss):
        self.optimisers[i].zero_grad()
        loss.backward()
        self.optimisers[i].step()


@pytest.mark.parametrize("penalty", [False, True])
def test_six_epochs_equal_a_plain_reimplementation(penalty):
    task = lab.make_task(N=66, C=4, epochs=6)
    run = in_float64(lab.make_run(task, 2, images=hinted(task)))
    method = UNICON(task, warmup_share=2 / 6, ramp_share=0.5, penalty=penalty)
    torch.manual_seed(0)
    method.prepare(run)
    plain = Plain(method, run, penalty=penalty)

    for epoch in range(6):
        lab.train(method, run, [epoch])
        plain.epoch(epoch, 2, 3.0)
        if epoch >= 2:
            assert set(method.labelled.nonzero().flatten().tolist()) == plain.labelled
            assert method.divergence.tolist() == pytest.approx(plain.d, rel=1e-7)
            assert method.share == plain.S
        for ours, theirs in ((run.networks, plain.networks), (method.projections, plain.heads)):
            for one, two in zip(ours, theirs, strict=True):
                for name, value in two.state_dict().items():
                    torch.testing.assert_close(
                        one.state_dict()[name], value, rtol=1e-10, atol=1e-12
                    )
