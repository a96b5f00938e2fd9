"""The runs of another store are taken into this one, and nothing is lost or written there."""

import io
import json
import os
import shutil
import stat
import zipfile

import numpy as np
import pytest
from made_up import EPOCHS, plan_of, record_of, rewrite, spec_of, write_run

import nlbench
from nlbench.errors import StoreError, SuiteError
from nlbench.plan.spec import key_of
from nlbench.results import merge as merging
from nlbench.results import reproduced, state_files
from nlbench.results.findings import Trouble
from nlbench.results.integrity import FILES, json_bytes, with_checksums
from nlbench.results.merge import Take
from nlbench.results.numbers import read_arrays
from nlbench.results.store import Store
from nlbench.results.verify import verify

OTHER_EPOCHS = [EPOCHS[0], {**EPOCHS[1], "loss": 1.25}]


@pytest.fixture
def ours(tmp_path):
    store = Store(tmp_path / "ours")
    store.require_writable()
    return store


@pytest.fixture
def theirs(tmp_path):
    store = Store(tmp_path / "theirs")
    store.require_writable()
    return store


def content(root):
    """Return what lies at each path of a store: the bytes of a file, and its time."""
    found = {}
    for path in root.rglob("*"):
        state = path.lstat()
        is_file = stat.S_ISREG(state.st_mode)
        found[path.relative_to(root)] = path.read_bytes() if is_file else None, state.st_mtime_ns
    return found


def merge(ours, theirs, **options):
    """Merge without changing a bit of the other store."""
    before = content(theirs.root)
    report = merging.merge(theirs.root, ours, **options)
    assert content(theirs.root) == before
    return report


def aged(store, key, seconds):
    """Give the record of a run this time."""
    os.utime(store.run_dir(key) / "record.json", (seconds, seconds))


# ---- Runs of one store alone ---------------------------------------------------------------------


def test_a_run_that_only_the_other_has_is_copied_whole(ours, theirs):
    key = write_run(theirs)
    folder = theirs.run_dir(key)
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "checkpoint.pt").write_bytes(b"checkpoint")
    aged(theirs, key, 1_000_000)
    report = merge(ours, theirs)

    assert (report.added, report.complete, report.lines) == ([key], True, [])
    for name in ("record.json", "history.csv", "predictions.npz", "weights.pt"):
        assert (ours.run_dir(key) / name).read_bytes() == (folder / name).read_bytes()
    assert not (ours.run_dir(key) / "checkpoint.pt").exists()
    assert (ours.run_dir(key) / "record.json").stat().st_mtime == 1_000_000
    assert ours.read(key) == theirs.read(key)
    assert ours.check(key).damage == []

    again = merge(ours, theirs)
    assert (again.added, again.same) == ([], [key])


def test_a_run_that_was_not_moved_to_its_place_yet_is_copied(ours, theirs):
    key = write_run(theirs)
    folder = theirs.run_dir(key)
    (folder / ".new").mkdir()
    for name in ("record.json", "history.csv", "predictions.npz"):
        (folder / name).rename(folder / ".new" / name)
    (folder / "history.csv").write_text("of the run before")
    merge(ours, theirs)

    assert ours.check(key).damage == []
    assert ours.read(key).status == "done"


def test_a_file_of_the_run_before_is_not_copied_with_the_one_that_replaces_it(ours, theirs):
    key = write_run(theirs)
    folder = theirs.run_dir(key)
    (folder / "predictions.npz").rename(folder / "kept")
    diverged = {"status": "diverged", "metrics": {}, "error": {"epoch": 1, "step": 3}}
    theirs.write(record_of(**diverged), list(EPOCHS))
    (folder / ".new").mkdir()
    for name in ("record.json", "history.csv"):
        (folder / name).rename(folder / ".new" / name)
    (folder / "kept").rename(folder / "predictions.npz")

    assert merge(ours, theirs).added == [key]
    assert ours.check(key).damage == []


