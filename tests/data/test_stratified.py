"""Balanced draws: quotas by hand, classes that are too small, and the seed."""

import numpy as np
import pytest

from nlbench import streams
from nlbench.data import stratified


def drawn(counts, size, seed=0):
    """Positions drawn from classes of these sizes, and how many of each."""
    labels = streams.rng(7, "labels").permutation(
        np.repeat(np.arange(len(counts)) * 3, counts)
    )  # classes 0, 3, 6, ...
    index = stratified.balanced(labels, size, streams.rng(seed, "order"))

    assert index.dtype == np.int64
    assert len(np.unique(index)) == len(index) == size
    return index, [int((labels[index] == 3 * c).sum()) for c in range(len(counts))]


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ((10, 10, 10), 9, [3, 3, 3]),
        ((2, 10, 10), 10, [2, 4, 4]),
        ((1, 2, 10), 9, [1, 2, 6]),
        ((1, 2, 10), 13, [1, 2, 10]),
        ((5, 100), 40, [5, 35]),
        ((4,), 3, [3]),
        ((3, 3), 0, [0, 0]),
        ((), 0, []),
    ],
)
def test_quotas(counts, size, expected):
    for seed in range(20):
        assert drawn(counts, size, seed)[1] == expected


@pytest.mark.parametrize(
    ("counts", "size", "level"),
    [((10, 10, 10), 10, 3), ((2, 10, 10, 10), 15, 4), ((9, 9, 9), 1, 0)],
)
def test_a_remainder_that_does_not_divide_is_drawn(counts, size, level):
    """Each class that has more gets one more in some draws, and no class is two ahead of another."""
    got = np.array([drawn(counts, size, seed)[1] for seed in range(100)])
    full = np.array(counts) <= level

    assert (got[:, full] == np.array(counts)[full]).all()
    assert set(np.unique(got[:, ~full]).tolist()) == {level, level + 1}
    assert (np.ptp(got[:, ~full], axis=0) == 1).all()


def test_an_odd_lot_of_short_classes_stays_balanced():
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.integers(1, 12, rng.integers(1, 9))
        size = int(rng.integers(0, counts.sum() + 1))
        got = np.array(drawn(counts, size, int(rng.integers(1000)))[1])
        open_ = got < counts
        assert not open_.any() or got.max() - got[open_].min() <= 1


def test_the_order_is_drawn_and_follows_the_seed():
    first, again, other = (drawn((50, 60, 70), 90, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert sorted(first) != sorted(other)
    assert not np.array_equal(first, np.sort(first))


def test_each_member_of_a_class_is_drawn_as_often():
    times = np.zeros(60, int)
    for seed in range(400):
        times[drawn((20, 40), 20, seed)[0]] += 1

    assert times.sum() == 8000
    assert abs(times[times > 150] - 200).max() < 60
    assert abs(times[times <= 150] - 100).max() < 50


@pytest.mark.parametrize("size", [-1, 7])
def test_more_than_there_are(size):
    with pytest.raises(ValueError, match=f"cannot take {size} of 6 examples"):
        stratified.balanced(np.arange(6) % 2, size, streams.rng(0, "order"))
