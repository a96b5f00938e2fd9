"""`nlbench compare`: what is compared, what is refused, and what it says."""

import json

import made_up
import numpy as np
import pytest
from in_memory import Memory, results_of
from scipy import stats

from nlbench.errors import SuiteError
from nlbench.results import two_rows_text
from nlbench.results.analysis import analyse
from nlbench.results.cells import Results
from nlbench.results.statistics import power
from nlbench.results.two_rows import Options, compare

ELR = [0.90, 0.93, 0.92, 0.90, 0.91]
GCE = [0.89, 0.90, 0.90, 0.88, 0.90]


@pytest.fixture
def results():
    return results_of(Memory(), {"ce": [0.7, 0.71, 0.7, 0.69, 0.71], "elr": ELR, "gce": GCE})


def other_suite(**options):
    """Return a second suite, in which elr has other values."""
    return results_of(Memory(), {"elr": [v - 0.01 for v in ELR]}, name="t", **options)


def test_the_intervals_are_scipys(results):
    (found,) = compare(results, "elr", results, "gce", Options())
    expected = stats.ttest_rel(ELR, GCE)
    ends = expected.confidence_interval()
    assert (found.paired.low, found.paired.high, found.paired.p) == pytest.approx(
        (ends.low, ends.high, expected.pvalue)
    )
    assert found.paired.correlation == pytest.approx(stats.pearsonr(ELR, GCE).statistic)
    assert found.welch.p == pytest.approx(stats.ttest_ind(ELR, GCE, equal_var=False).pvalue)
    # Of the whole table: Tukey's p, with the spread of all three rows.
    assert (found.adjust, found.pairs) == ("tukey", 3)
    assert found.adjusted_p == pytest.approx(analyse(results, 0).pairs[0].p)


def test_what_it_prints(results):
    text = two_rows_text.as_markdown(
        compare(results, "elr", results, "gce", Options(difference=0.005))
    )
    assert (
        "**elr minus gce: Digits; test accuracy after the last epoch, in points; suite s**" in text
    )
    assert "| paired t   |      +1.80 | +0.76 to +2.84 | 0.009 |     5 |" in text
    assert "elr is better than gce by 1.80 points (95% interval: 0.76" in text
    assert "elr: 91.20±1.30; gce: 89.40±0.89 (mean±sample std)." in text
    assert "two rows that were chosen before anybody saw results" in text
    assert "As one of the 3 pairs of the table" in text
    # statsmodels: TTestPower().solve_power(0.5 / 0.83666, power=0.8) is 23.9 seeds.
    assert "For 0.50 points it needs 24 seeds." in text


def test_the_same_as_json(results):
    (found,) = json.loads(two_rows_text.as_json(compare(results, "gce", results, "elr", Options())))
    assert found["paired"]["mean"] == pytest.approx(-0.018)
    assert found["sentence"].startswith("gce is worse than elr by 1.80 points")
    assert found["a"]["values"] == {str(seed): value for seed, value in enumerate(GCE)}


def test_rows_that_cannot_be_told_apart():
    near = [v + 0.001 * (-1) ** i for i, v in enumerate(ELR)]
    results = results_of(Memory(), {"elr": ELR, "gce": near})
    (found,) = compare(results, "elr", results, "gce", Options())
    assert found.sentence.startswith(
        "elr and gce cannot be told apart (95% interval of elr minus gce: "
    )


def test_long_names_are_not_repeated_in_the_sentence_about_their_difference():
    one = results_of(Memory(), {"elr": ELR})
    near = [v + 0.001 * (-1) ** i for i, v in enumerate(ELR)]
    other = results_of(Memory(), {"elr": near}, name="t")
    (found,) = compare(one, "elr", other, "elr", Options())
    assert found.sentence.startswith(
        "elr of s and elr of t cannot be told apart (95% interval of the first minus the second: "
    )


def test_one_seed_is_said_to_be_too_few():
    results = results_of(Memory(), {"elr": [0.9], "gce": [0.8]}, seeds=1)
    (found,) = compare(results, "elr", results, "gce", Options())
    assert found.sentence == "with one seed it cannot be told whether elr and gce differ."
    assert found.power is None
    assert "| paired t   |     +10.00 |" in two_rows_text.as_markdown([found])


