"""Accuracy and memorisation as exact counts, against numbers counted by hand."""

import pytest
import torch

from nlbench.method import Batch
from nlbench.results.summary import summarise
from nlbench.training import evaluate


def one_hot(classes, C):
    """Return logits that predict these classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes), C).float()


def test_accuracies_by_hand():
    # Class 0 is the first, and classes 5 and 6 are not among the first five.
    logits = torch.tensor([[7.0, 6, 5, 4, 3, 2, 1]]).repeat(4, 1)
    assert evaluate.accuracies(logits, torch.tensor([0, 1, 4, 5])) == {
        "accuracy": 0.25,
        "top5": 0.75,
    }
    assert evaluate.accuracies(one_hot([0, 1], 5), torch.tensor([0, 0])) == {"accuracy": 0.5}


def test_memorisation_by_hand():
    clean = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    # The last four are wrong.
    given = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    counts = evaluate.Memorisation(given, clean)

    # With a right label: three times right, once not. With a wrong label: the true class, the
    # given label twice, and another class.
    logits = one_hot([0, 1, 2, 0, 4, 1, 2, 4], 5)
    for index in torch.randperm(8, generator=torch.Generator().manual_seed(0)).split(3):
        counts.add(logits[index], Batch(torch.empty(0), given[index], index, lambda i, k: i))

    assert counts.take() == {
        "clean_right": 0.75,
        "wrong_true": 0.25,
        "wrong_memorised": 0.5,
        "wrong_other": 0.25,
    }

    # Taking the counts starts them anew, and nothing was counted since.
    assert set(counts.take().values()) == {None}


def test_examples_without_a_known_true_label_do_not_count():
    clean = torch.tensor([0, 1, -1, -1, 2])
    given = torch.tensor([0, 1, 2, 0, 0])
    counts = evaluate.Memorisation(given, clean)
    counts.count(torch.tensor([0, 0, 2, 1, 0]), torch.arange(5))

    assert counts.take() == {
        "clean_right": 0.5,
        "wrong_true": 0.0,
        "wrong_memorised": 1.0,
        "wrong_other": 0.0,
    }
    targets = torch.eye(3)[[0, 0, 2, 1, 2]]
    assert evaluate.target_accuracy(targets, clean) == pytest.approx(2 / 3)


def test_target_accuracy_leaves_out_empty_rows():
    targets = torch.tensor([[0.0, 0.0], [0.2, 0.1], [0.1, 0.4]])
    assert evaluate.target_accuracy(targets, torch.tensor([0, 0, 0])) == 0.5


def test_summary_by_hand():
    test = [0.1, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7]
    val = [0.0] * 3 + [0.8, 0.8] + [0.1] * 7
    history = []
    for test_accuracy, val_accuracy in zip(test, val, strict=True):
        history.append({"test_accuracy": test_accuracy, "val_accuracy": val_accuracy})

    summary = summarise(history, ("test", "val"))

    assert summary["last"] == 0.7
    assert summary["last10"] == pytest.approx((0.5 + 8 * 0.6 + 0.7) / 10)
    assert (summary["best"], summary["best_epoch"]) == (0.9, 1)
    # Epochs 3 and 4 have the same validation accuracy. The first of them is selected.
    assert (summary["selected"], summary["selected_epoch"]) == (0.6, 3)
    assert "selected" not in summarise([{"test_accuracy": 0.5}], ("test",))


def test_summary_of_clean_validation_and_of_a_second_test_set_by_hand():
    rows = [(0.5, 0.2, 0.1, 0.3), (0.7, 0.9, 0.2, 0.4), (0.8, 0.9, 0.3, 0.6), (0.6, 0.4, 0.4, 0.8)]
    names = ("test_accuracy", "clean_val_accuracy", "ilsvrc12_accuracy", "ilsvrc12_top5")
    history = [dict(zip(names, row, strict=True)) for row in rows]
    summary = summarise(history, ("test", "clean_val", "ilsvrc12"))

    assert summary == {
        "last": 0.6,
        "last10": pytest.approx(0.65),
        "best": 0.8,
        "best_epoch": 2,
        "selected_clean": 0.7,
        "selected_clean_epoch": 1,
        "ilsvrc12_last": 0.4,
        "ilsvrc12_last_top5": 0.8,
    }
