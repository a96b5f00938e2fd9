"""The number of classes, their names and counts: in a dry run, below a table and in the record."""

import json

import pytest
import yaml
from layouts import Folder, write_image
from typer.testing import CliRunner

from nlbench.cli import app
from nlbench.data import describe
from nlbench.data.datasets import digits
from nlbench.data.places import Places


@pytest.mark.parametrize(
    ("count", "names", "text"),
    [
        (10, (), "10 classes"),
        (2, ("ant", "bee"), "2 classes (ant, bee)"),
        (7, "abcdefg", "7 classes (a, b, c, d, e, ...)"),
    ],
)
def test_classes_in_words(count, names, text):
    assert describe.classes_in_words(count, names) == text


def test_counts_in_words():
    assert describe.per_class([3, 3]) == "3 in each class"
    assert describe.per_class([9, 0, 4]) == "0 to 9 in each class"


def test_a_dataset_without_names(tmp_path):
    text = describe.in_short(digits.load(Places(tmp_path, tmp_path), 0))
    assert text.startswith("Digits: 10 classes; 1397 training examples, 1")


def test_dry_run_run_table_and_record(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    path = Folder(per_class=4, test=2).write_classes(tmp_path / "birds")
    write_image(path / "val" / "cat" / "a.jpg")
    suite = {
        "name": "trial",
        "protocol": "images-32",
        "overrides": {"model": "cnn3", "epochs": 1, "precision": "float32", "val_fraction": 0.25},
        "datasets": [{"name": "folder", "path": "birds"}],
        "methods": {"ce": {}},
        "seeds": [0],
    }
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(suite))
    command = ["run", str(tmp_path / "trial.yaml"), "--out", str(tmp_path / "out")]

    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert (
        "birds: 3 classes (cat, dog, Überläufer, rot); 12 training images, 4 in each class; "
        "6 test images, 2 in each class" in dry.stdout
    )
    assert f"warning: {path}: val/ (1 picture) is not read as a part" in dry.stderr

    real = CliRunner().invoke(app, command)
    assert real.exit_code == 0, real.stderr
    assert real.stderr.count("val/ (1 picture) is not read as a part") == 1
    note = "- birds: 3 classes (cat, dog, Überläufer, rot), each with 3 training and 2 test"
    # Notes are wrapped.
    text = " ".join(real.stdout.split())
    assert note in text
    assert f"- data: {path}: val/ (1 picture) is not read as a part" in text

    (file,) = (tmp_path / "out" / "runs").glob("*/record.json")
    classes = json.loads(file.read_text())["classes"]
    assert classes["names"] == ["cat", "dog", "Überläufer, rot"]
    assert (sum(classes["train"]), classes["test"]) == (9, [2, 2, 2])
    assert classes["num_classes"] == 3
