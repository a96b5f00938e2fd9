"""DivideMix: its split, its plan, and five epochs against loops written from the formulas."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64, make_logits
from sklearn.mixture import GaussianMixture
from torch import nn

from nlbench.methods.dividemix import DivideMix, divergence_from_uniform, posterior
from nlbench.ops import mixmatch


def make_run(task):
    return lab.make_run(task, 2, images=hinted(task))


def softmax_row(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


# ---- Nlbench.ops.mixmatch ------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["early", "late"])
def test_divergence_from_uniform_matches_plain_loops(stage):
    logits = make_logits(7, 5, stage, seed=0).requires_grad_()
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    expected = sum(
        0.2 * (math.log(0.2) - torch.log(sum(p[b, k] for b in range(7)) / 7)) for k in range(5)
    )
    loss = divergence_from_uniform(logits)

    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    grads = [torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-12)


# ---- The method ----------------------------------------------------------------------------------


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


def test_posterior_is_that_of_the_lower_of_two_gaussians():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.1, 0.05, 300), rng.normal(2.0, 0.3, 200)
    losses = torch.from_numpy(np.concatenate([low, high]))
    w = posterior(losses, torch.Generator().manual_seed(0))

    assert w.dtype == torch.float32
    assert (w[:300] > 0.5).all()
    assert (w[300:] < 0.5).all()
    assert torch.equal(w, posterior(losses, torch.Generator().manual_seed(0)))

    # Bayes by hand with the moments of the two groups, which the mixture finds where they are so
    # far apart.
    x = (losses - losses.min()) / (losses.max() - losses.min())

    def weighted_density(part, x):
        variance = part.var(unbiased=False) + 5e-4
        return len(part) * torch.exp(-((x - part.mean()) ** 2) / (2 * variance)) / variance.sqrt()

    a, b = weighted_density(x[:300], x), weighted_density(x[300:], x)
    torch.testing.assert_close(w.double(), a / (a + b), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "losses",
    [torch.full((9,), 0.7), torch.tensor([1.0, math.nan, 2.0]), torch.tensor([math.inf, 1])],
)
def test_losses_without_a_fit_keep_everything(losses):
    assert torch.equal(posterior(losses, torch.Generator()), torch.ones(len(losses)))


def plan(method, run, epoch):
    """Return (network, given indices, guessed indices or None, weight) of each step."""
    rows = []
    for i, batch, *semi in method.batches(run, epoch):
        rows.append(
            (
                i,
                batch.index.tolist(),
                semi[0].index.tolist() if semi else None,
                semi[1] if semi else None,
            )
        )
    return rows


def test_each_network_gets_the_split_of_the_other():
    task = lab.make_task(N=40, epochs=6)
    method, run = DivideMix(task, warmup_share=1 / 6, ramp_share=0.5, lambda_u=10.0), make_run(task)
    method.clean[0] = torch.where(torch.arange(40) < 22, 0.9, 0.1)
    method.clean[1] = torch.where(torch.arange(40) < 33, 0.5001, 0.5)
    run.begin_epoch(2)
    rows = plan(method, run, 2)

    for i, kept in ((0, 33), (1, 22)):
        own = [row for row in rows if row[0] == i]
        given = [index for row in own for index in row[1]]
        assert sorted(given) == list(range(kept))
        assert all(index >= kept for row in own for index in row[2])
        assert [len(row[1]) for row in own] == (
            [16, 17] if i == 0 else [16, 6]
        )  # 33 = 16 + 16 + a lone one
        # (2 - 1 + step / 2) / 3 of 10
        assert [row[3] for row in own] == pytest.approx([10 / 3, 5.0])
        assert (
            len({index for row in own for index in row[2]}) == 40 - kept
        )  # cycled: 7 and 18 examples

    assert [row[0] for row in rows] == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("lone", [False, True])
def test_an_empty_split_is_an_epoch_of_warm_up_for_that_network(value, lone):
    task = lab.make_task(N=40, epochs=6)
    method, run = DivideMix(task), make_run(task)
    method.clean[0], method.clean[1, :20], method.clean[1, 20:] = value, 1.0, 0.0
    method.clean[0, 7] = 1 - value if lone else value
    run.begin_epoch(3)
    rows = plan(method, run, 3)

    assert sorted(index for row in rows if row[0] == 1 for index in row[1]) == list(range(40))
    assert all((row[2] is None) == (row[0] == 1) for row in rows)

    method.on_epoch_start = lambda run, epoch: None  # which would make splits of its own
    lab.train(method, run, [3])
    assert all(p.isfinite().all() for network in run.networks for p in network.parameters())


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
        loss = (
            loss - log_p[y] / 16 + (sum(torch.exp(v) * v for v in log_p) / 16 if penalty else 0.0)
        )

    grads = torch.autograd.grad(loss, list(other.parameters()))
    before = copy.deepcopy(run.networks)
    assert method.training_step(run, *item) is None
    for now, then, grad in zip(
        run.networks[1].parameters(), before[1].parameters(), grads, strict=True
    ):
        torch.testing.assert_close(now, then - 0.1 * grad, rtol=1e-10, atol=1e-12)

    assert all(
        torch.equal(a, b)
        for a, b in zip(run.networks[0].parameters(), before[0].parameters(), strict=True)
    )


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
        self.optimisers = [
            torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in self.networks
        ]
        self.w, self.targets = np.ones((2, task.num_train)), []

    def probabilities(self, network, rows):
        with torch.no_grad():
            return [softmax_row(z) for z in network(rows).tolist()]

    def split(self):
        for i, network in enumerate(self.networks):
            network.eval()
            rows = self.probabilities(network, self.run.images.rows)
            losses = np.array(
                [-math.log(row[y]) for row, y in zip(rows, self.task.labels.tolist(), strict=True)]
            )
            losses = (losses - losses.min()) / (losses.max() - losses.min())
            seed = int(torch.randint(2**31, (), generator=self.run.generator(f"mixture{i}")))
            model = GaussianMixture(
                n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed
            )
            model.fit(losses.reshape(-1, 1))
            lower = 0 if model.means_[0, 0] < model.means_[1, 0] else 1
            self.w[i] = model.predict_proba(losses.reshape(-1, 1))[:, lower]

    def sharpened(self, p):
        squares = [v**2 for v in p]
        return [v / sum(squares) for v in squares]

    def epoch(self, epoch):
        N, B, C = self.task.num_train, self.task.batch_size, self.task.num_classes
        labels = self.task.labels.tolist()
        if epoch >= 1:
            self.split()

        for i in range(2):
            rng, mixing = (
                np.random.default_rng(
                    int(torch.randint(2**62, (), generator=self.run.generator(f"{name}{i}")))
                )
                for name in ("plan", "mix")
            )
            order = self.run.order().numpy()
            order = order[rng.permutation(N)] if i == 1 else order
            if epoch < 1:
                for start in range(0, N, B):
                    batch = self.run.batch(torch.from_numpy(order[start : start + B]))
                    self.step(
                        i,
                        nn.functional.cross_entropy(
                            self.networks[i].train()(batch.images), batch.labels
                        ),
                    )
                continue
            given = [int(k) for k in order if np.float32(self.w[1 - i, k]) > 0.5]
            guessed = [int(k) for k in order if np.float32(self.w[1 - i, k]) <= 0.5]
            assert len(given) > 1 < len(guessed)
            queue = []
            starts = [s for s in range(0, len(given), B) if len(given) - s > 1 or s == 0]
            waiting = list(guessed)
            for step, start in enumerate(starts):
                if not queue:
                    if step:
                        waiting = [waiting[k] for k in rng.permutation(len(waiting))]
                    queue = [waiting[s : s + B] for s in range(0, len(waiting), B)]
                    if len(queue) > 1 and len(queue[-1]) == 1:
                        queue[-2:] = [queue[-2] + queue[-1]]
                end = start + B if start != starts[-1] else len(given)
                x, u = (
                    self.run.batch(torch.tensor(part)) for part in (given[start:end], queue.pop(0))
                )
                self.mixed_step(i, x, u, epoch + step / len(starts), mixing, labels, C)

    def mixed_step(self, i, x, u, position, rng, labels, C):
        own, other = self.networks[i].train(), self.networks[1 - i].eval()
        four = [self.probabilities(net, u.view(k)) for net in (own, other) for k in (0, 1)]
        guesses = [
            self.sharpened([sum(four[m][b][k] for m in range(4)) / 4 for k in range(C)])
            for b in range(len(u))
        ]
        two = [self.probabilities(own, x.view(k)) for k in (0, 1)]
        refined = []

        for b, example in enumerate(x.index.tolist()):
            w = float(np.float32(self.w[1 - i, example]))
            mean = [(two[0][b][k] + two[1][b][k]) / 2 for k in range(C)]
            refined.append(
                self.sharpened([w * (labels[example] == k) + (1 - w) * mean[k] for k in range(C)])
            )

        targets = torch.tensor(refined + refined + guesses + guesses, dtype=torch.float64)
        self.targets.append(targets)
        inputs = torch.cat([x.view(0), x.view(1), u.view(0), u.view(1)])
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

    assert len(seen) > 8  # that many steps were MixMatch's
