"""A list gets the labels that a person has confirmed, and no file of theirs is changed."""

import csv
from pathlib import Path

import numpy as np
import pandas
import pytest
from made_suspects import GIVEN, TRUE, arrays_of, made_store
from PIL import Image

import nlbench
from nlbench.errors import DataError
from nlbench.results.cells import Results
from nlbench.suspects import labelling, listing, ranking
from nlbench.suspects.relabel import Relabelled, relabel

LIST = "path,label,clean_label\na.png,ant,ant\nb.png,bee,\nc.png,ant,bee\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("list.csv", LIST)
    return tmp_path


def write(name, text):
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)


def written(name):
    with open(name, encoding="utf-8") as file:
        return file.read()


def refused(listed="list.csv", confirmed="mine.csv", to="new.csv"):
    before = sorted(Path().iterdir())
    with pytest.raises(DataError) as error:
        relabel(Path(listed), Path(confirmed), Path(to))
    # Nothing of a new list is left.
    assert sorted(Path().iterdir()) == before
    return str(error.value)


def done(listed="list.csv", confirmed="mine.csv", to="new.csv"):
    return relabel(Path(listed), Path(confirmed), Path(to))


def test_only_the_confirmed_labels_are_other_ones(place):
    write("mine.csv", "file,confirmed\nc.png,bee\na.png,ant\nb.png,\n")

    assert done() == Relabelled(total=3, changed=1, kept=1, open=1)
    assert written("new.csv") == LIST.replace("c.png,ant", "c.png,bee")
    assert written("list.csv") == LIST


def test_a_table_of_files_and_labels_will_do(place):
    write("mine.csv", "path;label\n./c.png;bee\n")

    assert done().changed == 1
    assert "c.png,bee,bee" in written("new.csv")


def test_positions_count_the_lines_of_a_list_without_names(place):
    write("list.csv", "0\n1\n0\n")
    write("mine.csv", "index,confirmed\n2,1\n")

    assert done().changed == 1
    assert written("new.csv") == "0\n1\n1\n"


def test_a_number_that_pandas_wrote_with_a_point_is_the_label(place):
    write("list.csv", "0\n4\n0\n")
    frame = pandas.DataFrame({"index": [0, 1, 2], "confirmed": [None, None, 4]})
    frame.to_csv("mine.csv", index=False)
    assert "2,4.0" in written("mine.csv")

    assert done() == Relabelled(total=3, changed=1, kept=0, open=2)
    assert written("new.csv") == "0\n4\n4\n"


def test_separators_and_quotes_stay_sound(place):
    write("list.csv", 'index;label;remark\n0;a;"one; two"\n1;b;x\n')
    write("mine.csv", "index,confirmed\n1,a\n")

    done()

    assert written("new.csv") == 'index;label;remark\n0;a;"one; two"\n1;a;x\n'


# ---- Refusals ------------------------------------------------------------------------------------


