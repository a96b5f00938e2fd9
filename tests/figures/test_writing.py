"""Figures as files and in pages: widths, fonts, names of others, and the same bytes again."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from made_figures import matrices_of, write_results
from matplotlib.text import Text
from matplotlib.transforms import TransformedBbox
from PIL import Image

from nlbench.figures import KINDS, Options, compact, style, svg

ROWS = ("ce", "elr", "gce")
CONDITIONS = [
    ("Digits", "digits", 0.0),
    ("Digits symmetric 0.2", "digits", 0.2),
]
DATASETS = [("Digits", "digits", 0.0), ("Cars", "cars", 0.0)]
GRADIENTS = ("gradient_ce_clean", "gradient_ce_wrong")

HOSTILE = {
    "ce": "ce",
    "elr": "a$b_{c}$ <script>alert(1)</script> & \"quoted\" 'x' -->",
    "gce": 'id="x" href="#y" \\frac{1}{2}\x1b[31m\u202e fill: #1b1b1b',
}


def stores(folder, labels=None):
    """Return the results with which each kind can be drawn."""
    one = write_results(
        folder / "one",
        rows=ROWS,
        conditions=CONDITIONS,
        columns=GRADIENTS,
        arrays=matrices_of,
        labels=labels,
    )
    ranks = write_results(folder / "ranks", rows=ROWS, conditions=DATASETS, labels=labels)
    return {kind: ranks if kind == "ranks" else one for kind in KINDS}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return stores(tmp_path_factory.mktemp("stores"), HOSTILE)


def written(figure, ending):
    """Return the bytes of a figure's file."""
    file = io.BytesIO()
    figure.write(file, ending)
    return file.getvalue()


def shown_texts(figure):
    """Return the texts of a figure that can be seen."""
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [85.0, 175.0])
def test_the_width_is_exact_and_everything_is_in_the_picture(results, kind, width):
    figure = KINDS[kind].draw(results[kind], Options(width=width))
    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    figure.settle()
    written = [*figure.texts]
    for axes in figure.axes:
        written += axes.texts
    everything = [text.get_window_extent() for text in written]
    # Ticks beyond the ends of an axis are no part of it.
    inches = figure.get_tightbbox()
    everything.append(TransformedBbox(inches, figure.dpi_scale_trans))
    for box in everything:
        assert box.x0 >= figure.bbox.x0 - 1
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y0 >= figure.bbox.y0 - 1
        assert box.y1 <= figure.bbox.y1 + 1
    assert all(text.get_fontsize() >= style.SMALL for text in shown_texts(figure))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_figure_has_the_same_bytes(results, kind):
    for ending in (".svg", ".pdf", ".png"):
        first = written(KINDS[kind].draw(results[kind]), ending)
        assert first == written(KINDS[kind].draw(results[kind]), ending)
        # No date, so that this is true tomorrow, too.
        assert b"Date" not in first


def test_many_epochs_make_a_small_file_that_looks_the_same(tmp_path, monkeypatch):
    results = write_results(tmp_path, rows=("ce",), epochs=1000)
    sizes, pictures = [], []
    for simplify in (lambda figure: None, compact.simplify_bands):
        monkeypatch.setattr("nlbench.figures.picture.simplify_bands", simplify)
        figure = KINDS["memorisation"].draw(results)
        sizes.append(len(written(figure, ".svg")))
        pictures.append(np.asarray(Image.open(io.BytesIO(written(figure, ".png"))), dtype=int))
    # The seeds of two of the five bands differ at random in each epoch.
    assert sizes[1] < 0.6 * sizes[0]
    # Levels of 255 at 300 dots per inch.
    assert abs(pictures[0] - pictures[1]).max() < 20


def test_what_is_hollow_shows_the_background_of_the_page(results):
    page = svg(KINDS["differences"].draw(results["differences"]))
    assert style.PAPER not in page
    hollow = [line for line in page.splitlines() if "var(--paper, Canvas)" in line]
    figure = KINDS["differences"].draw(results["differences"])
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines]
    assert bool(hollow) == (style.PAPER in faces)
    assert style.PAPER in faces


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_others_stay_text(hostile, kind):
    figure = KINDS[kind].draw(hostile[kind])
    assert all(not text.get_parse_math() for text in shown_texts(figure))
    for ending in (".svg", ".pdf", ".png"):
        written(figure, ending)

    page = svg(figure)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    root = ElementTree.fromstring(page)
    words = " ".join(root.itertext())
    # Some kinds draw one row alone. The description names those that are drawn.
    assert "currentColor" not in words
    if kind in ("epochs", "cost", "differences", "noise-rate", "ranks"):
        assert "$ <script>" in words.replace("a$b_{c}", "") or "a$b_{c}$" in words
        assert 'id="x"' in words


def test_long_names_are_shortened_and_stay_different(tmp_path):
    names = {"elr": f"a{'x' * 60}1", "gce": f"a{'x' * 60}2"}
    results = write_results(tmp_path, rows=ROWS, labels=names)
    figure = KINDS["epochs"].draw(results)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(set(shown)) == 3
    assert max(map(len, shown)) < 40
    assert (
        style.names_shown(["y" * 50 + "ab" + "z" * 50, "y" * 50 + "cd" + "z" * 50])[0]
        != (style.names_shown(["y" * 50 + "cd" + "z" * 50, "y" * 50 + "ab" + "z" * 50])[0])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_element_for_pages(results, kind):
    figure = KINDS[kind].draw(results[kind])
    page = svg(figure)
    assert page.startswith("<svg")
    assert page.endswith("</svg>")
    assert "<style" not in page
    assert "<?xml" not in page
    # Pixels of a scale of colours are within the element.
    assert not re.search(r'(href|src)="(?!#|data:image/png;base64,)', page)
    assert not re.search(r"url\((?!#)", page)
    # Text and axes follow the page's colour.
    assert style.INK not in page
    assert style.FAINT not in page
    assert "currentColor" in page

    root = ElementTree.fromstring(page)
    title, words = root[0], root[1]
    assert (title.text, words.text) == (figure.heading, figure.description)
    assert root.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for name in re.findall(r'(?:href="|url\()#([^")]*)', page):
        assert name in ids


def test_two_figures_of_a_page_share_no_id(results):
    ids = []
    for kind in KINDS:
        ids += re.findall(r'\bid="([^"]*)"', svg(KINDS[kind].draw(results[kind])))
    assert len(ids) == len(set(ids))


def test_lines_can_be_told_apart_without_colours():
    looks = [*style.LOOKS, style.BASELINE]
    assert len({look.marker for look in looks}) == len(looks)
    assert len({str(look.line) for look in looks}) >= len(looks) - 1


def test_the_users_own_settings_change_nothing(results):
    import matplotlib

    expected = written(KINDS["epochs"].draw(results["epochs"]), ".svg")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        assert written(KINDS["epochs"].draw(results["epochs"]), ".svg") == expected
        assert matplotlib.rcParams["font.size"] == 30
