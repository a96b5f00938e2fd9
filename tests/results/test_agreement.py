"""Kendall's tau-b and its report equal numbers computed by hand from hand-written records."""

import math
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from nlbench.cli.app import app
from nlbench.errors import SuiteError
from nlbench.plan.spec import key_of
from nlbench.registry import method_files
from nlbench.results.agreement import NoOrder, Side, between, interval, sides, with_published
from nlbench.results.cells import Cell, Results
from nlbench.results.published import comparable
from nlbench.results.published import records as published
from nlbench.results.record import RunRecord
from nlbench.results.statistics import tau_b
from nlbench.results.store import Store

SPEC = {
    "dataset": "cifar10n",
    "labels": "worst",
    "noise": None,
    "protocol": {"model": "resnet34", "epochs": 100},
}
# Row -> a value per seed. Of the six pairs B reverses sl and gce, and ties ce with mae.
A = {"ce": [0.50, 0.52], "mae": [0.60, 0.62], "gce": [0.70, 0.72], "sl": [0.80, 0.82]}
B = {"ce": [0.40, 0.42], "mae": [0.42, 0.40], "gce": [0.90, 0.93], "sl": [0.80, 0.82]}


@pytest.fixture
def suite(tmp_path):
    """Return a function that writes the runs of a suite, and returns the suite's `Results`."""
    store = Store(tmp_path)

    def make(
        name,
        values,
        *,
        title="CIFAR-10N worst",
        params=None,
        noise=(),
        spec=SPEC,
        methods=None,
        track="identical",
        protocol=None,
        protocols=None,
        others=None,
        signs=None,
    ):
        """Write a record for each value that is not None. A row is named as its method.

        Args:
            values: row -> a value for each seed; "diverged" for a run that did.
            protocol: its name; by default each suite has its own.
            protocols: row -> values of its protocol beside those of `spec`.
            others: the title of a further condition -> its values. The last word is its labels.
            signs: (title, row) -> the signs of its runs.
        """
        methods = methods or {}
        rows = {}
        cells = []
        conditions = {title: values, **(others or {})}
        for (place, of), (row, by_seed) in each(conditions):
            method = methods.get(row, row)
            rows[row] = {"row": row, "method": method, "told": [], "networks": 1}
            for seed, value in enumerate(by_seed):
                own = {**spec, "method": method, "seed": seed, "suite": name}
                own["labels"] = of.split()[-1] if place else spec["labels"]
                own["params"] = (params or {}).get(row, {})
                own["protocol"] = {**spec["protocol"], **(protocols or {}).get(row, {})}
                if value is not None:
                    found = (signs or {}).get((of, row), [])
                    store.write(record(own, value, dict(noise), found), [])
                cells.append({"row": row, "condition": place, "seed": seed, "key": key_of(own)})

        plan = {
            "suite": name,
            "track": track,
            "protocol": protocol or f"of-{name}",
            "rows": list(rows.values()),
            "conditions": list(conditions),
            "cells": cells,
            "tries": False,
            "notes": [],
            "seeds": [0, 1],
        }
        store.write_plan(plan)
        return Results(plan, store, method_files())

    return make


def each(conditions):
    """Return each row of each condition, as ((place, title), (row, a value for each seed))."""
    found = []
    for place, (title, values) in enumerate(conditions.items()):
        found += [((place, title), item) for item in values.items()]
    return found


def record(spec, value, noise, signs):
    """Return the record of a run that is finished, or "diverged"."""
    diverged = value == "diverged"
    return RunRecord(
        key=key_of(spec),
        status="diverged" if diverged else "done",
        spec=spec,
        metrics={} if diverged else {"last": value, "best": value, "ece": value},
        noise={"num_train": 50000, **noise},
        timing={},
        environment={"device": "cpu", "precision": "float32"},
        method={"signs": signs},
        code="of now",
    )


def side(values):
    """Return a side that holds these values, {row: [a value for each seed]}."""
    cells = {}
    for row, by_seed in values.items():
        cells[row] = Cell(len(by_seed), dict(enumerate(by_seed)))
    return Side("t", cells)