def test_a_dry_run_writes_nothing(ours, theirs, tmp_path):
    write_run(theirs)
    theirs.write_plan(plan_of({("ce", 0): theirs.run_keys()[0]}))
    before = content(ours.root)
    report = merge(ours, theirs, dry_run=True)

    assert content(ours.root) == before
    assert (len(report.added), report.plans) == (1, ["s"])
    assert "1 would be added" in report.summary()[0]

    missing = Store(tmp_path / "missing")
    merge(missing, theirs, dry_run=True)
    assert not missing.root.exists()


def test_a_store_that_may_only_be_read_is_merged(ours, theirs):
    key = write_run(theirs)
    for path in [*theirs.root.rglob("*"), theirs.root]:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert merge(ours, theirs).added == [key]
    finally:
        for path in [theirs.root, *theirs.root.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o700)


def test_a_note_is_copied_with_the_record_that_it_is_about(ours, theirs):
    keys = [write_run(theirs, seed=seed) for seed in (0, 1)]
    for key in keys:
        note = reproduced.Note(
            key=key,
            record=theirs.check(key).checksum,
            files={},
            code="c",
            outcome="bit for bit",
            compared=reproduced.Compared(epochs=2, columns=[], arrays=[], metrics=[]),
            accuracies=None,
            environment={},
            date="",
        )
        reproduced.write_note(theirs.run_dir(key), note)
    # The record that it was about is not there any more.
    write_run(theirs, seed=1, timing={"train": 4.0})
    # Ours has the same record, and no note yet.
    shutil.copytree(theirs.run_dir(keys[0]), ours.run_dir(keys[0]))
    (ours.run_dir(keys[0]) / "reproduced.json").unlink()
    merge(ours, theirs)

    assert ours.reproduced_under(keys[0], "c")
    assert not (ours.run_dir(keys[1]) / "reproduced.json").exists()


def test_a_small_merge_keeps_the_predicted_classes_and_what_tables_need(ours, theirs):
    arrays = {
        **{"test": [1, 2, 0, 1], "train": [1, 0], "T": [[0.9, 0.1], [0.2, 0.8]]},
        **{
            "train_index": [0, 1],
            "labels": [1, 0],
            "margin": [0.5, 2.0],
            "test_labels": [1, 1, 0, 1],
        },
        **{"train_probs": [[0.5, 0.5], [0.1, 0.9]], "margin": [0.5, 2.0]},
    }
    key = write_run(theirs, arrays=arrays)
    bare = write_run(theirs, seed=1, arrays={"test": [1, 2, 0, 1]})
    (theirs.run_dir(key) / "weights.pt").write_bytes(b"weights")
    (theirs.root / "fits").mkdir(exist_ok=True)
    aged(theirs, key, 1_000_000)
    report = merge(ours, theirs, small=True)

    assert sorted(report.added) == sorted([key, bare])
    kept = read_arrays(ours.run_dir(key) / "predictions.npz")
    assert sorted(kept) == ["T", "test", "train"]
    for name, array in kept.items():
        assert array.tolist() == arrays[name]
    assert not (ours.run_dir(key) / "weights.pt").exists()
    assert (ours.run_dir(key) / "record.json").stat().st_mtime == 1_000_000
    # Of the record nothing has changed but its checksums.
    assert ours.read(key) == theirs.read(key)
    assert ours.check(key).damage == []
    # What has nothing to leave out is the same file.
    for name in ("record.json", "predictions.npz"):
        assert (ours.run_dir(bare) / name).read_bytes() == (
            theirs.run_dir(bare) / name
        ).read_bytes()

    # The numbers are those of the whole run, in both directions.
    assert sorted(merge(ours, theirs, small=True).same) == sorted([key, bare])
    assert merge(theirs, ours).complete


