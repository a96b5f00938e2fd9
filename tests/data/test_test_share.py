"""A test part made from one folder: the same for every run, and no picture in both parts."""

import shutil
from collections import Counter

import numpy as np
import pytest
import yaml
from layouts import Folder, write_image, write_lines
from typer.testing import CliRunner

from nlbench.cli import app
from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.data.test_share import choose_test
from nlbench.errors import DataError, DataMissing


def test_shares_of_each_class():
    labels = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    chosen = choose_test(labels, [], 0.2)
    assert Counter(np.array(labels)[chosen]) == {"a": 10, "b": 6, "c": 4}
    assert (choose_test(labels, [], 0.2) == chosen).all()
    # Not the first ones.
    assert not chosen[:10].all()


def test_copies_stay_together_and_each_class_keeps_an_image():
    labels = ["a"] * 40 + ["b"] * 40 + ["c", "d", "d"]
    copies = [[i, i + 40] for i in range(20)]
    chosen = choose_test(labels, copies, 0.5)
    assert all(chosen[i] == chosen[j] for i, j in copies)
    assert chosen[:20].any()
    assert not chosen[:20].all()
    assert not chosen[80]
    assert not choose_test(labels, copies, 0.99)[81:].all()


def test_images_whose_label_is_unknown_are_for_training():
    labels = ["a", "", "b", ""] * 25
    chosen = choose_test(labels, [], 0.4)
    assert chosen.sum() == 20
    assert not chosen[1::2].any()


@pytest.fixture
def load(tmp_path):
    """Return load(path, share)."""
    return lambda path, share=0.2: folder.load(Places(path, tmp_path / "cache", share), 0)


@pytest.fixture
def imgs(tmp_path):
    """Return imgs/CLASS/*.jpg, and nothing else."""
    Folder(per_class=10).write_classes(tmp_path / "x")
    (tmp_path / "x" / "train").rename(tmp_path / "imgs")
    return tmp_path / "imgs"


def test_one_folder_of_classes(load, imgs):
    data = load(imgs)
    assert (data.info.num_train, data.info.num_test) == (24, 6)
    assert data.info.class_names == ("cat", "dog", "Überläufer, rot")
    both = set(data.train_images.names) | set(data.test_images.names)
    assert len(both) == 30
    assert np.bincount(data.test_labels).tolist() == [2, 2, 2]
    (warning,) = data.warnings
    assert "so their labels may be as wrong as those of the training images" in warning
    assert load(imgs, 0.3).fingerprint != data.fingerprint


def test_copies_are_in_one_part(load, imgs):
    for i in range(0, 30, 5):
        (source,) = imgs.glob(f"*/{i:03}.jpg")
        shutil.copy(source, imgs / "cat" / f"copy{i}.jpg")
    data = load(imgs, 0.5)
    assert not any("of a training image" in text for text in data.warnings)


@pytest.mark.parametrize("form", ["csv", "parquet", "train"])
def test_a_training_part_alone(load, tmp_path, form):
    write = {"csv": "write_csv", "parquet": "write_parquet", "train": "write_classes"}[form]
    path = getattr(Folder(), write)(tmp_path / "x")
    for file in [*path.glob("test*"), *path.glob("data/test*")]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(DataMissing, match=r"no test images there.*`test_share: 0\.2`"):
        load(path, 0)
    data = load(path)
    assert (data.info.num_train, data.info.num_test) == (24, 6)
    # A list with true labels is tested on these.
    assert any("may be as wrong" in text for text in data.warnings) == (form != "csv")


def test_the_message_for_a_folder_of_classes(load, imgs):
    message = r"If cat, dog, Überläufer, rot are the classes: `test_share: 0\.2`"
    with pytest.raises(DataMissing, match=message):
        load(imgs, 0)


def test_a_folder_with_a_test_part_is_not_parted(load, tmp_path):
    path = Folder().write_classes(tmp_path / "x")
    with pytest.raises(DataError, match="has a test part, and test_share makes one"):
        load(path)


def test_too_few_images(load, tmp_path):
    for label in ("a", "b"):
        write_image(tmp_path / "x" / label / "1.png")
    with pytest.raises(DataError, match=r"too few images for test_share 0\.2"):
        load(tmp_path / "x")


def dry_run(place, *entries):
    """Return what a dry run of a suite of these dataset entries prints."""
    suite = {
        "name": "trial",
        "protocol": "images-32",
        "overrides": {"model": "cnn3", "epochs": 1, "precision": "float32"},
        "datasets": list(entries),
        "methods": {"ce": {}},
        "seeds": [0, 1],
    }
    write_lines(place / "trial.yaml", [yaml.safe_dump(suite)])
    command = ["run", str(place / "trial.yaml"), "--out", str(place / "out"), "--dry-run"]
    return CliRunner().invoke(app, command)


def test_in_a_suite(imgs, tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    entry = {"name": "folder", "path": "imgs", "test_share": 0.2}
    result = dry_run(tmp_path, entry)
    assert "24 training images, 8 in each class; 6 test images, 2 in each class" in result.stdout

    other = {**entry, "labels": "given", "test_share": 0.3}
    wrong = dry_run(tmp_path, entry, other, {"name": "digits", "test_share": 0.2}).stderr
    assert "datasets.1.test_share: is 0.2 in an entry above" in wrong
    assert "datasets.2.test_share: digits has a test part; leave it out" in wrong


def test_check_says_what_it_would_be(imgs, tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    result = CliRunner().invoke(app, ["data", "check", str(imgs)])
    assert result.exit_code == 0
    assert (
        "no test part: `test_share: 0.2` in the suite's dataset entry would make" in result.stdout
    )
    assert "24 training images" in result.stdout