def table(text):
    """Return the cells of each table line by its first cell, without headings."""
    lines = []
    for line in text.splitlines():
        if line.startswith("| "):
            lines.append(list(map(str.strip, line.strip("|").split("|"))))

    return {line[0]: line[1:] for line in lines[2:]}


@pytest.mark.parametrize(
    ("x", "y", "tau"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        # Five pairs are in the same order, and one is reversed.
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        # One side has a tie.
        ([1, 2, 3], [1, 1, 2], 2 / math.sqrt(3 * 2)),
        # Each side has a tie, of different pairs.
        ([1, 1, 2, 3], [1, 2, 2, 3], 4 / math.sqrt(5 * 5)),
        # Both sides have the same tie.
        ([1, 1, 2], [5, 5, 7], 1),
        # Where all values tie, or no pair exists, tau is undefined.
        ([1, 1, 1], [1, 2, 3], None),
        ([1], [1], None),
        ([], [], None),
    ],
)
def test_tau_b_by_hand(x, y, tau):
    expected = None if tau is None else pytest.approx(tau)

    assert tau_b(x, y) == expected
    assert tau_b(y, x) == tau_b(x, y)


def test_tau_b_is_scipys():
    from scipy.stats import kendalltau

    x = [0.71, 0.71, 0.70, 0.83, 0.79, 0.97, 0.94, 0.88, 0.97, 0.91]
    y = [0.65, 0.63, 0.65, 0.75, 0.75, 0.97, 0.92, 0.93, 0.96, 0.85]

    assert tau_b(x, y) == pytest.approx(kendalltau(x, y).statistic)


def test_the_interval_draws_seeds_and_keeps_what_methods_share():
    # Seeds differ much, but elr is above ce on each of them.
    shared = {"ce": [0.1, 0.5, 0.9], "elr": [0.2, 0.6, 1.0]}

    assert interval(side(shared), side(shared)) == (1, 1)

    # elr is above on seed 0 and below on seed 1; a quarter of the draws take one of them alone.
    torn = {"ce": [0.5, 0.5], "elr": [0.6, 0.3]}
    low, high = interval(side(torn), side({"ce": [0.1], "elr": [0.2]}))

    assert (low, high) == (-1, 1)
    assert interval(side(torn), side(shared)) == interval(side(torn), side(shared))


def test_no_interval_without_seeds_to_draw_or_with_tau_undefined():
    one = {"ce": [0.1], "elr": [0.2]}

    assert interval(side(one), side(one)) is None

    tied = {"ce": [0.1, 0.2], "elr": [0.1, 0.2]}
    assert interval(side(tied), side(one)) is None

    # The means tie, but the single seeds do not.
    torn = {"ce": [0.1, 0.2], "elr": [0.2, 0.1]}
    assert interval(side(torn), side(one)) is None


def test_an_order_that_rounding_may_make_is_no_order():
    # Of 40 seeds with 100 test examples four differ by one example: p is .04 where the values
    # are exact, and .13 with their rounding.
    values = {"ce": [0.51] * 4 + [0.5] * 36, "elr": [0.5] * 40}
    exact = side(values)
    assert exact.orders(corrected=False) == {("ce", "elr"): 1}
    swapped = side({row: values[row] for row in ("elr", "ce")})
    assert swapped.orders(corrected=False) == {("elr", "ce"): -1}

    rounded = replace(exact, rounding=1 / (100 * math.sqrt(12)))
    assert rounded.orders(corrected=False) == {}


def test_a_side_knows_the_rounding_of_its_values(suite):
    full = suite("full", A, noise={"num_test": 100}.items())

    a, b = sides(full, 0, suite("fast", B), 0, "last")

    assert a.rounding == pytest.approx(1 / (100 * math.sqrt(12)))
    assert b.rounding == 0


