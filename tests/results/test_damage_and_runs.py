"""`nlbench run` on a store with damaged files trains what is missing, and ends with its numbers."""

import json
import shutil

import pytest
from sweeps import listener, outcome, sweep

from nlbench.errors import StoreError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a trained sweep, which tests copy."""
    sw = sweep(tmp_path_factory.mktemp("whole"), {"ce": {}}, epochs=1)
    sw.run()
    return sw


@pytest.fixture
def again(whole, tmp_path):
    """Return again(), which prepares the same sweep in a copy, and what its store warns of."""
    shutil.copytree(whole.store.root, tmp_path / "out")
    warnings = []

    def prepare():
        sw = sweep(tmp_path / "out", {"ce": {}}, epochs=1)
        sw.store.warn = warnings.append
        return sw

    return prepare, warnings


def test_an_edited_record_is_trained_again_and_kept(whole, again):
    prepare, warnings = again
    sw = prepare()
    folder = sw.store.run_dir(sw.specs[0].key)
    record = folder / "record.json"
    values = json.loads(record.read_text())
    values["metrics"]["last"] = 0.99
    record.write_text(json.dumps(values))
    sw = prepare()

    assert sw.state.todo == sw.specs
    sw.run()
    assert outcome(sw) == outcome(whole)
    assert json.loads((folder / "record.json.corrupt-1").read_text()) == values
    assert (folder / "history.csv.corrupt-1").exists()
    assert "set aside" in " ".join(warnings)
    assert prepare().state.todo == []


def test_a_swapped_plan_is_written_again(whole, again):
    prepare, warnings = again
    sw = prepare()
    path = sw.store.plan_path(sw.plan.name)
    text = path.read_text()
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    sw.run()

    assert path.read_text() == text
    assert "damaged plan; set aside" in " ".join(warnings)


def test_a_folder_that_is_removed_in_mid_run_is_an_error(tmp_path):
    sw = sweep(tmp_path / "out", {"ce": {}, "gce": {}}, epochs=1)

    def remove(spec, record):
        if spec.row == "ce":
            shutil.rmtree(tmp_path / "out")

    with pytest.raises(StoreError, match=r"was removed or renamed while runs were going on"):
        sw.run(listener(on_finish=remove))
