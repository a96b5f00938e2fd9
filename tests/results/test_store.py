"""The store: whole files or none, corrupt ones set aside, one process a run."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

import nlbench
from nlbench import files
from nlbench.errors import StoreError
from nlbench.plan.spec import key_of
from nlbench.results import integrity, lock
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


def edited(path, change):
    """Change the JSON object in a file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=1))


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
    assert os.listdir(store.run_dir(KEY)) == []


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
    later = {**make().as_json(), "new_field": 1}
    path.write_text(json.dumps(integrity.with_checksums(later, {})))

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


# ---- Plans --------------------------------------------------------------------------------------


def a_plan(suite="s"):
    """Return a plan of two rows, two conditions and two seeds."""
    cells = []
    for number, (row, condition, seed) in enumerate(itertools.product("ab", (0, 1), (0, 1))):
        key = f"{number:016x}"
        cells.append({"row": row, "condition": condition, "seed": seed, "key": key})
    return {
        "schema": 1,
        "suite": suite,
        "track": "identical",
        "protocol": "digits",
        "notes": [],
        "tries": False,
        "rows": [{"row": row, "method": "ce", "told": [], "networks": 1} for row in "ab"],
        "conditions": ["A", "B"],
        "seeds": [0, 1],
        "cells": cells,
    }


def swap_keys(plan):
    first, second = plan["cells"][:2]
    first["key"], second["key"] = second["key"], first["key"]


# Found in a plan with a checksum only.
QUIET = {
    "keys swapped": swap_keys,
    "told": lambda plan: plan["rows"][0].update(told=["noise_rate"]),
    "titles swapped": lambda plan: plan.update(conditions=["B", "A"]),
    "note": lambda plan: plan.update(notes=["tuned on the test set"]),
    "track": lambda plan: plan.update(track="tuned"),
    "protocol": lambda plan: plan.update(protocol="cifar"),
    "method files": lambda plan: plan.update(method_files={"ce": "/tmp/ce.py"}),
}
# Found in every plan.
PLAIN = {
    "empty": lambda plan: plan.clear(),
    "cells a text": lambda plan: plan.update(cells="many"),
    "cells null": lambda plan: plan.update(cells=None),
    "cells of numbers": lambda plan: plan.update(cells=[1, 2]),
    "seeds a number": lambda plan: plan.update(seeds=5),
    "seeds of text": lambda plan: plan.update(seeds=["0", "1"]),
    "rows a mapping": lambda plan: plan.update(rows={"a": {}}),
    "row without a name": lambda plan: plan["rows"][0].pop("row"),
    "networks negative": lambda plan: plan["rows"][0].update(networks=-1),
    "told a text": lambda plan: plan["rows"][0].update(told="noise_rate"),
    "conditions a text": lambda plan: plan.update(conditions="AB"),
    "notes a text": lambda plan: plan.update(notes="x"),
    "tries a text": lambda plan: plan.update(tries="no"),
    "suite a list": lambda plan: plan.update(suite=["s"]),
    "another suite's": lambda plan: plan.update(suite="t"),
    "cell dropped": lambda plan: plan["cells"].pop(),
    "cell twice": lambda plan: plan["cells"].append(plan["cells"][0]),
    "row of a cell": lambda plan: plan["cells"][0].update(row="b"),
    "unknown row of a cell": lambda plan: plan["cells"][0].update(row="c"),
    "condition of a cell": lambda plan: plan["cells"][0].update(condition=1),
    "no condition": lambda plan: plan["cells"][0].update(condition=7),
    "negative condition": lambda plan: plan["cells"][0].update(condition=-1),
    "seed of a cell": lambda plan: plan["cells"][0].update(seed=1),
    "unknown seed of a cell": lambda plan: plan["cells"][0].update(seed=9),
    "key a path": lambda plan: plan["cells"][0].update(key="../../../../x/y/z/000"),
    "key null": lambda plan: plan["cells"][0].update(key=None),
    "row twice": lambda plan: plan["rows"].append(plan["rows"][0]),
    "row dropped": lambda plan: plan["rows"].pop(),
    "seed dropped": lambda plan: plan["seeds"].pop(),
    "condition dropped": lambda plan: plan["conditions"].pop(),
}


@pytest.mark.parametrize("name", [*QUIET, *PLAIN])
def test_a_damaged_plan_is_named_with_the_fix(tmp_path, name):
    store = Store(tmp_path)
    store.write_plan(a_plan())

    assert {**store.plan("s"), "checksum": ""} == {**a_plan(), "checksum": ""}

    edited(store.plan_path("s"), {**QUIET, **PLAIN}[name])
    with pytest.raises(StoreError, match=r"s\.json: damaged plan: .*`nlbench run`"):
        store.plan("s")
    with pytest.raises(StoreError, match=r"s\.json: damaged plan"):
        store.plans()


