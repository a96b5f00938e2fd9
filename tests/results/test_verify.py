"""`nlbench verify` finds what is wrong, and `nlbench repair` mends it and loses nothing."""

import json
import os
import socket
import zipfile

import numpy as np
import pytest
from made_stores import (
    contents,
    dead_process,
    made_store,
    plan_of,
    record_of,
    rewritten,
    spec_of,
    temporary_of,
    write_run,
)

from nlbench import files
from nlbench.errors import StoreError
from nlbench.plan.spec import key_of
from nlbench.results import consistency, parallel
from nlbench.results.findings import Condition, Remedy, Trouble
from nlbench.results.leftovers import tidy
from nlbench.results.plan_file import with_checksum
from nlbench.results.repair import commands, repair
from nlbench.results.state_files import write_with_checksum
from nlbench.results.store import Store
from nlbench.results.verify import verify

HELPER = "0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    return made_store(tmp_path / "results")


@pytest.fixture
def run(store):
    """Return the folder of one run of the store."""
    return store.run_dir(key_of(spec_of("ce", 0)))


def found(store, trouble):
    """Return the findings of one kind, as path in the store and reason."""
    report = verify(store)
    return [(str(one.path.relative_to(store.root)), one.reason) for one in report.of(trouble)]


def write_state(path):
    """Write a file that is whole, as that of a stopped training."""
    with path.open("wb") as file:
        write_with_checksum(file, lambda out: out.write(b"PK\5\6" + bytes(18)))


