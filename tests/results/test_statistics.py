"""Statistics equal scipy's, published examples of R, and numbers computed by hand."""

import itertools
import math
import random
import string

import pytest
from scipy import stats

from nlbench.results.statistics import (
    basic,
    best,
    datasets,
    letters,
    pairs,
    power,
    ranges,
)

# R's dataset sleep: hours of extra sleep of ten people under two drugs.
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
# R's dataset PlantGrowth.
PLANTS = {
    "ctrl": [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
    "trt1": [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
    "trt2": [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
}
# R's dataset warpbreaks: by wool and tension.
BREAKS = {
    ("A", "L"): [26, 30, 54, 25, 70, 52, 51, 26, 67],
    ("A", "M"): [18, 21, 29, 17, 12, 18, 35, 30, 36],
    ("A", "H"): [36, 21, 24, 18, 10, 43, 28, 15, 26],
    ("B", "L"): [27, 14, 29, 19, 29, 31, 41, 20, 44],
    ("B", "M"): [42, 26, 19, 16, 39, 28, 21, 39, 29],
    ("B", "H"): [20, 21, 24, 17, 13, 15, 15, 16, 28],
}
# Hollander and Wolfe, as in R's ?friedman.test: seconds to first base, three ways of rounding it.
ROUNDING = """
5.40 5.50 5.55  5.85 5.70 5.75  5.20 5.60 5.50  5.55 5.50 5.40  5.90 5.85 5.70  5.45 5.55 5.60
5.40 5.40 5.35  5.45 5.50 5.35  5.25 5.15 5.00  5.85 5.80 5.70  5.25 5.20 5.10  5.65 5.55 5.45
5.60 5.35 5.45  5.05 5.00 4.95  5.50 5.50 5.40  5.45 5.55 5.50  5.55 5.55 5.35  5.45 5.50 5.55
5.50 5.45 5.25  5.65 5.60 5.40  5.70 5.65 5.55  6.30 6.30 6.25
"""


def made_up(rows=4, seeds=5, spread=1.0, seed=0):
    """Return values by row and seed, with a part that all rows of a seed share."""
    generator = random.Random(seed)
    shared = [generator.gauss(0, 2) for _ in range(seeds)]
    table = {}
    for row in range(rows):
        values = [row + shared[s] + generator.gauss(0, spread) for s in range(seeds)]
        table[f"r{row}"] = dict(enumerate(values))
    return table


# ---- One difference -----------------------------------------------------------------------------


def test_intervals_of_the_sleep_data_are_those_of_r():
    paired = basic.paired_interval(*SLEEP)
    assert (paired.mean, paired.low, paired.high, paired.p) == pytest.approx(
        (-1.58, -2.4598858, -0.7001142, 0.002832890), abs=1e-7
    )
    # R: cor(extra[group == 1], extra[group == 2]).
    assert paired.correlation == pytest.approx(stats.pearsonr(*SLEEP).statistic)

    unpaired = basic.welch_interval(*SLEEP)
    assert (unpaired.low, unpaired.high, unpaired.p) == pytest.approx(
        (-3.3654832, 0.2054832, 0.07939414), abs=1e-7
    )


def test_an_interval_of_one_seed_of_none_and_of_no_spread():
    one = basic.paired_interval([0.5], [0.4])
    assert (one.low, one.high, one.p, one.n) == (None, None, None, 1)
    assert basic.paired_interval([], []) is None
    assert basic.welch_interval([0.5, 0.6], []) is None

    same = basic.paired_interval([0.5, 0.5], [0.25, 0.25])
    assert (same.mean, same.low, same.high, same.p) == (0.25, None, None, None)
    assert same.correlation is None
    # One side with one value has no spread of its own.
    assert basic.welch_interval([0.5, 0.6], [0.4]).low is None


def test_two_pairs_have_no_correlation_and_welch_counts_the_smaller_sample():
    # Two points always lie on a line.
    assert basic.correlation([1.0, 2.0], [1.0, 3.0]) is None
    assert basic.correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert basic.welch_interval([1.0, 2.0, 3.0], [1.0, 2.5]).n == 2


@pytest.mark.parametrize(("share", "n"), [(0.5, 100), (0.97, 10_000)])
def test_the_error_of_a_share_is_near_the_usual_formula(share, n):
    assert basic.share_error(share, n) == pytest.approx(
        math.sqrt(share * (1 - share) / n), rel=0.01
    )


def test_the_error_of_a_share_is_wilsons_and_never_zero():
    interval = stats.binomtest(93, 100).proportion_ci(2 * stats.norm.cdf(1) - 1, "wilson")
    assert basic.share_error(0.93, 100) == pytest.approx((interval.high - interval.low) / 2)
    assert basic.share_error(1.0, 100) == pytest.approx(1 / 202)


# ---- The largest of several differences ---------------------------------------------------------


@pytest.mark.parametrize(("rows", "df"), [(2, 1), (2, 4), (3, 2), (6, 20), (10, 36), (25, 96)])
def test_tukeys_probabilities_are_scipys(rows, df):
    for q in (0.5, 2.0, 4.0, 8.0):
        expected = stats.studentized_range.sf(q, rows, df)
        assert ranges.tukey_p([q], rows, df)[0] == pytest.approx(expected, abs=1e-6)


def test_critical_values_are_those_of_printed_tables():
    # Studentized range, 5%: 10 means and 20 or 60 degrees of freedom.
    assert ranges.tukey_critical(10, 20, 0.95) == pytest.approx(5.01, abs=0.005)
    assert ranges.tukey_critical(10, 60, 0.95) == pytest.approx(4.65, abs=0.005)
    # Dunnett 1955, one-sided, 5%, 10 and 20 degrees of freedom, 1 to 5 comparisons.
    for df, printed in ((10, (1.81, 2.15, 2.34, 2.47, 2.56)), (20, (1.72, 2.03, 2.19, 2.30, 2.39))):
        for others, value in enumerate(printed, start=1):
            assert ranges.dunnett_critical(others, df, 0.95) == pytest.approx(value, abs=0.006)


@pytest.mark.parametrize("noncentrality", [0.0, 1.0, 4.0])
def test_the_noncentral_t_is_scipys(noncentrality):
    t = stats.nct(12, noncentrality)
    expected = t.sf(2.2) + t.cdf(-2.2)
    assert ranges.noncentral_t_p(2.2, 12, noncentrality) == pytest.approx(expected, abs=1e-9)


# ---- All pairs ----------------------------------------------------------------------------------


def test_tukeys_test_of_the_plants_is_that_of_r():
    """Check the layout without blocks: all plants have one seed."""
    row = [i for i, values in enumerate(PLANTS.values()) for _ in values]
    value = [v for values in PLANTS.values() for v in values]
    fitted = pairs.fit(row, [0] * len(row), value)
    assert fitted.df == 27

    published = {  # diff, lwr, upr, p adj of TukeyHSD(aov(weight ~ group))
        (1, 0): (-0.371, -1.0622161, 0.3202161, 0.3908711),
        (2, 0): (0.494, -0.1972161, 1.1852161, 0.1979960),
        (2, 1): (0.865, 0.1737839, 1.5562161, 0.0120064),
    }
    critical = ranges.tukey_critical(3, 27, 0.95) / math.sqrt(2)
    for (i, j), expected in published.items():
        difference, se = fitted.difference(i, j)
        p = ranges.tukey_p([math.sqrt(2) * abs(difference) / se], 3, 27)[0]
        found = (difference, difference - critical * se, difference + critical * se, p)
        assert found == pytest.approx(expected, abs=2e-7)


def test_tukeys_test_of_the_warp_breaks_is_that_of_r():
    """Check the layout with blocks: breaks ~ wool + tension, wool being the block."""
    row, block, value = [], [], []
    for (wool, tension), counts in BREAKS.items():
        row += ["LMH".index(tension)] * len(counts)
        block += ["AB".index(wool)] * len(counts)
        value += counts
    fitted = pairs.fit(row, block, value)

    published = {  # of TukeyHSD(aov(breaks ~ wool + tension), "tension", ordered = TRUE)
        (1, 2): (4.722222, -4.6311985, 14.07564, 0.4474210),
        (0, 2): (14.722222, 5.3688015, 24.07564, 0.0011218),
        (0, 1): (10.000000, 0.6465793, 19.35342, 0.0336262),
    }
    critical = ranges.tukey_critical(3, fitted.df, 0.95) / math.sqrt(2)
    for (i, j), expected in published.items():
        difference, se = fitted.difference(i, j)
        p = ranges.tukey_p([math.sqrt(2) * abs(difference) / se], 3, fitted.df)[0]
        found = (difference, difference - critical * se, difference + critical * se, p)
        assert found == pytest.approx(expected, abs=1e-5)


def test_complete_blocks_are_the_textbooks_formula():
    table = made_up()
    values = [list(by_seed.values()) for by_seed in table.values()]
    grand = sum(map(sum, values)) / 20
    rest = 0.0
    for i, s in itertools.product(range(4), range(5)):
        seed_mean = sum(row[s] for row in values) / 4
        rest += (values[i][s] - sum(values[i]) / 5 - seed_mean + grand) ** 2
    margin = stats.studentized_range.ppf(0.95, 4, 12) * math.sqrt(rest / 12 / 5)

    for pair in pairs.tukey(table):
        difference = sum(table[pair.a].values()) / 5 - sum(table[pair.b].values()) / 5
        assert pair.mean == pytest.approx(difference)
        assert pair.high - pair.mean == pytest.approx(margin, rel=1e-6)


def test_two_rows_have_the_paired_t_test_by_tukey_and_by_holm():
    table = made_up(rows=2)
    expected = stats.ttest_rel(*(list(by_seed.values()) for by_seed in table.values()))
    interval = expected.confidence_interval()
    for (pair,) in (pairs.tukey(table), pairs.holm(table)):
        assert (pair.p, pair.low, pair.high) == pytest.approx(
            (expected.pvalue, interval.low, interval.high), rel=1e-6
        )


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="needs statsmodels")
    table = made_up(rows=5, spread=3.0)
    raw = []
    for a, b in itertools.combinations(table.values(), 2):
        raw.append(stats.ttest_rel(list(a.values()), list(b.values())).pvalue)
    expected = multitest.multipletests(raw, method="holm")[1]

    assert [pair.p for pair in pairs.holm(table)] == pytest.approx(list(expected))


def test_tukey_with_unequal_n_is_that_of_statsmodels_without_blocks():
    multicomp = pytest.importorskip("statsmodels.stats.multicomp", reason="needs statsmodels")
    generator = random.Random(1)
    sizes = (3, 5, 8)
    row = [i for i, n in enumerate(sizes) for _ in range(n)]
    value = [i + generator.gauss(0, 1) for i in row]
    expected = multicomp.pairwise_tukeyhsd(value, row)

    fitted = pairs.fit(row, [0] * len(row), value)
    critical = ranges.tukey_critical(3, fitted.df, 0.95) / math.sqrt(2)
    for (i, j), (low, high) in zip(((0, 1), (0, 2), (1, 2)), expected.confint, strict=True):
        difference, se = fitted.difference(j, i)
        assert (difference - critical * se, difference + critical * se) == pytest.approx(
            (low, high), rel=1e-4
        )


def test_a_missing_seed_changes_differences_and_their_errors():
    table = made_up()
    del table["r0"][4]
    found = {(pair.a, pair.b): pair for pair in pairs.tukey(table)}
    wide, narrow = found["r0", "r1"], found["r1", "r2"]
    assert wide.high - wide.low > narrow.high - narrow.low

    # The seed that r0 lacks is far from the others, and must not count against those that have it.
    for row in ("r1", "r2", "r3"):
        table[row][4] += 100
    again = {(pair.a, pair.b): pair for pair in pairs.tukey(table)}
    assert again["r0", "r1"].mean == pytest.approx(wide.mean)


def test_rows_without_a_common_seed_are_not_fitted_and_have_welchs_test():
    table = {"a": {0: 1.0, 1: 1.2, 2: 1.1}, "b": {5: 2.0, 6: 2.2, 7: 2.1}}
    assert pairs.tukey(table) is None
    (pair,) = pairs.holm(table)
    expected = stats.ttest_ind([1.0, 1.2, 1.1], [2.0, 2.2, 2.1], equal_var=False)
    assert pair.p == pytest.approx(expected.pvalue)


def test_rows_with_one_common_seed_have_welchs_test():
    found = pairs.between({0: 1.0, 1: 1.2, 2: 1.1}, {2: 2.0, 3: 2.2, 4: 2.1})
    expected = stats.ttest_ind([1.0, 1.2, 1.1], [2.0, 2.2, 2.1], equal_var=False)
    assert (found.kind, found.p) == ("welch", pytest.approx(expected.pvalue))


def test_holm_counts_the_pairs_that_have_a_test():
    table = {**made_up(rows=2), "one": {9: 1.0}}
    pair, *others = pairs.holm(table)
    alone = pairs.between(table["r0"], table["r1"])
    assert (pair.low, pair.high, pair.p) == pytest.approx((alone.low, alone.high, alone.p))
    assert [other.p for other in others] == [None, None]


def test_one_seed_has_differences_and_no_test():
    table = {"a": {0: 0.5}, "b": {0: 0.7}}
    assert pairs.tukey(table) is None
    assert pairs.holm(table) == [pairs.Pair("a", "b", pytest.approx(-0.2), None, None, None)]


def test_rows_without_spread_have_no_test():
    table = {"a": dict.fromkeys(range(5), 0.5), "b": dict.fromkeys(range(5), 0.7)}
    table["c"] = dict(table["a"])
    assert pairs.tukey(table) is None
    found = pairs.holm(table)
    assert [(pair.mean, pair.low, pair.high, pair.p) for pair in found] == [
        (pytest.approx(difference), None, None, None) for difference in (-0.2, 0.0, 0.2)
    ]
    assert pairs.adjustment(table)[0] == "holm"


def test_spreads_that_differ_are_found_and_equal_ones_are_not():
    equal = made_up(rows=6)
    assert pairs.spread_p(equal, pairs.fit_table(equal)) > 0.05
    wide = {row: dict(by_seed) for row, by_seed in equal.items()}
    for seed, value in wide["r0"].items():
        wide["r0"][seed] = value + 50 * (-1) ** seed
    assert pairs.spread_p(wide, pairs.fit_table(wide)) < 0.01


def test_bartletts_statistic_is_scipys_without_blocks():
    values = {name: dict(enumerate(column)) for name, column in PLANTS.items()}
    row = [i for i, column in enumerate(PLANTS.values()) for _ in column]
    fitted = pairs.fit(row, [0] * 30, [v for column in PLANTS.values() for v in column])
    assert pairs.spread_p(values, fitted) == pytest.approx(stats.bartlett(*PLANTS.values()).pvalue)


# ---- Letters and ranks --------------------------------------------------------------------------


def differing(*couples):
    return {frozenset(couple) for couple in couples}


def test_letters_of_piephos_kind():
    assert letters.letters("abc", differing()) == {"a": "a", "b": "a", "c": "a"}
    assert letters.letters("abc", differing("ab", "ac", "bc")) == {"a": "a", "b": "b", "c": "c"}
    assert letters.letters("abc", differing("ac")) == {"a": "a", "b": "ab", "c": "b"}
    # The plants: only the two treatments differ.
    assert letters.letters(["trt2", "ctrl", "trt1"], differing(("trt1", "trt2"))) == {
        "trt2": "a",
        "ctrl": "ab",
        "trt1": "b",
    }


def test_letters_follow_pairs_that_contradict_the_order():
    # A noisy best row ties with all others, which differ among themselves.
    found = letters.letters(["noisy", "b", "c"], differing("bc"))
    assert found == {"noisy": "ab", "b": "a", "c": "b"}


@pytest.mark.parametrize("seed", range(20))
def test_two_rows_share_a_letter_exactly_if_they_do_not_differ(seed):
    generator = random.Random(seed)
    rows = [f"r{i}" for i in range(8)]
    couples = [c for c in itertools.combinations(rows, 2) if generator.random() < 0.5]
    found = letters.letters(rows, differing(*couples))
    for couple in itertools.combinations(rows, 2):
        assert bool(set(found[couple[0]]) & set(found[couple[1]])) == (couple not in couples)


def test_26_groups_have_letters_and_27_have_none():
    rows = [f"r{i}" for i in range(27)]
    found = letters.letters(rows[:26], differing(*itertools.combinations(rows[:26], 2)))
    assert "".join(found.values()) == string.ascii_lowercase
    assert letters.letters(rows, differing(*itertools.combinations(rows, 2))) == {}


def test_rank_intervals_by_hand():
    better = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "d")]
    found = letters.rank_intervals("abcd", better)
    assert found == {"a": (1, 1), "b": (2, 3), "c": (2, 4), "d": (3, 4)}


