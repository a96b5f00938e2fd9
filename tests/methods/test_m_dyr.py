"""M-DYR: the beta mixture, its phases and steps, against plain re-implementations."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64

from nlbench import registry
from nlbench.ops import beta_mixture, mixmatch
from nlbench.ops.uniform import divergence_from_uniform

MDYR = registry.load_method(registry.method_files()["m-dyr"])

# ---- The mixture, in NumPy -----------------------------------------------------------------------


def density(x, a, b):
    """Return the density of Beta(a, b) at x."""
    return math.gamma(a + b) / (math.gamma(a) * math.gamma(b)) * x ** (a - 1) * (1 - x) ** (b - 1)


def plain_mixture(values):
    """Return alpha, beta and weight of both components after ten steps of EM."""
    x = np.clip(values, 1e-4, 1 - 1e-4)
    params = [(1.0, 2.0, 0.5), (2.0, 1.0, 0.5)]
    for _ in range(10):
        rows = [np.maximum(w * density(x, a, b), 1e-12) for a, b, w in params]
        total, params = rows[0] + rows[1], []
        sizes = [(row / total).sum() for row in rows]
        for row, size in zip(rows, sizes, strict=True):
            r = row / total
            m = (r * x).sum() / size
            s2 = (r * (x - m) ** 2).sum() / size
            a = m * (m * (1 - m) / s2 - 1)
            params.append((a, a * (1 - m) / m, size / sum(sizes)))
    return params


def plain_table(values):
    params = plain_mixture(values)
    grid = np.linspace(1e-12, 1 - 1e-12, 100)
    rows = [w * density(grid, a, b) for a, b, w in params]
    table = rows[1] / (rows[0] + rows[1] + 1e-12)
    top = int(table.argmax())
    return np.concatenate([table[:top], np.full(100 - top, table[top])])


def two_heaps(seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.beta(2, 9, 300), rng.beta(7, 3, 200)])


def test_the_mixture_equals_a_plain_one():
    x = two_heaps()
    found = torch.stack(beta_mixture.fit(torch.from_numpy(x))).T.tolist()
    for mine, theirs in zip(found, plain_mixture(x), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    table = beta_mixture.posterior_table(torch.from_numpy(x), 100)
    np.testing.assert_allclose(table.numpy(), plain_table(x), rtol=1e-9, atol=1e-14)
    # Low losses are clean and high ones are not, and there is a part to the right of the maximum.
    assert table[5] < 0.1
    assert table[80] > 0.9


def test_a_table_is_held_at_its_maximum():
    # The broad component is the second one, so that it wins at both ends.
    rng = np.random.default_rng(1)
    x = torch.from_numpy(np.concatenate([rng.beta(2, 9, 900), rng.beta(30, 20, 900)]))
    table = beta_mixture.posterior_table(x, 100)
    np.testing.assert_allclose(table.numpy(), plain_table(x.numpy()), rtol=1e-9, atol=1e-14)
    assert (table[table.argmax() :] == table.max()).all()


@pytest.mark.parametrize("x", [[], [0.3], [0.3, 0.3, 0.3]])
def test_without_a_mixture_the_table_is_one_half(x):
    assert beta_mixture.posterior_table(torch.tensor(x).double(), 100).tolist() == [0.5] * 100


def test_the_regulariser_and_its_gradient():
    z = (3 * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
    expected = sum(0.25 * torch.log(0.25 / p[:, k].mean()) for k in range(4))
    value = divergence_from_uniform(z.log_softmax(1))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        torch.autograd.grad(value, z, retain_graph=True),
        torch.autograd.grad(expected, z),
        rtol=1e-12,
        atol=1e-13,
    )


# ---- Whole trainings -----------------------------------------------------------------------------


def plain_logits(network, x, *, training):
    """Return the network's logits without a graph."""
    network.train(training)
    with torch.no_grad():
        z = network(x)
    network.train()
    return z


def cross_entropies(z, labels):
    """Return log-sum-exp minus the label's logit, for each example."""
    losses = []
    for row, y in zip(z, labels, strict=True):
        losses.append(torch.log(torch.exp(row).sum()) - row[y])
    return torch.stack(losses)


