"""CAL: both losses, the distilled labels and whole trainings, against plain re-implementations."""

import copy
import math

import lab
import pytest
import torch
from lab import in_float64, make_batch, make_logits, make_task

from nlbench import registry

CAL = registry.load_method(registry.method_files()["cal"])


def softmax(row):
    e = torch.exp(row - row.max())
    return e / e.sum()


def plain_confident(z, labels, prior, alpha):
    """Return the mean of CE minus alpha times the expected loss, by loops."""
    total = 0.0
    for row, y in zip(z, labels.tolist(), strict=True):
        p = softmax(row)
        peer = sum(-pi * torch.log(p[k] + 1e-5) for k, pi in enumerate(prior))
        total = total - torch.log(p[y] + 1e-8) - alpha * peer
    return total / len(z)


def plain_priors(labels, C, scale=1.0):
    """Return pi of step 1 and of step 2."""
    shares = [labels.tolist().count(k) / len(labels) for k in range(C)]
    root = sum(math.sqrt(share) for share in shares)
    return [scale * math.sqrt(share) / root for share in shares], [scale * s for s in shares]


class PlainCovariance:
    """The covariance term from its definition, with all examples' u at hand."""

    def __init__(self, given, distilled, C):
        self.given, self.distilled, self.C = given.tolist(), distilled.tolist(), C
        self.lbar, self.seen = torch.zeros(C, C, dtype=torch.float64), []

    def mean_of_u(self, i, j):
        members = [n for n, d in enumerate(self.distilled) if d == i]
        return sum(self.given[n] == j for n in members) / len(members)

    def term(self, z, index):
        total, C = 0.0, self.C
        p = [softmax(row) for row in z]
        for i in range(C):
            members = [b for b, n in enumerate(index) if self.distilled[n] == i]
            P = self.distilled.count(i) / len(self.distilled)
            for j in range(C):
                for b in members:
                    u = (self.given[index[b]] == j) - self.mean_of_u(i, j)
                    loss = -torch.log(p[b][j] + 1e-5)
                    total = total + P * u * (loss - self.lbar[i, j]) / len(members)
        for b, n in enumerate(index):
            self.seen.append((self.distilled[n], -torch.log(p[b].detach() + 1e-5)))
        return total

    def end_epoch(self):
        for i in range(self.C):
            rows = [row for d, row in self.seen if d == i]
            if rows:
                self.lbar[i] = sum(rows) / len(rows)
        self.seen = []


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize(
    ("epoch", "alpha"), [(0, 0.0), (10, 0.0), (25, 0.75), (40, 1.5), (99, 1.5)]
)
def test_the_first_loss_and_its_gradient(stage, epoch, alpha):
    task = make_task(N=16, C=5, epochs=100)
    method = CAL(task, first_alpha=1.5, prior_scale=3.0)
    z = make_logits(16, 5, stage).requires_grad_()
    prior, _ = plain_priors(task.labels, 5, 3.0)
    expected = plain_confident(z, task.labels, prior, alpha)
    loss = method.first_loss(z, make_batch(task, torch.arange(16)), epoch)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-13)
    grads = [torch.autograd.grad(value, z)[0] for value in (loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)


def prepared(task, logits, **params):
    """Return a method whose helper network predicts `logits`, its run, and the call of `fit`."""
    calls = []

    def fit(run, key, loss, epochs, **choices):
        calls.append((key, epochs, choices))
        return lab.Helper(task).eval()

    run = lab.make_run(task, fit=fit)
    run.predict_train = lambda network: logits
    method = CAL(task, **params)
    method.prepare(run)
    return method, run, calls


def test_which_labels_are_distilled():
    labels = torch.tensor([0, 0, 1, 2])
    # CE minus the mean loss: about -9.3, -7.3 twice, and far above.
    logits = torch.zeros(4, 3)
    logits[0, 0], logits[1, 0], logits[2, 1], logits[3, 0] = 14.0, 11.0, 11.0, 5.0
    logits[1, 1] = 11.5
    task = lab.Task(4, 3, labels, 100, 1, 4)
    method, _, calls = prepared(task, logits)
    assert method.distilled.tolist() == [0, 1, 1, 0]
    assert calls == [("cal", 66, {"keep": "last", "paced": True})]
    assert method.own_labels().argmax(1).tolist() == [0, 1, 1, 0]

    # A label that is not predicted is kept where its loss is far enough below the mean.
    logits = torch.zeros(4, 3)
    logits[:, 2] = -40.0
    logits[1, 1] = 0.1
    task = lab.Task(4, 3, torch.tensor([0, 0, 0, 0]), 100, 1, 4)
    assert prepared(task, logits, threshold=-5.0)[0].distilled.tolist() == [0, 0, 0, 0]
    assert prepared(task, logits)[0].distilled.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("stage", ["early", "late"])
def test_the_covariance_and_its_gradient(stage):
    task = make_task(N=40, C=4, epochs=100)
    method, run, _ = prepared(task, make_logits(40, 4, "early", seed=5))
    plain = PlainCovariance(task.labels, method.distilled, 4)
    assert len(set(plain.distilled)) == 4
    for epoch in range(3):
        for k, index in enumerate(torch.randperm(40).split(16)):
            z = make_logits(len(index), 4, stage, seed=10 * epoch + k).requires_grad_()
            value = method.covariance(z, make_batch(task, index))
            expected = plain.term(z, index.tolist())
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
            grads = [torch.autograd.grad(term, z)[0] for term in (value, expected)]
            torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-13)
        method.on_epoch_end(run, epoch)
        plain.end_epoch()
        torch.testing.assert_close(method.lbar, plain.lbar, rtol=1e-10, atol=1e-12)
    assert method.lbar.min() > 0.1


