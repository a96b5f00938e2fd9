"""What `analyse` and `over_datasets` say of made-up stores, and what tables print of it."""

import dataclasses
import itertools
import statistics

import made_up
import pytest
from in_memory import Memory, results_of

from nlbench.errors import SuiteError
from nlbench.plan.spec import key_of
from nlbench.results import table as tables
from nlbench.results.analysis import analyse
from nlbench.results.cells import Results
from nlbench.results.metrics import METRICS
from nlbench.results.over_datasets import over_datasets
from nlbench.results.paper import best_group

GOOD = [0.90, 0.91, 0.92, 0.90, 0.91]
# As good as GOOD, with its own ups and downs.
ALSO_GOOD = [0.91, 0.90, 0.91, 0.91, 0.90]
BAD = [0.70, 0.71, 0.70, 0.69, 0.71]


@pytest.fixture
def store():
    return Memory()


# ---- The sentence and the letters ---------------------------------------------------------------


def test_two_good_rows_tie_and_are_better_than_the_bad_ones(store):
    worse = [value - 0.1 for value in ALSO_GOOD]
    values = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD, "mae": worse}
    found = analyse(results_of(store, values), 0)

    assert [row.row for row in found.rows] == ["elr", "gce", "mae", "ce"]
    assert [row.letters for row in found.rows] == ["a", "a", "b", "c"]
    assert [(row.rank_low, row.rank_high) for row in found.rows] == [(1, 2), (1, 2), (3, 3), (4, 4)]
    assert found.sentence.startswith(
        "elr and gce cannot be told apart; both are better than mae and ce; five seeds see "
        "differences of "
    )
    # The letters, the sentence and the pairs say the same.
    differ = {frozenset((p.a, p.b)) for p in found.pairs if p.differ()}
    assert frozenset(("elr", "gce")) not in differ
    assert len(differ) == 5


def test_one_clear_winner_and_no_difference_at_all(store):
    winner = analyse(results_of(store, {"ce": BAD, "elr": GOOD}), 0)
    assert winner.sentence.startswith("elr is better than ce; five seeds see differences of")

    none = analyse(results_of(store, {"gce": GOOD, "mae": ALSO_GOOD, "sl": GOOD[::-1]}), 0)
    assert none.sentence.startswith("no two of the three rows can be told apart; five seeds")
    assert [row.letters for row in none.rows] == ["a", "a", "a"]
    assert none.baseline is None


def test_a_row_in_between_is_not_said_to_be_worse(store):
    middle = [value - 0.008 for value in GOOD]
    lower = [value - 0.016 for value in GOOD[::-1]]
    values = {"elr": GOOD, "gce": [v + 0.004 * (-1) ** i for i, v in enumerate(middle)]}
    values["mae"] = [v + 0.004 * (i % 2) for i, v in enumerate(lower)]
    found = analyse(results_of(store, values), 0, adjust="tukey")

    assert [row.letters for row in found.rows] == ["a", "ab", "b"]
    assert found.sentence.startswith(
        "elr has the best mean and cannot be told apart from gce; it is better than mae"
    )


def test_less_is_better_for_memorised(store):
    values = {"ce": [1 - v for v in BAD], "elr": [1 - v for v in GOOD]}
    results = results_of(store, values, metric="final_wrong_memorised")
    found = analyse(results, 0, "memorised")

    assert found.sentence.startswith("elr is better than ce")
    assert [row.row for row in found.rows] == ["elr", "ce"]
    (pair,) = found.pairs
    assert pair.mean == pytest.approx(sum(BAD) / 5 - sum(GOOD) / 5)
    assert pair.low < pair.mean < pair.high < 0
    assert found.of("elr").minus_best.high == 0.0
    assert found.of("ce").minus_best.low == 0.0
    # Memorised labels are a share of training examples, so the test set has no error in it.
    assert found.test_error is None


def test_one_seed_has_no_letters_and_says_why(store):
    results = results_of(store, {"ce": [0.7], "elr": [0.9]}, seeds=1)
    found = analyse(results, 0)

    assert found.sentence == "elr comes first; with one seed it is unknown whether that is chance."
    assert [row.letters for row in found.rows] == ["", ""]
    assert (found.smallest_difference, found.of("elr").rank_low) == (None, None)
    assert found.of("elr").minus_baseline.low is None
    assert found.of("elr").minus_best is None


