"""Figures of lines: what is drawn equals what the runs have measured."""

import itertools

import numpy as np
import pytest
from made_figures import CONDITIONS, ROWS, history_of, write_results

from nlbench.errors import SuiteError
from nlbench.figures import KINDS, NothingToDraw, Options
from nlbench.results.cells import Results

_GRADIENTS = ("gradient_ce_clean", "gradient_ce_wrong")


def lines_of(figure, panel=0):
    """Return the lines of data of a panel by their labels, as (x, y)."""
    found = {}
    for line in figure.axes[panel].lines:
        if not line.get_label().startswith("_"):
            found[line.get_label()] = line.get_xdata(), line.get_ydata()
    return found


def texts_of(figure):
    """Return all texts of a figure."""
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


def column(place, seeds, name, epochs=4, **options):
    """Return the values of a column of the made-up histories, (seeds, epochs)."""
    histories = [history_of(place, seed, epochs, **options) for seed in seeds]
    return np.array([[epoch[name] for epoch in history] for history in histories])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    return write_results(
        tmp_path_factory.mktemp("store"),
        statuses={("elr", 1): "diverged", ("gce", 0): "failed", ("mae", 0): "diverged"},
        missing=[("gce", 2), ("mae", 1), ("mae", 2)],
    )


# ---- Epochs --------------------------------------------------------------------------------------


def test_a_line_is_the_mean_over_seeds_and_the_band_its_extremes(results):
    figure = KINDS["epochs"].draw(results)
    found = lines_of(figure)
    assert set(found) == set(ROWS)
    corners = []
    for band in figure.axes[0].collections:
        corners.append({tuple(vertex) for vertex in band.get_paths()[0].vertices.tolist()})
    for place, row in enumerate(ROWS):
        expected = column(place, (0, 1, 2), "test_accuracy")
        x, y = found[row]
        # A reader counts epochs from 1.
        assert x.tolist() == [1, 2, 3, 4]
        np.testing.assert_array_equal(y, expected.mean(0))
        ends = {*zip(x, expected.min(0), strict=True), *zip(x, expected.max(0), strict=True)}
        assert any(ends <= found for found in corners)
    assert "lowest and highest seed" in figure.notes[0]
    assert "mean over 3 seeds" in figure.notes[0]


def test_another_column_is_drawn(results):
    figure = KINDS["epochs"].draw(results, Options(metric="loss", only=("elr",)))
    _, y = lines_of(figure)["elr"]
    np.testing.assert_array_equal(y, column(1, (0, 1, 2), "loss").mean(0))
    assert figure.axes[0].get_ylabel() == "training loss"
    # A loss is no share.
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert all(float(tick) < 3 for tick in ticks)


def test_seeds_that_are_not_done_are_in_no_mean_and_are_counted(incomplete):
    figure = KINDS["epochs"].draw(incomplete)
    found = lines_of(figure)
    assert set(found) == {"ce", "elr (2/3)", "gce (1/3)", "forward"}
    expected = column(1, (0, 2), "test_accuracy").mean(0)
    np.testing.assert_array_equal(found["elr (2/3)"][1], expected)
    np.testing.assert_array_equal(found["gce (1/3)"][1], column(2, (1,), "test_accuracy")[0])
    (note,) = [note for note in figure.notes if note.startswith("(a/b)")]
    # A row without a line is in the note, too.
    assert "diverged: elr 1, mae 1" in note
    assert "failed: gce 1" in note
    assert "not trained yet: gce 1, mae 2" in note


def test_a_damaged_history_is_left_out_and_counted(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"))
    key = results.files_of("elr", 0)[1].record.key
    path = results.store.run_dir(key) / "history.csv"
    path.write_text(path.read_text().replace("0.", "1.", 1))
    again = Results(results.store.plan("s"), results.store, {})
    figure = KINDS["epochs"].draw(again)
    assert "elr (2/3)" in lines_of(figure)
    assert any("damaged: elr 1" in note for note in figure.notes)


def test_one_seed_has_no_band(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), seeds=(0,))
    figure = KINDS["epochs"].draw(results)
    assert not figure.axes[0].collections
    assert figure.notes == ["Lines: one seed."]


