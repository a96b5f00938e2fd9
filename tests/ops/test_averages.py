"""Averaged copies of networks, and the ramp of ELR+, against numbers written out by hand."""

import math

import pytest
import torch
from torch import nn

from nlbench.ops import averages


def network():
    """Make a network of parameters, and of the batch statistics of a BatchNorm."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def test_copies_have_the_weights_and_take_no_gradient():
    networks = [network(), network()]
    copies = averages.frozen_copies(networks)

    assert len(copies) == 2
    for made, original in zip(copies, networks, strict=True):
        for mine, theirs in zip(made.parameters(), original.parameters(), strict=True):
            assert torch.equal(mine, theirs)
            assert mine.data_ptr() != theirs.data_ptr()
            assert theirs.requires_grad
            assert not mine.requires_grad


def test_an_average_follows_the_parameters_alone():
    trained = network()
    (average,) = averages.frozen_copies([trained])
    expected = [p.tolist() for p in average.parameters()]

    for decay in (0.75, 0.5, 0.0):
        with torch.no_grad():
            for p in trained.parameters():
                p.add_(torch.randn_like(p))
        trained[1].running_mean.add_(1.0)
        averages.follow(average, trained, decay)

        for number, (old, new) in enumerate(
            zip(average.parameters(), trained.parameters(), strict=True)
        ):
            by_hand = torch.tensor(expected[number], dtype=torch.float64) * decay
            by_hand += (1 - decay) * new.detach()
            torch.testing.assert_close(old, by_hand, rtol=1e-12, atol=1e-14)
            expected[number] = old.tolist()

    # The last decay of 0 takes over the weights as they are, and the statistics stay.
    assert torch.equal(average[0].weight, trained[0].weight)
    assert average[1].running_mean.abs().max() == 0
    assert trained[0].weight.requires_grad


@pytest.mark.parametrize(
    ("step", "length", "expected"),
    [
        (0, 10, math.exp(-5)),
        (5, 10, math.exp(-1.25)),
        (8, 10, math.exp(-0.2)),
        (10, 10, 1.0),
        (11, 10, 1.0),
        (0, 0, 1.0),
        (3, 0, 1.0),
    ],
)
def test_the_ramp_rises_to_1_and_stays_there(step, length, expected):
    assert averages.exponential_ramp(step, length) == pytest.approx(expected, rel=1e-12)
