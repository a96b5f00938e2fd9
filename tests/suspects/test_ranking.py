"""Which runs are put together, and in which order their examples come."""

import csv
import io

import numpy as np
import pytest
from made_suspects import CLASSES, GIVEN, SUITE, TRUE, arrays_of, made_store

from nlbench.errors import StoreError, SuiteError
from nlbench.results.cells import Results
from nlbench.suspects import labelling, listing, ranking

WRONG = [1, 4, 6]


def found_in(store, **options):
    plan = labelling.choose_plan(store, None)
    return labelling.read(Results(plan, store, {}), store, plan, **options)


def ranked(tmp_path, runs, rows=("ce",), score=None, **noise):
    found = found_in(made_store(tmp_path, runs, **noise))
    return ranking.rank(found.labellings[0], rows, score)


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_wrong_labels_come_first_with_the_class_that_is_suggested(tmp_path):
    found = ranked(tmp_path, {("ce", 0): arrays_of(range(8))})

    assert found.score.name == "margin"
    assert list(found.examples.index[found.order[:3]]) == WRONG
    assert list(found.suggested[WRONG]) == list(TRUE[WRONG])
    assert (found.suggested[[0, 2, 3, 5, 7]] == ranking.NONE).all()
    assert found.estimated == 3


@pytest.mark.parametrize("score", ["margin", "prob", "loss"])
def test_each_score_orders_by_how_suspicious_it_is(tmp_path, score):
    found = ranked(tmp_path, {("ce", 0): arrays_of(range(8))}, score=score)

    assert list(found.order) == [1, 4, 6, 0, 2, 3, 5, 7]


def test_own_targets_count_more_than_the_last_prediction(tmp_path):
    memorised = arrays_of(range(8)) | {"train": GIVEN.astype("int16")}
    own = {"own_score": np.where(GIVEN == TRUE, 0.9, 0.1).astype("float32")}
    own["own_label"] = TRUE.astype("int16")

    found = ranked(tmp_path, {("elr", 0): memorised | own}, ["elr"], "own")

    assert list(found.order[:3]) == WRONG
    assert list(found.suggested[WRONG]) == list(TRUE[WRONG])


def test_where_own_targets_say_nothing_the_last_prediction_counts(tmp_path):
    own = {"own_score": np.full(8, 0.5, "float32"), "own_label": np.full(8, -1, "int16")}
    own["own_score"][3] = np.nan

    found = ranked(tmp_path, {("elr", 0): arrays_of(range(8)) | own}, ["elr"], "own")

    assert list(found.suggested[WRONG]) == list(TRUE[WRONG])
    # Nothing is known of it, so it comes last.
    assert found.order[-1] == 3


def test_examples_are_merged_by_their_position_in_the_dataset(tmp_path):
    """Seed 0 holds out the last two examples, and seed 1 the first two."""
    one, other = arrays_of(range(6)), arrays_of(range(2, 8))
    other["margin"] = other["margin"] - 1
    other["train"] = np.where(other["train_index"] == 4, 2, other["train"]).astype("int16")

    found = ranked(tmp_path, {("ce", 0): one, ("ce", 1): other})

    assert list(found.examples.index) == list(range(8))
    assert list(found.examples.given) == list(GIVEN)
    assert list(found.runs) == [1, 1, 2, 2, 2, 2, 1, 1]
    both = one["margin"][4] / 2 + other["margin"][2] / 2
    assert found.values["margin"][4] == pytest.approx(both)
    assert found.values["margin"][7] == pytest.approx(other["margin"][5])
    # Seed 0 suggests 1, and seed 1 suggests 2. Of equally many the smaller class counts.
    assert found.suggested[4] == 1
    assert found.agreement[4] == 0.5


def test_runs_with_other_labels_are_never_merged(tmp_path):
    runs = {("ce", seed): arrays_of(range(8)) for seed in (0, 1, 2)}

    store = made_store(tmp_path, runs, labels_hash=lambda seed: "one" if seed < 2 else "other")
    parts = found_in(store).labellings

    assert [part.seeds for part in parts] == [[0, 1], [2]]
    assert all(part.alone for part in parts)