def test_one_epoch_is_drawn(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), epochs=1)
    for kind in ("epochs", "memorisation"):
        figure = KINDS[kind].draw(results)
        assert figure.axes[0].get_xlim() == (0.5, 1.5)


def test_of_many_rows_the_best_the_baseline_and_those_asked_for_have_a_colour(tmp_path):
    rows = ("ce", *(f"m{place}" for place in range(24)))
    results = write_results(tmp_path, rows=rows, seeds=(0,), epochs=2)
    figure = KINDS["epochs"].draw(results, Options(highlight=("m7",)))
    colours = {}
    for line in figure.axes[0].lines:
        if not line.get_label().startswith("_"):
            colours[line.get_label()] = line.get_color()
    finals = {row: history_of(place, 0, 2)[-1]["test_accuracy"] for place, row in enumerate(rows)}
    best = max(finals, key=finals.get)
    grey = colours["m20"]
    assert {row for row, colour in colours.items() if colour != grey} == {"ce", "m7", best}
    # All of them are named beside the panel.
    assert set(rows) <= set(texts_of(figure))


def test_names_beside_lines_do_not_overlap_and_are_in_the_picture(tmp_path):
    rows = ("ce", *(f"method-{place}" for place in range(24)))
    results = write_results(tmp_path, rows=rows, seeds=(0,), epochs=2)
    figure = KINDS["epochs"].draw(results)
    figure.settle()
    boxes = []
    for text in figure.axes[0].texts:
        boxes.append(text.get_window_extent())
    assert len(boxes) == 25
    boxes.sort(key=lambda box: box.y0)
    # Ascenders and descenders may touch.
    for below, above in itertools.pairwise(boxes):
        assert above.y0 - below.y0 > 0.9 * 6.5 / 72 * figure.dpi
    for box in boxes:
        assert box.x0 > figure.axes[0].get_window_extent().x1
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= figure.bbox.y0


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_rows_are_refused(results, kind):
    for option, value in (("only", ("elx",)), ("highlight", ("elx",)), ("against", "elx")):
        with pytest.raises(SuiteError, match=rf"--{option} elx: no such row.*Did you mean 'elr'"):
            KINDS[kind].draw(results, Options(**{option: value}))


def test_a_column_that_there_is_not(results):
    with pytest.raises(SuiteError, match=r"--metric: unknown column.*Did you mean 'test_accuracy'"):
        KINDS["epochs"].draw(results, Options(metric="test_acuracy"))


def test_nothing_but_damaged_histories_says_what_sets_them_aside(tmp_path):
    results = write_results(tmp_path, rows=("ce",))
    for files in results.files_of("ce", 0).values():
        (results.store.run_dir(files.record.key) / "history.csv").unlink()
    again = Results(results.store.plan("s"), results.store, {})
    with pytest.raises(NothingToDraw) as caught:
        KINDS["epochs"].draw(again)
    assert "3 damaged. `nlbench repair RESULTS --again` sets" in str(caught.value)
    assert "`nlbench run` trains what is missing" not in str(caught.value)


def test_nothing_is_trained_yet(tmp_path):
    everything = [(row, seed) for row in ROWS for seed in range(3)]
    results = write_results(tmp_path, missing=everything)
    for kind in ("epochs", "memorisation", "gradient", "transition", "cost"):
        with pytest.raises(NothingToDraw, match="of 15 runs: 15 not trained yet"):
            KINDS[kind].draw(results)
    for kind in ("differences", "ranks", "noise-rate"):
        with pytest.raises(NothingToDraw, match="nothing to draw"):
            KINDS[kind].draw(results)


# ---- Memorisation --------------------------------------------------------------------------------


