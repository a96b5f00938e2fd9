"""Shares and balanced draws: quotas by hand, classes that are too small, and the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlbench import streams
from nlbench.data import stratified


def drawn(counts, size, seed=0):
    """Draw positions from classes of these sizes, and count them in each class."""
    # The classes are 0, 3, 6, ..., since labels need not be successive.
    in_order = np.repeat(np.arange(len(counts)) * 3, counts)
    labels = streams.rng(7, "labels").permutation(in_order)
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
    """Check that some draws give a larger class one more, and that none gives it two more."""
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
    first = drawn((50, 60, 70), 90, seed=0)[0]
    again = drawn((50, 60, 70), 90, seed=0)[0]
    other = drawn((50, 60, 70), 90, seed=1)[0]
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


# --- shares --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.floats(0, 1))
def test_allocated_shares_are_exact_and_in_proportion(counts, share):
    total = int(share * sum(counts))
    shares = stratified.allocate(np.array(counts), total)

    # At most one away from exact proportion; with nothing to share, all is zero.
    proportional = total * np.array(counts) / max(sum(counts), 1)
    assert shares.sum() == total
    assert (shares <= counts).all()
    assert (abs(shares - proportional) < 1).all()


def test_more_than_there_is():
    with pytest.raises(ValueError, match="cannot take 4 of 3"):
        stratified.allocate(np.array([1, 2]), 4)