def test_nothing_is_overwritten(place):
    write("mine.csv", "file,confirmed\nc.png,bee\n")

    assert "list.csv: is there already" in refused(to="list.csv")
    (place / "link.csv").symlink_to("nowhere")
    assert "link.csv: is there already" in refused(to="link.csv")


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (
            "file,confirmed\nd.png,bee\n",
            "mine.csv:2: list.csv has no image with the file 'd.png'",
        ),
        (
            "file,confirmed\na.png,bea\n",
            "mine.csv:2: column 'confirmed': no line of list.csv has the label 'bea'. "
            "There are: ant, bee. Did you mean 'bee'?",
        ),
        (
            "file,confirmed\na.png,bee\na.png,ant\n",
            "mine.csv:3: file 'a.png' is there a second time, after line 2; keep one",
        ),
        (
            "index,confirmed\n0,bee\n",
            "mine.csv: names images by index, and list.csv by file; add the column",
        ),
        ("who,confirmed\nx,bee\n", "mine.csv:1: no column says which image a line is about"),
        ("file,remark\na.png,x\n", "mine.csv:1: has no column 'label'"),
        (
            "file,given,confirmed\na.png,bee,ant\n",
            "mine.csv:2: column 'given': 'a.png' was given as 'bee' here, and list.csv:2 gives "
            "'ant'; is it the",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(place, mine, message):
    write("mine.csv", mine)

    assert message in refused()


def test_a_list_with_an_image_twice_is_refused(place):
    write("list.csv", "path,label\na.png,ant\n./a.png,bee\n")
    write("mine.csv", "file,confirmed\na.png,bee\n")

    assert "list.csv:3: file 'a.png' is there a second time, after line 2" in refused()


def test_an_image_twice_is_no_matter_where_one_line_is_undecided(place):
    write("mine.csv", "file,confirmed\nc.png,\nc.png,bee\n")

    assert done() == Relabelled(total=3, changed=1, kept=0, open=1)


# ---- Together with `nlbench suspects` ------------------------------------------------------------


def suspects_of(store, **noise):
    plan = labelling.choose_plan(store, None)
    results = Results(plan, store, {})
    found = labelling.read(results, store, plan).labellings
    return listing.as_csv([ranking.rank(part, ["ce"], None) for part in found], None)


def confirm(text):
    """Confirm every suggestion in the text of a list of suspects."""
    lines = list(csv.DictReader(text.splitlines()))
    for line in lines:
        line["confirmed"] = line["suggested"]
    with open("mine.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, listing.COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def test_a_list_of_suspects_becomes_a_list_of_files_and_labels(place):
    """Names that a spreadsheet would compute have an apostrophe in the first list alone."""
    arrays = arrays_of(range(8))
    arrays["names"][1] = "=1.png"
    text = suspects_of(made_store("store", {("ce", 0): arrays}))
    write("all.csv", text)
    confirm(text)

    assert done("all.csv") == Relabelled(total=8, changed=3, kept=0, open=5)
    lines = list(csv.reader(written("new.csv").splitlines()))
    assert lines[0] == ["path", "label"]
    assert ["=1.png", "dog"] in lines
    names = list(arrays["class_names"])
    assert {name: names.index(label) for name, label in lines[1:]} == dict(
        zip(arrays["names"], TRUE, strict=True)
    )


def test_suspects_of_several_labellings_are_no_list(place):
    runs = {("ce", seed): arrays_of(range(8)) for seed in (0, 1)}
    text = suspects_of(made_store("store", runs, labels_hash=str))
    write("all.csv", text)
    write("mine.csv", "file,confirmed\nim/1.png,dog\n")

    assert "all.csv: holds 2 lists, whose labels differ" in refused("all.csv")


SUITE = """\
name: relabelled
protocol: images-32
overrides: {model: cnn3, epochs: 1, precision: float32, val_fraction: 0}
datasets:
  - {name: folder, path: pictures, noise: {kind: file, path: new.csv}}
methods:
  ce: {}
seeds: [0]
"""


@pytest.mark.story
def test_a_suite_trains_on_the_new_list(place, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    (place / "pictures").mkdir()
    train, test = ["path,label,clean_label"], ["path,label"]
    names = ("ant", "bee", "fly")
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"pictures/{i}.png")
        Image.new("RGB", (8, 8), (0, 30 * i, 9)).save(f"pictures/t{i}.png")
        train.append(f"{i}.png,{names[GIVEN[i]]},{names[TRUE[i]]}")
        test.append(f"t{i}.png,{names[i % 3]}")
    write("pictures/train.csv", "\n".join(train) + "\n")
    write("pictures/test.csv", "\n".join(test) + "\n")
    write("mine.csv", "file,confirmed\n1.png,bee\n4.png,bee\n")
    write("suite.yaml", SUITE)

    done("pictures/train.csv")

    frame = nlbench.run("suite.yaml", out="store", progress=False)
    saved = np.load(place / "store" / "runs" / frame.index[0] / "predictions.npz")
    expected = GIVEN.copy()
    expected[[1, 4]] = 1
    assert list(saved["labels"]) == list(expected)
    # Of the three wrong labels, the person has found two.
    assert frame["noise_rate_full"].item() == 1 / 8
