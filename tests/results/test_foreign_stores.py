"""Stores of somebody else: links that lead out of them, files that could be run, immense files."""

import json
import os
import re

import pytest

import nlbench
from nlbench.errors import StoreError
from nlbench.plan.spec import key_of
from nlbench.results import integrity, lock
from nlbench.results.plan_file import with_checksum
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

SPEC = {"method": "ce", "params": {}, "seed": 0}
KEY = key_of(SPEC)
SECRET = "a line that must stay\n"


def make(spec=SPEC):
    """Return the record of a finished run."""
    return RunRecord(
        key=key_of(spec), status="done", spec=spec, metrics={"last": 0.5}, noise={}, timing={},
        environment={}, method={}, code="c",
    )  # fmt: skip


def edited(path, change):
    """Change the JSON object in a file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=1))


@pytest.fixture
def outside(tmp_path):
    """Return a folder beside the store, with files in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("secret", "record.json", "checkpoint.pt", ".x.1-00000000.tmp"):
        (folder / name).write_text(SECRET)
    return folder


def content(folder):
    """Return the names and contents of the files in a folder."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_lock_that_is_a_link_empties_no_other_file(tmp_path, outside):
    path = tmp_path / "lock"
    path.symlink_to(outside / "secret")
    os.utime(outside / "secret", (0, 0))
    with (
        pytest.raises(StoreError, match=r"lock: the lock cannot be used \(is a link, and the file"),
        lock.hold(path),
    ):
        pass
    # Not even a link that is put there after the look.
    with pytest.raises(OSError, match="symbolic"):
        os.close(lock._without_following(str(path), os.O_RDWR))
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.parametrize("use", [lambda s: s.write(make(), []), lambda s: s.lock(KEY).__enter__()])
def test_no_run_is_written_through_a_link(tmp_path, outside, use):
    store = Store(tmp_path / "results")
    store.require_writable()
    store.run_dir(KEY).symlink_to(outside)
    before = content(outside)
    with pytest.raises(StoreError, match=f"{KEY}: is a link, and no run is written through one"):
        use(store)
    assert content(outside) == before


def test_no_run_is_moved_out_of_another_store(tmp_path, outside):
    warnings = []
    store = Store(tmp_path / "results", warnings.append)
    store.require_writable()
    other = Store(tmp_path / "other")
    other.write(make(), [{"epoch": 0}])
    store.run_dir(KEY).mkdir()
    (store.run_dir(KEY) / integrity.NEW).symlink_to(other.run_dir(KEY))

    with store.lock(KEY):
        pass
    assert other.read(KEY) == make()
    assert f"set aside as {integrity.NEW}.corrupt-1" in warnings[-1]


def test_files_that_are_links_are_replaced_and_not_followed(tmp_path, outside):
    store = Store(tmp_path / "results")
    store.require_writable()
    folder = store.run_dir(KEY)
    folder.mkdir()
    for name in ("record.json", "history.csv", "predictions.npz"):
        (folder / name).symlink_to(outside / "secret")
    (tmp_path / "results" / "suites" / "s.json").symlink_to(outside / "secret")

    store.write(make(), [{"epoch": 0}], {"test": [1]})
    store.write_plan({"suite": "s"})
    assert store.read(KEY) == make()
    assert content(outside)["secret"] == SECRET


def test_an_immense_record_is_named_and_not_read(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(make(), [])
    with store.record_path(KEY).open("rb+") as file:
        # The file has a hole, so that it takes no room on the disk.
        file.truncate(1 << 40)
    found = store.check(KEY)
    assert found.record is None
    assert "cannot be read (has 1,099,511,627,776 bytes, and may have" in found.damage[0].reason


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_metric_that_no_float_can_hold(tmp_path, value):
    store = Store(tmp_path)
    store.write(make(), [])
    edited(store.record_path(KEY), lambda values: values["metrics"].update(best=value))
    edited(store.record_path(KEY), lambda values: values.pop("checksums"))
    found = store.check(KEY)
    assert found.damage[0].reason.startswith("metrics.best must be finite, got ")
    assert len(found.damage[0].reason) < 150


# ---- Method files -------------------------------------------------------------------------------

TOUCH = '"""A method."""\nopen({path!r}, "w")\n'


@pytest.mark.parametrize(
    "source",
    [
        TOUCH + "from nlbench.method import Method\nclass Mine(Method):\n    pass\n",
        "(" * 5000,
        "x = " + "-" * 100_000 + "1",
        "\0",
    ],
    ids=["method", "deep", "deeper", "NUL"],
)
def test_a_table_reads_the_method_file_of_a_plan_and_never_runs_it(tmp_path, source):
    out, ran = tmp_path / "results", tmp_path / "ran"
    mine = out / "mine.py"
    store = Store(out)
    store.require_writable()
    spec = {"method": "mine", "seed": 0, "protocol": {"model": "cnn3"}, "dataset": "digits"}
    store.write(make(spec), [])
    mine.write_text(source.replace("{path!r}", repr(str(ran))))
    plan = {
        "suite": "s", "track": "identical", "protocol": "digits", "notes": [], "tries": False,
        "rows": [{"row": "mine", "method": "mine", "told": [], "networks": 1}],
        "conditions": ["Digits"], "seeds": [0],
        "cells": [{"row": "mine", "condition": 0, "seed": 0, "key": key_of(spec)}],
        "method_files": {"mine": str(mine)},
    }  # fmt: skip
    (out / "suites" / "s.json").write_text(json.dumps(with_checksum(plan)))

    assert re.search(r"\| mine +\| +50\.00", nlbench.table(out))
    nlbench.load(out)
    assert not ran.exists()