def test_memorisation_draws_the_five_shares(results):
    figure = KINDS["memorisation"].draw(results, Options(only=("ce", "elr")))
    assert len(figure.axes) == 4
    for number, row in enumerate((0, 1)):
        clean, wrong = figure.axes[2 * number : 2 * number + 2]
        drawn = {line.get_label(): line.get_ydata() for line in [*clean.lines, *wrong.lines]}
        right = column(row, (0, 1, 2), "online_clean_right")
        np.testing.assert_array_equal(drawn["online_clean_right"], right.mean(0))
        np.testing.assert_array_equal(drawn["online_clean_wrong"], (1 - right).mean(0))
        for share in ("true", "memorised", "other"):
            name = f"online_wrong_{share}"
            np.testing.assert_array_equal(drawn[name], column(row, (0, 1, 2), name).mean(0))


def test_of_many_rows_memorisation_draws_the_baseline_and_the_one_that_memorises_least(results):
    figure = KINDS["memorisation"].draw(results)
    names = [axes.get_ylabel() for axes in figure.axes]
    # The later a row of the made-up results, the less it memorises.
    assert [name for name in names if name] == ["ce", "forward"]
    assert "3 more rows are not drawn; --only chooses." in figure.notes[0]


def test_memorisation_needs_true_labels(tmp_path):
    results = write_results(tmp_path, rows=("ce",), without=("online_",))
    with pytest.raises(NothingToDraw, match=r"without online_wrong_memorised.*true labels"):
        KINDS["memorisation"].draw(results)


@pytest.fixture(scope="module")
def without_shares(tmp_path_factory):
    """A row whose steps return no logits, so that its shares are empty."""
    return write_results(
        tmp_path_factory.mktemp("store"), rows=("ce", "mixup"), empty={"mixup": "online_"}
    )


@pytest.mark.parametrize("kind", ["memorisation", "epochs"])
def test_a_row_without_shares_is_left_out_with_the_reason(without_shares, kind):
    metric = "online_wrong_memorised" if kind == "epochs" else None
    figure = KINDS[kind].draw(without_shares, Options(metric=metric))
    notes = " ".join(figure.notes)
    assert "Left out, without this value in any epoch: mixup 3." in notes
    assert "return its logits, as those of mixup" in notes
    assert "more row" not in notes
    assert len(figure.axes) == (1 if kind == "epochs" else 2)

    with pytest.raises(NothingToDraw, match=r"3 without a value of online_.*return its logits"):
        KINDS[kind].draw(without_shares, Options(metric=metric, only=("mixup",)))


def test_memorisation_needs_wrong_labels(tmp_path):
    results = write_results(tmp_path, rows=("ce",), empty={"ce": "online_wrong"})
    with pytest.raises(NothingToDraw, match=r"Shares of the wrongly labelled need wrong labels"):
        KINDS["memorisation"].draw(results)


def test_gradients_without_wrong_labels_are_drawn(tmp_path):
    results = write_results(
        tmp_path, rows=("ce", "gce"), columns=_GRADIENTS, empty={"ce": _GRADIENTS[1]}
    )
    figure = KINDS["gradient"].draw(results)
    assert len(figure.axes) == 4


def test_gradients_that_are_empty_are_no_figure(tmp_path):
    results = write_results(tmp_path, rows=("ce",), columns=_GRADIENTS, empty={"ce": "gradient_"})
    with pytest.raises(NothingToDraw, match="3 without a value of columns gradient_"):
        KINDS["gradient"].draw(results)


@pytest.mark.parametrize("kind", ["memorisation", "gradient"])
@pytest.mark.parametrize("width", [75.0, 85.0, 170.0])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_legend_covers_no_words_and_titles_are_apart(tmp_path, kind, width, rows):
    results = write_results(tmp_path, rows=ROWS[:rows], columns=_GRADIENTS)
    figure = KINDS[kind].draw(results, Options(width=width))
    figure.settle()
    boxes = [text.get_window_extent() for text in figure.texts]
    for axes in figure.axes:
        boxes += [axes.title.get_window_extent(), axes.xaxis.label.get_window_extent()]
        if axes.get_legend():
            boxes.append(axes.get_legend().get_window_extent())
    boxes = [box for box in boxes if box.width > 0]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


# ---- Gradients -----------------------------------------------------------------------------------


