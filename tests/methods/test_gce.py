"""The truncated form of GCE: when it prunes, by which network, and what remains in the mean."""

import copy

import pytest
import torch
from cases import CLASSES
from lab import make_run, no_views
from torch import nn

from nlbench.method import Batch, Task


class Fixed(nn.Module):
    """Gives example i the probability `p[i]` for its label."""

    def __init__(self, p, labels, C):
        super().__init__()
        self.p, self.labels, self.C = nn.Parameter(p), labels, C

    def forward(self, rows):
        others = torch.log((1 - self.p) / (self.C - 1))
        logits = others[:, None].repeat(1, self.C)
        return logits.scatter(1, self.labels[:, None], self.p.log()[:, None])[: len(rows)]


def truncated(epochs, validation=None, **params):
    """Make a truncated GCE, its run, and a network whose p_y are 0.3, 0.49, 0.51 and 0.9.

    Args:
        validation: the accuracies that run.validate gives, one after the other.
    """
    labels = torch.tensor([0, 1, 2, 1])
    task = Task(4, 3, labels, epochs, 1, 4)
    network = Fixed(torch.tensor([0.3, 0.49, 0.51, 0.9]), labels, 3)
    run = make_run(task, networks=[network])
    if validation is not None:
        scores = iter(validation)
        run.validate = lambda network: next(scores)

    method = CLASSES["gce"](task, truncate=True, **params)
    method.prepare(run)
    return method, run, network


@pytest.mark.parametrize(
    ("epochs", "params", "refreshed"),
    [
        (120, {}, [40, 50, 60, 70, 80, 90, 100, 110, 120]),  # the authors' schedule on CIFAR-10
        (
            150,
            {"start_share": 80 / 150, "every_share": 10 / 150},
            [80, 90, 100, 110, 120, 130, 140, 150],
        ),
        (12, {}, list(range(4, 13))),
        (3, {}, [2, 3]),  # not before the first epoch, when p_y is 1/C
        (1, {}, []),
    ],
)
def test_truncation_follows_the_schedule(epochs, params, refreshed):
    method, run, _ = truncated(epochs, **params)
    predicted, seen = run.predict_train, []
    run.predict_train = lambda network: (seen.append(run.epoch + 1), predicted(network))[1]

    for epoch in range(epochs):
        run.epoch = epoch
        method.on_epoch_start(run, epoch)
        expected = [1.0] * 4 if not seen else [0.0, 0.0, 1.0, 1.0]
        assert method.weights.tolist() == expected
        method.on_epoch_end(run, epoch)

    assert seen == refreshed


def test_truncation_keeps_the_weights_where_nothing_would_remain():
    method, run, network = truncated(4, k=0.95)
    for epoch in range(4):
        method.on_epoch_start(run, epoch)
    assert method.weights.tolist() == [1.0] * 4
    network.p.data[3] = 0.96
    method.on_epoch_start(run, 3)
    assert method.weights.tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("resume_at", [0, 1, 2, 3])
def test_truncation_prunes_by_the_best_network_so_far(resume_at):
    # One score when the method asks whether there is a validation part, then one an epoch: epoch 1
    # is the best.
    scores = [0.2, 0.6, 0.6, 0.3]
    method, run, network = truncated(4, validation=[0.0, *scores], start_share=1.0)
    by_epoch = [[0.1, 0.1, 0.1, 0.9], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9], [0.6] * 4]

    for epoch, p in enumerate(by_epoch):
        if epoch == resume_at:
            saved = copy.deepcopy(method.state_dict())
            method, run, network = truncated(4, validation=[0.0, *scores[epoch:]], start_share=1.0)
            method.load_state_dict(saved)
        method.on_epoch_start(run, epoch)
        network.p.data.copy_(torch.tensor(p))
        method.on_epoch_end(run, epoch)

    # The weights were refreshed once, at the start of the last epoch.
    assert method.weights.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert method.best_accuracy == 0.6
    # The network in training was not changed by it.
    assert network.p.data.tolist() == pytest.approx([0.6] * 4)


def test_pruned_examples_stay_in_the_mean():
    method, _, _ = truncated(4)
    method.weights.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1]] * 4, dtype=torch.float64))
    batch = Batch(logits, torch.zeros(4, dtype=torch.int64), torch.arange(4), no_views)
    expected = ((1 - 0.8**0.7) / 0.7 - (1 - 0.5**0.7) / 0.7) / 4
    assert float(method.loss(logits, batch)) == pytest.approx(expected, rel=1e-12)
    assert expected < 0