@pytest.mark.parametrize("name", PLAIN)
def test_a_damaged_plan_without_a_checksum_is_named(tmp_path, name):
    store = Store(tmp_path)
    plan = a_plan()
    store.write_plan(plan)
    PLAIN[name](plan)
    store.plan_path("s").write_text(json.dumps(plan))

    with pytest.raises(StoreError, match=r"s\.json: damaged plan"):
        store.plan("s")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"seeds": NaN}'])
def test_what_is_no_plan_is_named(tmp_path, text):
    store = Store(tmp_path)
    store.write_plan(a_plan())
    store.plan_path("s").write_bytes(text)
    with pytest.raises(StoreError, match=r"s\.json: damaged plan"):
        store.plans()


def test_a_plan_that_is_a_fifo_is_named_and_nobody_waits(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "suites").mkdir()
    os.mkfifo(store.plan_path("s"))
    with pytest.raises(StoreError, match=r"s\.json: damaged plan: it cannot be read, is a FIFO"):
        store.plans()


def test_a_plan_without_a_checksum_is_read(tmp_path):
    store = Store(tmp_path)
    store.write_plan(a_plan())
    store.plan_path("s").write_text(json.dumps(a_plan()))

    assert store.plan("s") == a_plan()


def test_the_other_plans_of_a_store_with_a_damaged_one_are_read(tmp_path):
    warnings = []
    store = Store(tmp_path, warnings.append)
    store.write_plan(a_plan("s"))
    store.write_plan(a_plan("t"))
    edited(store.plan_path("s"), QUIET["told"])

    assert list(store.plans()) == ["t"]
    assert warnings == store.damaged_plans
    assert "s.json: damaged plan" in warnings[0]


def test_a_damaged_plan_is_kept_when_the_suite_is_run_again(tmp_path):
    warnings = []
    store = Store(tmp_path, warnings.append)
    store.write_plan(a_plan())
    edited(store.plan_path("s"), QUIET["told"])
    store.write_plan(a_plan())

    assert "damaged plan; set aside as s.json.corrupt-1" in warnings[0]
    assert store.plan("s")["rows"] == a_plan()["rows"]
    assert (tmp_path / "suites" / "s.json.corrupt-1").exists()


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


@pytest.mark.parametrize(
    ("folder", "hint"),
    [
        ("nowhere", ""),
        (".", "results'"),
        ("results/runs", "results'"),
        ("results/suites", "results'"),
    ],
)
def test_load_and_table_name_a_folder_that_is_no_store(tmp_path, folder, hint):
    store = Store(tmp_path / "results")
    store.write(make(), [])
    store.write_plan(a_plan())
    (tmp_path / "text").write_text("")

    for read in (nlbench.load, nlbench.table):
        with pytest.raises(StoreError, match=str((tmp_path / folder).name)) as raised:
            read(tmp_path / folder)
        assert hint in str(raised.value)
        with pytest.raises(StoreError, match="text"):
            read(tmp_path / "text")


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


# ---- Damage -------------------------------------------------------------------------------------

HISTORY = [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 0.5}]


def written(root, warnings, spec=SPEC, **changes):
    """Write a run with all its files, and return the store and the run's folder."""
    store = Store(root, warnings.append)
    record = make(spec, **changes)
    store.write(record, HISTORY, {"test": [1, 2]})
    return store, store.run_dir(record.key)


