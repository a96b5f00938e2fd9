"""MentorNet PD: the curriculum and its steps, against a plain re-implementation."""

import copy
import math

import lab
import numpy as np
import pytest
import torch
from lab import in_float64, make_task, train

from nlbench import registry

MentorNet = registry.load_method(registry.method_files()["mentornet"])


def plain_weights(losses, m, percent, gamma):
    """Return the curriculum's weights of a list of losses."""
    weights = []
    for loss in losses:
        if percent <= 18:
            weights.append(1.0)
        elif percent < 90:
            weights.append(1.0 if loss <= m else 0.0)
        else:
            weights.append(min(max(1 - (loss - m) / gamma, 0.0), 1.0))
    return weights


def test_a_whole_training_equals_a_plain_one():
    # Three steps an epoch, six epochs. Curriculum and dropout change in the middle of an epoch.
    task = make_task(N=40, C=4, epochs=6)
    network = lab.small_network(task).double()
    plain = copy.deepcopy(network)
    run = in_float64(lab.make_run(task, networks=[network], lr=0.05))
    method = MentorNet(task, gamma=4.0, percentile=0.6, decay=0.8)
    method.double()
    stays = []
    for epoch in range(6):
        run.begin_epoch(epoch)
        stays += [stay.tolist() for _, stay, _ in method.batches(run, epoch)]

    method.prepare(run)
    m, at, velocity = 0.0, 0, [torch.zeros_like(p) for p in plain.parameters()]
    used = set()
    for epoch in range(6):
        train(method, run, [epoch])
        for step, index in enumerate(run.order().split(16)):
            percent = math.floor(100 * (3 * epoch + step) / 18 + 1e-9)
            z = plain(run.batch(index).images)
            losses = []
            for b, y in enumerate(task.labels[index].tolist()):
                losses.append(torch.log(torch.exp(z[b]).sum()) - z[b, y])
            values = [loss.item() for loss in losses]
            m = 0.8 * m + 0.2 * np.percentile(values, 60, method="nearest")
            weights = plain_weights(values, m, percent, 4.0)
            used |= set(weights)
            total = sum(
                loss * w for loss, w, stay in zip(losses, weights, stays[at], strict=True) if stay
            )
            at += 1
            plain.zero_grad()
            (total / len(losses)).backward()
            with torch.no_grad():
                for k, p in enumerate(plain.parameters()):
                    velocity[k] = 0.9 * velocity[k] + p.grad
                    p -= 0.05 * velocity[k]

        assert float(method.threshold) == pytest.approx(m, rel=1e-9)
        for a, b in zip(run.networks[0].parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
    # Some weights were between 0 and 1, others at the ends.
    assert {0.0, 1.0} < used


def test_how_many_examples_stay():
    task = make_task(N=40, epochs=100)
    run = lab.make_run(task)
    method = MentorNet(task)
    for epoch, counts in ((0, [8, 8, 4]), (16, [8, 8, 4]), (17, [15, 15, 7]), (99, [15, 15, 7])):
        run.begin_epoch(epoch)
        items = list(method.batches(run, epoch))
        assert [int(stay.sum()) for _, stay, _ in items] == counts
        assert [percent for _, _, percent in items] == [epoch] * 3
        assert items[0][1].tolist() != items[1][1].tolist()


def test_one_example_stays_at_least():
    task = make_task(N=1, epochs=3)
    run = lab.make_run(task)
    run.begin_epoch(0)
    ((_, stay, _),) = MentorNet(task, early_dropout=0.9).batches(run, 0)
    assert stay.tolist() == [True]


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (18, [1, 1, 1, 1, 1]),
        (19, [1, 1, 1, 0, 0]),
        (89, [1, 1, 1, 0, 0]),
        (90, [1, 1, 1, 0.75, 0]),
        (99, [1, 1, 1, 0.75, 0]),
    ],
)
def test_the_weights_of_each_phase(percent, expected):
    method = MentorNet(make_task(), percentile=0.5, decay=0.0, gamma=4.0)
    losses = torch.tensor([0.0, 1.0, 2.0, 3.0, 6.0])
    assert method.weights(losses, percent).tolist() == pytest.approx(expected)
    assert float(method.threshold) == 2.0


def test_the_threshold_moves_from_zero():
    method = MentorNet(make_task())
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    # 0.7 of ten steps up is the eighth loss.
    for expected in (4.0, 6.0, 7.0):
        method.weights(losses, 0)
        assert float(method.threshold) == pytest.approx(expected)


def test_the_percentile_is_the_nearest_rank():
    method = MentorNet(make_task(), percentile=0.4, decay=0.0)
    method.weights(torch.arange(1.0, 11.0), 0)
    # 0.4 of the nine steps from the lowest to the highest of ten losses is 3.6.
    assert float(method.threshold) == 5.0


def test_what_begins_when():
    assert MentorNet(make_task(epochs=100)).begins == {"the curriculum": 19}
    assert MentorNet(make_task(epochs=40)).begins == {"the curriculum": 8}


def test_the_width_of_the_last_phase_is_by_default_that_of_the_authors_code():
    assert MentorNet(make_task()).gamma == 1.0