# ---- The best row -------------------------------------------------------------------------------


def test_hsus_intervals_by_hand():
    table = made_up(rows=3, spread=0.5)
    fitted = pairs.fit_table(table)
    margin = ranges.dunnett_critical(2, 8, 0.95) * fitted.std * math.sqrt(2 / 5)
    means = {row: sum(by_seed.values()) / 5 for row, by_seed in table.items()}
    found = best.with_the_best(list(table), best.tukey_bounds(table))
    contenders = [
        row
        for row in table
        if means[row] - max(m for r, m in means.items() if r != row) + margin > 0
    ]
    for row in table:
        others = max(mean for other, mean in means.items() if other != row)
        assert found[row].mean == pytest.approx(means[row] - others)
        assert found[row].high == pytest.approx(max(0.0, means[row] - others + margin))
        if contenders == [row]:
            assert found[row].low == 0.0
        else:
            assert found[row].low == pytest.approx(min(0.0, means[row] - others - margin))


def test_hsus_margin_of_two_rows_is_the_one_sided_paired_t_test():
    table = made_up(rows=2)
    (difference, margin), *_ = best.tukey_bounds(table).values()
    deltas = [table["r0"][s] - table["r1"][s] for s in range(5)]
    expected = stats.t.ppf(0.95, 4) * stats.sem(deltas)
    assert difference == pytest.approx(sum(deltas) / 5)
    assert margin == pytest.approx(expected, rel=1e-6)
    assert best.paired_bounds(table)["r0", "r1"][1] == pytest.approx(expected)


