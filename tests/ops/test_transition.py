"""The estimate of T from predictions: its anchors by hand, and what it refuses."""

import pytest
import torch

from nlbench.ops.transition import estimate_T


def test_estimate_T_by_hand():
    probs = torch.tensor(
        [
            [0.95, 0.05, 0.00],  # largest of column 0
            [0.70, 0.20, 0.10],
            [0.10, 0.85, 0.05],
            [0.05, 0.90, 0.05],  # largest of column 1
            [0.30, 0.10, 0.60],
            [0.20, 0.05, 0.75],  # largest of column 2
        ],
        dtype=torch.float64,
    )

    # The rows' sums are 1 but for rounding.
    torch.testing.assert_close(estimate_T(probs, anchor="argmax"), probs[[0, 3, 5]])
    # Six values: the 97th percentile by the "higher" rule is the largest, which is dropped.
    torch.testing.assert_close(estimate_T(probs, anchor="percentile"), probs[[1, 2, 4]])
    torch.testing.assert_close(estimate_T(probs), probs[[1, 2, 4]])
    torch.testing.assert_close(estimate_T(probs, percentile=100.0), probs[[1, 2, 4]])
    # Percentile 60 of six values is the fourth: 0.30, 0.20, 0.10. The largest below: 0.20, 0.10,
    # 0.05 (first of two).
    torch.testing.assert_close(estimate_T(probs, percentile=60.0), probs[[5, 4, 2]])


def test_estimate_T_of_more_than_20_classes_takes_the_largest():
    for C, drops in ((20, True), (21, False)):
        own = torch.where(torch.arange(2 * C) < C, 0.9, 0.8).double()  # two examples a class
        probs = ((1 - own) / (C - 1))[:, None].repeat(1, C)
        probs[torch.arange(2 * C), torch.arange(2 * C) % C] = own
        assert estimate_T(probs, anchor="argmax").diagonal().tolist() == pytest.approx([0.9] * C)
        assert (estimate_T(probs).diagonal().max() < 0.85) == drops
        assert torch.equal(
            estimate_T(probs), estimate_T(probs, anchor="percentile" if drops else "argmax")
        )


def test_estimate_T_divides_rows_and_leaves_the_predictions_alone():
    probs = torch.tensor([[0.5, 0.25], [0.2, 0.6], [0.4, 0.2], [0.1, 0.3]])
    before = probs.clone()
    T = estimate_T(probs, anchor="percentile")
    torch.testing.assert_close(T, torch.tensor([[2 / 3, 1 / 3], [0.25, 0.75]], dtype=torch.float64))
    assert torch.equal(probs, before)


def test_estimate_T_of_equal_predictions():
    assert torch.equal(
        estimate_T(torch.full((5, 2), 0.5)), torch.full((2, 2), 0.5, dtype=torch.float64)
    )


def test_estimate_T_refuses_a_diverged_network():
    with pytest.raises(ValueError, match=r"^probs must be finite"):
        estimate_T(torch.tensor([[float("nan"), 1.0]]))