def test_diverged_and_missing_seeds_are_counted():
    statuses = {("elr", 1): "diverged", ("gce", 2): "failed"}
    results = results_of(Memory(), {"elr": ELR, "gce": GCE}, statuses=statuses)
    (found,) = compare(results, "elr", results, "gce", Options())
    text = two_rows_text.as_markdown([found])

    assert found.paired.n == 3
    assert found.sentence.startswith("1 of 5 seeds of elr diverged, so it cannot be told")
    assert "is found with probability" not in text
    assert "elr: 1 of 5 seeds diverged. The difference is over the others alone" in text
    assert "gce: 1 of 5 seeds have no result." in text
    assert "elr: 1 of 5 seeds have no result." not in text
    assert found.adjusted_p is None
    assert "(4/5, !1)" in text


def test_two_suites_with_one_protocol_are_compared_seed_by_seed(results):
    (found,) = compare(results, "elr", other_suite(), "elr", Options())
    assert found.paired.mean == pytest.approx(0.01)
    assert found.names == ("elr of s", "elr of t")
    assert found.adjusted_p is None


def test_other_labels_of_the_same_seed_are_not_paired(results):
    parts = {"elr": {"noise": {"labels_hash": "other", "num_test": 400}}}
    (found,) = compare(results, "elr", other_suite(parts=parts), "elr", Options())
    assert found.paired is None
    assert found.welch.mean == pytest.approx(0.01)
    note = (
        "Runs of one seed have other labels on the two sides, so they are not compared seed by "
        "seed."
    )
    assert found.notes.count(note) == 1
    # No other sentence of the words alone says it.
    assert note in " ".join(two_rows_text.as_words([found]).split())


def test_a_failed_run_of_one_suite_leaves_the_other_seeds_paired(results):
    other = other_suite(statuses={("elr", 2): "failed"})
    assert other.records_of("elr", 0)[2].noise == {}

    (found,) = compare(results, "elr", other, "elr", Options())

    assert found.paired.n == 4
    assert found.paired.mean == pytest.approx(0.01)
    assert not any("seed by seed" in note for note in found.notes)
    assert found.missing == ["elr of t: 1 of 5 seeds have no result."]


def test_suites_are_named_where_two_rows_are_of_two_suites(results):
    (found,) = compare(results, "gce", other_suite(), "elr", Options())
    assert found.names == ("gce of s", "elr of t")
    assert "gce of s and elr of t cannot be told apart" in found.sentence


def test_the_folders_are_named_where_the_suites_have_one_name(results):
    other = results_of(Memory("old/results"), {"elr": [v - 0.01 for v in ELR]})
    (found,) = compare(results, "elr", other, "elr", Options())
    assert found.names == ("elr of s in memory", "elr of s in old/results")

    for record in other.records_of("elr", 0):
        record.spec["fingerprint"] = "other"
    with pytest.raises(SuiteError, match="elr of s in memory and elr of s in old/results are not"):
        compare(results, "elr", other, "elr", Options())


def test_other_protocols_are_refused_and_compared_on_request(results):
    other = other_suite()
    for record in other.records_of("elr", 0):
        record.spec["protocol"] = {"name": "digits", "model": "digits_cnn", "epochs": 3}
    with pytest.raises(SuiteError, match="protocols differ: epochs None and 3"):
        compare(results, "elr", other, "elr", Options())

    (found,) = compare(results, "elr", other, "elr", Options(across_protocols=True))
    assert found.paired is None
    assert any("The protocols differ, and so may be what decides" in n for n in found.notes)


@pytest.mark.parametrize("key", ["dataset", "fingerprint", "labels", "noise"])
def test_other_data_is_always_refused(results, key):
    other = other_suite()
    for record in other.records_of("elr", 0):
        record.spec[key] = "other"
    with pytest.raises(SuiteError, match=f"{key} is .* and other, so they had other data"):
        compare(results, "elr", other, "elr", Options(across_protocols=True))