def test_hsus_bounds_with_missing_seeds_are_bonferronis():
    table = made_up()
    del table["r0"][4]
    fitted = pairs.fit_table(table)
    difference, se = fitted.difference(0, 2)
    found = best.tukey_bounds(table)["r0", "r2"]
    assert found == pytest.approx((difference, stats.t.ppf(1 - 0.05 / 3, fitted.df) * se))


def test_a_clear_winner_is_certainly_the_best():
    table = {
        row: {s: v + 100 * (row == "r1") for s, v in of.items()} for row, of in made_up().items()
    }
    for bounds in (best.tukey_bounds(table), best.paired_bounds(table)):
        assert bounds["r2", "r1"] == pytest.approx((-bounds["r1", "r2"][0], bounds["r1", "r2"][1]))
        found = best.with_the_best(list(table), bounds)
        assert found["r1"].low == 0.0
        assert found["r1"].high > 90
        # Of the others only the distance to the winner counts.
        difference, margin = bounds["r2", "r1"]
        assert (found["r2"].low, found["r2"].high) == (pytest.approx(difference - margin), 0.0)


def test_only_rows_that_may_be_the_best_count_for_the_best():
    # c may be far above a, but is certainly below b.
    ups = {("a", "b"): (0.1, 0.05), ("a", "c"): (1.0, 3.0), ("b", "c"): (0.9, 0.1)}
    bounds = {**ups, **{(b, a): (-mean, margin) for (a, b), (mean, margin) in ups.items()}}
    found = best.with_the_best("abc", bounds)
    assert found["a"] == best.FromBest(0.1, 0.0, pytest.approx(0.15))
    assert (found["b"].high, found["c"].high) == (0.0, 0.0)


