"""Figures of matrices, costs, differences and ranks: what is drawn equals what is computed."""

import itertools

import numpy as np
import pytest
from in_memory import Memory
from made_figures import matrices_of, write_results
from made_stores import rewritten
from made_up import record_of, spec_of

from nlbench.errors import SuiteError
from nlbench.figures import KINDS, NothingToDraw, Options, style
from nlbench.figures.apart import labels_apart
from nlbench.figures.lines import spread
from nlbench.plan.spec import key_of
from nlbench.results import agreement
from nlbench.results.analysis import analyse
from nlbench.results.cells import Results
from nlbench.results.over_datasets import over_datasets
from nlbench.results.store import Store

DATASETS = [("Digits", "digits", 0.0), ("Cars", "cars", 0.0), ("Birds", "birds", 0.0)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(
        tmp_path_factory.mktemp("store"),
        statuses={("gce", 1): "diverged"},
        missing=[("elr", 2)],
        arrays=matrices_of,
    )


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("store"), conditions=DATASETS)


# ---- Transition matrices -------------------------------------------------------------------------


def test_matrices_are_means_over_seeds(results):
    figure = KINDS["transition"].draw(results, Options(only=("forward",)))
    drawn = [axes.collections[0].get_array().reshape(10, 10) for axes in figure.axes[:3]]
    found = [matrices_of(4, seed) for seed in (0, 1, 2)]
    estimated = np.mean([one["T"] for one in found], axis=0)
    true = np.mean([one["T_true"] for one in found], axis=0)
    for matrix, expected in zip(drawn, (true, estimated, abs(estimated - true)), strict=True):
        np.testing.assert_allclose(matrix, expected, rtol=1e-12)
    errors = [abs(one["T"] - one["T_true"]).mean() for one in found]
    assert f"forward {min(errors):.3f} to {max(errors):.3f}" in figure.notes[0]


def test_a_matrix_without_the_true_one(tmp_path):
    results = write_results(
        tmp_path, rows=("ce",), arrays=lambda place, seed: {"T": matrices_of(place, seed)["T"]}
    )
    figure = KINDS["transition"].draw(results)
    assert figure.axes[0].get_title("left") == "estimated T (%)"
    assert "ce: predictions.npz has no true T" in figure.notes[0]


@pytest.mark.parametrize("classes", [2, 3, 30, 100])
def test_matrices_of_few_and_of_many_classes(tmp_path, classes):
    results = write_results(
        tmp_path, rows=("ce",), arrays=lambda place, seed: matrices_of(place, seed, classes)
    )
    figure = KINDS["transition"].draw(results)
    figure.settle()
    # Ticks of neighbours do not touch.
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_xticklabels()]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_a_row_that_was_asked_for_without_a_matrix_is_named(tmp_path):
    results = write_results(
        tmp_path, rows=("ce", "forward"), arrays=lambda p, s: matrices_of(p, s) if p else {}
    )
    figure = KINDS["transition"].draw(results, Options(only=("ce", "forward")))
    assert figure.notes[-1] == "Without a T: ce."
    assert "Without a T" not in " ".join(KINDS["transition"].draw(results).notes)


def test_a_store_without_matrices(datasets):
    with pytest.raises(NothingToDraw, match=r"45 without T in predictions.npz.*volminnet"):
        KINDS["transition"].draw(datasets)


# ---- Costs ---------------------------------------------------------------------------------------


def test_points_are_means_of_the_seeds_that_are_done(results):
    figure = KINDS["cost"].draw(results)
    points = {}
    for line in figure.axes[0].lines:
        if not line.get_label().startswith("_"):
            points[line.get_label()] = line.get_xdata()[0], line.get_ydata()[0]
    assert set(points) == {"ce", "elr (2/3)", "gce (2/3)", "mae", "forward"}
    for label, (x, y) in points.items():
        row = label.split()[0]
        cell = results.cell(row, 0, "last")
        seconds = []
        for record in results.records_of(row, 0):
            if record.spec["seed"] in cell.values:
                seconds.append(record.timing["train"] + record.timing["prepare"])
        assert x == pytest.approx(np.mean(seconds))
        assert y == pytest.approx(cell.mean)
    assert "1 thread, 1 run at a time" in figure.notes[0]


