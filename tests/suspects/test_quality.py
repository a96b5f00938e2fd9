"""Orders of suspects against the true labels, and cleanlab beside them."""

import csv
import io
import re

import numpy as np
import pytest
from made_suspects import GIVEN, TRUE, arrays_of, made_store

from nlbench.errors import SuiteError
from nlbench.results.cells import Results
from nlbench.suspects import confident, labelling, quality
from nlbench.suspects.dataset import Truth
from nlbench.suspects.scores import SCORES


def found_in(tmp_path, runs, **noise):
    store = made_store(tmp_path, runs, **noise)
    plan = labelling.choose_plan(store, None)
    results = Results(plan, store, {})
    return labelling.read(results, store, plan).labellings


def compared(tmp_path, runs, truth, rows=("ce",), scores=tuple(SCORES), **noise):
    parts = [(part, truth) for part in found_in(tmp_path, runs, **noise)]
    return quality.compare("made", parts, rows, scores)


def line(table, by, part=quality.TRAINED_ON, row="ce"):
    found = [one for one in table.found if (one.row, one.by, one.part) == (row, by, part)]
    assert len(found) == 1
    return found[0]


def test_an_order_is_measured_as_by_hand():
    """Wrong labels are at places 1 and 3 of 4: (1/1 + 2/3) / 2."""
    measured = quality.measure(
        np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False]), estimated=3
    )

    assert measured.average_precision == pytest.approx(5 / 6)
    assert measured.precision == pytest.approx(2 / 3)
    assert measured.recall == 1.0
    assert (measured.n, measured.wrong) == (4, 2)


def test_where_nothing_is_taken_there_is_no_precision():
    measured = quality.measure(np.array([2.0, 1.0]), np.array([True, False]), estimated=0)

    assert (measured.precision, measured.recall) == (None, 0.0)


@pytest.mark.parametrize("wrong", [[False, False], [True, True]])
def test_nothing_can_be_found_where_all_labels_are_alike(wrong):
    assert quality.measure(np.array([2.0, 1.0]), np.array(wrong), estimated=1) is None


def test_random_orders_have_the_noise_rate_on_average():
    rng = np.random.default_rng(0)
    wrong = np.arange(1000) < 300

    found = [quality.measure(rng.random(1000), wrong, 300) for _ in range(50)]

    assert np.mean([one.average_precision for one in found]) == pytest.approx(0.3, abs=0.01)
    assert np.mean([one.precision for one in found]) == pytest.approx(0.3, abs=0.01)


def test_a_perfect_order_and_its_reverse(tmp_path):
    right, reversed_ = arrays_of(range(8)), arrays_of(range(8))
    reversed_["margin"] = -reversed_["margin"]
    runs = {("ce", 0): right, ("bad", 0): reversed_}

    table = compared(tmp_path, runs, Truth(TRUE, GIVEN), ["ce", "bad"], ["margin"])

    (found,) = line(table, "margin").measured
    assert (found.average_precision, found.precision, found.recall) == (1.0, 1.0, 1.0)
    assert line(table, "margin", row="bad").mean("average_precision") < 3 / 8
    # Both count as much as the other, so the mean places are equal.
    both = line(table, "margin", row=quality.ALL_ROWS)
    assert both.mean("average_precision") == pytest.approx(3 / 8)


def test_examples_of_unknown_truth_do_not_count(tmp_path):
    partly = TRUE.copy()
    partly[[0, 1]] = -1

    table = compared(tmp_path, {("ce", 0): arrays_of(range(8))}, Truth(partly, None))

    (found,) = line(table, "margin").measured
    assert (found.n, found.wrong) == (6, 2)


def test_seeds_with_own_labels_are_averaged(tmp_path):
    runs = {("ce", seed): arrays_of(range(8), noise=3.0, seed=seed) for seed in (0, 1)}

    table = compared(tmp_path, runs, Truth(TRUE, GIVEN), labels_hash=str)

    found = line(table, "margin")
    values = [one.average_precision for one in found.measured]
    assert len(values) == 2
    assert found.mean("average_precision") == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    assert "means over 2 lists" in table.notes[0]


def test_without_true_labels_the_user_is_told(tmp_path):
    with pytest.raises(SuiteError, match=r"nothing can be compared.*no true label is known"):
        compared(tmp_path, {("ce", 0): arrays_of(range(8))}, None)