def test_report_of_two_suites(suite):
    text = between(suite("full", A), suite("fast", B))

    # Untied in A: 6, in B: 5; four pairs agree, one is reversed.
    assert text.startswith(
        f"**Kendall's tau-b over 4 methods: {3 / math.sqrt(30):.2f} (95% interval "
    )
    assert table(text)["gce"] == ["71.00±1.41*", "2", "91.50±2.12*", "1"]
    assert table(text)["ce"] == ["51.00±1.41*", "4", "41.00±1.41*", "3"]
    assert table(text)["mae"][3] == "3"
    assert (
        "Of 6 pairs of methods 4 are in the same order, 1 in the opposite order, 1 tie on a side."
        in text
    )
    assert (
        "- A: full, CIFAR-10N worst; last epoch, protocol of-full, track identical; seeds 0, 1."
        in text
    )
    assert "over the seeds, 1,000 draws; it is too narrow, because 2 seeds are few." in text
    assert "* made by another version of the code" in text


def test_pairs_within_noise_are_counted_by_themselves(suite):
    full = {"ce": [0.5, 0.521], "mae": [0.6, 0.62], "gce": [0.7, 0.722], "sl": [0.8, 0.823]}
    text = between(suite("full", full), suite("fast", B))

    # In `full` the two seeds of a difference lie within .003 (p below .01), and in B ce - mae is
    # -.02 and .02 (p 1).
    # ce - sl is -.40 twice, so its spread is unknown. The other differences in B are:
    # gce - sl .10, .11; ce - gce -.50, -.51; mae - sl -.38, -.42; mae - gce -.48, -.53. With one
    # degree of freedom the least t of these, 20, has p .03.
    assert (
        "Pairs whose order may be chance on a side "
        "(paired t test over seeds, unadjusted p of 0.05 or"
    ) in text
    assert "or more): 2. Of the other 4" in text
    # Only ce - gce has p below .01 in B: .0063, and .031 when it is the least of five.
    assert (
        "Of the other 4, 3 are in the same order, reversed: gce and sl. With Holm's correction "
        "over the pairs of a side, the order of 1 of them is beyond chance on both sides: 1 is in "
        "the same order.\n"
    ) in text

    noisy = between(suite("full", full), suite("noisy", {**B, "gce": [0.90, 0.81]}))
    # The mean of gce is still above the mean of sl, but that may now be chance.
    assert "1 in the opposite order" in noisy
    assert "reversed" not in noisy


def test_without_a_pair_beyond_chance_there_is_no_sentence_about_such_pairs(suite):
    # All differences of two rows are the same in each seed, so their spread is unknown.
    text = between(suite("full", A), suite("fast", A))

    assert "unadjusted p of 0.05 or more): 6.\n" in text
    assert "Of the other" not in text


# Pairs with gce differ by .100 and .101 or so on the seeds 0 and 2, which alone would be enough.
STEADY = {
    "ce": [0.500, 0.501, 0.502],
    "gce": [0.700, 0.702, 0.703],
    "elr": [0.600, 0.602, 0.604],
}


def test_pairs_are_counted_with_holms_correction_too(suite):
    steady = suite("steady", STEADY)
    assert (
        "Of the other 3, 3 are in the same order. With Holm's correction over the pairs of a side, "
        "the order of 3 of them is beyond chance on both sides: 3 are in the same order.\n"
    ) in between(steady, suite("again", STEADY))

    # elr minus ce is .100 with a standard deviation of .031, so that t is 5.6 and p .031. The p of
    # gce minus ce is .028, and twice that is above .05. gce is steadily above elr here, and far
    # below it on the other side.
    wide = {
        "ce": [0.469, 0.500, 0.531],
        "elr": [0.600, 0.600, 0.600],
        "gce": [0.6050, 0.6051, 0.6052],
    }
    turned = {**STEADY, "gce": STEADY["elr"], "elr": STEADY["gce"]}
    assert (
        "Of the other 3, 2 are in the same order, reversed: elr and gce. With Holm's correction "
        "over the pairs of a side, the order of 1 of them is beyond chance on both sides: none is "
        "in the same order, reversed: elr and gce.\n"
    ) in between(suite("wide", wide), suite("turned", turned))

    # The order of gce may be chance on the other side, and ce and elr are lost by the correction.
    shaky = {**STEADY, "gce": [0.5, 0.7, 0.8]}
    assert (
        "Of the other 1, 1 is in the same order. With Holm's correction over the pairs of a side, "
        "the order of none of them is beyond chance on both sides.\n"
    ) in between(suite("wide again", wide), suite("shaky", shaky))