def test_one_row_with_other_labels_of_the_same_images(results):
    other = other_suite(conditions=["Digits worst"])
    for record in other.records_of("elr", 0):
        record.spec.update(labels="worst", fingerprint=f"{record.spec['fingerprint']}-0123")
        record.noise["labels_hash"] = "other"
    with pytest.raises(SuiteError, match="--across-labels compares the same images with other"):
        compare(results, "elr", other, "elr", Options())

    (found,) = compare(results, "elr", other, "elr", Options(across_labels=True))

    assert found.condition == "Digits and Digits worst"
    # The labels tell the sides apart: all else is the same.
    assert found.names == ("elr on Digits", "elr on Digits worst")
    assert found.paired is None
    (found,) = compare(results, "gce", other, "elr", Options(across_labels=True))
    assert found.names == ("gce of s on Digits", "elr of t on Digits worst")
    across_both = Options(across_labels=True, across_protocols=True)
    (found,) = compare(results, "elr", other, "elr", across_both)
    assert found.names == ("elr of s on Digits", "elr of t on Digits worst")
    assert found.welch.mean == pytest.approx(0.01)
    assert "The labels differ; dataset and test set are the same." in found.notes
    assert "The labels differ; dataset and test set are the same." in found.caveats


@pytest.fixture
def two_conditions():
    """Return a suite of elr with clean labels, and with worst ones in four of five seeds."""
    store = Memory()
    cells = []
    for seed, value in enumerate(ELR):
        for place, (labels, last) in enumerate((("clean", value), ("worst", value - 0.4))):
            spec = {**made_up.spec_of("elr", seed), "labels": labels, "fingerprint": f"f-{labels}"}
            parts = {"spec": spec, "key": made_up.key_of(spec), "metrics": {"last": last}}
            parts["noise"] = {"labels_hash": labels, "num_test": 400}
            if (labels, seed) != ("worst", 4):
                store.write(made_up.record_of("elr", seed, **parts))
            cells.append({"row": "elr", "condition": place, "seed": seed, "key": parts["key"]})
    plan = made_up.plan_of({("elr", 0): ""}, rows=["elr"])
    titles = ["Digits", "Digits worst"]
    return Results({**plan, "conditions": titles, "seeds": [*range(5)], "cells": cells}, store, {})


def test_one_row_under_two_conditions_of_a_suite(two_conditions):
    options = Options(across_labels=True, conditions=["Digits", "worst"])
    (found,) = compare(two_conditions, "elr", two_conditions, "elr", options)

    assert found.names == ("elr on Digits", "elr on Digits worst")
    assert found.a.values == dict(enumerate(ELR))
    assert found.b.values == {seed: value - 0.4 for seed, value in enumerate(ELR[:4])}
    assert found.welch.mean == pytest.approx(np.mean(ELR) - np.mean(ELR[:4]) + 0.4)
    assert found.adjusted_p is None
    text = " ".join(two_rows_text.as_markdown([found]).split())
    assert "elr on Digits: 91.20±1.30; elr on Digits worst: 51.25±1.50 (4/5)" in text
    assert "elr on Digits worst: 1 of 5 seeds have no result." in text


def test_the_words_alone_say_what_else_differs(two_conditions):
    options = Options(across_labels=True, conditions=["Digits", "worst"])
    found = compare(two_conditions, "elr", two_conditions, "elr", options)

    words = " ".join(two_rows_text.as_words(found).split())
    assert words.startswith("- Digits and Digits worst, test accuracy after the last epoch: elr on")
    assert words.endswith("have no result. The labels differ; dataset and test set are the same.")


def test_the_words_alone_say_which_parameters_of_two_suites_differ(results):
    other = other_suite()
    for record in other.records_of("elr", 0):
        record.spec["params"] = {"lam": 7.0}
    (found,) = compare(results, "elr", other, "elr", Options())

    words = " ".join(two_rows_text.as_words([found]).split())
    assert "elr of s and elr of t cannot be told apart" in words
    assert words.endswith("Parameters that differ: lam None and 7.0.")
    assert found.notes.count("Parameters that differ: lam None and 7.0.") == 1