def test_rows_without_a_test_have_no_interval_to_the_best():
    found = best.with_the_best(["a", "b"], best.paired_bounds({"a": {0: 0.5}, "b": {0: 0.7}}))
    assert found["a"].mean == pytest.approx(-0.2)
    assert (found["a"].low, found["a"].high) == (None, None)


# ---- Power --------------------------------------------------------------------------------------


def test_seeds_for_a_difference_are_those_of_r():
    """R: power.t.test(delta = 1, sd = 1, power = 0.9, type = "paired") gives n = 12.58546."""
    design = power.Design(std=1 / math.sqrt(2), rows=2, adjust="holm")
    assert power.seeds_needed(1.0, design, power=0.9) == 13


def test_power_is_that_of_statsmodels():
    module = pytest.importorskip("statsmodels.stats.power", reason="needs statsmodels")
    design = power.Design(std=1 / math.sqrt(2), rows=2, adjust="holm")
    for seeds in (3, 5, 10):
        expected = module.TTestPower().power(0.8, seeds, 0.05)
        assert power.probability_of_finding(0.8, design, seeds) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("adjust", ["tukey", "holm"])
def test_the_smallest_difference_needs_the_seeds_that_it_was_found_with(adjust):
    design = power.Design(std=0.01, rows=6, adjust=adjust)
    smallest = power.smallest_difference(design, 5)
    assert power.probability_of_finding(smallest, design, 5) == pytest.approx(0.8, abs=1e-4)
    assert power.seeds_needed(smallest * 1.001, design) == 5
    assert power.seeds_needed(smallest * 0.95, design) == 6


