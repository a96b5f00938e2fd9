"""SSR and SSR+: whole trainings against plain loops, the relabelling, the votes and the lists."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from cases import hinted
from lab import in_float64

from nlbench import registry
from nlbench.ops import mixmatch, neighbours
from nlbench.ops.features import with_features

SSR = registry.load_method(registry.method_files()["ssr"])

# ---- Plain re-implementation, one example after the other ----------------------------------------


def soft(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def plain_selection(z, h, given, C, theta_r, theta_s, k):
    """Return y' and whether it is clean, for each row of logits and features, and the votes."""
    labels = []
    for row, y in zip(z, given, strict=True):
        p = soft(row)
        labels.append(int(p.argmax()) if p.max() > theta_r else y)

    clean, every = [], []
    for own in range(len(h)):
        cosines = []
        for other in range(len(h)):
            cosines.append(h[own] @ h[other] / math.sqrt(h[own] @ h[own] * (h[other] @ h[other])))
        nearest = sorted(range(len(h)), key=lambda n: -cosines[n])[:k]
        votes = [0.0] * C
        for n in nearest:
            votes[labels[n]] += 1 / k
        for c in range(C):
            votes[c] /= max(labels.count(c), 1) / len(labels)
        every.append([vote / sum(votes) for vote in votes])
        # A tie is a tie, whatever the order of the operations.
        clean.append(votes[labels[own]] / max(votes) >= theta_s - 1e-12)
    return labels, clean, every