def test_the_names_of_two_rows_of_a_suite_stand_for_their_parameters():
    results = results_of(Memory(), {"elr": ELR, "gce": GCE})
    for record in results.records_of("gce", 0):
        record.spec.update(method="elr", params={"lam": 7.0})
    (found,) = compare(results, "elr", results, "gce", Options())

    assert "Parameters that differ: lam None and 7.0." in found.notes
    assert "lam" not in two_rows_text.as_words([found])


def test_signs_of_a_training_that_did_not_work_are_said_of_their_side(results):
    other = other_suite()
    for record in other.records_of("elr", 0)[:3]:
        record.method["signs"] = ["one-class"]
    (found,) = compare(results, "elr", other, "elr", Options())

    note = "§ elr of t: 3 of 5 runs predict one class only after the last epoch."
    assert found.notes.count(note) == 1
    assert " ".join(two_rows_text.as_words([found]).split()).endswith(note)


def test_marks_are_those_of_the_rows_and_conditions_that_are_compared(two_conditions):
    for record in two_conditions.records_of("elr", 1):
        record.method.update(signs=["one-class"], own_optimisers=True)
        record.environment["device"] = "cuda"
    other = other_suite()
    (found,) = compare(
        two_conditions,
        "elr",
        other,
        "elr",
        Options(across_labels=True, conditions=["Digits", "Digits"]),
    )

    assert not any("one class" in note or "optimiser" in note for note in found.notes)
    assert not any(note.startswith("‡") for note in found.notes)


def test_other_hardware_of_the_other_suite_is_said(results):
    other = other_suite()
    for record in other.records_of("elr", 0):
        record.environment.update(device="cuda", device_name="B")
    (found,) = compare(results, "elr", other, "elr", Options())

    assert any(note.startswith("‡ contains or compares") for note in found.notes)
    assert any("device: A (5), B (5)" in note for note in found.notes)


def test_the_words_alone_say_where_the_table_does_not_tell_a_pair_apart(results):
    # ce spreads so widely that the table, which has one spread for all rows, tells no pair apart.
    wide = {"ce": [0.5, 0.9, 0.6, 0.8, 0.7], "elr": ELR, "gce": GCE}
    table = results_of(Memory(), wide)
    (found,) = compare(table, "elr", table, "gce", Options())
    assert found.paired.p < 0.05 < found.adjusted_p

    words = " ".join(two_rows_text.as_words([found]).split())
    assert "elr is better than gce by 1.80 points" in words
    assert "As one of the 3 pairs of the table this one has p " in words
    (clear,) = compare(results, "elr", results, "gce", Options())
    assert clear.adjusted_p < 0.05
    assert "pairs of the table" not in two_rows_text.as_words([clear])


def test_a_subset_by_given_labels_is_said_to_differ(two_conditions):
    for place in range(2):
        for record in two_conditions.records_of("elr", place):
            record.spec["protocol"] = {"name": "t", "model": "m", "subset": 9, "stratify": "given"}
    options = Options(across_labels=True, conditions=["Digits", "worst"])
    (found,) = compare(two_conditions, "elr", two_conditions, "elr", options)

    assert "chosen by their labels, so that some of them differ, too" in found.caveats[0]


def of_conditions(values, metric="last"):
    """Return a suite with values of elr and gce, by condition, row and seed."""
    store = Memory()
    cells = []
    for place, (title, by_row) in enumerate(values.items()):
        for row, by_seed in by_row.items():
            for seed, value in enumerate(by_seed):
                spec = {**made_up.spec_of(row, seed), "labels": title}
                cells.append({"row": row, "condition": place, "seed": seed, "key": "0" * 16})
                if value is not None:
                    metrics = {"last": 0.5, metric: value} if value else {"last": 0.5}
                    record = made_up.record_of(
                        row, seed, spec=spec, key=made_up.key_of(spec), metrics=metrics
                    )
                    cells[-1]["key"] = store.write(record)
    plan = made_up.plan_of({("elr", 0): "", ("gce", 0): ""}, rows=["elr", "gce"])
    plan = {**plan, "conditions": [*values], "seeds": [*range(5)], "cells": cells}
    return Results(plan, store, {})