def test_power_has_the_critical_values_of_the_tests():
    tukey, df = power.Design(0.01, 6, "tukey").critical(5)
    assert (tukey, df) == (pytest.approx(stats.studentized_range.ppf(0.95, 6, 20) / 2**0.5), 20)
    holm, df = power.Design(0.01, 6, "holm").critical(5)
    assert (holm, df) == (pytest.approx(stats.t.ppf(1 - 0.05 / 15 / 2, 4)), 4)


def test_power_at_its_limits():
    assert power.smallest_difference(power.Design(0.01, 6, "tukey"), 1) is None
    assert power.smallest_difference(power.Design(0.0, 6, "tukey"), 5) == 0.0
    assert power.seeds_needed(1e-9, power.Design(0.01, 2, "holm")) is None


# ---- Datasets -----------------------------------------------------------------------------------


def test_friedmans_test_of_the_rounding_times():
    numbers = [float(word) for word in ROUNDING.split()]
    # Less time is better.
    values = {name: [-x for x in numbers[i::3]] for i, name in enumerate(("out", "narrow", "wide"))}
    found = datasets.average_ranks(values)

    # R: friedman.test(RoundingTimes) has chi-squared 11.143, df 2, p 0.003805. F by hand of it.
    f = 21 * 11.142857142857132 / (22 * 2 - 11.142857142857132)
    assert found.friedman_p == pytest.approx(stats.f.sf(f, 2, 42))
    assert list(found.mean) == ["wide", "narrow", "out"]