def test_records_that_do_not_say_their_labels_are_never_merged(tmp_path):
    runs = {("ce", seed): arrays_of(range(8)) for seed in (0, 1)}

    store = made_store(tmp_path, runs, labels_hash=None)

    assert [part.seeds for part in found_in(store).labellings] == [[0], [1]]


@pytest.mark.parametrize("dataset", ["digits", "of-a-later-version"])
def test_a_dataset_that_may_be_drawn_for_each_seed_is_never_merged(tmp_path, dataset):
    """Another image has the same position there, and may have the same label."""
    runs = {("ce", seed): arrays_of(range(8)) for seed in (0, 1)}

    store = made_store(tmp_path, runs, dataset=dataset)

    assert [part.seeds for part in found_in(store).labellings] == [[0], [1]]


def test_runs_that_are_not_there_yet_are_counted(tmp_path):
    store = made_store(tmp_path, {("ce", 0): arrays_of(range(8))})
    plan = store.plan(SUITE)
    missing = {"row": "ce", "condition": 0, "seed": 1, "key": "0" * 16}
    store.write_plan({**plan, "seeds": [0, 1], "cells": [*plan["cells"], missing]})

    assert found_in(store).notes == ["CIFAR-10: 1 of 2 runs are there; the others may change this"]


def test_two_labels_of_one_example_are_an_error(tmp_path):
    other = arrays_of(range(8))
    other["labels"] = TRUE.astype("int16")

    with pytest.raises(StoreError, match="different labels of one example"):
        ranked(tmp_path, {("ce", 0): arrays_of(range(8)), ("ce", 1): other})


def test_an_array_of_another_length_is_an_error(tmp_path):
    arrays = arrays_of(range(8)) | {"margin": np.zeros(7, "float32")}

    with pytest.raises(StoreError, match="margin is of 7 examples, and train_index of 8"):
        ranked(tmp_path, {("ce", 0): arrays})


def test_of_several_rows_the_mean_place_counts(tmp_path):
    """The logits of one row are a hundred times as large, and must not count more."""
    one, other = arrays_of(range(8)), arrays_of(range(8))
    one["margin"] = np.array([-1, 0, 1, 2, 3, 4, 5, 6], "float32")
    other["margin"] = np.array([700, 600, 500, 400, 300, 200, 100, 0], "float32")

    found = ranked(tmp_path, {("ce", 0): one, ("mae", 0): other}, ["ce", "mae"])

    assert found.suspicion == pytest.approx([0.5] * 8)
    assert found.is_of_places


def test_agreement_over_methods_counts_rows_that_do_not_order_the_list(tmp_path):
    agrees, memorised = arrays_of(range(8)), arrays_of(range(8))
    memorised["train"] = GIVEN.astype("int16")

    runs = {("ce", 0): arrays_of(range(8)), ("elr", 0): agrees, ("mae", 0): memorised}
    found = ranked(tmp_path, runs)

    assert found.rows == ["ce"]
    assert found.row_agreement[WRONG] == pytest.approx([2 / 3] * 3)
    assert listing.agreements(found, 1) == ["1/1", "2/3"]


# ---- Scores that are missing ---------------------------------------------------------------------


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


def test_records_of_an_earlier_version_are_ordered_by_the_loss(tmp_path):
    found = ranked(tmp_path, {("ce", 0): without(arrays_of(range(8)), "margin")})

    assert found.score.name == "loss"
    assert "an earlier version of nlbench did not keep it" in found.notes[0]
    assert "--stale rerun" in found.notes[0]