@pytest.mark.parametrize("first", [True, False])
def test_the_order_of_a_row_with_a_diverged_seed_may_be_chance(suite, first):
    steady = suite("steady", STEADY)
    torn = suite("torn", {**STEADY, "gce": [0.700, "diverged", 0.703]})

    assert "or more): 0. Of the other 3, 3 are in the same order." in between(
        steady, suite("again", STEADY)
    )
    text = between(torn, steady) if first else between(steady, torn)

    assert "70.15±0.21 (2/3, !1)*" in table(text)["gce"]
    assert (
        "or more): 2. All pairs with gce are among them, because a seed diverged and the others "
        "are no fair sample. Of the other 1, 1 is in the same order."
    ) in text


def test_the_lowest_value_has_rank_1_where_lower_is_better(suite):
    text = between(suite("full", A), suite("fast", B), metric="ece")

    ranks = {row: cells[1::2] for row, cells in table(text).items()}
    assert ranks == {"ce": ["1", "1"], "mae": ["2", "1"], "gce": ["3", "4"], "sl": ["4", "3"]}
    assert "rank: 1 is the lowest, because lower is better; ties share a rank." in text
    assert "rank: 1 is the highest; ties share a rank." in between(
        suite("full", A), suite("fast", B)
    )


def test_one_seed_gives_neither_interval_nor_test(suite):
    one = {row: values[:1] for row, values in A.items()}
    text = between(suite("full", one), suite("fast", one))

    assert text.startswith("**Kendall's tau-b over 4 methods: 1.00**")
    assert "No interval: it is drawn from the seeds, and no side has two." in text
    assert "a side has one value for each method" in text

    half = between(suite("full", one), suite("five", A))
    assert (
        "it is too narrow, because it is drawn from the seeds of B alone and 2 seeds are few."
    ) in half


def test_only_seeds_that_all_rows_have_count(suite):
    text = between(suite("full", {**A, "ce": [0.90, None]}), suite("fast", B))

    # sl has both seeds, so that "1/2" would be false.
    assert table(text)["ce"][:2] == ["90.00 (1/2)*", "1"]
    assert table(text)["sl"][:2] == ["80.00*", "2"]
    assert "seed 0 alone, because ce has no value for seed 1.\n" in text
    assert "seeds 0, 1.\n" in text

    both = {"ce": [0.5, None, 0.5, 0.5], "mae": [0.6, None, 0.6, 0.6], "gce": [0.7, 0.7, 0.7, None]}
    text = between(suite("both", both), suite("fast", B))
    assert [table(text)[row][0] for row in both] == ["50.00±0.00*", "60.00±0.00*", "70.00±0.00*"]
    lacking = "ce and mae have no value for seed 1; gce has no value for seed 3."
    assert f"seeds 0, 2 alone, because {lacking}" in text

    # Every cell says itself that a seed is missing, and no row has it.
    text = between(suite("full", {row: [*found, None] for row, found in A.items()}), suite("b", B))
    assert table(text)["ce"][0] == "51.00±1.41 (2/3)*"
    assert "alone" not in text
    with pytest.raises(
        SuiteError,
        match=r"torn, CIFAR-10N worst: no seed has a finished run of every row \(ce has 0; ",
    ):
        between(suite("torn", {**A, "ce": [0.9, None], "sl": [None, 0.9]}), suite("fast", B))


def test_rows_that_are_not_the_same_are_left_out_and_named(suite):
    full = suite("full", {**A, "elr": [0.9, 0.9]}, params={"gce": {"q": 0.7}})
    fast = suite("fast", {**B, "mae": [None, None]}, params={"gce": {"q": 0.5}})
    text = between(full, fast)

    assert list(table(text)) == ["ce", "sl"]
    assert "Left out: mae, elr (no finished run in fast, CIFAR-10N worst)." in text
    assert "Left out: gce (not the same on both sides: q 0.7 and 0.5)." in text


