"""Differences without a known spread: equal in each seed, of one seed, or with a diverged seed."""

import json
import math

import made_up
import pytest
from in_memory import Memory, results_of

from nlbench.results import table as tables
from nlbench.results import two_rows_text
from nlbench.results.analysis import analyse
from nlbench.results.statistics import basic, pairs
from nlbench.results.two_rows import Options, compare

# Two seeds whose differences coincide, as accuracies of few test images often do.
COINCIDING = {"ce": [0.90, 0.93], "elr": [0.91, 0.94], "gce": [0.89, 0.92], "mae": [0.88, 0.91]}
ELR = [0.91, 0.92, 0.905, 0.915, 0.92]
CE = [0.87, 0.88, 0.88, 0.875, 0.87]


def plan_from(results):
    keys = {}
    for row in results.all_rows:
        for seed, files in results.files_of(row.name, 0).items():
            keys[row.name, seed] = files.record.key if files.record else "0" * 16
    names = [row.name for row in results.all_rows]
    return made_up.plan_of(keys, rows=names, seeds=list(range(results.seeds)))


def printed(results, store, **options):
    return " ".join(tables.render(plan_from(results), store, **options).split())


# ---- Differences that are equal in each seed ----------------------------------------------------


def test_equal_differences_of_two_seeds_are_no_proof():
    store = Memory()
    results = results_of(store, COINCIDING, seeds=2)
    found = analyse(results, 0)

    assert not any(pair.differ() for pair in found.pairs)
    assert found.sentence == "no two of the four rows can be told apart."
    assert found.smallest_difference is None
    assert found.of("elr").minus_baseline.low is None
    assert (
        found.of("elr").minus_baseline_welch.low < 0.01 < found.of("elr").minus_baseline_welch.high
    )

    text = printed(results, store)
    assert "p <0.001" not in text
    assert "+1.00±0.00 |" in text
    assert "the same difference in each seed, so its spread is unknown" in text


def test_compare_tells_them_by_welch_and_says_why():
    results = results_of(Memory(), COINCIDING, seeds=2)
    (found,) = compare(results, "elr", results, "ce", Options())
    text = two_rows_text.as_markdown([found])

    assert (found.paired.low, found.paired.p) == (None, None)
    assert found.sentence.startswith(
        "elr and ce cannot be told apart (95% interval of elr minus ce: "
    )
    assert "The difference is the same in each of the two seeds" in text
    assert "0.00 points" not in text


def test_rows_that_never_vary_have_no_test_and_say_so():
    flat = {"ce": [0.5] * 5, "elr": [0.5] * 5, "mae": [0.625] * 5}
    results = results_of(Memory(), flat)
    found = analyse(results, 0)
    assert [row.letters for row in found.rows] == ["", "", ""]
    assert found.sentence == (
        "mae comes first; no row varies over its five seeds, so the spread is unknown, and so is "
        "whether that is chance."
    )
    (both,) = compare(results, "mae", results, "ce", Options(difference=0.01))
    assert both.sentence.startswith("neither mae nor ce varies over its seeds")
    assert "How many seeds find 1.0 points cannot be computed: neither row varies" in (
        two_rows_text.as_markdown([both])
    )


def test_two_constant_rows_among_others_have_a_test_for_each_pair():
    values = {"ce": [0.5] * 5, "elr": ELR, "mae": [0.5] * 5}
    found = analyse(results_of(Memory(), values), 0)
    assert found.adjust == "holm"
    assert found.of("elr").letters == "a"
    assert found.of("ce").letters == found.of("mae").letters == "b"
    assert any("Spread unknown, so not tested" in note for note in found.notes)


def test_a_spread_is_never_below_that_of_rounding():
    # Nine of ten differences are equal, which is less than what rounding to 1/100 does.
    x, y = [0.50] * 9 + [0.51], [0.40] * 10
    rounding = 1 / (100 * math.sqrt(12))
    assert basic.difference_std(x, y) == pytest.approx(0.01 / math.sqrt(10))
    assert basic.difference_std(x, y, rounding) == pytest.approx(math.sqrt(1 / 6) / 100)
    wide = basic.paired_interval(x, y, rounding=rounding)
    narrow = basic.paired_interval(x, y)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)

    # Floats of equal differences differ in their last digit.
    assert basic.difference_std([0.91, 0.94], [0.90, 0.93]) == 0.0


@pytest.mark.parametrize(("metric", "known"), [("last", True), ("macro-f1", False)])
def test_only_shares_of_the_test_set_have_a_known_rounding(metric, known):
    results = results_of(Memory(), COINCIDING, seeds=2)
    size = results.records_under(0)[0].noise["num_test"]
    expected = 1 / (size * math.sqrt(12)) if known else 0.0
    assert results.rounding(0, metric) == pytest.approx(expected)


def test_values_that_are_no_multiples_have_no_known_rounding():
    values = {"ce": [0.9012, 0.9333], "elr": [0.91, 0.94]}
    assert results_of(Memory(), values, seeds=2).rounding(0, "last") == 0.0


def test_the_sentence_never_finds_differences_that_the_seeds_are_too_few_for():
    # Two seeds, one pair of which is clear; the others spread widely.
    values = {"ce": [0.10, 0.10001], "elr": [0.90, 0.90002], "gce": [0.2, 0.8], "mae": [0.7, 0.1]}
    found = analyse(results_of(Memory(), values, seeds=2), 0, adjust="holm")
    better = any(pair.differ() for pair in found.pairs)
    assert better
    assert "are too few to see any difference" not in found.sentence


