"""ProMix: its selection and losses against loops, and six epochs against a plain training."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64, make_logits
from torch import nn

from nlbench.methods.promix import ProMix
from nlbench.ops import fmix
from nlbench.ops import promix as parts


def log_softmax(z):
    return z - torch.log(torch.exp(z - z.max().detach()).sum()) - z.max().detach()


def ce(z, target):
    """Return the cross entropy of logits (C,) and a label or a list of probabilities."""
    log_p = log_softmax(z)
    if isinstance(target, int):
        return -log_p[target]
    return -sum(t * log_p[k] for k, t in enumerate(target))


def mean(losses):
    return sum(losses) / len(losses)


# ---- Schedule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "params", "warmup", "late"),
    [
        (601, {}, 10, 351),
        (601, {"warmup_share": 30 / 601}, 30, 351),
        (40, {}, 1, 23),
        (6, {"warmup_share": 0.0, "late_share": 0.0}, 0, 6),
        (6, {"warmup_share": 0.5, "late_share": 1.0}, 3, 3),
    ],
)
def test_schedule(epochs, params, warmup, late):
    method = ProMix(lab.make_task(epochs=epochs), **params)
    assert (method.warmup, method.late) == (warmup, late)


def test_weights_by_hand():
    method, official = (ProMix(lab.make_task(epochs=601), official=off) for off in (False, True))
    expected = {0: (0, 0), 10: (0.2, 0.01), 50: (1, 0.05), 99: (1, 0.099), 100: (1, 0.1)}
    expected[600] = 1, 0.1
    for epoch, (w, beta) in expected.items():
        assert method.weights(epoch) == pytest.approx((w, beta))
        # In the authors' code beta falls to 0 at epoch 100.
        assert official.weights(epoch) == pytest.approx((w, beta if epoch < 100 else 0.0))


def test_constants():
    method = ProMix(lab.make_task())
    assert method.losses == parts.Losses(0.99, 0.8, 0.8, 0.5, 4.0)
    assert (method.rho, method.beta) == (0.5, 0.1)
    torch.testing.assert_close(method.pi, torch.full((2, 2, 10), 0.1))


# ---- Selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "expected"),
    # Of 10 examples in 3 classes: ceil(10 / 3 * rho).
    [(0.3, [1, 5, 9]), (0.5, [1, 2, 5, 6, 9]), (0.9, [0, 1, 2, 5, 6, 7, 9]), (0.01, [1, 5, 9])],
)
def test_the_smallest_losses_of_each_class_are_selected(rho, expected):
    task = lab.make_task(N=10, C=3)
    task.labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
    losses = [0.3, 0.1, 0.2, 0.4, 0.5, 1.1, 1.2, 1.3, 1.4, 9.0]
    logits = torch.zeros(10, 3)
    for i, loss in enumerate(losses):
        p = math.exp(-loss)
        logits[i] = math.log((1 - p) / 2)
        logits[i, task.labels[i]] = math.log(p)
    method, run = ProMix(task, rho=rho, warmup_share=0.0), lab.make_run(task, 2)
    run.predict_train = lambda network, part: logits if network is run.networks[0] else -logits
    method.on_epoch_start(run, 0)
    assert method.selected[0].nonzero().flatten().tolist() == expected
    assert not torch.equal(method.selected[0], method.selected[1])
    torch.testing.assert_close(method.own_labels(), method.selected.double().mean(0))


def test_a_whole_quota_is_not_rounded_up():
    # 0.7 * 50 / 5 is 7.000000000000001 in floating point, when it is computed as 50 * 0.2 * 0.7.
    task = lab.make_task(N=50, C=5)
    task.labels = torch.arange(50) % 5
    method, run = ProMix(task, rho=0.7, warmup_share=0.0), lab.make_run(task, 2)
    method.on_epoch_start(run, 0)
    assert method.selected.sum() == 2 * 5 * 7


def sure(*rows):
    """Return predictions (B, 3): the top class of each row and its probability."""
    p = torch.empty(len(rows), 3, dtype=torch.float64)
    for i, (k, top) in enumerate(rows):
        p[i] = (1 - top) / 2
        p[i, k] = top
    return p


def test_a_batch_is_filled_up_by_the_surest_agreed_examples():
    p = sure(*[(0, 0.99)] * 4, (1, 0.95), (1, 0.97), (1, 0.96), (2, 0.99), (2, 0.8), (0, 0.99))
    q = sure(*[(0, 0.99)] * 4, (1, 0.95), (1, 0.92), (1, 0.96), (0, 0.99), (2, 0.99), (0, 0.99))
    chosen = torch.tensor([True] * 4 + [False] * 5 + [True])
    # Example 7 is not agreed on, example 8 is not sure for one network, and 9 is chosen already.
    added = parts.agreed(p, q, chosen, 0.9)
    assert added.nonzero().flatten().tolist() == [4, 5, 6]

    # 9 of 10 is the limit: with seven chosen there is room for the two surest.
    chosen[[7, 8]] = True
    assert parts.agreed(p, q, chosen, 0.9).nonzero().flatten().tolist() == [4, 6]
    chosen[[4, 5]] = True
    assert not parts.agreed(p, q, chosen, 0.9).any()
    # Exactly tau is not above it.
    assert not parts.agreed(p, p, torch.zeros(10).bool(), 0.99).any()


def test_who_is_chosen_and_as_what():
    losses = parts.Losses(0.9, 0.8, 0.8, 0.5, 4.0)
    p = sure((0, 0.95), (1, 0.95), (1, 0.95), (2, 0.6))
    given, selected = torch.tensor([0, 0, 0, 1]), torch.tensor([False, True, False, False])
    log_pi = torch.tensor([[0.1, 0.8, 0.1], [1, 1, 1]], dtype=torch.float64).log()
    chosen, labels = losses.choose(p.log(), p.log(), selected, given, log_pi, False)
    # By its label's probability, by its loss, and two that are not.
    assert chosen.tolist() == [True, True, False, False]
    # 0.95 and 0.025 divided by 0.8^0.8 and 0.1^0.8: class 1 stays. 0.6 of class 2 stays, too.
    assert labels.tolist() == [0, 0, 1, 2]

    chosen, labels = losses.choose(p.log(), p.log(), selected, given, log_pi, True)
    assert chosen.tolist() == [True, True, True, False]
    assert labels.tolist() == [0, 0, 1, 2]
    # A class that is predicted often needs more: log 38 < 0.8 log(0.98 / 0.005).
    log_pi[0] = torch.tensor([0.005, 0.98, 0.015]).log()
    _, labels = losses.choose(p.log(), p.log(), selected, given, log_pi, True)
    assert labels.tolist() == [0, 0, 0, 2]


# ---- Losses --------------------------------------------------------------------------------------


def plain_mixed(forward, x, y, alpha, rng):
    """Return mixup's and FMix' loss of a batch of rows, pair by pair."""
    if len(y) == 1:
        x, y = x * 2, y * 2
    share = rng.beta(alpha, alpha)
    share = max(share, 1 - share)
    kept, mask = fmix.draw_mask(x[0].shape, rng)
    total = 0.0
    for weight, part in ((share, torch.full_like(mask, share)), (kept, mask)):
        partner = rng.permutation(len(y)).tolist()
        mixed = [part[0] * x[i] + (1 - part[0]) * x[j] for i, j in enumerate(partner)]
        z = forward(torch.stack(mixed))
        for i, j in enumerate(partner):
            total = total + (weight * ce(z[i], y[i]) + (1 - weight) * ce(z[i], y[j])) / len(y)
    return total


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("number", [0, 1, 4, 7])
@pytest.mark.parametrize("weights", [(0.4, 0.07), (1.0, 0.0)])
def test_the_loss_and_its_gradients_equal_loops(weights, number, stage):
    """Of a network whose heads are two matrices, on rows as images."""
    C, F, B = 4, 6, 7
    x, strong = make_logits(B, F, "early", 1), make_logits(B, F, "early", 2)
    heads = [make_logits(F, C, stage, seed).requires_grad_() for seed in (3, 4)]
    log_pi = make_logits(2, C, "early", 5).log_softmax(1)
    labels = torch.tensor([0, 3, 1, 1, 2, 0, 3])
    chosen = torch.zeros(B, dtype=torch.bool)
    chosen[torch.randperm(B, generator=torch.Generator().manual_seed(1))[:number]] = True

    def both(images):
        return images @ heads[0], images @ heads[1]

    view = parts.View(x, both(x), both(strong), chosen, labels, log_pi)
    losses = parts.Losses(0.9, 0.8, 0.3, 0.5, 2.0)
    found = losses.terms(both, view, weights, np.random.default_rng(0))

    w, beta = weights
    rng, total = np.random.default_rng(0), 0.0
    rows = chosen.nonzero().flatten().tolist()
    others = [b for b in range(B) if b not in rows]
    y = [int(labels[b]) for b in rows]
    for head in heads if rows else []:
        shift = 0.8 * log_pi[0]
        weak = mean([ce(x[b] @ head + shift, k) for b, k in zip(rows, y, strict=True)])
        sure = mean([ce(strong[b] @ head + shift, k) for b, k in zip(rows, y, strict=True)])
        mixed = plain_mixed(
            lambda images, head=head, shift=shift: images @ head + shift,
            [x[b] for b in rows],
            y,
            2.0,
            rng,
        )
        total = total + weak + w * (sure + mixed)
    if others and beta:
        shift, terms = 0.8 * log_pi[1], []
        for b in others:
            p = torch.exp(log_softmax((x[b] @ heads[0]).detach() - 0.3 * log_pi[1])) ** 2
            target = (p / p.sum()).tolist()
            terms.append(ce(x[b] @ heads[1] + shift, target))
            terms[-1] = terms[-1] + w * ce(strong[b] @ heads[1] + shift, target)
        total = total + beta * mean(terms)

    if not found:
        assert total == 0.0
        return
    loss = torch.stack(found).sum()
    torch.testing.assert_close(loss, total, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(loss, heads, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(total, heads, allow_unused=True)
    for one, two in zip(ours, theirs, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


def test_a_batch_without_a_selected_example_makes_no_step():
    task = lab.make_task(N=8)
    method, run = ProMix(task, warmup_share=0.0, beta=0.0), lab.make_run(task, 2)
    method.prepare(run)
    method.selected.zero_()
    item = next(iter(method.batches(run, 0)))
    before = copy.deepcopy(run.networks[0].state_dict())
    logits = method.training_step(run, *item)
    assert logits.shape == (8, 10)
    assert not run.losses
    assert torch.equal(before["0.weight"], run.networks[0].state_dict()["0.weight"])
    # pi of the others has moved, that of the selected has not.
    assert torch.equal(method.pi[:, 0], torch.full((2, 10), 0.1))
    assert not torch.equal(method.pi[:, 1], torch.full((2, 10), 0.1))


def test_predicts_by_the_mean_of_the_primary_heads():
    task = lab.make_task()
    run, images = lab.make_run(task, 2), torch.randn(5, 6)
    expected = sum(network.eval()(images) for network in run.networks) / 2
    torch.testing.assert_close(ProMix(task).predict(run, images), expected)


# ---- A whole training ----------------------------------------------------------------------------


class Plain:
    """ProMix from its formulas, example by example; only the streams of draws are shared."""

    def __init__(self, method, run, *, penalty):
        self.run, self.penalty = run, penalty
        self.networks, self.heads = copy.deepcopy(run.networks), copy.deepcopy(method.pseudo)
        weights = [p for part in (*self.networks, *self.heads) for p in part.parameters()]
        self.sgd = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
        C = run.task.num_classes
        self.pi = [[[1 / C] * C for _ in range(2)] for _ in range(2)]
        self.counts = {"by p": 0, "filled": 0, "relabelled": 0, "others": 0}

    def both(self, k, x):
        network, head = self.networks[k], self.heads[k]
        features = network[:-1](x)
        return network[-1](features), features @ head[0].weight.T + head[0].bias

    def select(self, rho):
        labels = self.run.task.labels.tolist()
        N, C = len(labels), self.run.task.num_classes
        self.selected = []
        for network in self.networks:
            with torch.no_grad():
                z = network.eval()(self.run.images.rows)
            network.train()
            loss = [float(ce(z[i], y)) for i, y in enumerate(labels)]
            found = set()
            for c in range(C):
                members = sorted((i for i in range(N) if labels[i] == c), key=lambda i: loss[i])
                found |= set(members[: math.ceil(rho * N / C)])
            self.selected.append(found)

    def epoch(self, epoch):
        N, B = self.run.task.num_train, self.run.task.batch_size
        if epoch >= 1:
            self.select(0.3)
        seed = int(torch.randint(2**62, (), generator=self.run.generator("mix")))
        rng, order = np.random.default_rng(seed), self.run.order()
        starts = list(range(0, N, B))
        if N - starts[-1] == 1:
            starts.pop()
        for start in starts:
            end = start + B if start != starts[-1] else N
            batch = self.run.batch(order[start:end])
            loss = self.warm_loss(batch) if epoch < 1 else self.loss(batch, epoch, rng)
            self.sgd.zero_grad()
            loss.backward()
            self.sgd.step()

    def warm_loss(self, batch):
        total = 0.0
        for k in range(2):
            for z, y in zip(self.networks[k](batch.images), batch.labels.tolist(), strict=True):
                total = total + ce(z, y) / len(batch)
                if self.penalty:
                    total = total + (torch.exp(log_softmax(z)) * log_softmax(z)).sum() / len(batch)
        return total

    def loss(self, batch, epoch, rng):
        weak = [self.both(k, batch.images) for k in range(2)]
        p = [torch.exp(torch.stack([log_softmax(z) for z in w[0]])).tolist() for w in weak]
        return sum(self.network_loss(k, batch, epoch, weak[k], p, rng) for k in range(2))

    def network_loss(self, k, batch, epoch, weak, p, rng):
        B, given = len(batch), batch.labels.tolist()
        log_pi = [torch.tensor(pi, dtype=torch.float64).log() for pi in self.pi[k]]
        rows, labels = [], {}
        for b, (i, y) in enumerate(zip(batch.index.tolist(), given, strict=True)):
            labels[b] = int((weak[0][b].detach() - 0.5 * log_pi[0]).argmax())
            if i in self.selected[k] or p[k][b][y] > 0.6:
                self.counts["by p"] += i not in self.selected[k]
                rows.append(b)
                labels[b] = y
        if epoch >= 4 and len(rows) / B < 0.9:
            rows += self.filled(p, rows, int(0.9 * B) - len(rows))
            self.counts["relabelled"] += sum(labels[b] != given[b] for b in rows)
        rows.sort()
        others = [b for b in range(B) if b not in rows]
        self.counts["others"] += len(others)

        strong, x = self.both(k, batch.strong(0)), [batch.images[b] for b in rows]
        w, beta, y = min(1, epoch / 3), 0.2 * min(1, epoch / 6), [labels[b] for b in rows]
        total = 0.0
        for h in range(2):
            shift = 0.8 * log_pi[0]
            total = total + mean([ce(weak[h][b] + shift, labels[b]) for b in rows])
            also = mean([ce(strong[h][b] + shift, labels[b]) for b in rows])
            also = also + plain_mixed(
                lambda images, h=h, shift=shift: self.both(k, images)[h] + shift, x, y, 4.0, rng
            )
            total = total + w * also
        if others:
            shift, terms = 0.8 * log_pi[1], []
            for b in others:
                q = torch.exp(log_softmax(weak[0][b].detach() - 0.5 * log_pi[1])) ** 2
                target = (q / q.sum()).tolist()
                terms.append(ce(weak[1][b] + shift, target) + w * ce(strong[1][b] + shift, target))
            total = total + beta * mean(terms)

        for kind, members in enumerate((rows, others)):
            for c in range(len(log_pi[0]) if members else 0):
                now = mean([p[k][b][c] for b in members])
                self.pi[k][kind][c] = 0.9999 * self.pi[k][kind][c] + 0.0001 * now
        return total

    def filled(self, p, rows, room):
        ranked = []
        for b, (one, two) in enumerate(zip(*p, strict=True)):
            match = one.index(max(one)) == two.index(max(two))
            if match and b not in rows and min(max(one), max(two)) > 0.6:
                ranked.append((-(max(one) + max(two)) / 2, b))
        taken = [b for _, b in sorted(ranked)[: max(room, 0)]]
        self.counts["filled"] += len(taken)
        return taken


@pytest.mark.parametrize("penalty", [False, True])
def test_six_epochs_equal_a_plain_reimplementation(penalty):
    task = lab.make_task(N=65, C=4, epochs=6)
    run = in_float64(lab.make_run(task, 2, images=hinted(task)))
    shares = {"warmup_share": 1 / 6, "ramp_share": 0.5, "late_share": 2 / 6}
    method = ProMix(task, rho=0.3, tau=0.6, b=0.5, beta=0.2, penalty=penalty, **shares).double()
    torch.manual_seed(0)
    method.prepare(run)
    method.pi.fill_(0.25)
    plain = Plain(method, run, penalty=penalty)
    for network in plain.networks:
        assert isinstance(network, nn.Sequential)

    for epoch in range(6):
        lab.train(method, run, [epoch])
        plain.epoch(epoch)
        if epoch >= 1:
            for k in range(2):
                assert set(method.selected[k].nonzero().flatten().tolist()) == plain.selected[k]
        pi = torch.tensor(plain.pi, dtype=torch.float64)
        torch.testing.assert_close(method.pi, pi, rtol=1e-9, atol=0)
        for ours, theirs in ((run.networks, plain.networks), (method.pseudo, plain.heads)):
            for one, two in zip(ours, theirs, strict=True):
                for name, value in two.state_dict().items():
                    torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-8, atol=1e-9)
    # Each way of being selected was used, and not all examples were selected.
    assert min(plain.counts.values()) > 0, plain.counts
