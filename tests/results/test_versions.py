"""Files of earlier versions are read on, and those of later ones are named and left alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from made_stores import contents, made_store, plan_of

from nlbench.results import plan_file, schema
from nlbench.results.findings import Condition
from nlbench.results.plan_file import with_checksum
from nlbench.results.schema import LaterVersion, brought_up
from nlbench.results.store import Store
from nlbench.results.verify import verify
from nlbench.training import checkpoint
from nlbench.training.checkpoint import Checkpoint

RECORDS = Path(__file__).parent / "records"


def test_values_take_every_step_from_their_version_to_the_present_one():
    steps = {2: lambda v: {**v, "b": v["a"] + 1}, 3: lambda v: {**v, "c": v["b"] + 1}}
    assert brought_up({"schema": 2, "a": 1}, "it", 4, steps) == {
        "schema": 2,
        "a": 1,
        "b": 2,
        "c": 3,
    }
    assert brought_up({"a": 1}, "it", 1, {}) == {"a": 1}
    with pytest.raises(LaterVersion, match=r"it was written by a later .*5.* up to 4.*; update"):
        brought_up({"schema": 5}, "it", 4, steps)
    for version in (0, -1, "1", True, None, 1.5):
        with pytest.raises(ValueError, match="schema must be a number from 1 on"):
            brought_up({"schema": version}, "it", 4, steps)
    assert issubclass(schema.LaterVersion, schema.StoreError)


# ---- Stores of the first version -----------------------------------------------------------------


@pytest.mark.parametrize("status", ["done", "diverged", "failed"])
def test_a_store_of_nlbench_0_1_is_read_on_and_nothing_is_wrong_with_it(tmp_path, status):
    store, record = Store(tmp_path), RECORDS / f"0.1-{status}.json"
    folder = store.run_dir(json.loads(record.read_text())["key"])
    folder.mkdir(parents=True)
    shutil.copy(record, folder / "record.json")
    # A plan of that time has neither a checksum nor the command that made it.
    plan = {key: value for key, value in plan_of("s", ("ce",), (0,)).items() if key != "command"}
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "s.json").write_text(json.dumps(plan))

    report = verify(store)
    assert report.findings == []
    assert report.conditions == {Condition(status): 1}
    assert report.unchecked == 1
    assert report.suites[0].command == f"nlbench run s --out {tmp_path}"


# ---- Plans ---------------------------------------------------------------------------------------


def test_a_plan_of_an_earlier_version_takes_every_step(tmp_path, monkeypatch):
    """As if version 2 had called the rows by other names, and version 3 had dropped a note."""
    store = made_store(tmp_path)

    def renamed(values):
        for part in (*values["rows"], *values["cells"]):
            part["row"] = part["row"].upper()
        return values

    monkeypatch.setattr(plan_file, "VERSION", 3)
    steps = {1: renamed, 2: lambda values: {**values, "notes": ["new"]}}
    monkeypatch.setattr(plan_file, "MIGRATIONS", steps)

    plan = store.plan("s")
    assert [row["row"] for row in plan["rows"]] == ["CE", "ELR"]
    assert plan["notes"] == ["new"]
    assert verify(store).findings == []
    # A plan that is written now states its version, and takes no step.
    store.write_plan(plan_of("s", ("ce",), (0,)))
    assert json.loads(store.plan_path("s").read_text())["version"] == 3
    assert store.plan("s")["notes"] == []


@pytest.mark.parametrize("change", [{"version": 2}, {"schema": 2}])
def test_a_plan_of_a_later_version_is_not_called_damaged_and_not_replaced(tmp_path, change):
    store = made_store(tmp_path)
    path = store.plan_path("s")
    path.write_text(json.dumps(with_checksum({**store.plan("s"), **change})))
    before = contents(tmp_path)

    with pytest.raises(LaterVersion, match=r"s\.json: the plan .* later version .* update nlbench"):
        store.plan("s")
    with pytest.raises(LaterVersion):
        store.write_plan(plan_of("s", ("ce",), (0,)))
    assert contents(tmp_path) == before


# ---- Checkpoints and helper networks -------------------------------------------------------------


@pytest.mark.parametrize("tag", [{"run": "a", "code": "c"}, {"helper": "a", "state": "trained"}])
def test_a_state_of_an_earlier_version_takes_every_step(tmp_path, monkeypatch, tag):
    store = Store(tmp_path)
    made = Checkpoint(store, tmp_path / "x.pt", tag)
    made.save({"old": torch.ones(2)})

    monkeypatch.setattr(checkpoint, "SCHEMA", 2)
    renamed = {1: lambda values: {"new": values["old"], "tag": values["tag"]}}
    monkeypatch.setattr(checkpoint, "MIGRATIONS", renamed)
    assert torch.equal(made.load()["new"], torch.ones(2))

    # One that is written now states its version, and takes no step.
    made.save({"new": torch.zeros(2)})
    state = made.load()
    assert (state["schema"], float(state["new"].sum())) == (2, 0.0)


def test_a_state_of_a_later_version_is_set_aside_and_kept(tmp_path, monkeypatch):
    warnings = []
    made = Checkpoint(Store(tmp_path, warnings.append), tmp_path / "x.pt", {"run": "a"})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA", 2)
        made.save({"new": torch.ones(2)})
    content = (tmp_path / "x.pt").read_bytes()

    assert made.load() is None
    assert (
        "was written by a later version of nlbench (schema 2, this version reads up to 1)"
        in (warnings[0])
    )
    assert (tmp_path / "x.pt.corrupt-1").read_bytes() == content
