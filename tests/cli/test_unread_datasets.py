"""Commands on datasets that cannot be downloaded, or whose size is unknown until they are read."""

import re

import pytest


@pytest.fixture
def data_dir(place, monkeypatch):
    """Let commands use an empty data directory, and return it."""
    (place / "data").mkdir()
    monkeypatch.setenv("NLBENCH_DATA", str(place / "data"))
    return place / "data"


def test_the_list_has_sizes_where_they_are_known(cli):
    lines = cli("list", "datasets").stdout.splitlines()
    listed = dict(re.split(r"  +", line, maxsplit=1) for line in lines)

    start = "Clothing1M: 14 classes, the images are counted when they are read; "
    assert listed["clothing1m"].startswith(start)
    assert "50 classes, the images are counted" in listed["webvision"]
    sizes = "10 classes, 50,000 training, 5,000 test examples"
    assert listed["animal10n"] == f"ANIMAL-10N: {sizes}; labels: noisy"
    assert "500 training, 1,000 test examples" in listed["gaussians"]
    labels = "labels: given, and clean where you know them"
    assert listed["folder"] == f"a folder of your own, named by its path; {labels}"
    for line in listed.values():
        assert not re.search(r"\b0 (training|classes|/)", line)


def test_data_status_says_what_to_get_and_each_page_once(cli, data_dir):
    text = cli("data", "status").stdout
    # The first block names the data directory, each of the others a dataset.
    of = {block.partition(":")[0]: block for block in text.split("\n\n")[1:]}

    assert of["gaussians"] == "gaussians: there, needs no files"
    assert "missing" not in of["folder"]
    assert "path: my_images" in of["folder"]
    assert "train.csv (path,label[,clean_label])" in of["folder"]

    for name, files in (("clothing1m", 6), ("webvision", 5)):
        assert of[name].count("get from https://") == 1
        assert len(re.findall(rf"^    {data_dir}/{name}/\S+$", of[name], re.MULTILINE)) == files
    assert "not to be passed on), and put each as it is at\n" in of["clothing1m"]
    # ILSVRC12 comes from another page than the rest of WebVision.
    assert "put it, as it is, at" in of["webvision"]
    assert of["animal10n"].count("  get ") == 1
    assert re.search(rf"put it into {data_dir}/animal10n$", of["animal10n"])


def test_doctor_points_to_data_status(cli, data_dir):
    lines = [line.strip() for line in cli("doctor").stdout.splitlines()]

    assert "gaussians: there" in lines
    assert "folder: wherever a suite says it is" in lines
    for name in ("clothing1m", "webvision", "animal10n"):
        assert f"{name}: missing, see `nlbench data status {name}`" in lines


def test_a_folder_cannot_be_fetched_or_exported(refused):
    assert "images of your own" in refused("data", "fetch", "folder")

    noise = ("--kind", "symmetric", "--rate", "0.4")
    exported = refused("noise", "export", "folder", *noise, "--to", "x.npy")
    assert "its place is named by a suite" in exported
