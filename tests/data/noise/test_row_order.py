"""Rows of a label file come in the order of the images, or the column that hinders it is named."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nlbench.data.datasets import cifar10
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.label_files import read_label_file
from nlbench.errors import DataError

LABELS = [0, 1, 2, 1, 0, 2]
# Sorted by class and name, as folders are. Numbers in the names are no positions.
NAMES = ("ant/a10.jpg", "ant/b.jpg", "bee/é c.png", "bee/d.PNG", "fly/7.jpg", "fly/07b.jpg")
INFO = replace(cifar10.INFO, title="insects", num_train=6, num_classes=3, num_test=2)
FILES = Examples(INFO, NAMES, Path("/home/me/insects/train"))
IN_MEMORY = Examples(INFO, ())

# The rows of the file: the training examples in this order.
SHUFFLED = [5, 2, 0, 4, 1, 3]


def write(path, column, cells, order=SHUFFLED, header=""):
    """Write a list with one column beside the labels."""
    lines = [header or f"{column},label"]
    lines += [f'"{cell}",{LABELS[i]}' for cell, i in zip(cells, order, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path, examples=FILES):
    """Return the labels as a list, and the column that put them in order."""
    found = read_label_file(path, "", examples)
    return found.labels.tolist(), found.order


@pytest.mark.parametrize("examples", [None, IN_MEMORY, FILES])
@pytest.mark.parametrize(
    "column",
    ["index", "idx", "Index", "", "Unnamed: 0", "id", "ID", "image_id", "sample index", "position"],
)
@pytest.mark.parametrize("form", ["{}", "{}.0", "{:03}"])
def test_positions(tmp_path, column, form, examples):
    path = write(tmp_path / "x.csv", column, [form.format(i) for i in SHUFFLED])
    assert read(path, examples) == (LABELS, column)


@pytest.mark.parametrize("column", ["index", "id", ""])
def test_positions_from_1(tmp_path, column):
    path = write(tmp_path / "x.csv", column, [i + 1 for i in SHUFFLED])
    assert read(path, IN_MEMORY) == (LABELS, column)


@pytest.mark.parametrize(
    "column",
    ["path", "file", "filename", "File Name", "image", "image_path", "id", "name", "index"],
)
@pytest.mark.parametrize(
    "form",
    [
        str,
        "./{}".format,
        "train/{}".format,
        "/somewhere/else/train/{}".format,
        lambda name: f"C:\\data\\train\\{name}".replace("/", "\\"),
        # Decomposed, as macOS gives names.
        lambda name: name.replace("é", "e\u0301"),
        lambda name: name.rpartition(".")[0],
        lambda name: name.rpartition("/")[2],
        lambda name: name.rpartition("/")[2].rpartition(".")[0],
    ],
    ids=["as-they-are", "dot", "folder", "absolute", "windows", "macos", "stem", "file", "base"],
)
def test_names(tmp_path, column, form):
    path = write(tmp_path / "x.csv", column, [form(NAMES[i]) for i in SHUFFLED])
    assert read(path) == (LABELS, column)


def test_separators_and_json(tmp_path):
    rows = [f"{NAMES[i]};{LABELS[i]}" for i in SHUFFLED]
    (tmp_path / "x.csv").write_text("\n".join(["file;label", *rows]))
    assert read(tmp_path / "x.csv") == (LABELS, "file")

    import json

    (tmp_path / "x.json").write_text(json.dumps({NAMES[i]: LABELS[i] for i in SHUFFLED}))
    assert read(tmp_path / "x.json") == (LABELS, "key")
    (tmp_path / "y.json").write_text(json.dumps({str(i): LABELS[i] for i in SHUFFLED}))
    assert read(tmp_path / "y.json", IN_MEMORY) == (LABELS, "key")
    table = [{"image": NAMES[i], "label": LABELS[i], "score": 0.5} for i in SHUFFLED]
    (tmp_path / "z.json").write_text(json.dumps(table))
    assert read(tmp_path / "z.json") == (LABELS, "image")


def test_other_columns_are_passed_over(tmp_path):
    lines = [f"{0.1 * i},label {i},{i % 2},{NAMES[i]},{LABELS[i]}" for i in SHUFFLED]
    header = "confidence,comment,fold,path,label"
    (tmp_path / "x.csv").write_text("\n".join([header, *lines]))
    assert read(tmp_path / "x.csv") == (LABELS, "path")


@pytest.mark.parametrize("unnamed", ["", "Unnamed: 0"])
def test_a_counting_row_number_beside_names_says_nothing(tmp_path, unnamed):
    lines = [f"{row},{NAMES[i]},{LABELS[i]}" for row, i in enumerate(SHUFFLED)]
    (tmp_path / "x.csv").write_text("\n".join([f"{unnamed},path,label", *lines]))
    assert read(tmp_path / "x.csv") == (LABELS, "path")

    # Under the name `index` it contradicts the names.
    (tmp_path / "x.csv").write_text("\n".join(["index,path,label", *lines]))
    with pytest.raises(DataError, match="'index' counts the rows as they are, and 'path' puts"):
        read(tmp_path / "x.csv")


def test_two_columns_that_disagree(tmp_path):
    lines = [f"{5 - i},{NAMES[i]},{LABELS[i]}" for i in SHUFFLED]
    (tmp_path / "x.csv").write_text("\n".join(["index,path,label", *lines]))
    with pytest.raises(DataError, match="'index' and 'path' put the rows in different orders"):
        read(tmp_path / "x.csv")


def test_numbers_that_may_be_names_or_positions(tmp_path):
    """Images 0, 1, 10, 2 lie in the order of their texts, not of their numbers."""
    names = tuple(sorted(f"{i}.png" for i in range(12)))
    examples = Examples(replace(INFO, num_train=12), names, Path("f"))
    lines = [f"{i},{i % 3}" for i in range(12)]

    (tmp_path / "x.csv").write_text("\n".join(["id,label", *lines]))
    with pytest.raises(
        DataError, match=r"x.csv:4: its column 'id' may be a position or a name: 2 "
    ):
        read(tmp_path / "x.csv", examples)

    (tmp_path / "x.csv").write_text("\n".join(["index,label", *lines]))
    assert read(tmp_path / "x.csv", examples) == ([i % 3 for i in range(12)], "index")
    named = [f"{i}.png,{i % 3}" for i in range(12)]
    (tmp_path / "x.csv").write_text("\n".join(["id,label", *named]))
    assert read(tmp_path / "x.csv", examples)[0] == [int(name[:-4]) % 3 for name in names]


@pytest.mark.parametrize(
    ("column", "cells", "words"),
    [
        ("index", [5, 2, 0, 4, 1, 1], ":7: its column 'index' holds 1 in line 6 and here; it must"),
        (
            "idx",
            [5, 2, 0, 4, 1, 6],
            ":7: its column 'idx' holds 6; it must hold every position 0..5",
        ),
        (
            "id",
            [5, 2, 0, 4, 1, -1],
            ":7: its column 'id' holds -1; it must hold every position 0..5",
        ),
        ("", [5, 2, 0, 4, 1, 1], ":7: its unnamed column holds 1 in line 6 and here"),
        (
            "path",
            [*NAMES[:5], "x.jpg"],
            ":7: its column 'path' holds 'x.jpg'; no training image",
        ),
        ("path", [*NAMES[:5], NAMES[0]], ":7: its column 'path' holds 'ant/a10.jpg' a second time"),
        (
            "file",
            ["a", "b.jpg", "c", "d", "e", "f"],
            ":2: .*'a' and 3 more; no training image is",
        ),
        (
            "id",
            list("uvwxyz"),
            ":2: its column 'id' holds 'u' and 5 more; .* the first one is 'ant/a10",
        ),
        ("path", [f"test/{n}" for n in NAMES], ":2: .* holds 'test/ant/a10.jpg' and 5 more; no"),
        (
            "sort key",
            [5, 2, 0, 4, 1, 3],
            ": its column 'sort key' numbers the rows in another order",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, column, cells, words):
    path = write(tmp_path / "x.csv", column, cells)
    with pytest.raises(DataError, match=rf"x\.csv{words}"):
        read(path)


def test_rows_that_lack_or_are_too_many(tmp_path):
    path = write(tmp_path / "x.csv", "path", [NAMES[i] for i in SHUFFLED[:4]], SHUFFLED[:4])
    with pytest.raises(DataError, match=r"'path' lacks 'ant/b.jpg' and 1 more; every training"):
        read(path)
    path = write(tmp_path / "x.csv", "index", SHUFFLED[:4], SHUFFLED[:4])
    with pytest.raises(DataError, match=r"'index' lacks 1 and 1 more; it must hold every position"):
        read(path)
    path = write(tmp_path / "x.csv", "index", range(8), [*SHUFFLED, 0, 0])
    with pytest.raises(
        DataError, match=r"holds 7; .* are test images in the list\? Leave them out"
    ):
        read(path)


@pytest.mark.parametrize("column", ["path", "file name", "index", "id", ""])
def test_names_of_images_that_have_none(tmp_path, column):
    path = write(tmp_path / "x.csv", column, [NAMES[i] for i in SHUFFLED])
    called = f"its column '{column}'" if column else "its unnamed column"
    with pytest.raises(DataError, match=rf"{called} names images .'fly/07b.jpg'.*insect"):
        read(path, IN_MEMORY)
    with pytest.raises(DataError, match=rf"{called} names images, whose order"):
        read(path, None)


@pytest.mark.parametrize("before", ["D:\\data\\photos\\", "/mnt/photos/"])
def test_paths_of_another_machine_have_a_hint(tmp_path, before):
    cells = [before + NAMES[i] for i in SHUFFLED]
    if "\\" in before:
        cells = [cell.replace("/", "\\") for cell in cells]
    path = write(tmp_path / "x.csv", "path", cells)
    words = f"holds '{cells[0]}' and 5 more; no training image is called so; there is "
    words += "'fly/07b.jpg': write it so, without the folders before it"
    with pytest.raises(DataError, match=re.escape(words)):
        read(path)


@pytest.mark.parametrize("text", ["0,3\n1,1\n", "a.jpg,3\nb.jpg,1\n", "0,1,2\n1,2,0\n"])
def test_columns_without_names(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=r"x.csv:1: must name the columns, for example index,label"):
        read(tmp_path / "x.csv")
