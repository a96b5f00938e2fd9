"""The page and the picture grid: whole, offline, and with names that stay text."""

import re

import numpy as np
import pytest
from made_suspects import HOSTILE, arrays_of, dataset, made_store, memory
from PIL import Image

from nlbench.data.base import ImageFiles
from nlbench.errors import DataError, SuiteError
from nlbench.results.cells import Results
from nlbench.suspects import labelling, page, pictures, ranking


@pytest.fixture
def ranked(tmp_path):
    def rank(**arrays):
        store = made_store(tmp_path / "store", {("ce", 0): arrays_of(range(8)) | arrays})
        plan = labelling.choose_plan(store, None)
        results = Results(plan, store, {})
        return ranking.rank(labelling.read(results, store, plan).labellings[0], ["ce"], None)

    return rank


def test_the_page_holds_its_pictures_and_asks_for_nothing(ranked):
    text = page.render([ranked()], None, lambda _: memory())

    # As many as are estimated to be wrong.
    assert text.count("data:image/png;base64,") == 3
    assert set(re.findall(r'(?:src|href)="(\w+:)', text)) == {"data:"}
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_names_stay_text(ranked):
    names = np.array(["a", HOSTILE[0], "b", "c", HOSTILE[1], "d", HOSTILE[2], "e"])
    classes = np.array([HOSTILE[3], HOSTILE[4], "<i>"])

    text = page.render([ranked(names=names, class_names=classes)], 8, lambda _: None)

    assert "<script" not in text
    assert "<img" not in text
    assert "<i>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text
    assert "a\\x1b[2Jb" in text


def test_a_page_without_its_data_says_so(ranked):
    text = page.render([ranked()], None, lambda _: None, notes=["No pictures: <gone>"])

    assert "No pictures: &lt;gone&gt;" in text
    assert ">picture<" not in text


def test_examples_that_are_no_pictures_are_listed_without(ranked):
    features = dataset(np.zeros((8, 450, 1, 1), np.float32), (450, 1, 1))

    text = page.render([ranked()], None, lambda _: features)

    assert "are no pictures" in text
    assert "data:image" not in text


def test_a_picture_that_cannot_be_decoded_leaves_the_others(ranked, tmp_path):
    for i in range(8):
        Image.new("RGB", (300, 200), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"broken")
    names = np.array([f"{i}.png".encode() for i in range(8)])
    data = dataset(ImageFiles(tmp_path, names), ())

    text = page.render([ranked()], None, lambda _: data)

    assert text.count("data:image/png") == 2
    assert "no picture</td>" in text
    with pytest.raises(DataError, match=r"4\.png: cannot be decoded"):
        pictures.grid(ranked(), data, 8)


@pytest.mark.parametrize(
    ("values", "shape", "mode"),
    [
        (np.zeros((8, 4, 4, 3), np.uint8), (4, 4, 3), "RGB"),
        (np.full((8, 1, 8, 8), 0.5, np.float32), (1, 8, 8), "L"),
        (np.full((8, 3, 8, 8), 0.5, np.float32), (3, 8, 8), "RGB"),
    ],
)
def test_images_in_memory_become_pictures(values, shape, mode):
    data = dataset(values, shape)

    pictures.require_pictures(data)
    image = pictures.picture(data, 1)

    assert image.mode == mode
    assert np.asarray(image).max() == (0 if values.dtype == np.uint8 else 128)


def test_large_pictures_are_made_small(tmp_path):
    Image.new("RGB", (400, 100)).save(tmp_path / "a.png")
    data = dataset(ImageFiles(tmp_path, np.array([b"a.png"])), ())

    assert pictures.picture(data, 0).size == (96, 24)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_grid_is_written_with_hostile_names(ranked, tmp_path, suffix):
    names = np.array(["a", *HOSTILE, "b", "c"])
    path = tmp_path / f"grid.{suffix}"

    pictures.write_grid(ranked(names=names), memory(), None, path)

    assert path.stat().st_size > 1000
    # A file that is there is kept.
    with pytest.raises(OSError, match="exists"):
        pictures.write_grid(ranked(), memory(), None, path)


def test_a_grid_with_another_suffix_is_refused(tmp_path):
    with pytest.raises(SuiteError, match=r"must be one of \.png, \.pdf, \.svg"):
        pictures.check_grid(tmp_path / "grid.txt")