EDITS = {
    "accuracy": lambda values: values["metrics"].update(last=0.9999),
    "accuracy in percent": lambda values: values["metrics"].update(last=17.5),
    "status": lambda values: values.update(status="diverged"),
    "seconds": lambda values: values.update(timing={"train": 1.0}),
    "device": lambda values: values["environment"].update(device="cuda"),
    "code": lambda values: values.update(code="other"),
    "a checksum": lambda values: values["checksums"].update({"history.csv": "sha256:0"}),
    "all checksums": lambda values: values.update(checksums=[]),
    "no own checksum": lambda values: values["checksums"].pop("record"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_record_that_was_edited_is_named_and_not_used(tmp_path, edit):
    warnings = []
    store, folder = written(tmp_path, warnings)
    edited(folder / "record.json", edit)

    assert store.read(KEY) is None
    assert "trained again" in warnings[0]
    assert str(folder / "record.json") in warnings[0]


def test_another_layout_of_the_same_values_is_no_damage(tmp_path):
    warnings = []
    store, folder = written(tmp_path, warnings)
    values = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(dict(reversed(values.items())), indent=4))

    assert store.read(KEY) == make()
    assert warnings == []


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ('{"last": 0.5}, "noise": {"noise_rate_train": 4.0}', "noise_rate_train must be from 0"),
        ('{"last": 17.5}', "from 0 to 1"),
        ('{"last": -0.1}', "from 0 to 1"),
        ('{"last": 0.5, "balanced_accuracy": 1.5}', "from 0 to 1"),
        ('{"last": 0.5, "labelwave_epoch": 2.5}', "must be an epoch"),
        ('{"last": NaN}', "NaN"),
        ('{"last": 1e999}', "finite"),
        ('{"last": "0.5"}', "metrics.last cannot be"),
        ('{"last": true}', "metrics.last cannot be"),
        ('{"last": [0.5]}', "metrics.last cannot be"),
        ('{"last": 0.5, "best_epoch": -1}', "best_epoch"),
        ("{}", "metrics.last is missing"),
        ("[]", "metrics"),
        ('"high"', "metrics"),
    ],
)
def test_a_value_that_cannot_be_is_named_also_in_a_record_without_checksums(
    tmp_path, metrics, reason
):
    warnings = []
    store, folder = written(tmp_path, warnings)
    values = make().as_json()
    del values["noise"]
    text = json.dumps(values).replace('{"last": 0.5}', metrics)
    if '"noise"' not in metrics:
        text = text.replace('"key"', '"noise": {}, "key"', 1)
    (folder / "record.json").write_text(text)

    assert store.read(KEY) is None
    assert reason in warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema": "2"}',
        b'{"schema": true}',
        b"1",
    ],
    ids=["no UTF-8", "deep list", "deep object", "schema text", "schema true", "number"],
)
def test_what_is_no_record_is_named(tmp_path, text):
    warnings = []
    store, folder = written(tmp_path, warnings)
    (folder / "record.json").write_bytes(text)

    assert store.read(KEY) is None
    assert len(warnings) == 1


def test_the_record_of_another_run_is_named_with_both(tmp_path):
    warnings = []
    store, folder = written(tmp_path, warnings)
    _, other = written(tmp_path, warnings, {**SPEC, "seed": 1})
    shutil.copy(other / "record.json", folder / "record.json")

    assert store.read(KEY) is None
    assert f"{other.name} (ce, seed 1), and not of {KEY}" in warnings[0]


@pytest.mark.parametrize("name", ["history.csv", "predictions.npz"])
@pytest.mark.parametrize("damage", ["cut", "bit", "removed", "other run's", "fifo", "folder"])
def test_a_damaged_file_beside_a_record_is_named_and_the_record_is_used(tmp_path, name, damage):
    warnings = []
    store, folder = written(tmp_path, warnings)
    content = (folder / name).read_bytes()
    if damage == "cut":
        (folder / name).write_bytes(content[:-3])
    elif damage == "bit":
        (folder / name).write_bytes(content[:9] + bytes([content[9] ^ 4]) + content[10:])
    elif damage == "other run's":
        (folder / name).write_bytes(content + b"2,0.1\n")
    else:
        (folder / name).unlink()
    if damage == "fifo":
        os.mkfifo(folder / name)
    elif damage == "folder":
        (folder / name).mkdir()

    assert store.read(KEY) == make()
    assert len(warnings) == 1
    assert f"{folder / name}: " in warnings[0]


def test_a_file_that_the_run_does_not_have_is_named(tmp_path):
    warnings = []
    store = Store(tmp_path, warnings.append)
    store.write(make(status="diverged"), HISTORY)
    (store.run_dir(KEY) / "predictions.npz").write_bytes(b"of another run")

    assert store.read(KEY) is not None
    assert "predictions.npz: the run has no such file" in warnings[0]


@pytest.mark.parametrize("name", ["FIFO", "folder", "socket", "device"])
def test_a_record_that_is_no_file_is_named_and_nobody_waits(tmp_path, name):
    warnings = []
    store, folder = written(tmp_path, warnings)
    path = folder / "record.json"
    path.unlink()
    if name == "FIFO":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    elif name == "device":
        path.symlink_to("/dev/zero")
    else:
        # The path of a socket has a limit.
        with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as end:
            end.bind("record.json")

    assert store.read(KEY) is None
    assert f"is a {name} and not a file" in warnings[0]

    # The run can be trained again.
    store.write(make(), HISTORY)
    assert store.read(KEY) == make()
    assert os.path.lexists(folder / "record.json.corrupt-1")


def test_a_record_that_may_not_be_read_is_no_damage(tmp_path, monkeypatch):
    store, _ = written(tmp_path, [])

    def refuse(path, most):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(integrity, "read_regular", refuse)
    with pytest.raises(StoreError, match=r"record\.json: cannot be read .*Permission denied"):
        store.read(KEY)


def test_a_run_with_a_folder_in_the_place_of_a_file_can_be_written_again(tmp_path):
    warnings = []
    store, folder = written(tmp_path, warnings)
    (folder / "history.csv").unlink()
    (folder / "history.csv").mkdir()
    store.write(make(), HISTORY, {"test": [1]})

    assert store.check(KEY).damage == []
    assert (folder / "history.csv.corrupt-1").is_dir()