def plain_list(rows, labels, rng):
    """Return the clean examples, each class repeated up to the largest one."""
    members = {}
    for n in rows:
        members.setdefault(labels[n], []).append(n)
    most = max(map(len, members.values()))
    found = []
    for c in sorted(members):
        repeated = members[c] * -(-most // len(members[c]))
        head, tail = repeated[: len(repeated) - most], repeated[len(repeated) - most :]
        found += (head + [tail[i] for i in rng.permutation(most)])[:most]
    return [found[i] for i in rng.permutation(len(found))]


def plain_parts(rows, size, rng):
    """Yield the batches of passes over a list without end, each pass in an order of its own."""
    while True:
        starts = list(range(0, len(rows), size))
        # A batch of one joins the one before it.
        if len(starts) > 1 and len(rows) - starts[-1] == 1:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            yield rows[start:stop]
        rows = [rows[i] for i in rng.permutation(len(rows))]


def plain_mixup(network, views, labels, C, alpha, rng):
    share = rng.beta(alpha, alpha)
    share = max(share, 1 - share)
    partner = rng.permutation(len(views))
    mixed = torch.stack([share * views[i] + (1 - share) * views[k] for i, k in enumerate(partner)])
    loss = 0.0
    for i, (row, k) in enumerate(zip(network(mixed), partner, strict=True)):
        log_p = row - torch.logsumexp(row, 0)
        loss = loss - share * log_p[labels[i]] - (1 - share) * log_p[labels[k]]
    return loss / len(views)


def plain_consistency(network, projector, predictor, weak, strong):
    """Return the mean of minus the cosines. The passes of batch norm have the method's order."""
    with torch.no_grad():
        target = projector(network[:-1](weak))
    guess = predictor(projector(network[:-1](strong)))
    loss = 0.0
    for a, b in zip(guess, target, strict=True):
        loss = loss - (a @ b) / (a.norm() * b.norm()) / len(guess)
    return loss


def double_run(task, lr=0.05, **choices):
    network = lab.small_network(task).double()
    return in_float64(lab.make_run(task, networks=[network], lr=lr, images=hinted(task), **choices))


# ---- Whole trainings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "theta_s", "size"),
    [(0.0, 1.0, 16), (0.7, 1.0, 16), (0.0, 0.6, 15), (1.0, 0.6, 9)],
)
def test_a_whole_training_equals_a_plain_one(lam, theta_s, size):
    N, C, k = 46, 4, 9
    task = lab.make_task(N=N, C=C, epochs=6, batch_size=size)
    run = double_run(task)
    method = SSR(task, lam=lam, theta_r=0.6, theta_s=theta_s, k=k, alpha=2.0)
    method.prepare(run)
    method.double()
    network = copy.deepcopy(run.networks[0])
    heads = [copy.deepcopy(head) for head in method.children()]
    assert len(heads) == (2 if lam else 0)
    params = [p for part in (network, *heads) for p in part.parameters()]
    sgd = torch.optim.SGD(params, lr=0.05, momentum=0.9)
    given, relabelled, dropped, steps = task.labels.tolist(), 0, 0, 0

    for epoch in range(6):
        lab.train(method, run, [epoch])
        network.eval()
        with torch.no_grad():
            weak = run.batch(torch.arange(N), 1).view(1)
            h = network[:-1](weak)
            z = network[-1](h).numpy()
        network.train()
        labels, clean, votes = plain_selection(z, h.numpy(), given, C, 0.6, theta_s, k)
        assert method.corrected.tolist() == labels
        assert method.clean.tolist() == clean
        np.testing.assert_allclose(method.own_labels().numpy(), votes, rtol=1e-9, atol=1e-12)
        relabelled += sum(a != b for a, b in zip(labels, given, strict=True))
        dropped += N - sum(clean)

        rng = mixmatch.numpy_rng(run.generator("plan"))
        mixing = mixmatch.numpy_rng(run.generator("mixup"))
        order = run.order().tolist()
        rows = plain_list([n for n in order if clean[n]], labels, rng)
        parts = plain_parts(rows, size, rng)
        for everything in mixmatch.chunks(torch.tensor(order), size):
            part = next(parts)
            own = run.batch(torch.tensor(part))
            views = torch.cat([own.strong(0), own.strong(1)])
            y = [labels[n] for n in part] * 2
            loss = plain_mixup(network, views, y, C, 2.0, mixing)
            if lam:
                both = run.batch(everything)
                loss = loss + lam * plain_consistency(network, *heads, both.view(0), both.strong(2))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            steps += 1

        for a, b in zip([run.networks[0], *method.children()], [network, *heads], strict=True):
            # The method's heads see only those passes that they learn from.
            for name, value in a.state_dict().items():
                torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-7, atol=1e-9)

    assert steps == run.step == 6 * len(mixmatch.chunks(torch.arange(N), size))
    assert relabelled >= 5
    assert dropped >= 10


@pytest.mark.parametrize("lam", [0.0, 0.7])
@pytest.mark.parametrize("C", [2, 10])
def test_a_step_equals_the_formula(lam, C):
    task = lab.make_task(N=24, C=C, epochs=6, batch_size=12)
    run = double_run(task, lr=0.0)
    method = SSR(task, lam=lam, alpha=3.0)
    method.prepare(run)
    method.corrected.copy_((task.labels + 1) % C)
    network = copy.deepcopy(run.networks[0])
    heads = [copy.deepcopy(head) for head in method.children()]
    run.epoch = 2
    # Examples may come twice in a batch.
    own, every = torch.tensor([3, 5, 3, 20, 11]), torch.arange(12, 24)
    rng = np.random.default_rng(5)
    method.training_step(run, run.batch(own), run.batch(every) if lam else None, rng)

    batch = run.batch(own)
    views = torch.cat([batch.strong(0), batch.strong(1)])
    y = method.corrected[own].tolist() * 2
    expected = plain_mixup(network, views, y, C, 3.0, np.random.default_rng(5))
    if lam:
        batch = run.batch(every)
        expected = expected + lam * plain_consistency(
            network, *heads, batch.view(0), batch.strong(2)
        )
    expected.backward()
    assert run.losses[-1][1].item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip([run.networks[0], *method.children()], [network, *heads], strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-13)