@pytest.mark.parametrize("rows", [("ce",), ("ce", "elr")])
def test_the_dotted_line_is_explained_where_there_is_one(tmp_path, rows):
    # elr takes longer and is better, so that a line joins the two.
    figure = KINDS["cost"].draw(write_results(tmp_path, rows=rows))
    (front,) = [line for line in figure.axes[0].lines if line.get_label() == "_front"]
    assert len(front.get_xdata()) == len(rows)
    assert ("dotted line" in figure.notes[0]) == (len(rows) > 1)


def test_passes_do_without_a_note_on_the_machine(results):
    figure = KINDS["cost"].draw(results, Options(cost="passes"))
    assert "thread" not in figure.notes[0]
    assert "Passes of helper networks are not counted." in figure.notes[0]


def test_seconds_of_different_machines_are_marked(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), devices={"elr": "B"})
    note = KINDS["cost"].draw(results).notes[0]
    assert "Not comparable" in note
    assert "A, 1 thread, 1 run at a time; B, 1 thread" in note


def test_labels_of_points_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    points = {f"p{i}": tuple(rng.uniform(5, 55, 2)) for i in range(15)}
    sizes = dict.fromkeys(points, (11.0, 2.9))
    found = labels_apart(points, sizes, [], 70, 60)
    assert set(found) == set(points)
    for (a, b), (c, d) in itertools.combinations(found.values(), 2):
        assert abs(a - c) >= 11.0 or abs(b - d) >= 2.9


# ---- Agreement -----------------------------------------------------------------------------------


def drawn_points(figure):
    """Return label -> (x, y) of the points of the first panel."""
    points = {}
    for line in figure.axes[0].lines:
        if not line.get_label().startswith("_"):
            points[line.get_label()] = line.get_xdata()[0], line.get_ydata()[0]
    return points


def test_a_point_is_the_mean_under_one_condition_and_under_another(datasets):
    figure = KINDS["agreement"].draw(datasets, Options(conditions=(2, 0)))

    points = drawn_points(figure)
    assert set(points) == {"ce", "elr", "gce", "mae", "forward"}
    for row, (x, y) in points.items():
        assert x == pytest.approx(datasets.cell(row, 2, "last").mean)
        assert y == pytest.approx(datasets.cell(row, 0, "last").mean)
    assert figure.heading == "Birds and Digits"
    assert "Birds: test accuracy" in figure.axes[0].get_xlabel()
    assert "Digits: test accuracy" in figure.axes[0].get_ylabel()
    # Without a choice the first two are compared.
    assert KINDS["agreement"].draw(datasets).heading == "Digits and Cars"


def test_tau_is_that_of_the_command_agreement(datasets):
    words = agreement.between(datasets, datasets, conditions=("Digits", "Birds"))
    figure = KINDS["agreement"].draw(datasets, Options(conditions=(0, 2)))

    stated = figure.notes[1].removesuffix(".")
    assert stated.startswith("Kendall's tau-b over 5 methods: ")
    assert stated in " ".join(words.split())


def test_two_suites_are_compared_under_the_condition_that_both_have(datasets, results, tmp_path):
    other = write_results(tmp_path, conditions=DATASETS[1:], rows=("ce", "elr", "gce"), suite="t")
    figure = KINDS["agreement"].draw(datasets, Options(other=other))

    assert figure.heading == "Cars (s) and Cars (t)"
    assert set(drawn_points(figure)) == {"ce", "elr", "gce"}
    assert figure.notes[-1] == "Left out: 2 of 5 rows; `nlbench agreement` says why."
    with pytest.raises(NothingToDraw, match="no condition of both s and t has runs of the same"):
        KINDS["agreement"].draw(results, Options(other=other))


def test_bars_of_an_agreement_end_at_the_lowest_and_the_highest_seed(datasets):
    figure = KINDS["agreement"].draw(datasets, Options(conditions=(0, 1), only=("ce", "mae")))

    up, across = (bars.get_segments()[0] for bars in figure.axes[0].collections[:2])
    for bar, condition, place in ((across, 0, 0), (up, 1, 1)):
        values = datasets.cell("ce", condition, "last").values.values()
        assert bar[:, place].tolist() == pytest.approx([min(values), max(values)])