@pytest.mark.parametrize("checked", [True, False], ids=["with checksums", "without"])
def test_a_small_merge_goes_on_after_predictions_that_cannot_be_read(ours, theirs, checked):
    good = write_run(theirs, seed=1)
    key = write_run(theirs)
    predictions = theirs.run_dir(key) / "predictions.npz"
    predictions.write_bytes(predictions.read_bytes()[:100])
    path = theirs.run_dir(key) / "record.json"
    values = json.loads(path.read_text())
    del values["checksums"]
    if checked:
        values = with_checksums(values, {name: path.with_name(name) for name in FILES})
    path.write_bytes(json_bytes(values))
    report = merge(ours, theirs, small=True)

    assert good in report.added
    if checked:
        assert report.left_out == [key]
        assert "it cannot be made smaller: " in report.lines[0]
        assert ours.run_keys() == [good]
    else:
        # Nothing vouches for these files, and a merge without `small` takes them as they are.
        assert key in report.added


def test_a_small_merge_compresses_predictions_further(ours, theirs):
    classes = np.random.default_rng(0).integers(0, 10, 50_000).astype(np.int16)
    key = write_run(theirs, arrays={"train": classes, "margin": [0.5]})
    merge(ours, theirs, small=True)

    small = ours.run_dir(key) / "predictions.npz"
    whole = io.BytesIO()
    np.savez_compressed(whole, train=classes)
    assert small.stat().st_size < 0.85 * len(whole.getvalue())
    with np.load(small) as found:
        assert (found["train"] == classes).all()
        assert found["train"].dtype == np.int16


# ---- Runs of both --------------------------------------------------------------------------------


def test_the_same_numbers_are_the_same_whatever_the_clock_says(ours, theirs):
    key = write_run(ours)
    slower = [{**epoch, "seconds": 9.0} for epoch in EPOCHS]
    write_run(theirs, history=slower, timing={"train": 18.0}, environment={"jobs": 4})
    before = content(ours.root)
    report = merge(ours, theirs)

    assert (report.same, report.complete, report.lines) == ([key], True, [])
    kept = content(ours.root)
    assert {path: kept[path] for path in before if kept[path][0]} == {
        path: value for path, value in before.items() if value[0]
    }


def test_other_numbers_are_named_and_ours_stays(ours, theirs):
    key = write_run(ours)
    write_run(theirs, history=OTHER_EPOCHS, environment={"torch": "2.2"}, code="d")
    aged(ours, key, 1_000_000)
    aged(theirs, key, 2_000_000)
    record = (ours.run_dir(key) / "record.json").read_bytes()
    report = merge(ours, theirs)

    assert (report.kept, report.complete) == ([key], False)
    (line,) = report.lines
    assert line.startswith(f"{key} (ce · digits · seed 0): epoch 1, loss: 1.5 here, 1.25 there")
    assert "torch 2.1 here, 2.2 there" in line
    assert "different versions of the code" in line
    assert "by the files' times theirs is newer (1970-01-" in line
    assert line.endswith("; ours stays")
    assert (ours.run_dir(key) / "record.json").read_bytes() == record


def test_other_numbers_of_the_same_code_and_hardware_are_suspicious(ours, theirs):
    write_run(ours)
    write_run(theirs, metrics={"last": 0.75, "best": 0.99})
    (line,) = merge(ours, theirs).lines

    assert "metrics.best: 0.75 here, 0.99 there" in line
    assert "`nlbench reproduce` can tell which of them is right" in line