# ---- Relabelling and selection -------------------------------------------------------------------


def selected(logits, features, labels, **choices):
    """Start an epoch with these logits and features, and return the method."""
    task = lab.make_task(N=len(labels), C=logits.shape[1])
    task.labels.copy_(torch.tensor(labels))
    run = lab.make_run(task)
    method = SSR(task, **choices)
    method.look = lambda run, index: (logits[index], features[index])
    method.on_epoch_start(run, 0)
    return method


def test_a_label_gives_way_to_a_sure_prediction_only():
    p = torch.tensor([[0.89, 0.11], [0.91, 0.09], [0.2, 0.8], [0.05, 0.95]], dtype=torch.float64)
    one = torch.eye(4, dtype=torch.float64)
    method = selected(p.log(), one, [1, 1, 0, 0], k=1)
    assert method.corrected.tolist() == [1, 0, 0, 1]
    assert selected(p.log(), one, [1, 1, 0, 0], k=1, theta_r=1.0).corrected.tolist() == [1, 1, 0, 0]
    # The given labels count in each epoch, not those of the epoch before.
    method.look = lambda run, index: (torch.zeros_like(p), one)
    method.on_epoch_start(lab.make_run(method.task), 1)
    assert method.corrected.tolist() == [1, 1, 0, 0]


def test_a_prediction_at_the_threshold_is_not_sure():
    one = torch.eye(4, dtype=torch.float64)
    # Of two equal logits each class has exactly one half.
    method = selected(torch.zeros(4, 2).double(), one, [1, 1, 0, 1], k=1, theta_r=0.5)
    assert method.corrected.tolist() == [1, 1, 0, 1]


def circle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    # Lengths do not matter.
    lengths = torch.arange(1, len(degrees) + 1, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], 1) * lengths[:, None]


def test_neighbours_vote_by_hand():
    # Two heaps. One member of each has the label of the other.
    features = circle(0, 1, 3, 7, 90, 91, 93, 97, 98)
    labels = [0, 0, 1, 0, 1, 1, 1, 0, 1]
    method = selected(torch.zeros(9, 2).double(), features, labels, k=3)
    # Of the first example the nearest are 0, 1, 2. Class 0 has 2 votes of 4, class 1 one of 5.
    assert method.votes[0].tolist() == pytest.approx([0.5 / 0.7, 0.2 / 0.7])
    assert method.clean.tolist() == [True, True, False, True, True, True, True, False, True]
    assert torch.equal(method.own_labels(), method.votes)
    # With a lower threshold the second class is enough.
    lower = selected(torch.zeros(9, 2).double(), features, labels, k=3, theta_s=0.4)
    assert lower.clean[2]


def test_votes_count_by_the_share_of_their_class():
    # Two votes of a class of eight weigh as much as one of a class of four.
    features = circle(0, 1, 2, 40, 80, 120, 160, 200, 240, 280, 300, 320)
    labels = [0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0]
    method = selected(torch.zeros(12, 2).double(), features, labels, k=3)
    assert method.votes[1].tolist() == pytest.approx([0.5, 0.5])
    # Of a tie both are clean.
    assert method.clean[:3].all()


def test_all_examples_are_neighbours_of_a_short_list():
    method = selected(torch.zeros(3, 2).double(), circle(0, 50, 90), [0, 1, 1])
    assert method.votes.tolist() == [[0.5, 0.5]] * 3
    assert method.clean.all()


def test_where_no_example_is_clean_all_are(monkeypatch):
    # Each example has most votes for another class than its own.
    monkeypatch.setitem(
        SSR.on_epoch_start.__globals__,
        "votes_of_neighbours",
        lambda features, labels, C, k: torch.eye(C, dtype=torch.int64)[1 - labels] + 0,
    )
    method = selected(torch.zeros(4, 2).double(), circle(0, 1, 2, 3), [0, 1, 0, 1])
    assert method.clean.all()


