"""docs/records.md names every key of a record and a plan, every column and every array."""

import csv
import json
import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from sweeps import sweep

from nlbench.results import metrics, record
from nlbench.results.plan_file import _Plan
from nlbench.results.reproduced import Note

PAGE = Path(__file__).parents[2] / "docs" / "records.md"


def names_under(heading: str) -> list[str]:
    """Return the names in the first column of the table under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    part = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text)
    assert part is not None, heading
    names = []
    for line in part[1].splitlines():
        if line.startswith("| `"):
            names += re.findall(r"`([^`]+)`", line.split("|")[1])
    return names


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folders of runs that have every metric, column and array that digits can have."""
    out = tmp_path_factory.mktemp("records")
    methods = {"elr-plus": {}, "volminnet": {}}
    trained = sweep(out, methods, epochs=1, val_fraction=0.1)
    trained.run()
    return [trained.store.run_dir(spec.key) for spec in trained.specs]


@pytest.mark.parametrize(
    ("heading", "part"),
    [
        ("noise", record.NoiseFacts),
        ("classes", record.ClassFacts),
        ("timing", record.Timing),
        ("environment", record.Environment),
        ("method", record.MethodFacts),
        ("error", record.RunError),
    ],
)
def test_every_key_of_a_part_of_a_record_is_there(heading, part):
    assert sorted(names_under(heading)) == sorted(get_type_hints(part))


def test_every_part_of_a_record_is_there():
    fields = [*record.RunRecord.model_fields, "checksums"]
    assert sorted(names_under("record.json")) == sorted(fields)


def test_every_key_of_a_plan_is_there(runs):
    named = set(names_under("Plans"))
    (path,) = (runs[0].parents[1] / "suites").glob("*.json")

    assert named == set(json.loads(path.read_text()))
    assert set(_Plan.model_fields) <= named


def test_every_key_of_a_note_is_there():
    fields = [field.alias or name for name, field in Note.model_fields.items()]
    assert sorted(names_under("reproduced.json")) == sorted([*fields, "checksum"])


def test_every_key_of_a_record_on_disk_is_there(runs):
    for folder in runs:
        values = json.loads((folder / "record.json").read_text())
        assert set(values) <= set(names_under("record.json"))
        assert set(values["spec"]) <= set(names_under("spec"))
        of_page = set(names_under("metrics"))
        shares = {f"online_wrong_{kind}" for kind in ("true", "memorised", "other")}
        assert set(values["metrics"]) <= of_page | shares


def test_every_metric_of_a_table_is_there():
    found = set()
    for name in names_under("metrics"):
        found |= {name, name.replace("NAME", "ilsvrc12")}
    assert {metric.key for metric in metrics.METRICS.values()} <= found


def test_every_column_of_a_history_is_there(runs):
    columns = set()
    for folder in runs:
        with open(folder / "history.csv", newline="") as file:
            columns |= set(next(csv.reader(file)))

    named = {name for name in names_under("history.csv") if "NAME" not in name}
    assert columns == named


def test_every_array_of_predictions_is_there(runs):
    arrays = {}
    for folder in runs:
        with np.load(folder / "predictions.npz") as file:
            arrays.update({name: (file[name].dtype, file[name].ndim) for name in file.files})

    lines = re.findall(r"(?m)^\| `(\w+)` \| (\w+) \((.*?)\) \|", PAGE.read_text(encoding="utf-8"))
    shapes = {name: (kind, shape.rstrip(",").count(",") + 1) for name, kind, shape in lines}
    # digits are no files, and their classes have no names.
    assert set(arrays) == set(shapes) - {"names", "class_names"}
    for name, (dtype, dimensions) in arrays.items():
        assert shapes[name] == (str(dtype), dimensions), name


def test_every_file_of_a_store_is_there(runs):
    named = names_under("Files")
    root = runs[0].parents[1]
    for path in root.rglob("*"):
        if path.is_dir():
            continue
        place = path.relative_to(root)
        name = place.name if place.parent.name in ("fits", "suites") else f"KEY/{place.name}"
        name = re.sub(r"^[0-9a-f]{16}", "KEY", name)
        name = "NAME.json" if place.parts[0] == "suites" else name
        assert f"OUT/{place.parts[0]}/{name}" in named