def test_conditions_in_which_a_row_has_no_run_are_left_out_and_named():
    none = [None] * 5
    both, one = {"elr": ELR, "gce": GCE}, {"elr": ELR, "gce": none}
    neither = {"elr": none, "gce": none}
    results = of_conditions({"clean": one, "worst": both, "random1": neither, "random2": one})

    found = compare(results, "elr", results, "gce", Options())

    assert [each.condition for each in found] == ["worst"]
    left_out = [
        "Not compared, because gce has no finished run there: clean, random2.",
        "Not compared, because elr and gce have no finished run there: random1.",
    ]
    assert found[0].left_out == left_out
    assert json.loads(two_rows_text.as_json(found))[0]["left_out"] == left_out
    for text in (two_rows_text.as_markdown(found), two_rows_text.as_words(found)):
        assert text.rstrip().endswith("\n".join(f"- {line}" for line in left_out))
    # A condition that is named is not left out in silence, and one must be left.
    with pytest.raises(SuiteError, match="s, clean: gce has no finished run yet"):
        compare(results, "elr", results, "gce", Options(conditions=["worst", "clean"]))
    results = of_conditions({"clean": one, "random1": neither})
    with pytest.raises(SuiteError, match="s, clean: gce has no finished run yet"):
        compare(results, "elr", results, "gce", Options())


def test_a_condition_in_which_the_metric_was_not_measured_is_left_out():
    unmeasured = {"elr": [0.0] * 5, "gce": [0.0] * 5}
    values = {"clean": unmeasured, "worst": {"elr": ELR, "gce": GCE}}
    results = of_conditions(values, metric="final_wrong_memorised")

    (found,) = compare(results, "elr", results, "gce", Options(metric="memorised"))

    assert (found.condition, found.left_out) == (
        "worst",
        ["Not compared, because elr and gce have no value of memorised there: clean."],
    )


def test_what_is_left_out_is_said_once_below_several_tables():
    both, none = {"elr": ELR, "gce": GCE}, {"elr": ELR, "gce": [None] * 5}
    results = of_conditions({"clean": both, "worst": both, "random1": none})

    found = compare(results, "elr", results, "gce", Options())

    assert [each.condition for each in found] == ["clean", "worst"]
    for text in (two_rows_text.as_markdown(found), two_rows_text.as_words(found)):
        assert text.count("Not compared") == 1
        assert text.rstrip().endswith("gce has no finished run there: random1.")


def test_finished_runs_without_the_metric_are_no_missing_runs():
    values = {"elr": [*ELR[:4], None], "gce": GCE}
    results = results_of(Memory(), values, metric="labelwave")
    del results.records_of("elr", 0)[1].metrics["labelwave"]

    (found,) = compare(results, "elr", results, "gce", Options(metric="labelwave"))

    assert found.missing == [
        "elr: 1 of 5 seeds have no result.",
        "elr: the finished runs of 1 of 5 seeds did not measure LabelWave.",
    ]
    assert set(found.missing) < set(found.notes)


def test_a_condition_that_is_named_twice_is_compared_once(results):
    found = compare(results, "elr", results, "gce", Options(conditions=["Digits", "digit"]))

    assert [one.condition for one in found] == ["Digits"]


def test_a_name_must_fit_the_same_condition_of_both_suites(results):
    other = other_suite(conditions=["Digits worst"])
    with pytest.raises(SuiteError, match="'digit' is 'Digits' in s and 'Digits worst' in t"):
        compare(results, "elr", other, "elr", Options(conditions=["digit"]))


def test_equal_labels_are_refused_across_labels(results):
    with pytest.raises(SuiteError, match="have the same labels; leave --across-labels out"):
        compare(results, "elr", other_suite(), "elr", Options(across_labels=True))


def test_other_images_are_refused_across_labels(results):
    other = other_suite(conditions=["Digits worst"])
    for record in other.records_of("elr", 0):
        record.spec["fingerprint"] = "other-0123"
    with pytest.raises(SuiteError, match=r"fingerprint is .* and other, so they had other data"):
        compare(results, "elr", other, "elr", Options(across_labels=True))