def test_a_class_that_is_not_seen_keeps_its_mean():
    task = make_task(N=40, C=4)
    method, run, _ = prepared(task, make_logits(40, 4, "early", seed=5))
    method.lbar.fill_(7.0)
    index = (method.distilled == 1).nonzero().squeeze(1)
    method.covariance(make_logits(len(index), 4, "early"), make_batch(task, index))
    method.on_epoch_end(run, 0)
    assert (method.lbar[[0, 2, 3]] == 7).all()
    assert (method.lbar[1] != 7).all()
    assert method.sums.abs().sum() == 0
    assert method.counts.sum() == 0


def test_a_whole_training_equals_a_plain_one():
    task = make_task(N=40, C=4, epochs=5)
    network = lab.small_network(task).double()
    plain = copy.deepcopy(network)
    run = in_float64(lab.make_run(task, networks=[network], lr=0.05))
    method = CAL(task, alpha=0.8, prior_scale=2.0, warmup_share=1 / 5, ramp_share=2 / 5)
    method.prepare(run)
    assert len(set(method.distilled.tolist())) > 1
    covariance = PlainCovariance(task.labels, method.distilled, 4)
    # A class that is nobody's distilled label adds nothing.
    covariance.mean_of_u = lambda i, j: float(method.means[i, j])
    _, prior = plain_priors(task.labels, 4, 2.0)
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(5):
        lab.train(method, run, [epoch])
        alpha = [0.0, 0.0, 0.4, 0.8, 0.8][epoch]
        for index in run.order().split(16):
            z = plain(run.batch(index).images)
            loss = plain_confident(z, task.labels[index], prior, alpha)
            sgd.zero_grad()
            (loss - covariance.term(z, index.tolist())).backward()
            sgd.step()
        covariance.end_epoch()
        for a, b in zip(run.networks[0].parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("epochs", "warmup", "ramp", "length"), [(100, 10, 30, 66), (40, 4, 12, 26), (1, 1, 1, 1)]
)
def test_phases_scale_with_the_training(epochs, warmup, ramp, length):
    method = CAL(make_task(epochs=epochs))
    assert (method.warmup, method.ramp, method.length) == (warmup, ramp, length)
    assert method.begins == {"the confidence term": warmup + 1}


def test_the_defaults_are_those_of_the_authors_code():
    method = CAL(make_task())
    assert (method.first_alpha, method.alpha, method.threshold) == (2.0, 1.0, -8.0)
    for prior in (method.first_prior, method.prior):
        assert prior.sum().item() == pytest.approx(1.0)