def test_no_results_at_all_and_one_row(store):
    assert analyse(results_of(store, {"ce": [], "elr": []}), 0).sentence == (
        "no row can be ranked. Without a value: ce and elr."
    )
    assert analyse(results_of(store, {"ce": GOOD}), 0).sentence == (
        "ce is the only row that can be ranked."
    )


# ---- Seeds that are missing, failed or diverged -------------------------------------------------


def test_a_diverged_seed_is_counted_and_its_row_is_not_ranked(store):
    statuses = {("elr", 1): "diverged", ("elr", 3): "diverged"}
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}, statuses=statuses)
    found = analyse(results, 0)
    elr = found.of("elr")

    assert (elr.diverged, elr.n, elr.letters, elr.rank_low) == (2, 3, "", None)
    assert not any("elr" in (pair.a, pair.b) for pair in found.pairs)
    assert "Not ranked: elr (2 of 5 seeds diverged)." in found.sentence
    assert found.sentence.startswith("gce is better than ce")
    # The difference over the seeds that both have is there, and says how many there are.
    expected = [GOOD[seed] - BAD[seed] for seed in (0, 2, 4)]
    assert elr.minus_baseline.n == 3
    assert elr.minus_baseline.mean == pytest.approx(sum(expected) / 3)
    assert elr.minus_baseline.low is None
    text = " ".join(tables.render(plan_from(results, store), store).split())
    assert "Seeds of elr diverged (!1 is one of them): such a row has no p-value." in text


def test_failed_and_missing_seeds_are_compared_over_the_common_ones(store):
    statuses = {("elr", 1): "failed"}
    values = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD[:3]}
    found = analyse(results_of(store, values, statuses=statuses), 0)

    assert (found.of("elr").failed, found.of("elr").n, found.of("gce").n) == (1, 4, 3)
    assert found.of("elr").letters == "a"
    assert found.seeds == 3
    assert any("Not all seeds of" in note and "elr (4 of 5)" in note for note in found.notes)


def test_an_unfinished_suite_with_the_same_seeds_has_no_such_note(store):
    found = analyse(results_of(store, {"ce": BAD[:3], "elr": GOOD[:3]}), 0)
    assert not any("Not all seeds of" in note for note in found.notes)
    assert found.sentence.startswith("elr is better than ce; three seeds")


# ---- What must not be compared ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "other"}, "their runs read different data"),
        ({"protocol": {"name": "digits", "model": "digits_cnn", "version": 2}}, "protocol digits"),
    ],
)
def test_runs_of_other_data_or_protocol_versions_are_not_compared(store, change, reason):
    results = results_of(store, {"ce": BAD, "elr": GOOD})
    for record in results.records_of("elr", 0):
        record.spec.update(change)
    found = analyse(results, 0)

    assert found.pairs == []
    assert [row.letters for row in found.rows] == ["", ""]
    assert reason in found.notes[0]
    assert found.sentence == "the rows are not compared."


def test_an_unknown_row_and_metric_are_refused(store):
    results = results_of(store, {"ce": BAD, "elr": GOOD})
    with pytest.raises(SuiteError, match=r"--against el: no such row.*Did you mean 'elr'"):
        analyse(results, 0, against="el")
    with pytest.raises(SuiteError, match="--metric lst: unknown"):
        analyse(results, 0, "lst")


# ---- The choice of the test, differences and limits ---------------------------------------------


def test_holm_is_chosen_where_spreads_differ_and_the_note_says_so(store):
    wild = [0.2, 0.9, 0.5, 0.8, 0.3]
    values = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD, "mae": wild}
    results = results_of(store, values)
    chosen, asked = analyse(results, 0), analyse(results, 0, adjust="tukey")

    assert (chosen.adjust, asked.adjust) == ("holm", "tukey")
    assert "the rows spread differently" in chosen.test
    assert "the rows spread differently" in asked.test
    assert chosen.test in chosen.notes
    assert "in half of the pairs" in chosen.sentence
    # The wild row does not hide that the others differ.
    assert not set(chosen.of("ce").letters) & set(chosen.of("elr").letters)


def test_equal_spreads_have_tukeys_test(store):
    found = analyse(results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}), 0)
    assert (found.adjust, "Tukey's test" in found.test) == ("tukey", True)


