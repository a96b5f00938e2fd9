"""PLS: a step and a whole training against plain loops, its mixtures, phases and edges."""

import copy
import warnings

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from nlbench import registry
from nlbench.ops import mixmatch

PLS = registry.load_method(registry.method_files()["pls"])

# ---- Plain re-implementation, one example after the other ----------------------------------------


def soft(row):
    e = torch.exp(row - row.max())
    return e / e.sum()


def ce(row, target):
    """Return -sum_k target_k log p_k of a row of logits."""
    return -(target * (row - torch.logsumexp(row, 0))).sum()


def one_hot(y, C):
    target = torch.zeros(C, dtype=torch.float64)
    target[y] = 1.0
    return target


def plain_posterior(values, generator):
    """Return the probability of the lower component, rounded as the method's."""
    values = np.asarray(values, dtype=np.float64)
    x = (values - values.min()) / (values.max() - values.min())
    seed = int(torch.randint(2**31, (), generator=generator))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        p = mixture.fit(x[:, None]).predict_proba(x[:, None])
    return np.float32(p[:, int(mixture.means_[1, 0] < mixture.means_[0, 0])])


def plain_guess(network, views, power):
    with torch.no_grad():
        first, second = network(views[0]), network(views[1])
    guesses = []
    for a, b in zip(first, second, strict=True):
        q = ((soft(a) + soft(b)) / 2) ** power
        guesses.append(q / q.sum())
    return guesses


def plain_loss(network, projection, x, strong, targets, w, share, partner, temperature):
    """Return the loss of a batch. In the warm-up `strong` is None."""
    B, C = len(x), len(targets[0])
    mixed = torch.stack([share * x[i] + (1 - share) * x[partner[i]] for i in range(B)])
    h = network[:-1](mixed)
    z = network[-1](h)

    own = sum(w[i] * ce(z[i], targets[i]) for i in range(B)) / max(sum(w), 1e-12)
    other = 0.0
    for i in range(B):
        k = partner[i]
        other = other + w[k] * ce(z[i], targets[k]) / max(sum(w), 1e-12)
    loss = share * own + (1 - share) * other
    if strong is None:
        return loss

    mean = sum(soft(row) for row in z) / B
    loss = loss + sum(torch.log(1 / C / mean[k]) / C for k in range(C))

    classes = []
    for i in range(B):
        classes.append(int((share * targets[i] + (1 - share) * targets[partner[i]]).argmax()))
    M = torch.zeros(B, B, dtype=torch.float64)
    for i in range(B):
        for j in range(B):
            if classes[i] == classes[j]:
                M[i, j] += w[i] * w[j]
            if i == j:
                M[i, j] += (1 - w[i]) ** 2
    a, b = projection(h), projection(network[:-1](strong))
    for i in range(B):
        m = share * M[i] + (1 - share) * M[partner[i]]
        cosines = [(a[i] @ b[j]) / (a[i].norm() * b[j].norm()) for j in range(B)]
        loss = loss + ce(torch.stack(cosines) / temperature, m) / m.sum() / B
    return loss


def double_run(task, lr=0.05, **choices):
    network = lab.small_network(task).double()
    return in_float64(lab.make_run(task, networks=[network], lr=lr, images=hinted(task), **choices))


# ---- One step ------------------------------------------------------------------------------------


def patterns(N):
    """Name which examples are noisy, and their weights."""
    rng = torch.Generator().manual_seed(4)
    some = torch.rand(N, generator=rng) < 0.5
    return {
        "mixed": (some, torch.where(some, torch.rand(N, generator=rng), 1.0)),
        "all noisy": (torch.ones(N).bool(), torch.rand(N, generator=rng)),
        "none noisy": (torch.zeros(N).bool(), torch.ones(N)),
        "without weight": (torch.ones(N).bool(), torch.zeros(N)),
    }