def edited(path, old, new):
    """Change a text file as a person with an editor does."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---- Nothing wrong -------------------------------------------------------------------------------


def test_a_store_in_which_nothing_is_wrong(store):
    before = contents(store.root)
    report = verify(store)

    assert report.findings == report.set_aside == report.unknown == []
    assert report.conditions == {Condition.DONE: 4}
    (suite,) = report.suites
    assert (suite.runs, suite.missing, suite.lacks) == (4, 0, 0)
    assert repair(store).set_aside == []
    assert contents(store.root) == before


def test_what_a_suite_lacks_is_counted_and_is_no_fault(store):
    write_run(store, "ce", 2, status="failed", metrics={}, error={"message": "x"})
    write_run(store, "ce", 3, status="diverged", metrics={}, error={"message": "x"})
    begun = store.run_dir(key_of(spec_of("elr", 2)))
    begun.mkdir()
    write_state(begun / "checkpoint.pt")
    store.write_plan(plan_of("s", ("ce", "elr"), (0, 1, 2, 3)))
    write_run(store, "gce", 0)

    report = verify(store)
    assert report.findings == []
    (suite,) = report.suites
    assert suite.conditions == {
        Condition.DONE: 4,
        Condition.FAILED: 1,
        Condition.DIVERGED: 1,
        Condition.BEGUN: 1,
    }
    # The failed one, the one with a checkpoint, and the one that nobody has begun.
    assert (suite.missing, suite.lacks) == (1, 3)
    assert suite.command == f"nlbench run s.yaml --out {store.root}"
    assert report.in_no_suite == 1


def test_many_runs_are_looked_at_in_several_processes_with_the_same_result(store, run, monkeypatch):
    edited(run / "record.json", '"last": 0.375', '"last": 0.875')
    alone = verify(store)
    monkeypatch.setattr(parallel, "_WORTHWHILE", 1)
    monkeypatch.setattr(parallel, "_CHUNK", 1)
    monkeypatch.setattr(parallel, "_can_fork", lambda: True)
    monkeypatch.setattr(parallel, "_cores", lambda: 2)
    counted = []
    together = verify(store, lambda done, total: counted.append((done, total)))

    assert together == alone
    assert counted == [(1, 4), (2, 4), (3, 4), (4, 4)]


# ---- Damage --------------------------------------------------------------------------------------

# What is changed in a run, the file that is then named, and the remedy.
DAMAGE = {
    "accuracy": (
        lambda run: edited(run / "record.json", '"last": 0.375', '"last": 0.875'),
        "record.json",
        Remedy.RUN,
    ),
    "bit": (
        lambda run: (run / "record.json").write_bytes(
            (run / "record.json").read_bytes().replace(b"digits", b"digitr", 1)
        ),
        "record.json",
        Remedy.RUN,
    ),
    "cut record": (
        lambda run: os.truncate(run / "record.json", 100),
        "record.json",
        Remedy.RUN,
    ),
    "FIFO": (
        lambda run: [(run / "record.json").unlink(), os.mkfifo(run / "record.json")],
        "record.json",
        Remedy.RUN,
    ),
    "history": (
        lambda run: edited(run / "history.csv", "0.5", "0.6"),
        "history.csv",
        Remedy.FILE_OR_RUN,
    ),
    "no history": (lambda run: (run / "history.csv").unlink(), "history.csv", Remedy.AGAIN),
    "predictions": (
        lambda run: os.truncate(run / "predictions.npz", 50),
        "predictions.npz",
        Remedy.FILE_OR_RUN,
    ),
    "predictions FIFO": (
        lambda run: [(run / "predictions.npz").unlink(), os.mkfifo(run / "predictions.npz")],
        "predictions.npz",
        Remedy.FILE_OR_RUN,
    ),
    "no record": (lambda run: (run / "record.json").unlink(), "history.csv", Remedy.FILE),
    "weights": (lambda run: (run / "weights.pt").write_bytes(b"x"), "weights.pt", Remedy.FILE),
    "note": (
        lambda run: (run / "reproduced.json").write_text("{}"),
        "reproduced.json",
        Remedy.FILE,
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_set_aside_and_nothing_is_lost(store, run, name):
    damage, place, remedy = DAMAGE[name]
    damage(run)
    before = contents(store.root)

    first = verify(store).findings[0]
    assert (first.trouble, first.path, first.remedy) == (Trouble.DAMAGE, run / place, remedy)

    # A trial run says the same, and changes nothing.
    would = repair(store, again=True, dry_run=True)
    assert contents(store.root) == before
    done = repair(store, again=True)
    assert done == would

    after = verify(store)
    assert after.findings == []
    assert len(after.set_aside) == len(done.set_aside)
    # Every byte is still there, under another name.
    assert sorted(contents(store.root).values()) == sorted([*before.values(), *_locks(store)])
    # A second repair changes nothing.
    again = contents(store.root)
    assert repair(store, again=True).set_aside == []
    assert contents(store.root) == again


def _locks(store):
    """Return what the locks hold that a repair has taken."""
    return [path.read_bytes() for path in store.root.glob("runs/*/lock")]


def test_a_record_that_can_be_used_stays_unless_its_run_is_to_be_trained_again(store, run):
    os.truncate(run / "predictions.npz", 50)
    done = repair(store)

    assert [path.name for path, _ in done.set_aside] == ["predictions.npz"]
    assert done.again == []
    assert (run / "record.json").exists()
    # The file is missing now, which only a new training mends.
    left = repair(store).left
    assert [(one.path.name, one.remedy) for one in left] == [("predictions.npz", Remedy.AGAIN)]

    done = repair(store, again=True)
    assert done.again == [run.name]
    runs, command = commands(store, done.again)["s"]
    assert runs == [f"ce, seed 0 [{run.name}]"]
    assert command == f"nlbench run s.yaml --out {store.root}"


def test_a_damaged_zip_member_of_weights_is_found(store, run):
    with zipfile.ZipFile(run / "weights.pt", "w") as archive:
        archive.writestr("data.pkl", bytes(1000))
    assert verify(store).findings == []

    content = bytearray((run / "weights.pt").read_bytes())
    content[500] ^= 1
    (run / "weights.pt").write_bytes(content)
    assert found(store, Trouble.DAMAGE)[0][0] == f"runs/{run.name}/weights.pt"


def test_a_damaged_checkpoint_of_a_run_that_goes_on_is_set_aside(store):
    folder = store.run_dir(key_of(spec_of("gce", 0)))
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"half")

    assert found(store, Trouble.DAMAGE) == [(f"runs/{folder.name}/checkpoint.pt", "it is cut off")]
    repair(store)
    assert (folder / "checkpoint.pt.corrupt-1").read_bytes() == b"half"
    assert verify(store).findings == []


def test_a_damaged_helper_network_and_a_damaged_plan_are_set_aside(store):
    (store.root / "fits" / f"{HELPER}.pt").write_bytes(b"half")
    edited(store.plan_path("s"), '"row": "ce"', '"row": "elr"')

    places = [place for place, _ in found(store, Trouble.DAMAGE)]
    assert places == ["suites/s.json", f"fits/{HELPER}.pt"]
    repair(store)
    assert verify(store).findings == []
    assert (store.root / "suites" / "s.json.corrupt-1").exists()
    assert (store.root / "fits" / f"{HELPER}.pt.corrupt-1").read_bytes() == b"half"


# ---- Disagreement --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("last", 0.875), ("last10", 0.5), ("best", 0.625), ("best_epoch", 1), ("val_last", 0.25)],
)
def test_a_metric_that_does_not_follow_from_the_epochs_is_found(store, run, key, value):
    rewritten(run, lambda values: values["metrics"].update({key: value}))

    ((place, reason),) = found(store, Trouble.DISAGREEMENT)
    assert place == f"runs/{run.name}/history.csv"
    assert reason.startswith(f"metrics.{key} of the record is {value}, and from the epochs")

    # The record is used until its run is set aside.
    assert repair(store).set_aside == []
    assert repair(store, again=True).again == [run.name]
    assert verify(store).findings == []


def test_files_that_disagree_with_the_record_are_found(store, run):
    history = run / "history.csv"
    whole = history.read_text()

    def reason(text):
        history.write_text(text)
        rewritten(run, lambda values: None)
        return found(store, Trouble.DISAGREEMENT)[0][1]

    assert reason(whole.splitlines()[0]) == "it has 0 epochs, and the protocol has 2"
    assert reason(whole.replace("\n1,", "\n2,")) == "its epochs are not numbered from 0 on"
    assert reason(whole.replace("0.5,0.25", "0.5")).startswith("it cannot be read as epoch")
    assert "lacks the test accuracy" in reason(whole.replace("test_accuracy", "test_x"))

    history.write_text(whole)
    np.savez_compressed(run / "predictions.npz", test=np.zeros(5, "int16"))
    rewritten(run, lambda values: None)
    ((place, words),) = found(store, Trouble.DISAGREEMENT)
    assert place == f"runs/{run.name}/predictions.npz"
    assert words == "test has the shape (5,), and the record counts 4 images"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"test_labels": np.zeros(3)}, "test_labels has the shape (3,), and the record counts 4"),
        ({"margin": np.zeros(7)}, "margin has the shape (7,)"),
        ({"own_score": np.zeros((6, 2))}, "own_score has the shape (6, 2)"),
        ({"val_index": np.zeros(5)}, "val_index has the shape (5,)"),
        ({"test_probs": np.zeros((4, 3))}, "counts 4 images and 2 classes"),
        ({"val_probs": np.zeros((3, 2))}, "counts 2 images and 2 classes"),
        ({"test_probs": np.zeros((4, 2)), "margin": np.zeros(6), "val_index": np.zeros(2)}, ""),
    ],
)
def test_arrays_of_another_shape_than_the_record_counts_are_found(store, run, arrays, words):
    np.savez_compressed(run / "predictions.npz", test=np.zeros(4, "int16"), **arrays)
    counts = {"num_test": 4, "num_train": 6, "num_val": 2}

    def change(values):
        values["noise"].update(counts)
        values["classes"] = {"num_classes": 2}

    rewritten(run, change)
    reasons = [reason for _, reason in found(store, Trouble.DISAGREEMENT)]
    assert len(reasons) == bool(words)
    assert all(words in reason for reason in reasons)


def test_a_plan_whose_keys_are_of_other_rows_is_found_although_its_checksum_fits(store):
    plan = store.plan("s")
    first, *_, last = plan["cells"]
    first["key"], last["key"] = last["key"], first["key"]
    store.plan_path("s").write_text(json.dumps(with_checksum(plan)))

    ((place, reason),) = found(store, Trouble.DISAGREEMENT)
    assert place == "suites/s.json"
    assert "its cell of row 'ce', 'Digits', seed 0 names the run" in reason


def test_text_keeps_every_bit_of_the_epoch_metrics(tmp_path):
    store, rng = Store(tmp_path), np.random.default_rng(0)
    history = [{"epoch": epoch, "test_accuracy": rng.random()} for epoch in range(30)]
    spec = spec_of("ce", 0)
    store.write(record_of(spec), history)
    assert consistency.read_history(store.run_dir(key_of(spec)) / "history.csv") == history


# ---- Leftovers -----------------------------------------------------------------------------------


def leave_everything(store, run, pid):
    """Make all that a killed process can leave, and return the number of files."""
    (run / "checkpoint.pt").write_bytes(b"state")
    os.utime(run / "checkpoint.pt", (1, 1))
    (run / "lock").write_text(f"{socket.gethostname()} {pid}\n")
    temporary_of(run / "checkpoint.pt", pid).write_bytes(b"half")
    temporary_of(run / ".new", pid).mkdir()
    fits = store.root / "fits"
    write_state(fits / f"{HELPER}.pt")
    (fits / f"{HELPER}.going.pt").write_bytes(b"state")
    (fits / f"{HELPER}.lock").write_text(f"{socket.gethostname()} {pid}\n")
    temporary_of(fits / f"{HELPER}.going.pt", pid).write_bytes(b"half")
    for name in ("runs", "suites", "fits"):
        temporary_of(store.root / name / "x", pid).write_bytes(b"half")
    # Earlier versions made these.
    (store.root / "runs" / ".probe").touch()
    os.utime(store.root / "runs" / ".probe", (1, 1))
    (store.root / "suites" / ".s.json.12-0123abcd.tmp").touch()
    os.utime(store.root / "suites" / ".s.json.12-0123abcd.tmp", (1, 1))
    return 12


@pytest.mark.parametrize("how", ["tidy", "repair"])
def test_leftovers_are_found_and_the_next_command_removes_them(store, run, how):
    count = leave_everything(store, run, dead_process())
    assert len(found(store, Trouble.LEFTOVER)) == count
    assert found(store, Trouble.DAMAGE) == []

    before = contents(store.root)
    if how == "tidy":
        tidy(store, store.run_keys())
    else:
        assert len(repair(store, dry_run=True).removed) == count
        assert contents(store.root) == before
        assert len(repair(store).removed) == count
        assert repair(store).removed == []
    report = verify(store)
    assert report.findings == report.unknown == []
    assert report.conditions == {Condition.DONE: 4}
    assert report.helpers == 1


def test_what_a_living_process_or_another_host_uses_is_left_alone(store, run):
    own = temporary_of(store.root / "suites" / "s.json", os.getpid())
    other = store.root / "suites" / ".s.json.12-ffffffff-01234567.tmp"
    for path in (own, other):
        path.touch()
    # A training that was begun after the record, with `--stale rerun`, goes on from this.
    write_state(run / "checkpoint.pt")
    later = (run / "record.json").stat().st_mtime + 10
    os.utime(run / "checkpoint.pt", (later, later))

    assert verify(store).findings == []
    tidy(store, store.run_keys())
    assert all(path.exists() for path in (own, other, run / "checkpoint.pt"))

    # The file of another host has not changed for hours.
    os.utime(other, (1, 1))
    tidy(store, store.run_keys())
    assert own.exists()
    assert not other.exists()


def test_the_checkpoint_of_a_run_that_failed_is_no_leftover(store):
    folder = write_run(store, "gce", 0, status="failed", metrics={}, error={"message": "x"})
    write_state(folder / "checkpoint.pt")
    os.utime(folder / "checkpoint.pt", (1, 1))
    assert verify(store).findings == []


def test_a_run_that_was_being_moved_is_a_leftover_and_then_at_its_place(store, run):
    # As a process leaves it that is killed between two moves.
    (run / ".new").mkdir()
    for name in ("record.json", "predictions.npz"):
        os.replace(run / name, run / ".new" / name)

    assert [place for place, _ in found(store, Trouble.LEFTOVER)] == [f"runs/{run.name}/.new"]
    assert found(store, Trouble.DAMAGE) == []
    repair(store)
    assert not (run / ".new").exists()
    assert verify(store).findings == []


def test_files_that_a_power_failure_left_beside_the_moved_record_find_their_place(store, run):
    (run / ".new").mkdir()
    os.replace(run / "predictions.npz", run / ".new" / "predictions.npz")
    repair(store)
    assert verify(store).findings == []
    assert (run / "predictions.npz").exists()


def test_a_run_that_a_process_trains_is_reported_as_running_and_not_touched(store, run):
    with store.lock(run.name):
        (run / "record.json").write_text("half")
        temporary_of(run / "checkpoint.pt", os.getpid()).touch()
        before = contents(store.root)
        report = verify(store)
        done = repair(store, again=True)

        assert report.findings == []
        assert report.conditions == {Condition.DONE: 3, Condition.RUNNING: 1}
        assert (done.set_aside, done.removed) == ([], [])
        assert contents(store.root) == before


def test_the_lock_of_another_host_counts_while_its_heartbeat_is_fresh(store, run):
    (run / "lock").write_text("another-host 12\n")
    assert verify(store).conditions[Condition.RUNNING] == 1
    os.utime(run / "lock", (1, 1))
    assert found(store, Trouble.LEFTOVER)[0][0] == f"runs/{run.name}/lock"


# ---- Names ---------------------------------------------------------------------------------------


def test_files_that_were_set_aside_and_those_of_others_are_named_and_no_fault(store, run):
    aside = [
        run / "record.json.corrupt-1",
        run / "record.json.replaced-1",
        store.root / "suites" / "s.json.corrupt-2",
        store.root / "fits" / f"{HELPER}.pt.corrupt-1",
    ]
    strange = [
        store.root / "table.md",
        store.root / "runs" / "notes",
        run / "plot.png",
        store.root / "fits" / "x",
    ]
    for path in (*aside, *strange, store.root / "suites" / "t.json.forgotten-1"):
        path.touch()

    report = verify(store)
    assert report.findings == []
    assert sorted(report.set_aside) == sorted(aside)
    assert sorted(report.unknown) == sorted(strange)


def test_no_temporary_name_is_taken_for_another(tmp_path):
    made = files.temporary_name(tmp_path / "record.json").name
    assert files.is_temporary(made)
    for name in (".git", ".x.tmp", "x.tmp", ".DS_Store", ".nfs000001", "record.json", ".new"):
        assert not files.is_temporary(name), name


# ---- Versions ------------------------------------------------------------------------------------


def test_a_record_and_a_plan_of_a_later_version_are_named_and_left_alone(store, run):
    rewritten(run, lambda values: values.update(schema=2))
    store.plan_path("s").write_text(json.dumps(with_checksum({**store.plan("s"), "version": 2})))
    before = contents(store.root)

    report = verify(store)
    assert [(one.path.name, one.remedy) for one in report.findings] == [
        ("record.json", Remedy.UPDATE),
        ("s.json", Remedy.UPDATE),
    ]
    assert "later version of nlbench (version 2, this version reads up to 1)" in (
        report.findings[1].reason
    )
    assert len(repair(store, again=True).left) == 2
    assert contents(store.root) == before | {f"runs/{run.name}/lock": b""}


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        verify(Store(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="holds no records"):
        verify(Store(tmp_path))


def test_records_that_were_read_ahead_are_the_same_and_damage_is_reported_once(
    store, run, monkeypatch
):
    monkeypatch.setattr(parallel, "_WORTHWHILE", 1)
    monkeypatch.setattr(parallel, "_CHUNK", 1)
    monkeypatch.setattr(parallel, "_can_fork", lambda: True)
    monkeypatch.setattr(parallel, "_cores", lambda: 4)
    edited(run / "record.json", '"last": 0.375', '"last": 0.875')
    keys = [*store.run_keys(), "f" * 16]
    one_by_one = {key: Store(store.root).check(key) for key in keys}

    warnings = []
    ahead = Store(store.root, warnings.append)
    ahead.read_ahead(keys)
    assert {key: ahead.check(key) for key in keys} == one_by_one
    assert len(warnings) == 1