def test_the_condition_without_a_run_is_named(suite):
    full = suite("full", A, others={"CIFAR-10N clean": {row: [None, None] for row in A}})

    with pytest.raises(
        SuiteError, match=r"\(no finished run in full, CIFAR-10N clean\)"
    ) as without_runs:
        between(full, full, conditions=["worst", "clean"])
    assert "no finished run in full, CIFAR-10N worst" not in str(without_runs.value)

    with pytest.raises(
        SuiteError,
        match=r"\(no finished run in full, CIFAR-10N clean; no memorised in full, CIFAR-10N wo",
    ):
        between(full, full, conditions=["worst", "clean"], metric="memorised")


def test_values_that_tries_chose_may_differ_and_are_named(suite):
    # The titles of the sides have the name of the protocol.
    of_given = {"name": "p", "val_fraction": 0.0}
    of_chosen = {"name": "q", "val_fraction": 0.1}
    given = suite("given", A, params={"gce": {"q": 0.7}}, protocols=of_all(A, **of_given))
    chosen = suite(
        "chosen",
        B,
        params={"gce": {"q": 0.5}, "sl": {"alpha": 1.0}},
        protocols={**of_all(B, **of_chosen), "ce": {**of_chosen, "epochs": 50}},
        methods={"mae": "other"},
        track="tuned",
    )

    text = between(given, chosen)
    assert sorted(table(text)) == ["ce", "gce", "sl"]
    assert "Left out: mae (not the same on both sides: method mae and other)." in text
    assert (
        "Tries chose values for each row of B. These values differ, in A and in B: "
        "ce epochs 100 and 50; gce q 0.7 and 0.5; sl alpha None and 1.0; "
        "all rows val_fraction 0.0 and 0.1."
    ) in text

    text = between(chosen, given)
    assert sorted(table(text)) == ["ce", "gce", "sl"]
    assert "Left out: mae (not the same on both sides: method other and mae)." in text
    assert (
        "Tries chose values for each row of A. These values differ, in A and in B: "
        "ce epochs 50 and 100; gce q 0.5 and 0.7; sl alpha 1.0 and None; "
        "all rows val_fraction 0.1 and 0.0."
    ) in text

    with pytest.raises(SuiteError, match="needs two rows of the same name and method with"):
        between(given, suite("one", {"ce": B["ce"]}, track="tuned"))


def of_all(rows, **values):
    """Return these values for each row."""
    return dict.fromkeys(rows, values)


def test_tries_that_chose_the_same_values_are_named_too(suite):
    text = between(suite("one", A, track="tuned"), suite("two", B, track="tuned"))

    assert "Tries chose values for each row of A and B. No value differs between A and B." in text


def test_values_of_one_protocol_that_differ_are_named_without_tries(suite):
    short = suite("short", A, protocols=of_all(A, epochs=50), protocol="p")
    text = between(short, suite("long", B, protocol="p"))

    assert "- These values differ, in A and in B: all rows epochs 50 and 100." in text
    # The titles name two protocols, which differ in most values.
    assert "These values differ" not in between(short, suite("far", B, protocol="q"))


def test_methods_that_tie_have_no_tau(suite):
    level = {row: [0.5, 0.5] for row in A}
    text = between(suite("full", A), suite("fast", level))

    assert text.startswith(
        "**Kendall's tau-b over 4 methods: undefined, because all methods of one side tie**"
    )
    assert "No interval: tau-b is undefined." in text
    assert "no side has two" not in text
    assert {cells[3] for cells in table(text).values()} == {"1"}
    assert "0 are in the same order, 0 in the opposite order, 6 tie on a side." in text


# ---- Conditions ----------------------------------------------------------------------------------


def test_conditions_that_cannot_be_compared_are_named_and_do_not_hide_the_others(suite):
    none = {row: [None, None] for row in A}
    torn = {**A, "ce": [0.5, None], "sl": [None, 0.5]}
    full = suite("full", A, others={"CIFAR-10N clean": none, "CIFAR-10N random1": torn})
    fast = suite("fast", B, others={"CIFAR-10N clean": B, "CIFAR-10N random1": B})

    text = between(full, fast)

    assert text.count("Kendall's tau-b") == 1
    assert "A: full, CIFAR-10N worst;" in text
    assert text.endswith(
        "\nNot compared, because no order of rows can be: CIFAR-10N clean; CIFAR-10N random1. "
        "`--condition` with one of these says why.\n"
    )
    assert "Not compared" not in between(full, fast, conditions=["worst"])
    with pytest.raises(NoOrder, match="full, CIFAR-10N random1: no seed has a finished run"):
        between(full, fast, conditions=["random1"])

    empty = suite("empty", none, others={"CIFAR-10N clean": none})
    with pytest.raises(NoOrder, match=r"empty, CIFAR-10N worst(.|\n)*empty, CIFAR-10N clean and"):
        between(empty, fast)