@pytest.mark.parametrize("pattern", ["mixed", "all noisy", "none noisy", "without weight"])
@pytest.mark.parametrize("C", [2, 10])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_step_equals_the_formula(pattern, C, share):
    task = lab.make_task(N=24, C=C, epochs=6, batch_size=12)
    run = double_run(task, lr=0.0)
    method = PLS(task, sharpening=1.5, temperature=0.3, warmup_share=1 / 6)
    method.prepare(run)
    method.double()
    noisy, w = patterns(24)[pattern]
    method.noisy.copy_(noisy)
    method.weights.copy_(w)
    network, projection = copy.deepcopy(run.networks[0]), copy.deepcopy(method.projection)
    run.epoch = 3
    index = torch.randperm(24, generator=torch.Generator().manual_seed(1))[:12]
    partner = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    batch = run.batch(index)
    assert method.training_step(run, batch, share, partner) is None

    views = run.batch(index).view(0), run.batch(index).view(1)
    guesses = plain_guess(network, views, 1.5)
    targets = []
    for i, n in enumerate(index.tolist()):
        targets.append(guesses[i] if noisy[n] else one_hot(int(task.labels[n]), C))
    expected = plain_loss(
        network,
        projection,
        views[0],
        run.batch(index).strong(0),
        targets,
        method.weights[index].tolist(),
        share,
        partner.tolist(),
        0.3,
    )
    expected.backward()

    assert run.losses[-1][1].item() == pytest.approx(expected.item(), rel=1e-12)
    ours = [*run.networks[0].parameters(), *method.projection.parameters()]
    theirs = [*network.parameters(), *projection.parameters()]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(method.guesses[index], torch.stack(guesses), rtol=1e-12, atol=0)
    # Batch norm has counted the passes in this order, with those of the pseudo-labels.
    for a, b in zip(run.networks[0].buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    # Others keep theirs.
    rest = [n for n in range(24) if n not in index.tolist()]
    given = torch.nn.functional.one_hot(task.labels, C).double()
    assert torch.equal(method.guesses[rest], given[rest])


# ---- A whole training ----------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.4, 0.95])
def test_a_whole_training_equals_a_plain_one(threshold):
    task = lab.make_task(N=48, C=4, epochs=8)
    run = double_run(task)
    method = PLS(task, threshold=threshold, alpha=2.0, warmup_share=2 / 8)
    method.prepare(run)
    method.double()
    network, projection = copy.deepcopy(run.networks[0]), copy.deepcopy(method.projection)
    params = [*network.parameters(), *projection.parameters()]
    sgd = torch.optim.SGD(params, lr=0.05, momentum=0.9)
    given = [one_hot(int(y), 4) for y in task.labels]
    guesses, noisy, weights = list(given), [False] * 48, [1.0] * 48
    found, doubted = 0, 0

    for epoch in range(8):
        lab.train(method, run, [epoch])
        if epoch >= 2:
            network.eval()
            with torch.no_grad():
                z = network(run.images.rows)
            network.train()
            losses = [float(ce(z[n], given[n])) for n in range(48)]
            low = plain_posterior(losses, run.generator("noisy"))
            noisy = [bool(1 - p > threshold) for p in low]
            weights = [1.0] * 48
            chosen = [n for n in range(48) if noisy[n]]
            if epoch > 2 and len(chosen) > 2:
                pseudo = [float(ce(z[n], guesses[n])) for n in chosen]
                trust = plain_posterior(pseudo, run.generator("pseudo-losses"))
                for n, p in zip(chosen, trust, strict=True):
                    weights[n] = float(p)
            assert method.noisy.tolist() == noisy
            assert method.weights.tolist() == pytest.approx(weights, rel=1e-6)
            found += len(chosen)
            doubted += sum(weight < 0.5 for weight in weights)

        rng = mixmatch.numpy_rng(run.generator("mixup"))
        for index in run.order().split(16):
            drawn, partner = rng.beta(2.0, 2.0), rng.permutation(len(index)).tolist()
            share, batch, rows = max(drawn, 1 - drawn), run.batch(index), index.tolist()
            targets, strong = [given[n] for n in rows], None
            if epoch >= 2:
                new = plain_guess(network, (batch.view(0), batch.view(1)), 2.0)
                for i, n in enumerate(rows):
                    guesses[n] = new[i]
                    targets[i] = new[i] if noisy[n] else targets[i]
                strong = batch.strong(0)
            w = [weights[n] for n in rows]
            x = batch.view(0)
            loss = plain_loss(network, projection, x, strong, targets, w, share, partner, 0.2)
            sgd.zero_grad()
            loss.backward()
            sgd.step()

        for name, value in network.state_dict().items():
            torch.testing.assert_close(
                run.networks[0].state_dict()[name], value, rtol=1e-7, atol=1e-9
            )
        for name, value in projection.state_dict().items():
            torch.testing.assert_close(
                method.projection.state_dict()[name], value, rtol=1e-7, atol=1e-9
            )
        torch.testing.assert_close(method.guesses, torch.stack(guesses), rtol=1e-7, atol=1e-9)

    assert found > 10, "the mixture found no noisy examples"
    assert doubted, "no pseudo-label was doubted"
    expected = [guesses[n] if noisy[n] else given[n] for n in range(48)]
    torch.testing.assert_close(method.own_labels(), torch.stack(expected), rtol=1e-7, atol=1e-9)


# ---- Mixtures and phases -------------------------------------------------------------------------


def at_losses(values, guesses, epoch, part=None):
    """Start an epoch with logits of which the first class has these probabilities."""
    N = len(values)
    task = lab.make_task(N=N, C=2, epochs=6)
    task.labels.zero_()
    method = PLS(task, warmup_share=1 / 6)
    p = torch.tensor(values, dtype=torch.float64)
    logits = torch.stack([p, 1 - p], 1).log().float()
    run = lab.make_run(task)
    run.predict_train = lambda network, index=None: logits if index is None else logits[index]
    if part is not None:
        run.part = lambda: torch.tensor(part)
    method.guesses.copy_(torch.tensor(guesses))
    method.weights.fill_(0.25)
    run.epoch = epoch
    method.on_epoch_start(run, epoch)
    return method


# Ten clean examples and six noisy ones. The network believes the pseudo-labels of three of them.
VALUES = [0.99] * 10 + [0.01, 0.012, 0.011, 0.013, 0.01, 0.011]
GUESSES = [[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 3 + [[1.0, 0.0]] * 3


def test_noisy_examples_and_their_weights():
    method = at_losses(VALUES, GUESSES, epoch=2)
    assert method.noisy.tolist() == [False] * 10 + [True] * 6
    assert method.weights.tolist() == pytest.approx([1.0] * 13 + [0.0] * 3, abs=1e-6)
    assert method.own_labels().tolist() == GUESSES


def test_in_the_first_epoch_after_the_warm_up_all_weights_are_one():
    method = at_losses(VALUES, GUESSES, epoch=1)
    assert method.noisy.sum() == 6
    assert (method.weights == 1).all()


def test_in_the_warm_up_nothing_is_fitted():
    method = at_losses(VALUES, GUESSES, epoch=0)
    assert not method.noisy.any()
    assert (method.weights == 0.25).all()


@pytest.mark.parametrize("noisy", [0, 1, 2, 3])
def test_fewer_than_three_noisy_examples_have_no_mixture(noisy):
    values = [0.99] * 12 + [0.01] * noisy
    # A third one is doubted.
    guesses = [[1.0, 0.0]] * 12 + [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]][:noisy]
    method = at_losses(values, guesses, epoch=2)
    assert method.noisy.sum() == noisy
    assert int((method.weights == 1).sum()) == 12 + noisy - (noisy == 3)


def test_examples_that_are_not_in_an_epoch_keep_their_state():
    part = [*range(3, 10), *range(10, 16)]
    method = at_losses(VALUES, GUESSES, epoch=2, part=part)
    assert (method.weights[:3] == 0.25).all()
    assert method.noisy.tolist() == [False] * 10 + [True] * 6
    assert method.weights[3:].tolist() == pytest.approx([1.0] * 10 + [0.0] * 3, abs=1e-6)


@pytest.mark.parametrize(("epochs", "warmup"), [(200, 30), (40, 6), (1, 1)])
def test_the_warm_up_scales_with_the_training(epochs, warmup):
    method = PLS(lab.make_task(epochs=epochs))
    assert method.begins == {"pseudo-labels": warmup, "their weights": warmup + 1}


def test_the_defaults_are_those_of_the_authors_code():
    method = PLS(lab.make_task(epochs=200))
    found = method.threshold, method.sharpening, method.temperature, method.alpha
    assert found == (0.95, 2.0, 0.2, 1.0)
    run = lab.make_run(method.task)
    method.prepare(run)
    assert method.projection[0].weight.shape == (128, 16)
    assert len(method.projection) == 1
    assert run.optimisers["projection"].defaults["momentum"] == 0.9


def test_the_plan_names_the_views_that_a_step_uses():
    task = lab.make_task(N=40, C=4, epochs=6)
    run, named = lab.make_run(task), []
    make = run.batch
    run.batch = lambda index, *views: named.append(views) or make(index, *views)
    method = PLS(task, warmup_share=1 / 6)
    for epoch in (0, 1):
        run.begin_epoch(epoch)
        items = list(method.batches(run, epoch))
        assert sorted(torch.cat([batch.index for batch, _, _ in items]).tolist()) == list(range(40))
        assert all(0.5 <= share <= 1 for _, share, _ in items)
    assert named == [(0,)] * 3 + [(0, 1)] * 3