def test_a_suite_of_one_condition_has_no_other_labels(results):
    message = "s has no condition but 'Digits'; give the suite with the other labels"
    for conditions in ([], ["Digits"]):
        options = Options(across_labels=True, conditions=conditions)
        with pytest.raises(SuiteError, match=message):
            compare(results, "elr", results, "gce", options)


def test_the_conditions_of_both_sides_are_named_across_labels():
    two = results_of(Memory(), {"elr": ELR}, conditions=["Digits", "Digits worst"])
    with pytest.raises(SuiteError, match="--condition 'Digits' --condition 'Digits worst'"):
        compare(two, "elr", two, "elr", Options(across_labels=True))
    with pytest.raises(SuiteError, match="'Digits' is named twice"):
        compare(two, "elr", two, "elr", Options(conditions=["Digits"] * 2, across_labels=True))
    chosen = Options(conditions=["Digits", "worse"], across_labels=True)
    with pytest.raises(
        SuiteError, match=r"no such condition in s\. There are: Digits; Digits worst"
    ):
        compare(two, "elr", two, "elr", chosen)


def test_parameters_that_differ_are_named(results):
    other = other_suite()
    for record in other.records_of("elr", 0):
        record.spec["params"] = {"lam": 7.0}
    (found,) = compare(results, "elr", other, "elr", Options())
    assert "Parameters that differ: lam None and 7.0." in found.notes


def test_the_adjusted_p_is_that_of_the_pair_among_all():
    values = {"ce": [0.7, 0.71, 0.7, 0.69, 0.71], "elr": ELR, "gce": GCE, "sl": GCE[::-1]}
    results = results_of(Memory(), values)
    (found,) = compare(results, "sl", results, "ce", Options())
    expected = {frozenset((pair.a, pair.b)): pair.p for pair in analyse(results, 0).pairs}
    assert (found.pairs, found.adjusted_p) == (6, expected[frozenset(("sl", "ce"))])


def test_less_is_better_for_memorised():
    key = "final_wrong_memorised"
    results = results_of(Memory(), {"elr": ELR, "gce": GCE}, metric=key)
    (found,) = compare(results, "elr", results, "gce", Options(metric="memorised"))
    assert found.sentence.startswith("elr is worse than gce by 1.80 points")


def test_one_common_seed_leaves_welchs_test():
    values = {"elr": [*ELR[:3], None, None], "gce": [None, None, *GCE[2:]]}
    results = results_of(Memory(), values)
    (found,) = compare(results, "elr", results, "gce", Options())
    assert (found.paired.n, found.paired.low) == (1, None)
    assert found.chosen == found.welch
    expected = stats.ttest_ind(ELR[:3], GCE[2:], equal_var=False)
    assert found.chosen.p == pytest.approx(expected.pvalue)
    # The variance of the difference is the sum of both.
    std = (stats.tstd(ELR[:3]) ** 2 + stats.tstd(GCE[2:]) ** 2) ** 0.5
    design = power.Design(std / 2**0.5, 2, "holm")
    assert found.power.smallest == pytest.approx(power.smallest_difference(design, 3))


def test_mistakes_are_named(results):
    with pytest.raises(SuiteError, match=r"elrr: s has no such row.*Did you mean 'elr'"):
        compare(results, "elrr", results, "ce", Options())
    with pytest.raises(SuiteError, match="compared with itself"):
        compare(results, "elr", results, "elr", Options())
    with pytest.raises(SuiteError, match=r"no such condition in s\. There are: Digits"):
        compare(results, "elr", results, "ce", Options(conditions=["Digitt"]))
    empty = results_of(Memory(), {"elr": ELR, "gce": []})
    with pytest.raises(SuiteError, match="gce has no finished run yet"):
        compare(empty, "elr", empty, "gce", Options())
    lost = results_of(Memory(), {"elr": ELR, "gce": []}, statuses={("gce", 0): "diverged"})
    with pytest.raises(SuiteError, match="gce has no value of last epoch: one run of it failed"):
        compare(lost, "elr", lost, "gce", Options())