def test_the_note_says_how_often_a_table_has_a_false_difference(store):
    values = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}
    alike = results_of(store, values)
    text = "% for any false difference among all 3 pairs if the rows spread alike, "
    assert f"5{text}up to 13% if they do not)." in analyse(alike, 0).test
    assert f"10{text}more if they do not)." in analyse(alike, 0, level=0.9).test
    assert "5% for any false difference among all 3 pairs)." in (
        analyse(alike, 0, adjust="holm").test
    )
    # Where the seeds show that the spreads differ, the next sentence says so.
    wild = results_of(Memory(), {**values, "mae": [0.2, 0.9, 0.5, 0.8, 0.3]})
    assert "if the rows spread alike). Holm's" in analyse(wild, 0, adjust="tukey").test
    two = results_of(Memory(), {"ce": BAD, "elr": GOOD})
    assert "; 5% for a false difference)." in analyse(two, 0).test


def test_another_level_has_other_intervals_and_letters(store):
    near = [value - 0.01 for value in GOOD[::-1]]
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": near})
    usual, loose = analyse(results, 0), analyse(results, 0, level=0.7)
    for pair, wide in zip(loose.pairs, usual.pairs, strict=True):
        assert pair.high - pair.low < 0.8 * (wide.high - wide.low)
    for row in ("elr", "gce"):
        assert (usual.of(row).letters, loose.of(row).letters != "a") == ("a", row == "gce")
    assert loose.of("gce").minus_best.low > usual.of("gce").minus_best.low


def test_the_power_of_holms_test_is_that_of_the_median_pair(store):
    values = {"ce": BAD, "elr": GOOD, "mae": [0.2, 0.9, 0.5, 0.8, 0.3]}
    found = analyse(results_of(store, values), 0, adjust="holm")
    apart = []
    for a, b in itertools.combinations(values.values(), 2):
        apart.append(statistics.stdev(x - y for x, y in zip(a, b, strict=True)))
    assert found.design.std == pytest.approx(statistics.median(apart) / 2**0.5)


def test_seeds_that_are_too_few_see_nothing(store):
    wild = {"ce": [0.2, 0.9], "elr": [0.9, 0.3], "gce": [0.6, 0.5]}
    found = analyse(results_of(store, wild, seeds=2), 0)
    assert "two seeds are too few to see any difference" in found.sentence


def test_an_epoch_is_neither_better_nor_worse(store):
    values = {"ce": [1.0, 2.0, 1.0, 2.0, 1.0], "elr": [20.0, 21.0, 20.0, 22.0, 21.0]}
    results = results_of(store, values, metric=METRICS["labelwave-epoch"].key)
    assert analyse(results, 0, "labelwave-epoch").sentence.startswith("elr is higher than ce; ")


def test_two_rows_that_cannot_be_told_apart_are_named(store):
    found = analyse(results_of(store, {"elr": GOOD, "gce": ALSO_GOOD}), 0)
    assert found.sentence.startswith("elr and gce cannot be told apart; five seeds see")


def test_differences_to_the_baseline_are_those_of_the_table(store):
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD})
    found, printed = analyse(results, 0), results.differences("ce", 0)
    for row in ("elr", "gce"):
        interval = found.of(row).minus_baseline
        assert (interval.mean, interval.p) == pytest.approx((printed[row].mean, printed[row].p))
        assert interval.kind == "paired"
        assert interval.p_alone <= interval.p
        unpaired = found.of(row).minus_baseline_welch
        assert (unpaired.kind, unpaired.mean) == ("welch", pytest.approx(interval.mean))
    assert found.of("ce").minus_baseline is None


def test_rows_that_are_not_shown_still_count(store):
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD})
    assert analyse(results.select({"elr"}), 0) == analyse(results, 0)


def test_the_error_of_the_test_set_has_its_own_name(store):
    found = analyse(results_of(store, {"ce": BAD, "elr": GOOD}), 0)
    assert found.num_test == 400
    assert found.test_error == pytest.approx((0.908 * 0.092 / 400) ** 0.5, rel=0.01)
    (note,) = [note for note in found.notes if note.startswith("Sampling error of the test set")]
    assert "over 400 test examples; it says nothing about seeds" in note


def test_seeds_for_a_difference(store):
    found = analyse(results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}), 0)
    assert found.seeds_for(found.smallest_difference * 1.001) == 5
    assert found.seeds_for(found.smallest_difference / 2) > 10


def test_many_names_are_counted(store):
    values = {"ce": BAD}
    for place, row in enumerate(["elr", "gce", "mae", "sl", "alr", "cdr", "jocor", "mixup"]):
        values[row] = GOOD[place % 5 :] + GOOD[: place % 5]
    found = analyse(results_of(store, values), 0)
    assert " and three more cannot be told apart; each is better than ce" in found.sentence


