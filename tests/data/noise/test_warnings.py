"""What a user should know of a label file or a matrix is said by a dry run and kept in a record."""

import numpy as np
import pytest
from layouts import encoded

from nlbench.data.places import Places
from nlbench.errors import SuiteError
from nlbench.plan.conditions import about_data
from nlbench.plan.expand import expand
from nlbench.plan.suite_file import read_suite
from nlbench.training.run_data import load_data


def said(place, dataset, protocol="images-32"):
    """Return the warnings of a dry run, and those that the record of its run would have."""
    suite = {"name": "s", "protocol": protocol, "methods": {"ce": {}}, "seeds": [0]}
    checked, problems = read_suite({**suite, "datasets": [dataset]})
    places = Places(place, place / "cache")
    plan = expand(checked, problems, places=places)
    return about_data(plan.conditions, places, folders_only=True)[1], load_data(
        plan.specs[0], place
    ).warnings


def test_a_matrix_that_is_rounded(tmp_path):
    T = np.round(0.6 * np.eye(10) + 0.4 / 7 * (np.arange(10) < 7), 2)
    np.savetxt(tmp_path / "T.csv", T, fmt="%.2f", delimiter=",")
    noise = {"kind": "matrix", "path": str(tmp_path / "T.csv")}
    dry, recorded = said(tmp_path, {"name": "digits", "noise": noise}, "digits")
    assert len(dry) == 1
    assert "T.csv: T is rounded to 2 decimals" in dry[0]
    assert set(dry) <= set(recorded)


def test_the_columns_of_a_label_file(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    train, labels = ["path,label,clean_label"], ["label,noisy_label,image"]
    for i in range(12):
        (root / f"{i:02}.png").write_bytes(encoded(i % 2, i))
        train.append(f"{i:02}.png,{i % 2},{i % 2}")
        labels.insert(1, f"{i % 2},{0 if i == 3 else i % 2},{i:02}")
    (root / "train.csv").write_text("\n".join(train))
    for i in range(2):
        (root / f"t{i}.png").write_bytes(encoded(i, 20 + i))
    (root / "test.csv").write_text("path,label\nt0.png,0\nt1.png,1\n")
    (tmp_path / "x.csv").write_text("\n".join(labels))

    noise = {"kind": "file", "path": str(tmp_path / "x.csv")}
    dry, recorded = said(tmp_path, {"name": "folder", "path": str(root), "noise": noise})
    assert dry == list(recorded)
    assert dry == [
        "x.csv: the labels are its column 'noisy_label'",
        "x.csv: its rows are put in order by 'image'",
    ]
    noise["key"] = "label"
    dry, _ = said(tmp_path, {"name": "folder", "path": str(root), "noise": noise})
    assert dry[0] == ("x.csv: all its labels are the true ones; is it the right file or column?")


def test_labels_for_a_folder_without_true_ones(tmp_path):
    root = tmp_path / "f"
    root.mkdir()
    for i in range(3):
        (root / f"{i}.png").write_bytes(encoded(i % 2, i))
    (root / "train.csv").write_text("path,label\n0.png,0\n1.png,1\n")
    (root / "test.csv").write_text("path,label\n2.png,0\n")
    (tmp_path / "x.csv").write_text("label\n0\n1\n")
    noise = {"kind": "file", "path": str(tmp_path / "x.csv")}
    with pytest.raises(
        SuiteError, match=r"of f are unknown, .*into the column `label` of train.csv"
    ):
        said(tmp_path, {"name": "folder", "path": str(root), "noise": noise})