def test_only_seeds_that_all_drawn_rows_have_are_in_an_agreement(results, tmp_path):
    # elr lacks seed 2, and gce diverged with seed 1.
    other = write_results(tmp_path, suite="t")
    figure = KINDS["agreement"].draw(results, Options(other=other))
    assert drawn_points(figure)["ce"][0] == results.cell("ce", 0, "last").values[0]
    assert (
        "Digits symmetric 0.4 (s): only seed 0 is drawn, because not all rows have the others."
    ) in figure.notes
    assert not any("(t): only" in note for note in figure.notes)

    figure = KINDS["agreement"].draw(results, Options(other=other, only=("ce", "mae")))
    assert drawn_points(figure)["ce"][0] == pytest.approx(results.cell("ce", 0, "last").mean)
    assert not any("only seed" in note for note in figure.notes)

    figure = KINDS["agreement"].draw(results, Options(other=other, only=("ce", "elr")))
    assert "(s): only seeds 0, 1 are drawn, because not all rows" in " ".join(figure.notes)


def test_a_suite_with_fewer_seeds_than_the_other_lacks_none(datasets, tmp_path):
    other = write_results(tmp_path, conditions=DATASETS, seeds=(0, 1), suite="t")
    figure = KINDS["agreement"].draw(datasets, Options(other=other))

    assert not any("only seed" in note for note in figure.notes)


@pytest.mark.parametrize(("rate", "equal"), [(0.0, True), (0.9, False)])
def test_the_line_of_equal_values_is_drawn_where_both_axes_have_many_of_them(tmp_path, rate, equal):
    conditions = [("Digits", "digits", 0.0), ("Cars", "cars", rate)]
    figure = KINDS["agreement"].draw(write_results(tmp_path, conditions=conditions))

    assert any(line.get_label() == "_equal" for line in figure.axes[0].lines) == equal
    assert ("Dotted" in figure.notes[0]) == equal


def test_a_condition_is_not_compared_with_itself(datasets):
    with pytest.raises(SuiteError, match="Cars cannot be compared with itself; give two"):
        KINDS["agreement"].draw(datasets, Options(conditions=(1,)))


def test_one_condition_alone_has_nothing_to_agree_with(results):
    with pytest.raises(NothingToDraw, match="needs two conditions with runs of the same two rows"):
        KINDS["agreement"].draw(results)


def made(values, *, suite="s", signs=None, track="identical"):
    """Return results that are on no disk.

    Args:
        values: condition -> row -> a value for each seed, "diverged" for a run that did.
        signs: (condition, row) -> the signs of its runs.
    """
    store = Memory()
    cells, rows, seeds = [], {}, 0
    for place, (title, of_rows) in enumerate(values.items()):
        for row, by_seed in of_rows.items():
            rows[row] = {"row": row, "method": row, "told": [], "networks": 1}
            seeds = max(seeds, len(by_seed))
            for seed, value in enumerate(by_seed):
                spec = {**spec_of(row, seed), "labels": title}
                diverged = value == "diverged"
                record = record_of(
                    row,
                    seed,
                    spec=spec,
                    key=key_of(spec),
                    status="diverged" if diverged else "done",
                    metrics={} if diverged else {"last": value},
                )
                record.method["signs"] = (signs or {}).get((title, row), [])
                key = store.write(record)
                cells.append({"row": row, "condition": place, "seed": seed, "key": key})

    plan = {
        "suite": suite,
        "track": track,
        "protocol": "digits",
        "rows": list(rows.values()),
        "conditions": list(values),
        "seeds": list(range(seeds)),
        "cells": cells,
    }
    return Results(plan, store, {})


TWO = {"ce": [0.5, 0.51], "elr": [0.6, 0.62]}
NONE = {"ce": ["diverged"] * 2, "elr": ["diverged"] * 2}