@pytest.mark.parametrize(
    ("take", "times", "taken"),
    [
        (Take.THEIRS, (2, 1), True),
        (Take.NEWER, (1, 2), True),
        (Take.NEWER, (2, 1), False),
        (Take.NEWER, (1, 1), False),
        (Take.OURS, (1, 2), False),
    ],
)
def test_the_run_that_is_wanted_is_taken_and_the_other_one_kept(ours, theirs, take, times, taken):
    key = write_run(ours)
    write_run(theirs, history=OTHER_EPOCHS)
    folder = ours.run_dir(key)
    (folder / "weights.pt").write_bytes(b"ours")
    aged(ours, key, 1_000_000 * times[0])
    aged(theirs, key, 1_000_000 * times[1])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    report = merge(ours, theirs, take=take)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}

    if not taken:
        assert report.kept == [key]
        assert {name: after[name] for name in before} == before
        return
    assert (report.replaced, report.complete) == ([key], True)
    for name, value in before.items():
        assert after[f"{name}.replaced-1"] == value
    assert after["record.json"] == (theirs.run_dir(key) / "record.json").read_bytes()
    # Weights of another training must not lie beside the record.
    assert "weights.pt" not in after
    assert ours.check(key).damage == []
    assert "ours is kept as record.json.replaced-1" in report.lines[0]
    found = verify(ours)
    assert found.unknown == []
    assert len(found.set_aside) == 4

    # Nothing is replaced twice under one name.
    write_run(theirs, history=EPOCHS[:1])
    merge(ours, theirs, take=Take.THEIRS)
    assert (folder / "record.json.replaced-2").exists()
    assert (folder / "record.json.replaced-1").read_bytes() == before["record.json"]


@pytest.mark.parametrize("take", list(Take))
def test_a_run_that_failed_never_counts_before_a_result(ours, theirs, take):
    failed = {"status": "failed", "metrics": {}, "error": {"message": "ValueError: no"}}
    key = write_run(ours, **failed, history=[])
    other = write_run(ours, seed=1)
    write_run(theirs)
    write_run(theirs, seed=1, **failed, history=[])
    report = merge(ours, theirs, take=take)

    assert (report.added, report.same) == ([key], [other])
    assert ours.read(key).status == ours.read(other).status == "done"
    assert json.loads((ours.run_dir(key) / "record.json.replaced-1").read_text())["error"]


def test_a_damaged_run_of_ours_is_replaced_and_kept(ours, theirs):
    key = write_run(ours)
    shutil.copytree(ours.root, theirs.root, dirs_exist_ok=True)
    record = ours.run_dir(key) / "record.json"
    record.write_text(record.read_text().replace("0.75", "0.99"))
    report = merge(ours, theirs)

    assert report.added == [key]
    assert ours.read(key).metrics["last"] == 0.75
    assert "0.99" in (ours.run_dir(key) / "record.json.corrupt-1").read_text()


def test_a_missing_file_beside_our_record_comes_from_the_same_record(ours, theirs):
    key = write_run(ours)
    shutil.copytree(ours.root, theirs.root, dirs_exist_ok=True)
    (ours.run_dir(key) / "predictions.npz").unlink()
    report = merge(ours, theirs)

    assert report.added == [key]
    assert ours.check(key).damage == []


def test_a_run_that_is_trained_here_now_is_left_out(ours, theirs):
    key = write_run(theirs)
    with Store(ours.root).lock(key) as mine:
        assert mine
        report = merge(ours, theirs)

    assert (report.left_out, report.complete) == ([key], False)
    assert "holds the run here; merge again" in report.lines[0]


# ---- Damaged and hostile stores ------------------------------------------------------------------


def edited(folder, tmp_path):
    record = folder / "record.json"
    record.write_text(record.read_text().replace("0.75", "0.99"))


def cut(folder, tmp_path):
    path = folder / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-1])


def without_history(folder, tmp_path):
    (folder / "history.csv").unlink()


def linked_file(folder, tmp_path):
    """Have a file of the run lead to one of this user's, with the content that is expected."""
    (tmp_path / "secret").write_bytes((folder / "history.csv").read_bytes())
    (folder / "history.csv").unlink()
    (folder / "history.csv").symlink_to(tmp_path / "secret")


def linked_weights(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "weights.pt").symlink_to(tmp_path / "secret")