@pytest.mark.parametrize(("rows", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_demsars(rows, q):
    """Table 5a of Demsar 2006, whose q already has the square root of 2 in it."""
    generator = random.Random(0)
    values = {f"r{i}": [generator.random() for _ in range(14)] for i in range(rows)}
    found = datasets.average_ranks(values)
    assert found.critical_difference == pytest.approx(
        q * math.sqrt(rows * (rows + 1) / (6 * 14)), rel=3e-4
    )


def test_nemenyi_is_that_of_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs", reason="needs scikit-posthocs")
    import numpy as np

    generator = random.Random(3)
    values = {f"r{i}": [i / 2 + generator.gauss(0, 1) for _ in range(8)] for i in range(4)}
    found = datasets.average_ranks(values)
    p = posthocs.posthoc_nemenyi_friedman(np.array(list(values.values())).T)
    names = list(values)
    for i, j in itertools.combinations(range(4), 2):
        apart = abs(found.mean[names[i]] - found.mean[names[j]])
        assert (apart >= found.critical_difference) == (p.iloc[i, j] <= 0.05)


def test_ranks_are_averaged_by_their_mean():
    found = datasets.average_ranks({"a": [2.0, 2.0, 1.0, 1.0, 1.0], "b": [1.0, 1.0, 2.0, 2.0, 2.0]})
    assert found.mean == pytest.approx({"b": 1.4, "a": 1.6})


def test_groups_are_runs_of_neighbours_and_ties_share_ranks():
    found = datasets.average_ranks({"a": [3.0] * 9, "b": [2.0] * 9, "c": [2.0] * 9, "d": [1.0] * 9})
    assert found.ranks["b"] == [2.5] * 9
    assert found.friedman_p < 1e-6
    # The critical difference of 4 rows on 9 datasets is 1.56.
    assert found.groups == [["a", "b", "c"], ["b", "c", "d"]]
    assert (
        datasets.average_ranks({"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]}).friedman_p == 1
    )


@pytest.mark.parametrize(("rows", "count", "p"), [(3, 2, 1 / 6), (3, 4, 1 / 216), (4, 2, 1 / 24)])
def test_datasets_that_rank_alike_have_the_exact_probability(rows, count, p):
    values = {f"r{row}": [0.1 * row + place for place in range(count)] for row in range(rows)}
    found = datasets.average_ranks(values)
    assert (found.friedman_p, found.exact) == (pytest.approx(p), True)


def test_the_exact_friedman_test_of_a_printed_table():
    # Hollander and Wolfe, table A.22: k 3, n 3, S 4.667 has probability 0.194 or more.
    values = {"a": [3.0, 3.0, 2.0], "b": [2.0, 2.0, 3.0], "c": [1.0, 1.0, 1.0]}
    assert datasets.average_ranks(values).friedman_p == pytest.approx(0.194, abs=0.001)


def test_many_rows_that_rank_alike_have_a_probability_above_zero():
    values = {f"r{row}": [float(row), float(row)] for row in range(12)}
    found = datasets.average_ranks(values)
    assert not found.exact
    assert 0 < found.friedman_p < 1e-6