def test_the_table_is_printed_and_written(tmp_path):
    table = compared(tmp_path, {("ce", 0): arrays_of(range(8))}, Truth(TRUE, GIVEN))

    printed = table.as_markdown(80)
    assert "| ce | margin | trained on | 8 | 37.5 | 100.0 |" in re.sub(" +", " ", printed)
    lines = list(csv.DictReader(io.StringIO(table.as_csv())))
    assert (lines[0]["by"], lines[0]["average_precision"]) == ("margin", "1")
    assert (lines[0]["noise_rate"], lines[0]["probabilities"]) == ("0.375", "in-sample")


# ---- cleanlab ------------------------------------------------------------------------------------


def probabilities(true, sure=0.8):
    probs = np.full((len(true), 3), (1 - sure) / 2)
    probs[np.arange(len(true)), true] = sure
    return probs.astype("float16")


def with_held_out(trained, held):
    index = np.array(held)
    return arrays_of(trained) | {
        "val_index": index.astype("int32"),
        "val_probs": probabilities(TRUE[index]),
    }


def test_held_out_probabilities_of_several_seeds_are_put_together(tmp_path):
    runs = {("ce", 0): with_held_out(range(5), [5, 6, 7])}
    runs["ce", 1] = with_held_out(range(3, 8), [0, 1, 2])
    (part,) = found_in(tmp_path, runs)
    examples = quality.examples_of(part)

    found = confident.held_out(part, "ce", examples, Truth(TRUE, None))

    assert list(found.index) == [0, 1, 2, 5, 6, 7]
    assert list(found.given) == list(GIVEN[[0, 1, 2, 5, 6, 7]])
    assert found.probs.sum(1) == pytest.approx([1.0] * 6)
    assert list(found.probs.argmax(1)) == list(TRUE[[0, 1, 2, 5, 6, 7]])


def test_given_labels_of_one_seeds_held_out_examples_come_from_the_data(tmp_path):
    (part,) = found_in(tmp_path, {("ce", 0): with_held_out(range(5), [5, 6, 7])})
    examples = quality.examples_of(part)

    assert confident.held_out(part, "ce", examples, Truth(TRUE, None)) is None
    found = confident.held_out(part, "ce", examples, Truth(TRUE, GIVEN))
    assert list(found.given) == list(GIVEN[[5, 6, 7]])


def test_without_cleanlab_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(confident.importlib.util, "find_spec", lambda name: None)
    arrays = arrays_of(range(8)) | {"train_probs": probabilities(TRUE)}

    table = compared(tmp_path, {("ce", 0): arrays}, Truth(TRUE, GIVEN))

    assert confident.NOT_INSTALLED in table.notes
    assert quality.CLEANLAB not in [one.by for one in table.found]


def test_cleanlab_is_compared_on_the_same_examples(tmp_path):
    pytest.importorskip("cleanlab", reason="cleanlab is an optional extra")
    N = 60
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=N)
    given = np.where(rng.random(N) < 0.3, (true + 1) % 3, true)

    def run(trained, held):
        arrays = {
            "train_index": trained.astype("int32"),
            "labels": given[trained].astype("int16"),
            "train": true[trained].astype("int16"),
            "margin": np.where(given == true, 1.0, -1.0)[trained].astype("float32"),
            "train_probs": probabilities(true[trained]),
            "val_index": held.astype("int32"),
            "val_probs": probabilities(true[held]),
        }
        return {**arrays, "test": np.zeros(4, "int16")}

    all_ = np.arange(N)
    # Both seeds hold out the last five, which have no score.
    held = np.concatenate([all_[:20], all_[55:]])
    runs = {("ce", 0): run(all_[20:55], held), ("ce", 1): run(all_[:40], all_[40:])}

    table = compared(tmp_path, runs, Truth(true, given))

    held = line(table, quality.CLEANLAB, quality.HELD_OUT)
    assert held.probabilities == "out-of-sample"
    (found,) = held.measured
    assert (found.n, found.average_precision) == (35, 1.0)
    # Its off-diagonal counts are exact here, so it names exactly the wrong labels.
    assert (found.precision, found.recall) == (1.0, 1.0)
    (same,) = line(table, "margin", quality.HELD_OUT).measured
    assert (same.n, same.wrong) == (found.n, found.wrong)

    inside = line(table, quality.CLEANLAB)
    assert (inside.part, inside.probabilities) == (quality.TRAINED_ON, "in-sample")
    assert "cleanlab, in-sample" in table.as_markdown(100)