def test_gradients_are_drawn_by_term_and_kind_of_example(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), columns=_GRADIENTS)
    figure = KINDS["gradient"].draw(results)
    for place in (0, 1):
        for panel, name in enumerate(_GRADIENTS):
            lines = figure.axes[2 * place + panel].lines
            (line,) = [line for line in lines if line.get_label() == name]
            histories = [history_of(place, seed, 4, columns=_GRADIENTS) for seed in range(3)]
            expected = np.mean([[epoch[name] for epoch in h] for h in histories], axis=0)
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    legend = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert legend == ["cross entropy"]


def test_a_point_of_many_epochs_is_a_mean_over_neighbours(tmp_path):
    results = write_results(tmp_path, rows=("ce",), columns=_GRADIENTS, epochs=420)
    figure = KINDS["gradient"].draw(results)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == _GRADIENTS[0]]
    values = column(0, range(3), _GRADIENTS[0], 420, columns=_GRADIENTS)
    # Six epochs, because five are an odd number.
    assert len(line.get_xdata()) == 70
    assert line.get_xdata()[:2].tolist() == [3.5, 9.5]
    np.testing.assert_allclose(line.get_ydata()[1], values[:, 6:12].mean(), rtol=1e-12)
    (band,) = figure.axes[0].collections
    corners = {tuple(vertex) for vertex in band.get_paths()[0].vertices.tolist()}
    assert {(9.5, values[:, 6:12].min()), (9.5, values[:, 6:12].max())} <= corners
    assert "Lines: means over seeds and 6 epochs." in figure.notes[0]


def test_gradients_that_were_not_recorded(results):
    with pytest.raises(NothingToDraw, match=r"--record-gradients.*ce and elr"):
        KINDS["gradient"].draw(results)


# ---- Noise rates ---------------------------------------------------------------------------------

_RATES = (
    ("Digits", "digits", 0.0),
    ("Digits symmetric 0.4", "digits", 0.4),
    ("Digits symmetric 0.2", "digits", 0.2),
    ("Other symmetric 0.2", "other", 0.2),
)


def test_noise_rates_are_in_order_with_clean_labels_as_rate_0(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr"), conditions=_RATES)
    figure = KINDS["noise-rate"].draw(results)
    assert figure.heading == "Digits symmetric"
    for row in ("ce", "elr"):
        x, y = lines_of(figure)[row]
        np.testing.assert_allclose(x, [0.0, 0.2, 0.4])
        cells = [results.cell(row, condition, "last") for condition in (0, 2, 1)]
        np.testing.assert_allclose(y, [cell.mean for cell in cells], rtol=1e-12)


def test_bars_at_one_rate_stand_beside_each_other(tmp_path):
    results = write_results(tmp_path, rows=("ce", "elr", "gce"), conditions=_RATES)
    axes = KINDS["noise-rate"].draw(results).axes[0]
    places = []
    for bar in axes.collections:
        place = bar.get_segments()[0][0]
        assert place[0] == 0.0
        places.append(bar.get_transform().transform(place)[0])
    apart = np.diff(sorted(places))
    assert len(apart) == 2
    np.testing.assert_allclose(apart, 1.2 / 72 * axes.figure.dpi, rtol=1e-6)
    # Nobody has moved the panel to make room for them.
    assert axes.get_xlim() == pytest.approx((-0.02, 0.42))


@pytest.mark.parametrize("conditions", [CONDITIONS, _RATES[2:]])
def test_one_rate_is_no_figure(tmp_path, conditions):
    results = write_results(tmp_path, rows=("ce",), conditions=conditions)
    with pytest.raises(NothingToDraw, match=r"at two rates or more.*Digits symmetric"):
        KINDS["noise-rate"].draw(results)


def test_a_condition_without_other_rates(tmp_path):
    results = write_results(tmp_path, rows=("ce",), conditions=_RATES)
    with pytest.raises(NothingToDraw, match=r"with 'Other symmetric 0.2' among them"):
        KINDS["noise-rate"].draw(results, Options(condition=3))
