"""Folders in which somebody has looked up the true labels of some training images."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Folder

from nlbench import api
from nlbench.errors import SuiteError
from nlbench.results import table


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Return the place of a folder with a list, whose true labels are all known."""
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    return Folder().write_csv(tmp_path / "birds")


def rewrite(path, change):
    """Change the lines of a list; `change` gets the number of each line and its cells."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows({**line, **change(i, line)} for i, line in enumerate(lines))
    return lines


def sweep(out, place, methods=None, **entry):
    suite = {
        "name": "t", "protocol": "images-32", "seeds": [0], "methods": methods or {"ce": {}},
        "datasets": [{"name": "folder", "path": str(place), **entry}],
    }  # fmt: skip
    small = {
        "model": "cnn3", "precision": "float32", "batch_size": 8, "epochs": 1, "val_fraction": 0.0,
    }  # fmt: skip
    return api.prepare(suite, out=out, overrides=small, device="cpu")


def trained(sw):
    sw.run()
    record = sw.store.read(sw.specs[0].key)
    assert record.status == "done", record.error
    return record


@pytest.mark.parametrize("unknown", ["", "nan", "N/A"])
def test_rates_and_shares_are_measured_on_the_known_part_and_say_so(tmp_path, birds, unknown):
    def even_only(i, line):
        return {} if i % 2 == 0 else {"clean_label": unknown}

    lines = rewrite(birds / "train.csv", even_only)
    wrong = sum(line["label"] != line["clean_label"] for line in lines[::2])
    sw = sweep(tmp_path / "out", birds)
    record = trained(sw)

    assert record.noise["num_known"] == 15
    assert record.noise["noise_rate_train"] == pytest.approx(wrong / 15)
    assert record.metrics["final_wrong_memorised"] is not None
    text = table.render(sw.plan.as_json(), sw.store, methods=sw.methods)
    said = "of the 15 training labels whose true label is known; right and memorised labels are"
    assert said in text


def test_a_method_is_told_the_rate_of_the_known_part(tmp_path, birds):
    rewrite(birds / "train.csv", lambda i, line: {"clean_label": ""} if i % 3 else {})
    record = trained(sweep(tmp_path / "out", birds, {"co-teaching": {}}))
    assert record.method["told"] == ["noise_rate"]
    assert record.noise["num_known"] == 10


def test_a_column_of_nothing_is_no_true_label(tmp_path, birds):
    rewrite(birds / "train.csv", lambda i, line: {"clean_label": ""})
    record = trained(sweep(tmp_path / "out", birds))
    assert "num_known" not in record.noise
    assert record.noise["noise_rate_train"] is None


def test_numbers_that_pandas_writes_as_fractions_are_the_same_classes(tmp_path, birds):
    names = sorted({line["label"] for line in rewrite(birds / "train.csv", lambda i, line: {})})
    number = {name: str(i) for i, name in enumerate(names)}

    def numbered(i, line):
        clean = f"{number[line['clean_label']]}.0" if i % 2 else ""
        return {"label": number[line["label"]], "clean_label": clean}

    rewrite(birds / "train.csv", numbered)
    rewrite(birds / "test.csv", lambda i, line: {"label": number[line["label"]]})
    sw = sweep(tmp_path / "out", birds)
    assert trained(sw).noise["num_known"] == 15


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"labels": "clean"}, "The true labels are known for some images only"),
        (
            {"noise": {"kind": "symmetric", "rate": 0.2}},
            "true labels of birds are known for some images only, so no noise can be drawn",
        ),
    ],
)
def test_what_needs_all_true_labels_says_why(tmp_path, birds, entry, said):
    rewrite(birds / "train.csv", lambda i, line: {"clean_label": ""} if i % 2 else {})
    with pytest.raises(SuiteError, match=said):
        sweep(tmp_path / "out", birds, **entry)


def test_every_test_image_needs_its_true_label(tmp_path, birds):
    lines = (birds / "test.csv").read_text().splitlines()
    header, *rest = [f"{line},clean_label" if not i else line for i, line in enumerate(lines)]
    first = rest[0].split(",")[-1]
    (birds / "test.csv").write_text(
        "\n".join([header, f"{rest[0]},{first}", *(f"{line}," for line in rest[1:])])
    )
    with pytest.raises(SuiteError, match=r"test.csv:3: the true label of a test image is empty"):
        sweep(tmp_path / "out", birds)


def test_a_parquet_file_with_some_true_labels(tmp_path, birds):
    place = tmp_path / "parquet"
    place.mkdir()
    for part in ("train", "test"):
        lines = rewrite(birds / f"{part}.csv", lambda i, line: {})
        columns = {
            "image": [{"bytes": (birds / line["path"]).read_bytes()} for line in lines],
            "label": [line["label"] for line in lines],
        }
        if part == "train":
            clean = [line["clean_label"] if i % 2 else None for i, line in enumerate(lines)]
            columns["clean_label"] = clean
        pq.write_table(pa.table(columns), place / f"{part}-00000-of-00001.parquet")
    assert trained(sweep(tmp_path / "out", place)).noise["num_known"] == 15