def linked_folder(folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")


def fifo(folder, tmp_path):
    (folder / "record.json").unlink()
    os.mkfifo(folder / "record.json")


def fifo_beside(folder, tmp_path):
    (folder / "predictions.npz").unlink()
    os.mkfifo(folder / "predictions.npz")


def other_name(folder, tmp_path):
    folder.rename(folder.with_name("0123456789abcdef"))


def no_key(folder, tmp_path):
    folder.rename(folder.with_name("\x1b[31mred\n"))


def later_version(folder, tmp_path):
    values = json.loads((folder / "record.json").read_text())
    del values["checksums"]
    (folder / "record.json").write_text(json.dumps({**values, "schema": 99}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edited, "record.json: it was changed after it was written"),
        (cut, "predictions.npz: it was changed after it was written"),
        (without_history, "history.csv: it is missing"),
        (linked_file, "history.csv is a link"),
        (linked_weights, "weights.pt is a link"),
        (linked_folder, "is a link"),
        (fifo, "record.json: it cannot be read (is a FIFO"),
        (fifo_beside, "predictions.npz: it cannot be read (is a FIFO"),
        (other_name, "it is the record of another run"),
        (no_key, "its name is no key of a run"),
        (later_version, "later version of nlbench"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(ours, theirs, tmp_path, damage, reason):
    good = write_run(theirs, seed=1)
    bad = write_run(theirs)
    damage(theirs.run_dir(bad), tmp_path)
    report = merge(ours, theirs)

    assert report.added == [good]
    assert len(report.left_out) == 1
    (line,) = report.lines
    assert "left out: " in line
    assert reason in line
    assert line.isprintable()
    assert [path.name for path in (ours.root / "runs").iterdir() if path.is_dir()] == [good]
    assert "secret" not in "".join(path.name for path in ours.root.rglob("*"))


def test_weights_that_are_a_fifo_do_not_block(ours, theirs):
    key = write_run(theirs)
    os.mkfifo(theirs.run_dir(key) / "weights.pt")
    assert merge(ours, theirs).added == [key]
    assert not (ours.run_dir(key) / "weights.pt").exists()


def test_a_run_that_changes_while_it_is_copied_is_left_out(ours, theirs, monkeypatch):
    key = write_run(theirs)
    copy = merging._copy

    def change_first(source, target):
        copy(source, target)
        if target.name == "history.csv":
            target.write_text("epoch\n0\n")

    monkeypatch.setattr(merging, "_copy", change_first)
    report = merge(ours, theirs)
    assert "has changed while it was copied" in report.lines[0]
    assert not list(ours.run_dir(key).glob("record*"))
    assert not list(ours.run_dir(key).glob(".*"))


def test_ours_stays_whole_where_theirs_cannot_be_copied(ours, theirs, monkeypatch):
    key = write_run(ours)
    write_run(theirs, history=OTHER_EPOCHS)
    (ours.run_dir(key) / "weights.pt").write_bytes(b"ours")
    before = content(ours.run_dir(key))

    def fail(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(merging, "_copy", fail)
    with pytest.raises(OSError, match="No space left"):
        merging.merge(theirs.root, ours, take=Take.THEIRS)
    after = content(ours.run_dir(key))
    assert {path: after[path] for path in before} == before
    assert set(map(str, after)) - set(map(str, before)) <= {"lock"}


def test_what_is_no_store_is_refused(ours, tmp_path):
    with pytest.raises(StoreError, match="there is no such folder"):
        merging.merge(tmp_path / "nothing", ours)
    with pytest.raises(SuiteError, match="is the store itself"):
        merging.merge(ours.root, ours)
    (tmp_path / "link").symlink_to(ours.root)
    with pytest.raises(SuiteError, match="is the store itself"):
        merging.merge(tmp_path / "link", ours)


# ---- Plans and helper networks -------------------------------------------------------------------


def keys_in(store, rows=("ce",), seeds=(0,)):
    """Write these runs, and return the key of each row and seed."""
    return {(row, seed): write_run(store, row, seed) for row in rows for seed in seeds}


def test_plans_of_one_suite_are_united(ours, theirs):
    ours.write_plan(plan_of(keys_in(ours, seeds=(1, 2)), seeds=(1, 2), notes=["a"]))
    theirs.write_plan(plan_of(keys_in(theirs, seeds=(0, 1)), seeds=(0, 1), notes=["a", "b"]))
    report = merge(ours, theirs)

    plan = ours.plan("s")
    assert (report.plans, report.complete) == (["s"], True)
    assert plan["seeds"] == [0, 1, 2]
    assert [cell["seed"] for cell in plan["cells"]] == [0, 1, 2]
    assert plan["notes"] == ["a", "b"]
    assert "3 seeds" in nlbench.table(ours.root)
    assert merge(ours, theirs).plans == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"params": {"lam": 7.0}}, "params.lam"),
        ({"protocol": {"name": "digits", "model": "digits_cnn", "lr": 0.1}}, "protocol.lr"),
        ({"fingerprint": "of other images"}, "fingerprint"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_runs_with_other_settings_are_no_further_seeds_of_a_row(
    ours, theirs, changed, name, dry_run
):
    # As where two machines train seeds of one tuned suite, and their tries choose other values.
    ours.write_plan(plan_of(keys_in(ours, ("ce", "elr"), (0, 1)), rows=("ce", "elr"), seeds=(0, 1)))
    before = ours.plan("s")
    keys = keys_in(theirs, seeds=(2, 3))
    for seed in (2, 3):
        spec = {**spec_of("elr", seed), **changed}
        keys["elr", seed] = write_run(theirs, "elr", seed, spec=spec, key=key_of(spec))
    theirs.write_plan(plan_of(keys, rows=("ce", "elr"), seeds=(2, 3)))
    report = merge(ours, theirs, dry_run=dry_run)

    assert (report.plans_kept, report.complete) == (["s"], False)
    assert f"its runs of row 'elr', 'Digits', have another {name}; ours stays" in report.lines[0]
    assert ours.plan("s") == before


def test_plans_that_only_the_other_has_are_copied(ours, theirs):
    theirs.write_plan(plan_of(keys_in(theirs)))
    theirs.write_plan(plan_of(keys_in(theirs), name="s+epochs=2#tries"))
    assert merge(ours, theirs).plans == ["s", "s+epochs=2#tries"]

    for name in theirs.plan_names():
        assert ours.plan_path(name).read_bytes() == theirs.plan_path(name).read_bytes()


@pytest.mark.parametrize(
    ("theirs_has", "why"),
    [
        ({"rows": ("ce", "gce")}, "only one has the rows gce"),
        ({"conditions": ["Others"]}, "its conditions differ"),
        ({"protocol": "cifar"}, "another protocol"),
        ({"keys": {("ce", 0): "0123456789abcdef"}}, "so parameters or data differ"),
    ],
)
def test_another_suite_of_the_same_name_is_named(ours, theirs, theirs_has, why):
    ours.write_plan(plan_of(keys_in(ours)))
    before = ours.plan_path("s").read_bytes()
    keys = keys_in(theirs, ("ce", "gce"))
    theirs.write_plan(plan_of(**{"keys": keys, **theirs_has}))
    report = merge(ours, theirs)

    assert (report.plans_kept, report.complete) == (["s"], False)
    assert why in report.lines[0]
    assert report.lines[0].endswith("; ours stays, and all runs are in the store")
    assert ours.plan_path("s").read_bytes() == before
    # The runs are there, whatever the plan says.
    assert set(keys.values()) <= set(ours.run_keys())

    report = merge(ours, theirs, take=Take.THEIRS)
    assert report.plans == ["s"]
    assert ours.plan("s") == theirs.plan("s")
    assert ours.plan_path("s").with_name("s.json.replaced-1").read_bytes() == before


def test_plans_that_cannot_be_used_are_named(ours, theirs, tmp_path):
    plan = plan_of(keys_in(theirs))
    theirs.write_plan(plan)
    folder = theirs.root / "suites"
    text = (folder / "s.json").read_text()
    (folder / "damaged.json").write_text(text.replace('"seeds"', '"seed"'))
    theirs.write_plan({**plan, "suite": "linked"})
    (folder / "linked.json").rename(tmp_path / "elsewhere")
    (folder / "linked.json").symlink_to(tmp_path / "elsewhere")
    (folder / "a\x1b[31m.json").write_text(text)
    report = merge(ours, theirs)

    assert report.plans == ["s"]
    assert len(report.left_out) == 3
    assert all("left out" in line and line.isprintable() for line in report.lines)
    assert ours.plan_names() == ["s"]


def test_our_damaged_plan_is_replaced(ours, theirs):
    ours.write_plan(plan_of(keys_in(ours)))
    theirs.write_plan(plan_of(keys_in(theirs)))
    ours.plan_path("s").write_text("{")
    assert merge(ours, theirs).plans == ["s"]

    assert ours.plan("s") == theirs.plan("s")
    assert ours.plan_path("s").with_name("s.json.corrupt-1").read_text() == "{"


def write_fit(path, content):
    """Write a file with the checksum of a helper network."""

    def save(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data", content)

    with path.open("xb") as file:
        state_files.write_with_checksum(file, save)


def test_helper_networks_are_copied_where_ours_has_none(ours, theirs, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for name in ("0" * 16, "1" * 16, "not-a-key"):
        write_fit(theirs.root / "fits" / f"{name}.pt", b"theirs")
    (theirs.root / "fits" / f"{'4' * 16}.pt").write_text("damaged")
    (theirs.root / "fits" / f"{'2' * 16}.pt").symlink_to(tmp_path / "secret")
    write_fit(theirs.root / "fits" / f"{'3' * 16}.going.pt", b"theirs")
    write_fit(ours.root / "fits" / f"{'1' * 16}.pt", b"ours")
    report = merge(ours, theirs)

    assert report.fits == 1
    found = {path.name[0]: path.read_bytes() for path in (ours.root / "fits").iterdir()}
    assert sorted(found) == ["0", "1"]
    assert b"theirs" in found["0"]
    assert b"ours" in found["1"]


def test_a_table_of_merged_stores_is_that_of_one_store(ours, theirs, tmp_path):
    whole = Store(tmp_path / "whole")
    whole.require_writable()
    for store, seeds in ((whole, (0, 1, 2)), (ours, (0, 2)), (theirs, (1,))):
        keys = {}
        for row in ("ce", "gce"):
            for seed in seeds:
                metrics = {"last": 0.1 * seed + 0.3, "best": 0.75}
                keys[row, seed] = write_run(store, row, seed, metrics=metrics)
        store.write_plan(plan_of(keys, rows=("ce", "gce"), seeds=seeds))
    report = nlbench.merge(theirs.root, ours.root)

    assert report.complete
    # The made-up epochs and accuracies disagree in both stores.
    assert {found.trouble for found in verify(ours).findings} == {Trouble.DISAGREEMENT}
    assert verify(ours).unknown == []
    assert nlbench.table(ours.root) == nlbench.table(whole.root)
    assert ours.plan("s") == whole.plan("s")


def test_the_python_interface_checks_its_arguments(ours, theirs):
    with pytest.raises(ValueError, match='take must be "ours" or "newer" or "theirs"'):
        nlbench.merge(theirs.root, ours.root, take="both")
    with pytest.raises(TypeError, match="other must be the path of a folder"):
        nlbench.merge(None, ours.root)


def test_a_run_of_another_version_that_measured_more_has_the_same_numbers(ours, theirs):
    key = write_run(ours)
    write_run(theirs)
    rewrite(theirs, key, metrics={"last": 0.75, "best": 0.75, "last10": 0.6})
    assert merge(ours, theirs).same == [key]
