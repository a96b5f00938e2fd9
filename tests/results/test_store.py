"""The store: whole files or none, corrupt ones set aside, one process a run."""

import errno
import json
import os
import socket
import subprocess
import sys
import time

import pytest

import nlbench
from nlbench import files
from nlbench.errors import StoreError
from nlbench.plan.spec import key_of
from nlbench.results import lock
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

SPEC = {"method": "ce", "params": {}, "seed": 0}
KEY = key_of(SPEC)


def make(spec=SPEC, **changes):
    """Return the record of a finished run, with some of its parts changed."""
    values = {
        "key": key_of(spec),
        "status": "done",
        "spec": spec,
        "metrics": {"last": 0.5},
        "noise": {},
        "timing": {},
        "environment": {},
        "method": {},
        "code": "c",
    }
    return RunRecord(**{**values, **changes})


def test_what_is_written_is_read_back(tmp_path):
    store = Store(tmp_path)
    history = [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": None}]
    store.write(make(), history, {"test": [1, 2]})

    assert store.read(KEY) == make()
    assert (store.run_dir(KEY) / "history.csv").read_text().splitlines() == [
        "epoch,loss",
        "0,1.5",
        "1,",
    ]
    assert sorted(os.listdir(store.run_dir(KEY))) == [
        "history.csv",
        "predictions.npz",
        "record.json",
    ]
    assert store.run_keys() == [KEY]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: json.dumps({**json.loads(text), "status": "great"}),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "metrics"}),
        lambda text: json.dumps({**json.loads(text), "spec": {**SPEC, "seed": 1}}),
    ],
    ids=["truncated", "empty", "unknown status", "key missing", "another run's"],
)
def test_a_corrupt_record_is_named_counts_as_missing_and_is_set_aside_by_the_next(tmp_path, damage):
    warnings = []
    store = Store(tmp_path, warnings.append)
    store.write(make(), [])
    path = store.run_dir(KEY) / "record.json"
    text = damage(path.read_text())
    path.write_text(text)

    assert store.read(KEY) is None
    assert store.read(KEY) is None
    # It is named once, though it was read twice, and reading changes nothing.
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert path.read_text() == text

    store.write(make(), [])
    # The corrupt text is kept beside the new record, so that nothing is lost.
    assert path.with_name("record.json.corrupt-1").read_text() == text
    assert store.read(KEY) == make()


def test_several_corrupt_records_of_one_run_are_all_kept(tmp_path):
    store = Store(tmp_path)
    for text in ("first", "second"):
        store.run_dir(KEY).mkdir(parents=True, exist_ok=True)
        (store.run_dir(KEY) / "record.json").write_text(text)
        store.write(make(), [])

    assert (store.run_dir(KEY) / "record.json.corrupt-1").read_text() == "first"
    assert (store.run_dir(KEY) / "record.json.corrupt-2").read_text() == "second"


def test_a_run_has_its_record_only_when_everything_else_is_written(tmp_path):
    class Unwritable:
        def __array__(self, *args, **kwargs):
            raise OSError("disk full")

    store = Store(tmp_path)

    # The record is written last, so a failure before it leaves no finished run.
    with pytest.raises(OSError, match="disk full"):
        store.write(make(), [{"epoch": 0}], {"test": Unwritable()})
    assert store.run_keys() == []
    assert os.listdir(store.run_dir(KEY)) == ["history.csv"]


@pytest.mark.parametrize(
    ("status", "kept"), [("done", False), ("diverged", False), ("failed", True)]
)
def test_only_a_run_that_failed_goes_on_from_its_checkpoint(tmp_path, status, kept):
    store = Store(tmp_path)
    checkpoint = store.run_dir(KEY) / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"state")
    store.write(make(status=status, error={"message": "x"}), [])

    assert checkpoint.exists() == kept