# ---- In a table ---------------------------------------------------------------------------------


def test_the_table_has_letters_and_the_sentence(store):
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD})
    plan = plan_from(results, store)
    text = tables.render(plan, store)

    assert "| ties |" in text
    assert "- In words: elr and gce cannot be told apart; both are better than ce;" in text
    assert "- ties: rows that share a letter cannot be told apart" in text

    ranks = tables.render(plan, store, columns=("last", "rank"))
    assert "|  1-2 |" in ranks
    assert "rows that share a letter" in ranks
    without = tables.render(plan, store, columns=("last",))
    assert "In words" in without
    assert "rows that share a letter" not in without


def test_a_table_of_more_groups_than_letters_counts_tied_rows(store):
    values = {"ce": BAD}
    for i in range(27):
        values[f"r{i}"] = [value - 0.03 * i for value in GOOD]
    # Of three equal rows each is tied with the two others.
    values["same"] = ALSO_GOOD
    values["also"] = GOOD[1:] + GOOD[:1]
    results = results_of(store, values)
    found = analyse(results, 0)
    assert {row.letters for row in found.rows} == {""}
    assert set(found.of("r0").tied) == {"same", "also"}
    assert found.of("r20").ties == "0 rows"

    plan = plan_from(results, store)
    text = tables.render(plan, store, columns=("last", "ties"), sort="ties")
    # Tied rows have the same best rank, and keep the order of the suite.
    first = [line.split("|")[1].strip() for line in text.splitlines() if "| 2 rows |" in line]
    assert first == ["r0", "same", "also"]
    assert text.index("| r0 ") < text.index("| r1 ") < text.index("| r2 ")
    assert "Sorted by ties, the best possible rank first." in flat(text)
    assert "- ties: how many of the other rows a row cannot be told apart from (" in flat(text)
    # One character of each name of a group was compared before, so that rows with a2 and b2 tied.
    assert best_group(results, 0, found) == {"r0", "same", "also"}


def test_a_table_of_one_seed_has_no_letters(store):
    plan = plan_from(results_of(store, {"ce": [0.7], "elr": [0.9]}, seeds=1), store)
    assert "ties" not in tables.render(plan, store)


def test_differences_to_a_row_say_how_many_tests_they_count(store):
    values = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}
    plan = plan_from(results_of(store, values), store)
    assert "p-value of a paired t test, one of 2 tests." in flat(tables.render(plan, store))
    two = Memory()
    plan = plan_from(results_of(two, {"ce": BAD, "elr": GOOD}), two)
    assert "with the p-value of a paired t test." in flat(tables.render(plan, two))
    one = Memory()
    plan = plan_from(results_of(one, {"ce": [0.7], "elr": [0.9]}, seeds=1), one)
    assert "; a p-value needs two seeds that both rows have." in flat(tables.render(plan, one))


def test_p_values_that_disagree_with_letters_are_explained(store):
    # By the paired t test elr differs from ce as one of 3 comparisons, and not as one of 6.
    apart = [0.004, 0.012, 0.020, 0.014, 0.026]
    values = {"ce": GOOD, "elr": [v + d for v, d in zip(GOOD, apart, strict=True)]}
    values["mae"] = [0.2, 0.9, 0.5, 0.8, 0.3]
    values["sl"] = [0.6, 0.1, 0.4, 0.2, 0.5]
    text = flat(tables.render(plan_from(results_of(store, values), store), store))
    assert "p and letters disagree for elr beside ce: p counts 3 differences, the letters 6" in text

    alike = {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}
    other = Memory()
    text = tables.render(plan_from(results_of(other, alike), other), other)
    assert "disagree" not in text


def flat(text):
    return " ".join(text.split())


def test_a_row_that_is_not_ranked_has_a_dash(store):
    statuses = {("elr", 1): "diverged"}
    results = results_of(store, {"ce": BAD, "elr": GOOD, "gce": ALSO_GOOD}, statuses=statuses)
    text = tables.render(plan_from(results, store), store, columns=("ties", "rank"))
    assert "| elr    |    - |    - |" in text


def plan_from(results, store):
    """Return the plan of results that `results_of` has made."""
    keys = {}
    for row in results.rows:
        for record in results.records_of(row.name, 0):
            keys[row.name, record.spec["seed"]] = record.key
    seeds = list(range(results.seeds))
    return made_up.plan_of(keys, rows=[row.name for row in results.rows], seeds=seeds)