def test_the_first_conditions_that_can_be_compared_are_drawn():
    torn = {"ce": [0.5, "diverged"], "elr": ["diverged", 0.6]}
    results = made({"none": NONE, "torn": torn, "half": {"ce": [0.5]}, "first": TWO, "last": TWO})

    assert KINDS["agreement"].draw(results).heading == "first and last"

    other = made({"none": TWO, "half": TWO, "last": TWO, "first": TWO}, suite="t")
    figure = KINDS["agreement"].draw(results, Options(other=other))
    assert figure.heading == "first (s) and first (t)"

    with pytest.raises(NothingToDraw, match="s: nothing to draw, because the figure needs two"):
        KINDS["agreement"].draw(made({"none": NONE, "torn": torn}))


def test_runs_of_rows_that_are_not_drawn_choose_no_condition():
    more = {"gce": [0.5, 0.6], "mae": [0.6, 0.7]}
    results = made({"x": more, "y": {**TWO, **more}, "z": {**TWO, **more}})

    assert KINDS["agreement"].draw(results).heading == "x and y"
    assert KINDS["agreement"].draw(results, Options(only=("ce", "elr"))).heading == "y and z"


def test_an_agreement_says_when_its_interval_is_too_narrow():
    five = {row: [value + i / 100 for i in range(5)] for row, (value, _) in TWO.items()}
    one = {row: by_seed[:1] for row, by_seed in TWO.items()}

    def notes(a, b):
        return " ".join(KINDS["agreement"].draw(made({"a": a, "b": b})).notes)

    assert "The interval is too narrow, because 2 seeds are few." in notes(five, TWO)
    assert "narrow, because it is drawn from the seeds of a alone." in notes(five, one)
    assert "of b alone and 2 seeds are few." in notes(one, TWO)
    for a, b in ((five, five), (one, one)):
        assert "narrow" not in notes(a, b)


def test_an_agreement_says_which_side_is_tuned():
    given, chosen = made({"a": TWO}), made({"a": TWO}, suite="t", track="tuned")

    for a, b in ((given, chosen), (chosen, given)):
        notes = KINDS["agreement"].draw(a, Options(other=b)).notes
        assert [note for note in notes if "tries" in note] == [
            "t: tries chose values for each row."
        ]
    both = made({"a": TWO, "b": TWO}, track="tuned")
    assert KINDS["agreement"].draw(both).notes.count("s: tries chose values for each row.") == 1
    assert not any(
        "tries" in note for note in KINDS["agreement"].draw(made({"a": TWO, "b": TWO})).notes
    )


def test_an_agreement_explains_the_signs_of_its_own_conditions():
    signs = {("b", "ce"): ["one-class"], ("c", "elr"): ["one-class"]}
    results = made({"a": TWO, "b": TWO, "c": TWO}, signs=signs)

    notes = KINDS["agreement"].draw(results).notes
    signs_of = [note for note in notes if note.startswith("§")]
    assert signs_of == ["§ ce on b: 2 of 2 runs predict one class only after the last epoch."]

    other = made({"b": TWO}, suite="t")
    notes = KINDS["agreement"].draw(results, Options(conditions=(1, 0), other=other)).notes
    assert notes[-1] == "§ ce of s on b: 2 of 2 runs predict one class only after the last epoch."


# ---- Differences ---------------------------------------------------------------------------------


def test_differences_are_those_of_the_analysis(results):
    figure = KINDS["differences"].draw(results)
    axes = figure.axes[0]
    analysis = analyse(results, 0)
    expected = [row for row in analysis.rows if row.row != "ce"]
    names = [label.get_text().split()[0] for label in axes.get_yticklabels()]
    assert names == [row.row for row in expected]
    words = [text.get_text() for text in axes.texts]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    with_interval = [row for row in expected if row.ranked]
    assert len(points) == len(axes.collections) == len(with_interval) == 3
    for row, point, bar in zip(with_interval, points, axes.collections, strict=True):
        found = row.minus_baseline
        assert point.get_xdata()[0] == found.mean
        (segment,) = bar.get_segments()
        assert segment[:, 0].tolist() == [found.low, found.high]
        filled = point.get_markerfacecolor() != style.PAPER
        assert filled == (not found.low <= 0 <= found.high)
    # A row of which a seed diverged has no mean to compare.
    assert words[names.index("gce")] == "1 of 3 diverged"