def test_a_method_without_logits_is_left_out_by_name(tmp_path):
    bare = without(arrays_of(range(8)), "margin", "train_loss")

    found = ranked(tmp_path, {("ce", 0): arrays_of(range(8)), ("mixup", 0): bare}, ["ce", "mixup"])

    assert (found.score.name, found.rows) == ("margin", ["ce"])
    assert "of mixup" in found.notes[0]
    assert "its steps return no logits" in found.notes[0]
    assert "earlier version" not in found.notes[0]


def test_a_score_that_nobody_has_is_refused_with_those_that_are_there(tmp_path):
    with pytest.raises(SuiteError) as refused:
        ranked(tmp_path, {("ce", 0): arrays_of(range(8))}, score="own")

    assert "--score own: no run of ce has it" in str(refused.value)
    assert "keeps no target or weight of each example" in str(refused.value)
    assert str(refused.value).endswith("They have: margin, prob, loss")


def test_runs_that_say_nothing_are_named(tmp_path):
    store = made_store(tmp_path, {("ce", 0): {"test": np.zeros(4, "int16")}})

    with pytest.raises(StoreError, match=r"its predictions\.npz has no train_index"):
        found_in(store)


def test_several_suites_must_be_told_apart(tmp_path):
    store = made_store(tmp_path, {("ce", 0): arrays_of(range(8))})
    store.write_plan({**store.plan(SUITE), "suite": "second"})

    with pytest.raises(SuiteError, match="--suite: made, second"):
        labelling.choose_plan(store, None)
    assert labelling.choose_plan(store, "second")["suite"] == "second"
    with pytest.raises(SuiteError, match="Did you mean 'second'"):
        labelling.choose_plan(store, "secnd")


# ---- The list as CSV -----------------------------------------------------------------------------


def test_the_columns_of_the_list_are_these(tmp_path):
    # Programs and people's own scripts read them.
    expected = ["suite", "condition", "seeds", "rank", "index", "row", "file", "given", "suggested"]
    expected += ["suspect", "suspicion", "agreement", "runs", "rows_agreement", "rows"]
    expected += ["margin", "own", "prob", "loss", "confirmed"]
    assert list(listing.COLUMNS) == expected
    found = ranked(tmp_path, {("ce", 0): arrays_of(range(8)), ("ce", 1): arrays_of(range(6))})

    lines = lines_of(listing.as_csv([found], None))

    assert [line["rank"] for line in lines] == [str(i) for i in range(1, 9)]
    first = lines[0]
    assert (first["seeds"], first["index"], first["file"]) == ("0 1", "1", "im/1.png")
    assert (first["given"], first["suggested"]) == (CLASSES[2], CLASSES[1])
    assert (first["suspect"], lines[3]["suspect"]) == ("yes", "no")
    assert (first["margin"], first["own"], first["confirmed"]) == ("-1.99", "", "")


def test_no_cell_of_the_list_is_a_formula(tmp_path):
    arrays = arrays_of(range(8)) | {"names": np.array([f"=1+{i}" for i in range(8)])}

    lines = lines_of(listing.as_csv([ranked(tmp_path, {("ce", 0): arrays})], None))

    assert {line["file"][:2] for line in lines} == {"'="}
    assert {line["given"] for line in lines} == {"'=cat", "dog", "<b>owl</b>"}


def test_a_file_name_that_is_no_text_can_be_written(tmp_path):
    arrays = arrays_of([0]) | {"names": np.array(["\udce4.png"])}

    text = listing.as_csv([ranked(tmp_path, {("ce", 0): arrays})], None)

    assert lines_of(text)[0]["file"] == "\\udce4.png"
    text.encode()


def test_runs_that_cannot_be_used_are_counted_by_reason(tmp_path):
    runs = {("ce", seed): {"test": np.zeros(4, "int16")} for seed in range(6)}
    store = made_store(tmp_path, runs)

    with pytest.raises(StoreError) as error:
        found_in(store)

    assert str(error.value).endswith(
        "ce, CIFAR-10, seed 0; ce, CIFAR-10, seed 1; ce, CIFAR-10, seed 2; and 3 more are left "
        "out: its predictions.npz has no train_index"
    )
