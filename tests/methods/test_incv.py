"""INCV: selection, batches and steps, against a plain re-implementation."""

import copy
import math

import lab
import pytest
import torch
from lab import in_float64, make_task, train

from nlbench import registry
from nlbench.methods.incv import noise_rate, rounds_with_the_best

INCV = registry.load_method(registry.method_files()["incv"])


def test_the_noise_rate_of_symmetric_noise_is_found_again():
    for rate, agreement in ((0.2, 0.6445), (0.5, 0.2778), (0.8, 0.1112)):
        assert noise_rate(agreement, 10) == pytest.approx(rate, abs=1e-9)
    assert noise_rate(1.0, 10) == 0.001
    # The lowest agreement that a rate explains is 0.1.
    assert noise_rate(0.05, 10) == pytest.approx(0.9)
    assert noise_rate(0.4, 2) == 0.5


@pytest.mark.parametrize(
    ("rate", "symmetric", "rounds"),
    [(0.3, True, 4), (0.31, True, 2), (0.6, True, 2), (0.61, True, 1), (0.1, False, 1)],
)
def test_how_many_rounds_keep_the_best_weights(rate, symmetric, rounds):
    assert rounds_with_the_best(rate, symmetric) == rounds


class Oracle(torch.nn.Module):
    """Gives fixed logits (N, C) to the first images; `predict_train` here indexes them."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)


def drawn(task, call):
    """Draw the logits (N, C) of the `call`-th helper network, which predicts half of the labels."""
    rng = torch.Generator().manual_seed(100 + call)
    z = 2 * torch.randn(task.num_train, task.num_classes, generator=rng, dtype=torch.float64)
    return z + 1.2 * torch.nn.functional.one_hot(task.labels, task.num_classes)


def plain_selection(task, run, rounds, symmetric):
    """Return the selected, the candidates, the rate and the arguments of the helper trainings."""
    labels, C, N = task.labels.tolist(), task.num_classes, task.num_train
    selected, candidates, rate, asked = [], list(range(N)), None, []
    for i in range(rounds):
        if len(candidates) < 2:
            break
        order = torch.randperm(len(candidates), generator=run.generator(f"round{i}")).tolist()
        shuffled = [candidates[k] for k in order]
        middle = len(shuffled) // 2
        halves = [shuffled[:middle], shuffled[middle:]]
        new, gone = [], []
        for side in range(2):
            trained, tested = halves[side], halves[1 - side]
            best = i < (rounds if i == 0 else rounds_with_the_best(rate, symmetric))
            keep = "best-accuracy" if best else "last"
            asked.append((sorted(selected + trained), sorted(tested), keep))
            z = drawn(task, len(asked))
            right = [k for k in tested if int(z[k].argmax()) == labels[k]]
            if rate is None:
                share = len(right) / len(tested)
                rate = next(
                    e / 1000
                    for e in range(1, 1000)
                    if (1 - e / 1000) ** 2 + (e / 1000) ** 2 / (C - 1) <= share
                )
            losses = {k: float(torch.logsumexp(z[k], 0) - z[k, labels[k]]) for k in tested}
            count = int(min(2, rate / (1 - rate)) * len(right))
            gone += sorted(tested, key=losses.__getitem__)[len(tested) - min(count, len(tested)) :]
            new += right
        selected = sorted(selected + new)
        out = set(new) | (set(gone) if symmetric else set())
        candidates = [k for k in candidates if k not in out]
    return selected, candidates, rate, asked


def selecting(task, **params):
    """Return a method after its selection, its run, and what it asked `run.fit` for."""
    asked = []

    def fit(run, key, loss, epochs, *, examples, held_out, keep):
        asked.append((sorted(examples.tolist()), sorted(held_out.tolist()), keep))
        assert (key, loss, epochs) == ("incv", "ce", method.length)
        return Oracle(drawn(task, len(asked)))

    run = lab.make_run(task, 2, fit=fit)
    run.predict_train = lambda network, index: network.logits.detach()[index]
    method = INCV(task, **params)
    method.prepare(run)
    return method, run, asked


@pytest.mark.parametrize(("rounds", "symmetric"), [(1, True), (3, True), (3, False), (9, True)])
def test_the_selection_equals_a_plain_one(rounds, symmetric):
    task = make_task(N=120, C=3, epochs=40)
    method, run, asked = selecting(task, rounds=rounds, symmetric=symmetric)
    selected, candidates, rate, expected = plain_selection(task, run, rounds, symmetric)

    assert method.selected.nonzero().squeeze(1).tolist() == selected
    assert method.candidates.nonzero().squeeze(1).tolist() == candidates
    assert float(method.rate) == pytest.approx(rate)
    assert asked == expected
    assert 0 < len(selected) < 120
    labels = method.own_labels()
    assert (labels[method.selected] == 1).all()
    assert (labels[method.candidates] == 0.5).all()
    assert (labels[~(method.selected | method.candidates)] == 0).all()
    # Preparing again, as a resume does, finds the same.
    asked.clear()
    method.prepare(run)
    assert method.selected.nonzero().squeeze(1).tolist() == selected
    assert asked == expected


def test_nothing_selected_is_everything():
    task = make_task(N=20, C=10)
    run = lab.make_run(task, 2, fit=lambda run, *rest, **more: Oracle(torch.zeros(20, 10)))
    wrong = torch.nn.functional.one_hot((task.labels + 1) % 10, 10).double()
    run.predict_train = lambda network, index: wrong[index]
    method = INCV(task)
    method.prepare(run)
    assert method.selected.all()
    assert not method.candidates.any()


def test_no_more_examples_are_dropped_than_there_are():
    method = INCV(make_task())
    method.rate.fill_(0.7)
    # Twice as many as were selected.
    assert method.largest(torch.tensor([3.0, 1.0, 2.0]), 1).tolist() == [2, 0]
    assert method.largest(torch.tensor([3.0, 1.0, 2.0]), 2).tolist() == [1, 2, 0]


def ready(task, rate, num_selected, num_left, **params):
    method = INCV(task, **params)
    method.rate.fill_(rate)
    method.selected[:num_selected] = True
    method.candidates.zero_()
    method.candidates[num_selected : num_selected + num_left] = True
    return method


@pytest.mark.parametrize(
    ("rate", "symmetric", "epoch", "num_left", "sizes", "counts"),
    [
        # 0.5: a tenth of the selected are wrong. The ramp takes two epochs, the warm-up eight.
        (0.5, True, 0, 20, [16, 16, 8], [16, 16, 8]),
        (0.5, True, 1, 20, [16, 16, 8], [15, 15, 8]),
        (0.5, True, 2, 20, [16, 16, 8], [14, 14, 7]),
        (0.5, True, 8, 20, [16, 16, 8], [14, 14, 7]),
        (0.5, True, 9, 10, [20, 20, 10], [14, 14, 7]),
        (0.5, True, 9, 40, [24, 24, 16], [14, 14, 7]),
        # Above 0.6, and without the assumption of symmetric noise, the warm-up is twice as long.
        (0.7, True, 16, 40, [16, 16, 8], [10, 10, 5]),
        (0.7, True, 17, 40, [24, 24, 16], [10, 10, 5]),
        (0.5, False, 16, 40, [16, 16, 8], [8, 8, 4]),
        (0.5, False, 17, 40, [24, 24, 16], [8, 8, 4]),
    ],
)
def test_the_batches_of_each_phase(rate, symmetric, epoch, num_left, sizes, counts):
    task = make_task(N=80, C=10, epochs=40)
    method = ready(task, rate, 40, num_left, symmetric=symmetric)
    run = lab.make_run(task, 2)
    run.begin_epoch(epoch)
    items = list(method.batches(run, epoch))
    assert [len(batch) for batch, _ in items] == sizes
    assert [count for _, count in items] == counts

    own = torch.cat([batch.index[batch.index < 40] for batch, _ in items])
    assert sorted(own.tolist()) == list(range(40))
    for batch, _ in items:
        assert (batch.index < 40 + num_left).all()
        assert len(set(batch.index.tolist())) == len(batch)


def test_an_epoch_without_selected_examples_has_all_of_its_own():
    task = make_task(N=80, C=10, epochs=40)
    method = ready(task, 0.5, 0, 0)
    run = lab.make_run(task, 2, epoch_size=32)
    run.begin_epoch(0)
    outside = set(range(80)) - set(run.order().tolist())
    method.selected[min(outside)] = True
    items = list(method.batches(run, 0))
    assert torch.cat([batch.index for batch, _ in items]).tolist() == run.order().tolist()


def test_ten_steps_equal_plain_ones():
    task = make_task(N=60, C=4, epochs=12)
    networks = [lab.small_network(task, 3 + i).double() for i in range(2)]
    plain = copy.deepcopy(networks)
    run = in_float64(lab.make_run(task, networks=networks, lr=0.05))
    method = ready(task, 0.6, 40, 20, ramp_share=2 / 12, warmup_share=1 / 12)
    velocity = [[torch.zeros_like(p) for p in net.parameters()] for net in plain]
    joined = 0
    for epoch in range(5):
        run.begin_epoch(epoch)
        items = list(method.batches(run, epoch))
        train(method, run, [epoch])
        for batch, count in items:
            joined += int((batch.index >= 40).any())
            losses = []
            for network in plain:
                z = network(batch.images)
                rows = []
                for row, y in zip(z, batch.labels, strict=True):
                    rows.append(torch.log(torch.exp(row).sum()) - row[y])
                losses.append(rows)
            values = [[loss.item() for loss in rows] for rows in losses]
            for i in range(2):
                theirs = values[1 - i]
                picked = sorted(range(len(theirs)), key=theirs.__getitem__)[:count]
                mean = sum(losses[i][b] for b in picked) / count
                grads = torch.autograd.grad(mean, list(plain[i].parameters()))
                with torch.no_grad():
                    for k, p in enumerate(plain[i].parameters()):
                        velocity[i][k] = 0.9 * velocity[i][k] + grads[k]
                        p -= 0.05 * velocity[i][k]
        for mine, theirs in zip(run.networks, plain, strict=True):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
    assert joined == 9


def test_network_0_predicts():
    task = make_task()
    run = lab.make_run(task, 2)
    images = torch.randn(5, 6)
    for network in run.networks:
        network.eval()
    assert torch.equal(INCV(task).predict(run, images), run.networks[0](images))


def test_shares_scale():
    method = INCV(make_task(epochs=40))
    assert (method.length, method.ramp, method.warmup) == (10, 2, 8)
    assert math.isclose(float(method.rate), 0.0)