class Plain:
    """M-DYR from the formulas. It shares only the streams of draws with the method."""

    def __init__(self, run, kind, warmup, dynamic, cooling):
        self.run, self.kind = run, kind
        self.warmup, self.start, self.cooling = warmup, warmup + dynamic, cooling
        self.network = copy.deepcopy(run.networks[0])
        self.sgd = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)

    def fit(self, labels):
        z = plain_logits(self.network, self.run.images.rows, training=False)
        losses = cross_entropies(z, labels).numpy()
        low, high = np.percentile(losses, 5), np.percentile(losses, 95)
        kept = losses[(losses >= low) & (losses <= high)]
        self.low, self.high = low + 1e-5, high
        self.table = plain_table(self.scaled(kept))
        return [self.B(loss) for loss in losses]

    def scaled(self, losses):
        scaled = (losses - self.low) / (self.high - self.low + 1e-6)
        return np.clip(scaled, 1e-3, 1 - 1e-3)

    def B(self, loss):
        return min(max(self.table[int(100 * self.scaled(loss))], 1e-4), 1 - 1e-4)

    def present(self, x, y):
        losses = cross_entropies(plain_logits(self.network, x, training=False), y)
        return torch.tensor([self.B(loss) for loss in losses.tolist()], dtype=torch.float64)

    def step(self, x, y, epoch, share, partner):
        C = self.run.task.num_classes
        if epoch < self.warmup:
            z = self.network(share * x + (1 - share) * x[partner])
            loss = share * cross_entropies(z, y).mean()
            return loss + (1 - share) * cross_entropies(z, y[partner]).mean()

        guess = None
        if epoch >= self.start:
            guess = plain_logits(self.network, x, training=True)
        if self.kind != "m-dyr-h":
            B = self.present(x, y)
        if self.kind == "md-dyr-sh":
            clean = (1 - B)[:, None]
            mixed = (clean * x + clean[partner] * x[partner]) / (clean + clean[partner])
        else:
            mixed = share * x + (1 - share) * x[partner]
        z = self.network(mixed)
        if self.kind == "m-dyr-h":
            B = self.present(x, y)
        if guess is None:
            loss = share * cross_entropies(z, y).mean()
            return loss + (1 - share) * cross_entropies(z, y[partner]).mean()

        p = torch.exp(z) / torch.exp(z).sum(1, keepdim=True)
        loss = 0.0
        weights = (share, 1 - share) if self.kind == "m-dyr-h" else (0.5, 0.5)
        temperature = 1.0
        if self.kind == "md-dyr-sh":
            vector = np.linspace(1, 0.001, self.cooling)
            temperature = vector[min(epoch - self.start, self.cooling - 1)]
        for b in range(len(x)):
            for weight, c in zip(weights, (b, int(partner[b])), strict=True):
                if self.kind == "m-dyr-h":
                    target = torch.zeros(C, dtype=torch.float64)
                    target[guess[c].argmax()] = 1.0
                else:
                    e = torch.exp((guess[c] - guess[c].max()) / temperature)
                    target = e / e.sum()
                corrected = -(target * torch.log(p[b])).sum()
                given = -torch.log(p[b, y[c]])
                loss = loss + weight * ((1 - B[c]) * given + B[c] * corrected) / len(x)
        return loss + 0.7 * sum(torch.log(1 / C / p[:, k].mean()) / C for k in range(C))


@pytest.mark.parametrize("kind", ["m-dyr-h", "m-dyr-s", "md-dyr-sh"])
def test_a_whole_training_equals_a_plain_one(kind):
    # Two epochs of mixup; md-dyr-sh has two of dynamic mixup, and cools in three.
    task = lab.make_task(N=60, C=4, epochs=8)
    network = lab.small_network(task).double()
    run = in_float64(lab.make_run(task, networks=[network], lr=0.05, images=hinted(task)))
    method = MDYR(
        task, kind, alpha=2.0, reg=0.7, warmup_share=2 / 8, dynamic_share=2 / 8, cooling_share=3 / 8
    )
    assert torch.equal(method.own_labels(), torch.full((60,), 0.5, dtype=torch.float64))
    plain = Plain(run, kind, 2, 2 if kind == "md-dyr-sh" else 0, 3)
    method.prepare(run)
    spread = []

    for epoch in range(8):
        lab.train(method, run, [epoch])
        if epoch >= 2:
            wrong = plain.fit(task.labels)
            np.testing.assert_allclose(method.own_labels().numpy(), 1 - np.array(wrong), rtol=1e-6)
            spread.append(np.std(wrong))
        rng = mixmatch.numpy_rng(run.generator("mixup"))
        for index in run.order().split(16):
            share, partner = rng.beta(2.0, 2.0), torch.from_numpy(rng.permutation(len(index)))
            loss = plain.step(run.batch(index).images, task.labels[index], epoch, share, partner)
            plain.sgd.zero_grad()
            loss.backward()
            plain.sgd.step()

        for name, value in plain.network.state_dict().items():
            torch.testing.assert_close(
                run.networks[0].state_dict()[name], value, rtol=1e-7, atol=1e-9
            )
    # In some epoch the mixture told the examples apart.
    assert max(spread) > 0.01


@pytest.mark.parametrize(
    ("kind", "epochs", "warmup", "start", "cooling"),
    [
        ("m-dyr-h", 300, 105, 105, 89),
        ("md-dyr-sh", 300, 105, 110, 89),
        ("md-dyr-sh", 120, 42, 44, 36),
        ("m-dyr-s", 1, 1, 1, 1),
    ],
)
def test_phases_scale_with_the_training(kind, epochs, warmup, start, cooling):
    method = MDYR(lab.make_task(epochs=epochs), kind)
    assert (method.warmup, method.start, method.cooling) == (warmup, start, cooling)
    assert method.begins == {"the mixture": warmup, "the correction of labels": start}


def test_the_temperature_falls_once():
    z = torch.tensor([[1.0, 2.0, 4.0]])
    method = MDYR(lab.make_task(epochs=300), "md-dyr-sh")
    for epoch, temperature in ((110, 1.0), (154, 0.5005), (198, 0.001), (299, 0.001)):
        torch.testing.assert_close(method.target(z, epoch), (z / temperature).softmax(1))
    soft = MDYR(lab.make_task(epochs=300), "m-dyr-s")
    torch.testing.assert_close(soft.target(z, 299), z.softmax(1))


def test_the_defaults_are_those_of_the_authors_code():
    method = MDYR(lab.make_task())
    assert (method.kind, method.alpha, method.reg) == ("m-dyr-h", 32.0, 1.0)
