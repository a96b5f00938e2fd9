"""PES: its phases, the layers that get new weights, and a plain re-implementation."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted_pictures, small_cnn
from lab import in_float64
from torch import nn

from nlbench.method import Task
from nlbench.methods.pes import PES
from nlbench.ops import mixmatch
from nlbench.ops.pes import start_afresh


def make_run(task):
    return lab.make_run(task, networks=[small_cnn(task)], lr=0.05, images=hinted_pictures(task))


def started(task, run=None, **params):
    method, run = PES(task, **params), run or make_run(task)
    method.prepare(run)
    return method, run


# Of 8 epochs: two of cross entropy, two that train the late layers, then MixMatch with a ramp of
# two.
PHASES = {"t1_share": 2 / 8, "t2_share": 2 / 8, "ramp_share": 2 / 8}

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
        before_early, before_late = copy.deepcopy((early, late))
        refined = len(run.optimisers["refine"].state) > 0
        lab.train(method, run, [epoch])

        # Epochs 2 and 3 train the late layers alone.
        for p, before in zip(early, before_early, strict=True):
            assert torch.equal(p, before) == (epoch in (2, 3))
            assert p.requires_grad == (epoch not in (2, 3))
        for p, before in zip(late, before_late, strict=True):
            assert not torch.equal(p, before)
            assert p.requires_grad
        # The optimiser of the late layers has a state from its first epoch on.
        assert refined == (epoch > 2)

        run.begin_epoch(epoch)
        for item in method.batches(run, epoch):
            # Only a step of MixMatch is a tuple; the other steps are a batch.
            assert isinstance(item, tuple) == (epoch >= 4)
            if epoch >= 4:
                lams.append(item[2])

    # Three steps an epoch: 5 * (epoch - 4 + step / 3) / 2, and 5 from epoch 6 on.
    assert lams == pytest.approx([0, 5 / 6, 10 / 6, 15 / 6, 20 / 6, 25 / 6, *[5] * 6])
    for group in run.optimisers["refine"].param_groups:
        assert group["lr"] == 1e-4


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
        # nn.Linear's default draws from +-1 / sqrt(in_features), and there are 72 of them.
        assert body[7].weight.abs().max() <= 72**-0.5
        renewed.append(copy.deepcopy(body))

        # The next epoch does not renew them again.
        run.begin_epoch(3)
        method.on_epoch_start(run, 3)
        assert torch.equal(body[7].weight, renewed[-1][7].weight)

    first, second = renewed
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


# ---- Batches -------------------------------------------------------------------------------------


# The others have half of a batch, or where they are the fewer, their share: 16 * others / 60,
# rounded down, and at least two.
@pytest.mark.parametrize(
    ("kept", "sizes"),
    [(30, (8, 8)), (20, (8, 8)), (48, (13, 3)), (58, (14, 2)), (45, (12, 4))],
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
    index = torch.cat([batch.index for batch in method.batches(run, 5)])
    assert index.sort().values.tolist() == list(range(60))


def test_nothing_kept_stays_finite():
    task = lab.make_task(N=60, C=4, epochs=8)
    method, run = started(task, **PHASES)
    # Predictions that never agree with a label.
    wrong = nn.functional.one_hot((task.labels + 1) % 4, 4).float()
    run.predict_train = lambda network, index=None: wrong
    lab.train(method, run, [5])

    assert not method.kept.any()
    for value in (*method.state_dict().values(), *run.networks[0].parameters()):
        assert value.isfinite().all()


def test_class_weights():
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 1 + [3] * 5)
    task = Task(24, 4, labels, 8, 2, 16)
    method, run = started(task, **PHASES)
    predicted = labels.clone()
    # No example of class 3 is kept, and two of class 0 are not.
    predicted[12 + 6 + 1 :] = 0
    predicted[:2] = 1
    run.predict_train = lambda network, index=None: nn.functional.one_hot(predicted, 4).float()
    method.on_epoch_start(run, 5)

    assert method.kept.sum() == 17
    # 10, 6 and 1 are kept. A class weighs their mean, 17/3, over its own number, at most 3; a
    # class of which nothing is kept weighs 0.
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

    def draws(self, name):
        """Return NumPy draws from the run's stream of that name."""
        seed = int(torch.randint(2**62, (), generator=self.run.generator(name)))
        return np.random.default_rng(seed)

    def cross_entropy(self, epoch, optimiser):
        for start in range(0, self.task.num_train, 16):
            batch = self.run.batch(self.run.order()[start : start + 16])
            z = self.network(batch.images)
            loss = 0.0
            for b, y in enumerate(batch.labels.tolist()):
                loss = loss + torch.log(torch.exp(z[b]).sum()) - z[b, y]
            self.step(loss / len(z), optimiser)

    def step(self, loss, optimiser):
        self.network.zero_grad()
        loss.backward()
        optimiser.step()

    def softmax(self, rows):
        with torch.no_grad():
            z = torch.exp(self.network(rows))
        return z / z.sum(1, keepdim=True)

    def renew(self):
        """Draw new weights for the late layers, with float32 draws as the method has them."""
        torch.manual_seed(self.run.generator("renew").initial_seed())
        self.late.float()
        for layer in self.late:
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                layer.reset_parameters()
        self.late.double()

    def select(self, labels, C):
        """Set which examples are kept, and the weight of each class, by the predictions."""
        self.network.eval()
        predicted = self.softmax(self.run.images.rows).argmax(1).tolist()
        self.network.train()

        self.kept, counts = [], [0] * C
        for guess, y in zip(predicted, labels, strict=True):
            self.kept.append(guess == y)
            counts[y] += guess == y

        # The mean is over the classes of which an example is kept.
        mean = sum(counts) / (C - counts.count(0))
        self.weights = [0.0] * C
        for c, n in enumerate(counts):
            if n:
                self.weights[c] = float(np.float32(min(mean / n, 3.0)))

    def epoch(self, epoch):
        self.network.train()
        if epoch < 2:
            return self.cross_entropy(epoch, self.sgd)
        if epoch < 4:
            if epoch == 2:
                self.renew()
            return self.cross_entropy(epoch, self.adam)

        self.select(self.task.labels.tolist(), self.task.num_classes)
        rng, mixing = self.draws("plan"), self.draws("mix")
        order = self.run.order().tolist()
        # The kept examples, then the others.
        sides = [[], []]
        for k in order:
            sides[0 if self.kept[k] else 1].append(k)

        assert min(map(len, sides)) > 1
        half = 8 if len(sides[1]) > len(sides[0]) else math.floor(16 * len(sides[1]) / len(order))
        sizes = [16 - max(half, 2), max(half, 2)]
        queues = [[], []]
        first = [True, True]

        for step in range(self.task.steps_per_epoch):
            batches = []
            for s in range(2):
                # A side that is used up begins again in another order.
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
            # The second half of the nine epochs mixes by the late alpha.
            alpha = 4.0 if epoch < 4.5 else 0.75
            self.mixed_step(*batches, 5.0 * ramp, alpha, mixing, self.task.num_classes)
        return None

    def mixed_step(self, x, u, lam, alpha, rng, C):
        p = (self.softmax(u.view(0)) + self.softmax(u.view(1))) / 2
        # Sharpened with a temperature of 0.5: p ** 2, normalised.
        guess = p**2 / (p**2).sum(1, keepdim=True)
        self.guesses.append(guess)
        Y = torch.zeros(len(x), C, dtype=torch.float64)
        for b, y in enumerate(x.labels.tolist()):
            Y[b, y] = 1.0

        targets = torch.cat([Y, Y, guess, guess])
        inputs = torch.cat([x.view(0), x.view(1), u.view(0), u.view(1)])
        share = rng.beta(alpha, alpha)
        share, perm = max(share, 1 - share), rng.permutation(len(inputs))
        z = torch.exp(self.network(share * inputs + (1 - share) * inputs[perm]))
        t = share * targets + (1 - share) * targets[perm]
        p = z / z.sum(1, keepdim=True)
        n = 2 * len(x)
        ce = 0.0
        for k in range(C):
            ce = ce - self.weights[k] * (t[:n, k] * torch.log(p[:n, k])).sum() / n
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

    # Five epochs of four steps each are MixMatch's.
    assert len(seen) == 5 * 4


def in_float32(parts, generator):
    """Start the parts afresh by float32 draws; a float64 layer would draw other numbers."""
    module = nn.ModuleList(parts).float()
    start_afresh(parts, generator)
    module.double()