def test_holm_counts_the_pairs_that_have_a_test():
    table = {"a": dict.fromkeys(range(5), 0.5), "b": dict.fromkeys(range(5), 0.7)}
    table["c"] = dict(enumerate(ELR))
    by_names = {(pair.a, pair.b): pair for pair in pairs.holm(table)}
    assert by_names["a", "b"].p is None
    alone = pairs.between(table["a"], table["c"]).p
    assert by_names["a", "c"].p == pytest.approx(2 * alone)


# ---- Diverged seeds -----------------------------------------------------------------------------


@pytest.fixture
def diverged():
    store = Memory()
    values = {"ce": CE, "elr": ELR, "mae": [0.97, 0.98, 0.97, 0.96, None]}
    return store, results_of(store, values, statuses={("mae", 4): "diverged"})


def test_a_row_with_a_diverged_seed_has_no_p_value_anywhere(diverged):
    store, results = diverged
    mae = analyse(results, 0).of("mae")
    for found in (mae.minus_baseline, mae.minus_baseline_welch):
        assert found.mean > 0.08
        assert (found.low, found.high, found.p, found.p_alone) == (None, None, None, None)

    line = next(
        line for line in tables.render(plan_from(results), store).splitlines() if "| mae" in line
    )
    assert "(!1)" in line.split("|")[3]
    assert "(p" not in line
    as_json = json.loads(tables.render(plan_from(results), store, fmt="json"))
    cells = as_json["suites"][0]["conditions"][0]["metrics"][0]["cells"]
    (cell,) = [cell for cell in cells if cell["row"] == "mae"]
    assert cell["minus_reference"]["p"] is None

    # The other rows are counted without it.
    assert results.differences("ce", 0)["elr"].p == analyse(results, 0).of("elr").minus_baseline.p


def test_compare_says_that_a_seed_diverged_and_not_who_is_better(diverged):
    _, results = diverged
    (found,) = compare(results, "mae", results, "ce", Options(difference=0.01))
    text = two_rows_text.as_markdown([found])
    assert found.sentence == (
        "1 of 5 seeds of mae diverged, so it cannot be told whether mae and ce differ."
    )
    assert "better" not in text
    assert (found.paired.p, found.welch.p, found.power) == (None, None, None)
    assert "cannot be computed: the seeds that did not diverge are no fair sample" in text


def test_no_row_has_a_p_value_beside_a_reference_that_diverged(diverged):
    _, results = diverged
    assert {found.p for found in results.differences("mae", 0).values()} == {None}
    assert analyse(results, 0, against="mae").of("elr").minus_baseline.p is None


# ---- One seed -----------------------------------------------------------------------------------


def test_table_and_compare_agree_on_a_row_with_one_seed():
    results = results_of(Memory(), {"ce": CE, "elr": ELR, "gce": [0.7]})
    found = analyse(results, 0)
    gce = found.of("gce")
    assert (gce.alone, gce.ranked, gce.letters, gce.rank_low) == (True, False, "", None)
    assert found.sentence.startswith("elr is better than ce; five seeds see")
    assert "Not ranked: gce (1 of 5 seeds is done, which has no spread)." in found.sentence

    (both,) = compare(results, "elr", results, "gce", Options(difference=0.01))
    assert both.sentence == "with one seed it cannot be told whether elr and gce differ."
    assert both.adjusted_p is None
    assert "it needs the spread over two seeds of both rows" in two_rows_text.as_markdown([both])


def test_rows_with_one_seed_each_are_still_listed():
    found = analyse(results_of(Memory(), {"ce": [0.8], "elr": [0.9]}, seeds=1), 0)
    assert found.sentence.startswith("elr comes first; with one seed it is unknown")


# ---- Notes --------------------------------------------------------------------------------------


def test_names_stay_text_in_notes():
    store = Memory()
    hostile = "<b> $x^2$ _it_ ~~s~~ *bold* `c`"
    results = results_of(store, {"ce": CE, hostile: ELR})
    text = tables.render(plan_from(results), store)
    (note,) = [line for line in text.splitlines() if line.startswith("- In words")]
    assert r"\<b> \$x^2\$ \_it\_ \~~s\~~ \*bold\* \`c\`" in note
    # nlbench's own code stays code.
    assert "`nlbench compare`" in text


def test_letters_beside_another_metric_name_theirs():
    store = Memory()
    results = results_of(store, {"ce": CE, "elr": ELR}, metric="nll")
    text = printed(results, store, columns=["nll", "ties", "rank"])
    assert "| ties, last epoch | rank, last epoch |" in text
    assert "ties, rank and the words are of the last epoch's test accuracy." in text
    assert "last epoch |" not in printed(results, store, columns=["ties", "rank"])


def test_labelwave_and_ten_epochs_that_are_not_there_are_explained():
    store = Memory()
    results = results_of(store, {"ce": CE, "elr": ELR}, metric="last10")
    text = printed(results, store, columns=["last10", "labelwave"])
    assert "Without LabelWave although done: ce, elr. LabelWave needs four epochs" in text
    assert "last 10 epochs: the runs have" not in text

    specs = {}
    for row in ("ce", "elr"):
        protocol = {"name": "digits", "model": "digits_cnn", "version": 1, "epochs": 3}
        specs[row] = {"spec": {**made_up.spec_of(row, 0), "protocol": protocol}}
    few = results_of(store, {"ce": [0.5], "elr": [0.6]}, seeds=1, metric="last10", parts=specs)
    assert "last 10 epochs: the runs have 3" in printed(few, store, columns=["last10"])