def test_one_pair_is_counted_as_one(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), seeds=(0,))
    figure = KINDS["differences"].draw(results)
    assert "paired by seed, 1 pair." in figure.notes[0]


def test_a_row_that_is_done_without_the_metric_says_so(tmp_path):
    made = write_results(tmp_path, rows=("ce", "elr", "mixup"))
    for row, seed in itertools.product(("ce", "elr"), range(3)):
        key = made.files_of(row, 0)[seed].record.key
        nll = {"nll": 1.0 + 0.1 * seed + 0.01 * seed * len(row)}
        rewritten(made.store.run_dir(key), lambda values, nll=nll: values["metrics"].update(nll))
    results = Results(made.store.plan("s"), Store(made.store.root), {})
    figure = KINDS["differences"].draw(results, Options(metric="nll"))
    assert "without this value" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("width", [75.0, 85.0])
def test_the_name_of_the_axis_of_differences_is_in_the_picture(tmp_path, width):
    results = write_results(tmp_path, rows=("ce", "elr"))
    figure = KINDS["differences"].draw(results, Options(width=width))
    figure.settle()
    box = figure.axes[0].xaxis.label.get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_a_suite_without_the_baseline(tmp_path):
    results = write_results(tmp_path, rows=("elr", "gce"))
    with pytest.raises(NothingToDraw, match=r"has no row `ce`.*--against names one of elr, gce"):
        KINDS["differences"].draw(results)
    figure = KINDS["differences"].draw(results, Options(against="gce"))
    assert figure.axes[0].get_xlabel().startswith("last epoch, minus gce")


def test_rows_on_other_data_are_not_compared(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), fingerprints={"elr": "other"})
    with pytest.raises(NothingToDraw, match="their runs read different data"):
        KINDS["differences"].draw(results)


# ---- Ranks ---------------------------------------------------------------------------------------


def test_ranks_are_those_over_datasets(datasets):
    figure = KINDS["ranks"].draw(datasets)
    found = over_datasets(datasets)
    axes = figure.axes[0]
    drawn = sorted(line.get_xdata()[0] for line in axes.lines if line.get_label() == "_rank")
    assert drawn == sorted(row.mean for row in found.rows)
    (difference,) = [line for line in axes.lines if line.get_label() == "_critical difference"]
    right = axes.get_xlim()[1]
    assert difference.get_xdata()[1] == min(1 + found.critical_difference, right)
    groups = [line for line in axes.lines if line.get_label() == "_group"]
    assert len(groups) == len([group for group in found.groups if len(group) > 1]) > 0
    assert figure.description.startswith(found.sentence)


def test_label_sets_of_one_dataset_are_not_ranked(tmp_path):
    sets = [("Digits symmetric 0.2", "digits", 0.2), ("Digits symmetric 0.4", "digits", 0.4)]
    results = write_results(tmp_path, rows=("ce", "elr"), conditions=sets)
    with pytest.raises(NothingToDraw, match="each dataset once"):
        KINDS["ranks"].draw(results)


def test_no_row_is_left_out_of_ranks(datasets):
    with pytest.raises(SuiteError, match="a rank is among all rows"):
        KINDS["ranks"].draw(datasets, Options(only=("elr",)))


# ---- Places of names -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_names_are_spread_in_their_order_and_within_bounds(seed):
    rng = np.random.default_rng(seed)
    wanted = rng.uniform(-5, 60, 15).tolist()
    places = spread(wanted, 3.0, 0.0, 50.0)
    order = np.argsort(wanted, kind="stable")
    ordered = [places[i] for i in order]
    assert all(b - a >= 3.0 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= 0
    assert ordered[-1] <= 50 + 1e-9


def test_names_that_are_apart_stay_where_they_are():
    assert spread([10.0, 0.0, 20.0], 3.0, -1.0, 30.0) == [10.0, 0.0, 20.0]
    assert spread([10.0, 11.0], 3.0, 0.0, 30.0) == [9.0, 12.0]