def test_the_lock_of_a_dead_process_is_released_and_no_other(tmp_path):
    store = Store(tmp_path)
    path = store.run_dir(KEY) / "lock"
    path.parent.mkdir(parents=True)
    path.write_text(f"{socket.gethostname()} 12\n")
    store.release(KEY, 13)

    # Process 13 does not hold the run.
    assert path.read_text()

    store.release(KEY, 12)
    assert path.read_text() == ""

    # A process of the same number may be alive on another host.
    path.write_text("another-host 12\n")
    store.release(KEY, 12)

    assert path.read_text() == "another-host 12\n"


def test_a_record_of_a_later_version_can_be_read(tmp_path):
    store = Store(tmp_path)
    store.write(make(), [])
    path = store.run_dir(KEY) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "new_field": 1}))

    assert store.read(KEY) == make()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    files.write_atomic(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(path, fails)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*cannot write the records there.*--out"):
        Store(tmp_path / "file").require_writable()


def test_a_store_without_suites_says_how_to_make_one(tmp_path):
    with pytest.raises(StoreError, match=r"nlbench run SUITE --out"):
        Store(tmp_path).plans()

    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "s.json").write_text("{")
    for text in ("{", "{}", "[]"):
        (tmp_path / "suites" / "s.json").write_text(text)
        with pytest.raises(StoreError, match=r"s\.json: not readable"):
            Store(tmp_path).plans()


HOLD = """
import sys, time
from nlbench.results.store import Store
with Store(sys.argv[1]).lock(sys.argv[2]) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_run_and_a_killed_one_frees_it(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, KEY], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert other.stdout.readline() == "True\n"
        with Store(tmp_path).lock(KEY) as mine:
            assert mine is False
    finally:
        other.kill()
        other.communicate()
    with Store(tmp_path).lock(KEY) as mine:
        assert mine is True


def test_another_hosts_lock_holds_while_its_heart_beats(tmp_path):
    """Where flock does not reach across hosts, the lock's age decides."""
    store = Store(tmp_path)
    path = store.run_dir(KEY) / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("another-host 12\n")
    with store.lock(KEY) as mine:
        assert mine is False

    assert path.read_text() == "another-host 12\n"

    # No process that is alive leaves its lock untouched for so long.
    old = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with store.lock(KEY) as mine:
        assert mine is True
    with store.lock(KEY) as mine:
        assert mine is True


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    store = Store(tmp_path)
    with store.lock(KEY):
        path = store.run_dir(KEY) / "lock"
        # The lock looks as old as can be until the next heartbeat touches it.
        os.utime(path, (1, 1))
        for _ in range(200):
            time.sleep(0.02)
            if path.stat().st_mtime > 1:
                break
        assert path.stat().st_mtime > 1


def test_load_reads_records_without_plans(tmp_path):
    spec = {
        "method": "ce",
        "params": {"q": 1},
        "dataset": "digits",
        "labels": "clean",
        "noise": {"kind": "symmetric"},
        "seed": 3,
        "protocol": {"name": "digits", "model": "m"},
    }
    environment = {"device": "cpu", "device_name": "x", "precision": "float32", "torch": "2"}
    Store(tmp_path).write(make(spec, environment=environment, timing={"train": 2.0}), [])
    frame = nlbench.load(tmp_path)
    line = frame.loc[key_of(spec)]

    assert line["method"] == "ce"
    assert line["noise"] == "symmetric"
    assert line["seed"] == 3
    assert line["last"] == 0.5
    assert line["seconds_train"] == 2
    assert nlbench.load(tmp_path / "nothing").empty


def test_without_flock_the_heartbeat_decides_and_nobody_waits_for_ever(tmp_path, monkeypatch):
    # Some network file systems have no locks.
    def none(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", none)
    store = Store(tmp_path)
    with store.lock(KEY) as mine:
        assert mine is True
    path = store.run_dir(KEY) / "lock"
    # Another process of this host took the run meanwhile.
    path.write_text(f"{socket.gethostname()} 1\n")
    with store.lock(KEY) as mine:
        assert mine is False


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    store = Store(tmp_path)
    left = store.run_dir(KEY) / ".checkpoint.pt.1.2.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("")
    with store.lock(KEY):
        assert not left.exists()