def test_a_condition_is_not_compared_with_itself(suite):
    full = suite("full", A, others={"CIFAR-10N clean": B})

    for conditions in ([], ["worst"], ["worst", "CIFAR-10N worst"]):
        with pytest.raises(
            SuiteError,
            match="full: CIFAR-10N worst cannot be compared with itself; give two conditions, or",
        ):
            between(full, full, conditions=conditions)
    assert "over 4 methods" in between(full, full, conditions=["worst", "clean"])


# ---- Notes on marks ------------------------------------------------------------------------------

CLEAN, WORST, RANDOM = "CIFAR-10N clean", "CIFAR-10N worst", "CIFAR-10N random1"


def test_marks_of_other_conditions_are_not_explained(suite):
    missing = {**A, "ce": [None, None], "mae": [0.6, "diverged"]}
    full = suite(
        "full",
        A,
        others={CLEAN: B, RANDOM: missing},
        signs={(RANDOM, "gce"): ["one-class"], (CLEAN, "sl"): ["one-class"]},
    )
    text = between(full, full, conditions=[WORST, CLEAN])

    assert "§ sl on CIFAR-10N clean: 2 of 2 runs predict one class only" in text
    assert "random1" not in text
    assert "! number" not in text
    assert "(n/m)" not in text


def test_a_note_on_a_row_names_the_suite_where_both_have_the_condition(suite):
    signs = {(WORST, "gce"): ["one-class"]}
    full = suite("full", A, signs=signs)

    text = between(full, suite("fast", B))
    assert "- § gce of full on CIFAR-10N worst: 2 of 2 runs predict one class only" in text
    assert "of fast on" not in text

    # The same suite in another folder, here with other values.
    text = between(full, suite("full", B, signs=signs))
    assert "- § gce of A on CIFAR-10N worst: 2 of 2" in text
    assert "- § gce of B on CIFAR-10N worst: 2 of 2" in text


def test_conditions_by_name(suite):
    full, other = suite("full", A), suite("fast", B, title="Digits")

    with pytest.raises(
        SuiteError,
        match="no condition is in both suites: full has CIFAR-10N worst; fast has Digits",
    ):
        between(full, other)
    assert "over 4 methods" in between(full, other, conditions=["CIFAR-10N worst", "Digits"])
    with pytest.raises(
        SuiteError, match=r"'Digit': no such condition in full\. There are: CIFAR-10N worst"
    ):
        between(full, other, conditions=["Digit"])
    with pytest.raises(SuiteError, match="got it 3 times"):
        between(full, other, conditions=["a", "b", "c"])


def test_errors_of_between(suite):
    with pytest.raises(SuiteError, match=r"--metric lst: unknown.*Did you mean 'last'"):
        between(suite("full", A), suite("fast", B), metric="lst")
    with pytest.raises(
        SuiteError,
        match=r"there is ce; --condition chooses another noise\nLeft out: mae, gce, sl \(no",
    ):
        between(suite("full", A), suite("fast", {"ce": [0.1, 0.2]}))
    with pytest.raises(
        SuiteError, match=r"memorised: an order needs two rows .* and there is none"
    ):
        between(suite("full", A), suite("fast", B), metric="memorised")


# CIFAR-N Table 2, worst labels: ce 77.69, gce 80.66, elr 83.58, forward 79.79.
# It reports the best epoch.
MEASURED = {"ce": [0.70, 0.71], "gce": [0.85, 0.86], "elr": [0.80, 0.81], "mae": [0.1, 0.1]}


