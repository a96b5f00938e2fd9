"""DivideMix: its split, its plan, and five epochs against loops written from the formulas."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64
from sklearn.mixture import GaussianMixture
from torch import nn

from nlbench.methods.dividemix import DivideMix
from nlbench.ops import mixmatch


def make_run(task):
    return lab.make_run(task, 2, images=hinted(task))


def assert_finite(run):
    """Check that no weight of any network is NaN or infinite."""
    for network in run.networks:
        for p in network.parameters():
            assert p.isfinite().all()


def softmax_row(z):
    """Return the probabilities of one example, as a list."""
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize(
    ("epochs", "params", "warmup", "ramp"),
    [
        (300, {}, 10, 16.0),
        (150, {}, 5, 8.0),
        (300, {"warmup_share": 0.1}, 30, 16.0),
        (40, {}, 1, 16 * 40 / 300),
        (6, {"warmup_share": 0.0, "ramp_share": 0.5}, 0, 3.0),
    ],
)
def test_schedule(epochs, params, warmup, ramp):
    method = DivideMix(lab.make_task(epochs=epochs), **params)
    assert method.warmup == warmup
    assert method.ramp == pytest.approx(ramp)


def plan(method, run, epoch):
    """Return (network, given indices, guessed indices or None, weight) of each step."""
    steps = []

    for i, batch, *semi in method.batches(run, epoch):
        # A step of warm-up has a network and a batch, and nothing else.
        guessed, weight = None, None
        if semi:
            guessed, weight = semi[0].index.tolist(), semi[1]
        steps.append((i, batch.index.tolist(), guessed, weight))
    return steps


def steps_of(steps, network):
    """Return the steps of one network, in order."""
    return [step for step in steps if step[0] == network]


def test_each_network_gets_the_split_of_the_other():
    task = lab.make_task(N=40, epochs=6)
    method, run = DivideMix(task, warmup_share=1 / 6, ramp_share=0.5, lambda_u=10.0), make_run(task)
    # An example is kept when its posterior is above 0.5; exactly 0.5 is not.
    method.clean[0] = torch.where(torch.arange(40) < 22, 0.9, 0.1)
    method.clean[1] = torch.where(torch.arange(40) < 33, 0.5001, 0.5)
    run.begin_epoch(2)

    steps = plan(method, run, 2)

    # Network 0 keeps the 33 examples that network 1 finds clean. They are 16 + 16 + 1, and a lone
    # example joins the batch before it.
    # The ramp begins after one epoch of warm-up and takes three. The authors divide the step by
    # n // 16 + 1: (2 - 1 + step / 3) / 3 of 10, and (2 - 1 + step / 2) / 3 of 10.
    ramps = [10 / 3, 40 / 9], [10 / 3, 5.0]
    for i, kept, sizes in ((0, 33, [16, 17]), (1, 22, [16, 6])):
        given, guessed, lengths, weights = [], [], [], []
        for _, labelled, unlabelled, weight in steps_of(steps, i):
            given += labelled
            guessed += unlabelled
            lengths.append(len(labelled))
            weights.append(weight)

        assert sorted(given) == list(range(kept))
        assert min(guessed) >= kept
        assert lengths == sizes
        assert weights == pytest.approx(ramps[i])
        # The 7 or 18 guessed examples are few enough that every one occurs.
        assert len(set(guessed)) == 40 - kept

    assert [step[0] for step in steps] == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("lone", [False, True])
def test_an_empty_split_is_an_epoch_of_warm_up_for_that_network(value, lone):
    task = lab.make_task(N=40, epochs=6)
    method, run = DivideMix(task), make_run(task)
    method.clean[0], method.clean[1, :20], method.clean[1, 20:] = value, 1.0, 0.0
    method.clean[0, 7] = 1 - value if lone else value
    run.begin_epoch(3)

    steps = plan(method, run, 3)

    # Network 1 uses the split of network 0, which leaves one side empty or with a single example.
    seen = []
    for network, given, guessed, _ in steps:
        assert (guessed is None) == (network == 1)
        if network == 1:
            seen += given
    assert sorted(seen) == list(range(40))

    # At the start of an epoch the method would replace the splits set above.
    method.on_epoch_start = lambda run, epoch: None
    lab.train(method, run, [3])
    assert_finite(run)


@pytest.mark.parametrize("penalty", [False, True])
def test_warm_up_is_cross_entropy_less_entropy_where_asked(penalty):
    task = lab.make_task(N=16, epochs=300)
    method, run = DivideMix(task, penalty=penalty), in_float64(make_run(task))
    other = copy.deepcopy(run.networks[1]).train()
    run.begin_epoch(0)
    item = next(item for item in method.batches(run, 0) if item[0] == 1)
    logits = other(item[1].images)
    loss = 0.0

    for b, y in enumerate(item[1].labels.tolist()):
        log_p = logits[b] - torch.log(torch.exp(logits[b]).sum())
        loss = loss - log_p[y] / 16
        if penalty:
            # Subtracting the entropy adds the sum of p log p.
            loss = loss + (torch.exp(log_p) * log_p).sum() / 16

    grads = torch.autograd.grad(loss, list(other.parameters()))
    before = copy.deepcopy(run.networks)

    assert method.training_step(run, *item) is None

    # In a first step momentum changes nothing, so SGD with lr 0.1 subtracts 0.1 * grad.
    for now, then, grad in zip(
        run.networks[1].parameters(), before[1].parameters(), grads, strict=True
    ):
        torch.testing.assert_close(now, then - 0.1 * grad, rtol=1e-10, atol=1e-12)

    for a, b in zip(run.networks[0].parameters(), before[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_predicts_by_summed_logits():
    task = lab.make_task()
    run, images = make_run(task), torch.randn(5, 6)
    expected = sum(network.eval()(images) for network in run.networks)
    torch.testing.assert_close(DivideMix(task).predict(run, images), expected)


class Plain:
    """DivideMix from the paper's formulas, example by example.

    It shares only the streams of draws with the method.
    """

    def __init__(self, task, run, lambda_u, ramp):
        self.task, self.run, self.lambda_u, self.ramp = task, run, lambda_u, ramp
        self.networks = copy.deepcopy(run.networks)
        self.optimisers = []
        for network in self.networks:
            self.optimisers.append(torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9))
        self.w, self.targets = np.ones((2, task.num_train)), []

    def draws(self, name):
        """Return NumPy draws from the run's stream of that name."""
        seed = int(torch.randint(2**62, (), generator=self.run.generator(name)))
        return np.random.default_rng(seed)

    def probabilities(self, network, rows):
        """Return a list of probabilities for each row of images, without a gradient."""
        with torch.no_grad():
            return [softmax_row(z) for z in network(rows).tolist()]

    def split(self):
        """Set the posteriors `w` of both networks from the losses of all examples."""
        for i, network in enumerate(self.networks):
            network.eval()
            predictions = self.probabilities(network, self.run.images.rows)
            losses = np.zeros(self.task.num_train)
            for k, y in enumerate(self.task.labels.tolist()):
                losses[k] = -math.log(predictions[k][y])

            losses = (losses - losses.min()) / (losses.max() - losses.min())
            seed = int(torch.randint(2**31, (), generator=self.run.generator(f"mixture{i}")))
            model = GaussianMixture(
                n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed
            )
            model.fit(losses.reshape(-1, 1))

            # The component of the lower mean loss is the clean one.
            lower = 0 if model.means_[0, 0] < model.means_[1, 0] else 1
            self.w[i] = model.predict_proba(losses.reshape(-1, 1))[:, lower]

    def sharpened(self, p):
        """Return p ** (1 / T), normalised, for the temperature T = 0.5."""
        squares = [v**2 for v in p]
        return [v / sum(squares) for v in squares]

    def epoch(self, epoch):
        N, B, C = self.task.num_train, self.task.batch_size, self.task.num_classes
        labels = self.task.labels.tolist()
        if epoch >= 1:
            self.split()

        for i in range(2):
            rng, mixing = self.draws(f"plan{i}"), self.draws(f"mix{i}")
            order = self.run.order().numpy()
            # The first network keeps the run's order; the second one draws another.
            if i == 1:
                order = order[rng.permutation(N)]

            if epoch < 1:
                for start in range(0, N, B):
                    batch = self.run.batch(torch.from_numpy(order[start : start + B]))
                    logits = self.networks[i].train()(batch.images)
                    self.step(i, nn.functional.cross_entropy(logits, batch.labels))
                continue

            # The method keeps its posteriors in float32, so the bound is applied to those.
            given, guessed = [], []
            for k in order.tolist():
                side = given if np.float32(self.w[1 - i, k]) > 0.5 else guessed
                side.append(k)
            assert len(given) > 1 < len(guessed)

            queue = []
            starts = list(range(0, len(given), B))
            # A lone example at the end joins the batch before it.
            if len(given) - starts[-1] == 1 and len(starts) > 1:
                starts.pop()
            waiting = list(guessed)
            for step, start in enumerate(starts):
                # When the guessed examples are used up, they begin again in another order.
                if not queue:
                    if step:
                        waiting = [waiting[k] for k in rng.permutation(len(waiting))]
                    queue = [waiting[s : s + B] for s in range(0, len(waiting), B)]
                    if len(queue) > 1 and len(queue[-1]) == 1:
                        queue[-2:] = [queue[-2] + queue[-1]]

                end = start + B if start != starts[-1] else len(given)
                x = self.run.batch(torch.tensor(given[start:end]))
                u = self.run.batch(torch.tensor(queue.pop(0)))
                self.mixed_step(i, x, u, epoch + step / len(starts), mixing, labels, C)

    def guess(self, own, other, u, C):
        """Return the sharpened mean of both networks on both views, for each unlabelled example."""
        four = []
        for network in (own, other):
            four += [self.probabilities(network, u.view(0)), self.probabilities(network, u.view(1))]

        guesses = []
        for b in range(len(u)):
            mean = [0.0] * C
            for prediction in four:
                for k in range(C):
                    mean[k] += prediction[b][k] / 4
            guesses.append(self.sharpened(mean))
        return guesses

    def refine(self, own, x, w, labels, C):
        """Return w * label + (1 - w) * mean of two views, sharpened, for each labelled example."""
        first, second = self.probabilities(own, x.view(0)), self.probabilities(own, x.view(1))

        refined = []
        for b, example in enumerate(x.index.tolist()):
            clean = float(np.float32(w[example]))
            target = []
            for k in range(C):
                mean = (first[b][k] + second[b][k]) / 2
                target.append(clean * (labels[example] == k) + (1 - clean) * mean)
            refined.append(self.sharpened(target))
        return refined

    def mixed_step(self, i, x, u, position, rng, labels, C):
        own, other = self.networks[i].train(), self.networks[1 - i].eval()
        guesses = self.guess(own, other, u, C)
        refined = self.refine(own, x, self.w[1 - i], labels, C)

        targets = torch.tensor(refined + refined + guesses + guesses, dtype=torch.float64)
        self.targets.append(targets)
        inputs = torch.cat([x.view(0), x.view(1), u.view(0), u.view(1)])

        # MixMatch mixes all examples with one share, and keeps the larger part of each.
        share = rng.beta(4.0, 4.0)
        share, perm = max(share, 1 - share), rng.permutation(len(inputs))
        z = own(share * inputs + (1 - share) * inputs[perm])
        mixed = share * targets + (1 - share) * targets[perm]

        p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
        n = 2 * len(x)
        ce = -(mixed[:n] * torch.log(p[:n])).sum() / n
        squared = ((p[n:] - mixed[n:]) ** 2).sum() / (2 * len(u) * C)
        mean = p.sum(0) / len(p)
        divergence = (torch.log(1 / C / mean) / C).sum()
        ramp = min(max((position - 1) / self.ramp, 0), 1)
        self.step(i, ce + self.lambda_u * ramp * squared + divergence)

    def step(self, i, loss):
        self.optimisers[i].zero_grad()
        loss.backward()
        self.optimisers[i].step()


def test_five_epochs_equal_a_plain_reimplementation(monkeypatch):
    task = lab.make_task(N=60, C=4, epochs=5)
    run = in_float64(make_run(task))
    method = DivideMix(task, warmup_share=0.2, ramp_share=0.6)

    assert method.warmup == 1
    plain = Plain(task, run, lambda_u=25.0, ramp=3.0)
    seen, mix = [], mixmatch.mix

    def watched(inputs, targets, alpha, rng):
        seen.append(targets)
        return mix(inputs, targets, alpha, rng)

    monkeypatch.setattr(mixmatch, "mix", watched)
    for epoch in range(5):
        lab.train(method, run, [epoch])
        plain.epoch(epoch)

        torch.testing.assert_close(
            method.clean.double(), torch.from_numpy(plain.w), rtol=1e-6, atol=1e-6
        )
        assert len(seen) == len(plain.targets)
        for ours, theirs in zip(seen, plain.targets, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
        for network, other in zip(run.networks, plain.networks, strict=True):
            for name, value in other.state_dict().items():
                torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-6, atol=1e-8)

    # `mix` ran in more than eight steps: the equality above is not one of warm-up alone.
    assert len(seen) > 8