@pytest.mark.parametrize("entries", [1, 100, 2**26])
def test_votes_do_not_depend_on_the_parts(entries, monkeypatch):
    rng = torch.Generator().manual_seed(3)
    features = torch.randn(30, 5, generator=rng, dtype=torch.float64)
    labels = torch.randint(3, (30,), generator=rng)
    monkeypatch.setattr(neighbours, "ENTRIES", entries)
    votes = neighbours.votes_of_neighbours(features, labels, 4, 6)
    unit = features / features.norm(dim=1, keepdim=True)
    for n, row in enumerate(unit @ unit.T):
        nearest = labels[row.argsort(descending=True)[:6]]
        assert votes[n].tolist() == torch.bincount(nearest, minlength=4).tolist()


def test_examples_that_are_not_in_an_epoch_keep_their_state():
    task = lab.make_task(N=40, C=4)
    run = lab.make_run(task, epoch_size=16, images=hinted(task))
    method = SSR(task, k=4, theta_r=0.3)
    run.begin_epoch(0)
    part = run.part()
    others = torch.ones(40).bool()
    others[part] = False
    method.votes.fill_(-1.0)
    method.on_epoch_start(run, 0)
    assert (method.votes[others] == -1).all()
    assert (method.votes[part] >= 0).all()
    assert torch.equal(method.corrected[others], task.labels[others])
    assert not torch.equal(method.corrected[part], task.labels[part])
    # The lists have only examples of the epoch.
    for batch, everything, _ in method.batches(run, 0):
        assert everything is None
        assert not others[batch.index].any()


def test_the_network_is_looked_at_in_evaluation_mode_and_without_gradient():
    task = lab.make_task(N=40, C=4)
    run = double_run(task)
    method, network = SSR(task), run.networks[0]
    before = copy.deepcopy(network.state_dict())
    index = torch.tensor([7, 3, *range(20, 39)])
    logits, features = method.look(run, index)
    assert network.training
    assert not logits.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    z, h = with_features(network.eval(), run.batch(index, 1).view(1))
    torch.testing.assert_close(logits, z.detach())
    torch.testing.assert_close(features, h.detach())


# ---- Lists and defaults --------------------------------------------------------------------------


def test_a_list_has_each_class_as_often():
    labels = torch.tensor([0] * 7 + [2] * 3 + [5] * 1)
    index = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:11]
    lists = []
    for seed in range(20):
        found = mixmatch.balanced(index, labels, np.random.default_rng(seed)).tolist()
        counts = [found.count(n) for n in index.tolist()]
        assert counts[:7] == [1] * 7
        assert sum(counts[7:10]) == 7
        assert min(counts[7:10]) >= 1
        assert counts[10] == 7
        lists.append((found, counts[7:10]))
    # Both the order and who comes once more are random.
    assert len({tuple(found) for found, _ in lists}) == 20
    assert len({tuple(counts) for _, counts in lists}) > 1


def test_the_defaults_are_those_of_the_authors_code():
    method = SSR(lab.make_task())
    found = method.lam, method.theta_r, method.theta_s, method.k, method.alpha
    assert found == (0.0, 0.9, 1.0, 200, 4.0)


def test_only_ssr_plus_has_heads():
    run = lab.make_run(lab.make_task())
    SSR(run.task).prepare(run)
    assert list(run.optimisers) == ["network0"]
    method = SSR(run.task, lam=1.0)
    method.prepare(run)
    widths = []
    for head in (method.projector, method.predictor):
        kinds = [type(layer).__name__ for layer in head]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        widths.append([head[0].in_features, head[0].out_features, head[3].out_features])
    assert widths == [[16, 256, 128], [128, 256, 128]]
    heads = run.optimisers["heads"]
    assert sum(len(group["params"]) for group in heads.param_groups) == 12
    assert heads.defaults == run.optimisers["network0"].defaults
