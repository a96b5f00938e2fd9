"""PES: its phases, the layers that get new weights, and a plain re-implementation."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import Wrapped, hinted_pictures, small_cnn
from lab import in_float64
from torch import nn

from nlbench import models
from nlbench.method import Task
from nlbench.methods.pes import PES, late_parts, start_afresh
from nlbench.ops import mixmatch


def make_run(task):
    return lab.make_run(task, networks=[small_cnn(task)], lr=0.05, images=hinted_pictures(task))


def started(task, run=None, **params):
    method, run = PES(task, **params), run or make_run(task)
    method.prepare(run)
    return method, run


PHASES = {"t1_share": 2 / 8, "t2_share": 2 / 8, "ramp_share": 2 / 8}  # of 8 epochs

# ---- Hyperparameters and phases ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "params", "t1", "start", "ramp"),
    [
        (300, {}, 20, 25, 16.0),
        (300, {"t1_share": 35 / 300}, 35, 40, 16.0),
        (120, {}, 8, 10, 6.4),
        (40, {}, 3, 4, 16 * 40 / 300),
        (40, {"t2_share": 0.0}, 3, 3, 16 * 40 / 300),
        (2, {}, 1, 2, 32 / 300),
        (1, {}, 1, 2, 16 / 300),
    ],
)
def test_phases_scale_with_the_training(epochs, params, t1, start, ramp):
    method = PES(lab.make_task(epochs=epochs), **params)
    assert (method.t1, method.start) == (t1, start)
    assert method.ramp == pytest.approx(ramp)


def test_each_phase_trains_what_is_its_own():
    task = lab.make_task(N=48, C=4, epochs=8)
    method, run = started(task, renew="stage", **PHASES)
    body = run.networks[0].body
    early, late = list(body[:3].parameters()), list(body[3:].parameters())
    lams = []

    for epoch in range(8):
        before = [p.detach().clone() for p in (*early, *late)]
        taken = {name: len(optimiser.state) for name, optimiser in run.optimisers.items()}
        lab.train(method, run, [epoch])
        moved = [not torch.equal(a, b) for a, b in zip((*early, *late), before, strict=True)]
        if epoch in (2, 3):
            assert not any(moved[: len(early)])
            assert all(moved[len(early) :])
        else:
            assert all(moved)
        assert (taken["refine"] > 0) == (epoch > 2)
        assert [p.requires_grad for p in early] == [epoch not in (2, 3)] * len(early)
        assert all(p.requires_grad for p in late)
        run.begin_epoch(epoch)
        lams.append([item[2] for item in method.batches(run, epoch) if isinstance(item, tuple)])

    assert lams[:4] == [[]] * 4
    # Three steps an epoch: 5 * (epoch - 4 + step / 3) / 2, and 5 from epoch 6 on.
    assert [lam for row in lams[4:] for lam in row] == pytest.approx(
        [0, 5 / 6, 10 / 6, 15 / 6, 20 / 6, 25 / 6, *[5] * 6]
    )
    assert {group["lr"] for group in run.optimisers["refine"].param_groups} == {1e-4}


def test_the_late_layers_start_afresh_once_and_the_same_way_each_time():
    task = lab.make_task(N=48, C=4, epochs=8)
    renewed = []
    for _ in range(2):
        method, run = started(task, renew="stage", **PHASES)
        lab.train(method, run, [0, 1])
        before = copy.deepcopy(run.networks[0].body)
        run.begin_epoch(2)
        method.on_epoch_start(run, 2)
        body = run.networks[0].body
        assert torch.equal(body[0].weight, before[0].weight)
        assert torch.equal(body[1].running_mean, before[1].running_mean)
        assert not torch.equal(body[3].weight, before[3].weight)
        assert torch.equal(body[4].running_mean, torch.zeros(8))
        assert torch.equal(body[4].weight, torch.ones(8))
        assert not torch.equal(body[7].weight, before[7].weight)
        assert body[7].weight.abs().max() <= 72**-0.5  # nn.Linear's default
        renewed.append(copy.deepcopy(body))
        run.begin_epoch(3)
        method.on_epoch_start(run, 3)
        assert torch.equal(body[7].weight, renewed[-1][7].weight)

    assert all(
        torch.equal(a, b) for a, b in zip(*(body.parameters() for body in renewed), strict=True)
    )


def test_starting_afresh_leaves_the_global_generator_alone():
    layer = nn.Linear(2, 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    start_afresh([layer], torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)


# ---- Which layers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "shape", "first", "parts"),
    [
        ("resnet8", (3, 32, 32), "5", 2),  # a block of 64 channels, the classifier
        ("resnet18", (3, 32, 32), "9", 3),
        ("resnet34", (3, 32, 32), "16", 4),
        ("preact_resnet18", (3, 32, 32), "9", 3),
        (
            "resnet9",
            (3, 32, 32),
            "12",
            4,
        ),  # convolution of 512 channels, batch norm, a residual pair, the classifier
        ("resnet9_slim", (3, 32, 32), "12", 4),
        ("cnn3", (3, 32, 32), "8", 4),  # convolution of 128 channels, batch norm, two dense layers
        ("digits_cnn", (1, 8, 8), "4", 4),
        ("torchvision/resnet18", (3, 32, 32), "layer4.0", 3),
        ("torchvision/resnet50", (3, 32, 32), "layer4.0", 4),
    ],
)
def test_the_late_layers_of_each_model(model, shape, first, parts):
    body = models.build(model, 10, shape)
    names = {id(module): name for name, module in body.named_modules()}
    found = late_parts(Wrapped(body), "stage")

    assert (names[id(found[0])], len(found)) == (first, parts)
    (classifier,) = late_parts(Wrapped(body), "classifier")
    assert classifier is found[-1]
    assert isinstance(classifier, nn.Linear)
    assert classifier.out_features == 10

    # All that comes from there on, nothing of what is before.
    late = {id(p) for part in found for p in part.parameters()}
    flags = [id(p) in late for p in body.parameters()]

    assert flags == sorted(flags)
    assert 0 < sum(flags) < len(flags)


def test_every_model_of_ours_is_covered():
    covered = {
        "resnet8",
        "resnet18",
        "resnet34",
        "preact_resnet18",
        "resnet9",
        "resnet9_slim",
        "cnn3",
        "digits_cnn",
    }

    assert set(models.names()) - {"linear"} == covered  # one layer has no late part


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 3)
        ),
    ],
)
def test_the_classifier_alone_where_there_is_no_last_stage(network):
    assert late_parts(network, "stage") == [network[-1]]


# ---- Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "sizes"),
    [
        (30, (8, 8)),
        (20, (8, 8)),
        (48, (13, 3)),
        (58, (14, 2)),
        (45, (12, 4)),
    ],  # 16 * others / 60, rounded down
)
def test_a_batch_is_shared_by_kept_and_others(kept, sizes):
    task = lab.make_task(N=60, C=4, epochs=8)
    method, run = started(task, **PHASES)
    method.kept.copy_(torch.arange(60) < kept)
    run.begin_epoch(5)
    items = list(method.batches(run, 5))

    assert len(items) == 4
    for labelled, others, _, _ in items:
        assert (labelled.index < kept).all()
        assert (others.index >= kept).all()
        assert len(labelled) > 1 < len(others)

    assert (len(items[0][0]), len(items[0][1])) == sizes


@pytest.mark.parametrize("kept", [0, 1, 59, 60])
def test_an_empty_side_is_an_epoch_of_cross_entropy(kept):
    task = lab.make_task(N=60, C=4, epochs=8)
    method, run = started(task, **PHASES)
    method.kept.copy_(torch.arange(60) < kept)
    run.begin_epoch(5)
    items = list(method.batches(run, 5))
    assert sorted(i for batch in items for i in batch.index.tolist()) == list(range(60))


def test_nothing_kept_stays_finite():
    task = lab.make_task(N=60, C=4, epochs=8)
    method, run = started(task, **PHASES)
    run.predict_train = lambda network, index=None: nn.functional.one_hot(
        (task.labels + 1) % 4, 4
    ).float()
    lab.train(method, run, [5])

    assert not method.kept.any()
    assert all(value.isfinite().all() for value in method.state_dict().values())
    assert all(p.isfinite().all() for p in run.networks[0].parameters())


def test_class_weights():
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 1 + [3] * 5)
    task = Task(24, 4, labels, 8, 2, 16)
    method, run = started(task, **PHASES)
    predicted = labels.clone()
    predicted[12 + 6 + 1 :] = 0  # no example of class 3 is kept
    predicted[:2] = 1
    run.predict_train = lambda network, index=None: nn.functional.one_hot(predicted, 4).float()
    method.on_epoch_start(run, 5)

    assert method.kept.sum() == 17
    # 10, 6 and 1 are kept: their mean, 17/3, over each; at most 3; none for a class without
    # examples
    torch.testing.assert_close(method.class_weights, torch.tensor([17 / 30, 17 / 18, 3.0, 0.0]))


# ---- Whole trainings -----------------------------------------------------------------------------


class Plain:
    """PES (semi) from the formulas.

    It shares only the streams of draws and the renewed weights with the method.
    """

    def __init__(self, task, run, renew):
        self.task, self.run = task, run
        self.network = copy.deepcopy(run.networks[0])
        self.sgd = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)
        self.late = self.network.body[3:] if renew == "stage" else self.network.body[7:]
        self.adam = torch.optim.Adam(self.late.parameters(), lr=1e-4)
        self.guesses, self.kept, self.weights = [], None, None

    def cross_entropy(self, epoch, optimiser):
        for start in range(0, self.task.num_train, 16):
            batch = self.run.batch(self.run.order()[start : start + 16])
            z = self.network(batch.images)
            rows = [
                torch.log(torch.exp(z[b]).sum()) - z[b, y]
                for b, y in enumerate(batch.labels.tolist())
            ]
            self.step(sum(rows) / len(rows), optimiser)

    def step(self, loss, optimiser):
        self.network.zero_grad()
        loss.backward()
        optimiser.step()

    def softmax(self, rows):
        with torch.no_grad():
            z = torch.exp(self.network(rows))
        return z / z.sum(1, keepdim=True)

    def epoch(self, epoch):
        self.network.train()
        if epoch < 2:
            return self.cross_entropy(epoch, self.sgd)
        if epoch < 4:
            if epoch == 2:
                torch.manual_seed(self.run.generator("renew").initial_seed())
                self.late.float()
                for layer in self.late:
                    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                        layer.reset_parameters()
                self.late.double()
            return self.cross_entropy(epoch, self.adam)

        labels, C = self.task.labels.tolist(), self.task.num_classes
        self.network.eval()
        predicted = self.softmax(self.run.images.rows).argmax(1).tolist()
        self.network.train()
        self.kept = [a == b for a, b in zip(predicted, labels, strict=True)]
        counts = [
            sum(k and y == c for k, y in zip(self.kept, labels, strict=True)) for c in range(C)
        ]
        mean = sum(counts) / sum(n > 0 for n in counts)
        self.weights = [float(np.float32(min(mean / n, 3.0))) if n else 0.0 for n in counts]
        rng, mixing = (
            np.random.default_rng(int(torch.randint(2**62, (), generator=self.run.generator(name))))
            for name in ("plan", "mix")
        )
        order = self.run.order().tolist()
        sides = [[k for k in order if self.kept[k] == side] for side in (True, False)]

        assert min(map(len, sides)) > 1
        half = 8 if len(sides[1]) > len(sides[0]) else math.floor(16 * len(sides[1]) / len(order))
        sizes = [16 - max(half, 2), max(half, 2)]
        queues = [[], []]
        first = [True, True]

        for step in range(self.task.steps_per_epoch):
            batches = []
            for s in range(2):
                if not queues[s]:
                    if not first[s]:
                        sides[s] = [sides[s][k] for k in rng.permutation(len(sides[s]))]
                    first[s] = False
                    queues[s] = [
                        sides[s][k : k + sizes[s]] for k in range(0, len(sides[s]), sizes[s])
                    ]
                    if len(queues[s]) > 1 and len(queues[s][-1]) == 1:
                        queues[s][-2:] = [queues[s][-2] + queues[s][-1]]
                batches.append(self.run.batch(torch.tensor(queues[s].pop(0))))
            ramp = min((epoch + step / self.task.steps_per_epoch - 4) / 2, 1)
            self.mixed_step(*batches, 5.0 * ramp, 4.0 if epoch < 4.5 else 0.75, mixing, C)
        return None

    def mixed_step(self, x, u, lam, alpha, rng, C):
        p = (self.softmax(u.view(0)) + self.softmax(u.view(1))) / 2
        guess = p**2 / (p**2).sum(1, keepdim=True)
        self.guesses.append(guess)
        Y = torch.tensor(
            [[float(k == y) for k in range(C)] for y in x.labels.tolist()], dtype=torch.float64
        )
        targets = torch.cat([Y, Y, guess, guess])
        inputs = torch.cat([x.view(0), x.view(1), u.view(0), u.view(1)])
        share = rng.beta(alpha, alpha)
        share, perm = max(share, 1 - share), rng.permutation(len(inputs))
        z = torch.exp(self.network(share * inputs + (1 - share) * inputs[perm]))
        t, p = share * targets + (1 - share) * targets[perm], z / z.sum(1, keepdim=True)
        n = 2 * len(x)
        ce = -sum(self.weights[k] * (t[:n, k] * torch.log(p[:n, k])).sum() for k in range(C)) / n
        squared = ((p[n:] - t[n:]) ** 2).sum() / (2 * len(u) * C)
        self.step(ce + lam * squared, self.sgd)


@pytest.mark.parametrize("renew", ["classifier", "stage"])
def test_whole_training_equals_a_plain_reimplementation(renew, monkeypatch):
    task = lab.make_task(N=60, C=4, epochs=9)
    method, run = started(
        task,
        in_float64(make_run(task)),
        renew=renew,
        t1_share=2 / 9,
        t2_share=2 / 9,
        ramp_share=2 / 9,
    )
    monkeypatch.setattr("nlbench.methods.pes.start_afresh", in_float32)
    plain = Plain(task, run, renew)
    seen, mix = [], mixmatch.mix

    def watched(inputs, targets, alpha, rng):
        seen.append(targets)
        return mix(inputs, targets, alpha, rng)

    monkeypatch.setattr(mixmatch, "mix", watched)
    for epoch in range(9):
        lab.train(method, run, [epoch])
        plain.epoch(epoch)
        for name, value in plain.network.state_dict().items():
            torch.testing.assert_close(
                run.networks[0].state_dict()[name], value, rtol=1e-7, atol=1e-9
            )
        if epoch >= 4:
            assert method.kept.tolist() == plain.kept
            torch.testing.assert_close(method.class_weights, torch.tensor(plain.weights))
        assert len(seen) == len(plain.guesses)
        for targets, guess in zip(seen, plain.guesses, strict=True):
            torch.testing.assert_close(targets[-len(guess) :], guess, rtol=1e-8, atol=1e-10)

    assert len(seen) == 5 * 4


def in_float32(parts, generator):
    """The draws of a float64 layer are other ones."""
    module = nn.ModuleList(parts).float()
    start_afresh(parts, generator)
    module.double()