def test_beside_published_numbers_of_the_same_rule(suite):
    full = suite("full", MEASURED, params={"gce": {"truncate": False}})
    text = with_published(full, metric="best")
    blocks = text.split("**Kendall's")[1:]
    (block,) = [part for part in blocks if "B: CIFAR-N Table 2" in part]

    assert block.startswith(f" tau-b over 3 methods: {1 / 3:.2f} (95%")
    assert table(block) == {
        "ce": ["70.50±0.71*", "3", "77.69", "3"],
        "gce": ["85.50±0.71*", "1", "80.66", "2"],
        "elr": ["80.50±0.71*", "2", "83.58", "1"],
    }
    assert "best (oracle), network resnet34; means as printed" in block
    for warning in published.CIFARN_WARNINGS:
        assert warning in block
    assert "it is drawn from the seeds of A alone" in block


def test_a_condition_that_cannot_be_compared_does_not_hide_the_others(suite):
    torn = {**MEASURED, "ce": [0.7, None], "gce": [None, 0.8]}
    params = {"gce": {"truncate": False}}
    full = suite("full", MEASURED, params=params, others={"CIFAR-10N aggregate": torn})

    text = with_published(full, metric="best")

    assert "B: CIFAR-N Table 2" in text
    assert "Not compared, because no order of rows can be: CIFAR-10N aggregate. " in text
    with pytest.raises(NoOrder, match="full, CIFAR-10N aggregate: no seed has a finished run"):
        with_published(full, metric="best", conditions=["aggregate"])


def test_published_errors(suite):
    full = suite("full", MEASURED)

    with pytest.raises(
        SuiteError, match=r"--metric memorised: no source reports it. Sources report: last, last10"
    ):
        with_published(full, metric="memorised")
    with pytest.raises(
        SuiteError, match=r"by the same rule of selection. There is one for --metric best$"
    ):
        with_published(full, metric="last")
    with pytest.raises(SuiteError, match="`nlbench published` lists what there is"):
        with_published(suite("digits", MEASURED, spec={**SPEC, "dataset": "digits"}))
    with pytest.raises(SuiteError, match="got it 2 times"):
        with_published(full, metric="best", conditions=["a", "b"])


def test_a_published_number_that_two_rows_claim_is_no_tie(suite, monkeypatch):
    rows = ["ce", "mae", "gce", "sl"]
    numbers = {}
    for place, method in enumerate(rows):
        number = published.Published(
            table="T",
            source="S",
            dataset="cifar10n",
            noise="worst",
            noise_definition="",
            architecture="resnet34-cifar",
            method=method,
            variant="",
            metric="top1",
            selection="last",
            mean=50.0 + place,
            std=None,
            std_kind="",
            seeds=None,
            note="",
        )
        numbers[(method, "cifar10n", "worst")] = [number]
    monkeypatch.setattr(comparable, "by_names", lambda: numbers)
    results = suite("full", A)

    assert list(table(with_published(results))) == rows

    twice = suite("twice", {**A, "again": A["sl"]}, methods={"again": "sl"})
    assert list(table(with_published(twice))) == ["ce", "mae", "gce"]


def test_command(suite, tmp_path):
    suite("full", A), suite("fast", B)

    def call(*arguments):
        return CliRunner().invoke(
            app, ["agreement", *arguments, "--out", str(tmp_path)], catch_exceptions=False
        )

    there = call("full", "fast")

    assert there.exit_code == 0
    assert there.stdout.startswith("**Kendall's tau-b over 4 methods: 0.55")
    assert call("full", "fast", "--out-b", str(tmp_path)).stdout == there.stdout

    for more in ([], ["--out-b", str(tmp_path / "." / "full" / "..")]):
        itself = call("full", "full", *more)
        assert itself.exit_code == 2
        assert "CIFAR-10N worst cannot be compared with itself" in itself.stderr

    refused = call("full", "fats")
    assert refused.exit_code == 2
    assert "unknown suite of" in refused.stderr
    assert "'fats'. There are: fast, full. Did you mean 'fast'?" in refused.stderr

    # The word `published` is not taken for a suite's name.
    assert "There are: " not in call("full", "published").stderr
    assert call("full", "fast", "--out-b", str(tmp_path / "none")).exit_code == 2