# ---- Over datasets ------------------------------------------------------------------------------


def several(store, datasets, values, diverged=()):
    """Return results with a condition for each dataset.

    Args:
        values: row -> mean by condition.
        diverged: (row, condition) of runs that diverged.
    """
    cells = []
    for condition, dataset in enumerate(datasets):
        for row, means in values.items():
            if means[condition] is None:
                continue
            spec = {**made_up.spec_of(row, condition), "dataset": dataset}
            record = made_up.record_of(row, condition, metrics={"last": means[condition]})
            status = "diverged" if (row, condition) in diverged else "done"
            record = record.model_copy(update={"spec": spec, "key": key_of(spec), "status": status})
            store.write(record)
            cells.append({"row": row, "condition": condition, "seed": condition, "key": record.key})
    keys = dict.fromkeys([(row, 0) for row in values], "0" * 16)
    plan = made_up.plan_of(keys, rows=list(values))
    titles = [f"{dataset} {place}" for place, dataset in enumerate(datasets)]
    return Results({**plan, "conditions": titles, "cells": cells}, store, {})


def test_average_ranks_by_hand(store):
    values = {"ce": [0.5, 0.6, 0.7], "elr": [0.9, 0.8, 0.9], "gce": [0.8, 0.9, None]}
    values["sl"] = [0.4, 0.6, 0.8]
    found = over_datasets(several(store, ["digits", "cifar10", "webvision"], values))

    assert {row.row: row.mean for row in found.rows} == pytest.approx(
        {"elr": 1.0, "sl": (3 + 2.5 + 2) / 3, "ce": (2 + 2.5 + 3) / 3}
    )
    assert found.left_out == {"gce": "no value on webvision 2"}
    assert "On average over three datasets" in found.sentence
    assert any("With fewer than 5 datasets" in note for note in found.notes)


def test_of_memorised_the_lowest_ranks_first(store):
    results = several(store, ["digits", "cifar10"], {"ce": [0.5, 0.6], "elr": [0.9, 0.8]})
    for record in store.records.values():
        record.metrics["final_wrong_memorised"] = record.metrics["last"]
    assert [row.row for row in over_datasets(results).rows] == ["elr", "ce"]
    assert [row.row for row in over_datasets(results, "memorised").rows] == ["ce", "elr"]


def test_a_row_of_which_a_seed_diverged_is_not_ranked_over_datasets(store):
    values = {"ce": [0.5, 0.6], "elr": [0.9, 0.8], "gce": [0.7, 0.7]}
    results = several(store, ["digits", "cifar10"], values, diverged=[("gce", 1)])
    found = over_datasets(results)
    assert found.left_out == {"gce": "1 of 1 seeds diverged on cifar10 1"}


@pytest.mark.parametrize("second", ["cifar10", "cifar10n"])
def test_label_sets_of_one_dataset_do_not_count_twice(store, second):
    values = {"ce": [0.5, 0.6, 0.7], "elr": [0.9, 0.8, 0.9]}
    results = several(store, ["cifar10", second, "digits"], values)
    with pytest.raises(SuiteError, match="cifar10 is there 2 times, with the same images"):
        over_datasets(results)
    found = over_datasets(results, conditions=[1, 2])
    assert found.conditions == [f"{second} 1", "digits 2"]


def test_one_dataset_is_not_enough(store):
    results = several(store, ["digits"], {"ce": [0.5], "elr": [0.9]})
    with pytest.raises(SuiteError, match="need results on two datasets"):
        over_datasets(results)


def test_dataclasses_can_be_written_as_they_are(store):
    found = analyse(results_of(store, {"ce": BAD, "elr": GOOD}), 0)
    assert dataclasses.asdict(found)["rows"][0]["minus_best"]["kind"] == "hsu"


def test_rows_that_tie_over_datasets_and_the_others_are_counted(store):
    datasets = [f"d{place}" for place in range(20)]
    values = {"ce": [0.1] * 20, "mae": [0.2] * 20}
    values["elr"] = [0.9 + 0.01 * (place % 2) for place in range(20)]
    values["gce"] = [0.905] * 20
    found = over_datasets(several(store, datasets, values))
    assert found.sentence == (
        "On average over 20 datasets, elr ranks best and cannot be told apart from gce; it ranks "
        "before the other two."
    )