def test_damage_after_the_first_reading_is_noticed(tmp_path):
    warnings = []
    store, folder = written(tmp_path, warnings)
    assert store.read(KEY) == make()

    edited(folder / "record.json", EDITS["accuracy"])
    assert store.read(KEY) is None


def test_a_record_without_checksums_is_read_and_known_as_unchecked(tmp_path):
    store, folder = written(tmp_path, [])
    edited(folder / "record.json", lambda values: values.pop("checksums"))

    found = store.check(KEY)
    assert found.record == make()
    assert not found.checked


# ---- A run that is written again ----------------------------------------------------------------

WRITE_AGAIN = """
import os, sys
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

left = int(sys.argv[3])

def dying(name):
    real = getattr(os, name)

    def call(*args, **kwargs):
        global left
        # Whichever call comes then does not happen, as after a SIGKILL.
        if left == 0:
            os._exit(9)
        left -= 1
        return real(*args, **kwargs)

    setattr(os, name, call)

for name in ("mkdir", "open", "fsync", "replace", "rename", "unlink", "rmdir"):
    dying(name)
values = RunRecord.from_json(open(sys.argv[2], "rb").read())
predictions = {"test": [3, 4, 5]} if sys.argv[4] == "with" else None
Store(sys.argv[1]).write(values, [{"epoch": 0, "loss": 9.0}], predictions)
"""


@pytest.mark.parametrize("predictions", ["with", "without"])
def test_a_process_that_is_killed_while_it_writes_a_run_again_leaves_the_old_or_the_new_one(
    tmp_path, predictions
):
    new = make(metrics={"last": 0.7})
    (tmp_path / "new.json").write_text(json.dumps(new.as_json()))
    seen = set()
    for point in itertools.count():
        root = tmp_path / str(point)
        store, folder = written(root, warnings := [])
        pid = os.fork()
        if pid == 0:
            sys.argv = ["", root, tmp_path / "new.json", str(point), predictions]
            try:
                exec(compile(WRITE_AGAIN, "write", "exec"), {"__name__": "write"})
            finally:
                os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        # As `nlbench table` would find it, and then as the next `nlbench run`.
        for _ in range(2):
            found = Store(root, warnings.append).check(KEY)
            assert found.record in (make(), new)
            assert found.damage == []
            seen.add(found.record == new)
            with store.lock(KEY):
                pass
        assert warnings == []
        kept = {name for name in os.listdir(folder) if name != "lock"}
        files = {"record.json", "history.csv"}
        if found.record == make() or predictions == "with":
            files.add("predictions.npz")
        assert kept == files
        if status == 0:
            break

    assert seen == {True, False}
    assert point > 10


# ---- Locks --------------------------------------------------------------------------------------


def test_a_heartbeat_in_the_future_is_named_and_the_lock_becomes_free(tmp_path):
    warnings = []
    store = Store(tmp_path, warnings.append)
    path = store.run_dir(KEY) / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("another-host 12\n")
    os.utime(path, (time.time() + 86_400, time.time() + 86_400))
    with store.lock(KEY) as mine:
        assert mine is False

    assert str(path) in warnings[0]
    assert "process 12 of the host another-host" in warnings[0]
    assert abs(path.stat().st_mtime - time.time()) < 10
    assert store.holder(KEY) == "process 12 of the host another-host"

    # The holder was dead, so no other heartbeat comes.
    old = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with store.lock(KEY) as mine:
        assert mine is True


def test_the_holders_of_the_first_runs_are_named_once(tmp_path):
    warnings = []
    store = Store(tmp_path, warnings.append)
    keys = [f"{number:016x}" for number in range(6)]
    for key in keys[1:]:
        store.run_dir(key).mkdir(parents=True)
        (store.run_dir(key) / "lock").write_text(f"host-{key} 12\n")
    store.warn_of_holders(keys)
    store.warn_of_holders(keys)

    assert len(warnings) == 3
    assert warnings[0].endswith(f"{keys[1]}/lock: held by process 12 of the host host-{keys[1]}")


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_a_lock_that_is_no_file_is_named(tmp_path, kind):
    store = Store(tmp_path)
    path = store.run_dir(KEY) / "lock"
    path.parent.mkdir(parents=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")

    named = pytest.raises(StoreError, match=rf"lock: the lock cannot be used \(is a {kind}")
    with named, store.lock(KEY):
        pass
    assert store.holder(KEY) == ""


def test_a_lock_with_any_content_is_a_lock(tmp_path):
    store = Store(tmp_path)
    path = store.run_dir(KEY) / "lock"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)))
    with store.lock(KEY) as mine:
        assert mine is False
