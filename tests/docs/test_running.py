"""What docs/running.md promises: stores of one suite that are copied together are one store."""

import shutil

import nlbench

SUITE = {
    "name": "two",
    "protocol": "digits",
    "datasets": [{"name": "digits", "noise": {"kind": "symmetric", "rate": 0.4}}],
    "methods": {"ce": {}},
    "seeds": [0, 1],
    "overrides": {"epochs": 1},
}


def test_stores_that_are_copied_together_hold_the_runs_of_both(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        nlbench.run(SUITE, seeds=[seed], out=tmp_path / name, device="cpu")
        shutil.copytree(tmp_path / name, tmp_path / "both", dirs_exist_ok=True)
    records = {path: path.read_bytes() for path in tmp_path.glob("both/runs/*/record.json")}
    assert len(records) == 2

    # Nothing is left to train.
    frame = nlbench.run(SUITE, out=tmp_path / "both", device="cpu")
    assert sorted(frame["seed"]) == [0, 1]
    assert (frame["status"] == "done").all()
    assert {path: path.read_bytes() for path in records} == records
