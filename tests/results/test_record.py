"""Records as JSON: those of version 0.1 are read, and written again with the same values."""

import json
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from nlbench.errors import StoreError
from nlbench.plan.spec import key_of
from nlbench.results import record as records
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

OLD = sorted((Path(__file__).parent / "records").glob("0.1-*.json"))
DONE = next(path for path in OLD if path.stem == "0.1-done")


def stored(tmp_path, text):
    """Put a record into a store under the key of its spec, and return both."""
    key = key_of(json.loads(text)["spec"])
    path = tmp_path / "runs" / key / "record.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    return Store(tmp_path), key


def test_there_is_a_record_of_each_status():
    statuses = {json.loads(path.read_bytes())["status"] for path in OLD}

    assert statuses == {"done", "diverged", "failed"}


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_record_of_version_0_1_is_read_and_written_again_with_checksums(path, tmp_path):
    store, key = stored(tmp_path, path.read_bytes())
    record = store.read(key)

    assert record is not None

    Store(tmp_path / "other").write(record, [])
    text = (tmp_path / "other" / "runs" / key / "record.json").read_text()
    values = json.loads(text)

    assert set(values.pop("checksums")) == {"record"}
    # Everything else has the same bytes as before.
    assert json.dumps(values, indent=1, sort_keys=True) + "\n" == path.read_text()


def test_the_values_of_version_0_1_are_those_that_tables_and_frames_read(tmp_path):
    record = RunRecord.from_json(DONE.read_bytes())

    assert record.metrics["last"] == json.loads(DONE.read_bytes())["metrics"]["last"]
    assert (record.noise["num_train"], record.noise["num_val"]) == (1257, 140)
    assert (record.method["told"], record.method["networks"]) == (["noise_rate"], 2)

    line = record.columns()
    assert line["method"] == "co-teaching"
    assert line["noise"] == "symmetric"
    assert line["model"] == "digits_cnn"
    assert line["told"] == ["noise_rate"]
    assert line["seconds_train"] == record.timing["train"]
    assert line["error"] == ""


def test_an_unknown_key_of_a_part_is_kept_and_a_missing_one_is_no_error():
    values = json.loads(DONE.read_bytes())
    values["noise"] = {"new_fact": [1, 2], "num_test": 400}
    record = RunRecord.from_json(json.dumps(values).encode())

    assert record.as_json()["noise"] == {"new_fact": [1, 2], "num_test": 400}


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("noise", "num_train", "many"),
        ("metrics", "last", "high"),
        ("timing", "train", None),
        ("environment", "threads", [1]),
        ("method", "told", "noise_rate"),
        ("error", "step", "third"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(part, key, value):
    values = json.loads(DONE.read_bytes())
    values[part] = {**(values[part] or {}), key: value}

    with pytest.raises(ValidationError, match=rf"{part}.*{key}"):
        RunRecord.from_json(json.dumps(values).encode())


def test_a_record_is_not_changed_after_it_was_made():
    record = RunRecord.from_json(DONE.read_bytes())
    with pytest.raises(ValidationError, match="frozen"):
        record.status = "failed"


def test_the_json_is_a_copy():
    record = RunRecord.from_json(DONE.read_bytes())
    record.as_json()["metrics"].clear()
    assert record.metrics


def test_a_record_of_a_later_schema_is_refused_and_not_called_corrupt(tmp_path):
    values = {**json.loads(DONE.read_bytes()), "schema": records.SCHEMA + 1}
    store, key = stored(tmp_path, json.dumps(values).encode())

    with pytest.raises(
        StoreError, match=rf"{key} was written by a later version .* update nlbench"
    ):
        store.read(key)


def test_an_older_record_takes_every_step_to_the_present_schema(tmp_path, monkeypatch):
    """As if version 2 had renamed a metric, and version 3 had put accuracies in percent."""

    def renamed(values):
        values["metrics"]["final"] = values["metrics"].pop("best")
        return values

    def in_percent(values):
        values["metrics"]["final"] *= 100
        return values

    monkeypatch.setattr(records, "SCHEMA", 3)
    monkeypatch.setattr(records, "MIGRATIONS", {1: renamed, 2: in_percent})
    store, key = stored(tmp_path, DONE.read_bytes())
    best = json.loads(DONE.read_bytes())["metrics"]["best"]
    record = store.read(key)

    assert record.metrics["final"] == 100 * best
    assert "best" not in record.metrics

    # A record that is written now says so, and takes no step when it is read.
    store.write(record, [])
    assert json.loads((store.run_dir(key) / "record.json").read_bytes())["schema"] == 3
    assert store.read(key).metrics["final"] == 100 * best


def test_there_is_a_step_from_every_older_schema():
    assert sorted(records.MIGRATIONS) == list(range(1, records.SCHEMA))


def test_no_key_is_in_two_parts():
    """A data frame has one column for each, so one would hide the other."""
    parts = (records.NoiseFacts, records.MethodFacts, records.Environment)
    keys = []
    for part in parts:
        keys += get_type_hints(part)

    assert len(keys) == len(set(keys))
