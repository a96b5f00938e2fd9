"""The note that a run was reproduced: what it is about, and what it changes in a table."""

import json
import shutil

import pytest
from made_up import plan_of, write_run

from nlbench import code_hash, registry
from nlbench.executors import base
from nlbench.plan.protocol import resolve
from nlbench.plan.spec import Condition, RunSpec
from nlbench.results import reproduced
from nlbench.results.cells import Results
from nlbench.results.store import Store
from nlbench.results.verify import verify

METHODS = registry.method_files()
TODAY = code_hash.code_hash(METHODS["ce"].path, "digits_cnn", "digits")


@pytest.fixture
def store(tmp_path):
    """Return a store with one run that older code made, and what it warns of."""
    warnings = []
    store = Store(tmp_path / "out", warnings.append)
    store.warnings = warnings
    store.key = write_run(store)
    store.write_plan(plan_of({("ce", 0): store.key}))
    return store


def note(store, **changes):
    """Write a note of the run, and return its path."""
    folder = store.run_dir(store.key)
    values = {
        "key": store.key,
        "record": store.check(store.key).checksum,
        "files": reproduced.checksums_of_files(folder),
        "code": TODAY,
        "outcome": "bit for bit",
        "compared": reproduced.Compared(epochs=2, columns=[], arrays=[], metrics=[]),
        "accuracies": None,
        "environment": {},
        "date": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    reproduced.write_note(folder, reproduced.Note(**values))
    return folder / reproduced.NOTE


def marks(store):
    return (
        Results(store.plan("s"), Store(store.root, store.warn), METHODS).cell("ce", 0, "last").marks
    )


# ---- What a note changes -------------------------------------------------------------------------


def test_a_run_that_todays_code_has_reproduced_has_no_mark(store):
    assert marks(store) == "*"
    note(store)
    assert marks(store) == ""
    assert store.warnings == []


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "0123456789abcdef"},
        {"outcome": "within the tolerance"},
        {"outcome": "something else"},
        {"record": "sha256:0"},
    ],
)
def test_other_notes_change_nothing(store, changes):
    note(store, **changes)
    assert marks(store) == "*"
    assert store.warnings == []


def test_a_run_that_was_reproduced_is_not_trained_again(store, tmp_path):
    protocol = resolve("digits", "digits")
    spec = RunSpec("ce", "ce", {}, Condition("digits", "clean", None), "f", protocol, 0)
    write_run(store, key=spec.key, spec=spec.identity())
    store.key = spec.key

    assert base.state([spec], store, METHODS, "rerun").todo == [spec]
    note(store)
    state = base.state([spec], store, METHODS, "rerun")
    assert (state.todo, state.stale, state.done) == ([], set(), {spec.key})


def test_a_note_is_void_after_the_run_was_trained_again(store):
    note(store)
    write_run(store, timing={"train": 4.0})

    assert store.note(store.key) is None
    assert marks(store) == "*"
    # It is no damage: whoever reproduces the run writes another one.
    assert store.warnings == []


def test_a_note_of_a_record_without_checksums_is_about_its_files(store):
    folder = store.run_dir(store.key)
    record = folder / "record.json"
    values = json.loads(record.read_text())
    del values["checksums"]
    record.write_text(json.dumps(values))
    note(store)
    assert marks(store) == ""

    history = folder / "history.csv"
    history.write_text(history.read_text().replace("2.5", "2.25"))
    assert marks(store) == "*"


# ---- Notes that cannot be used -------------------------------------------------------------------


def edited(path):
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 3'))


def of_another_run(path):
    values = json.loads(path.read_text())
    values["key"] = "0123456789abcdef"
    del values["checksum"]
    path.write_text(json.dumps({**values, "checksum": reproduced.checksum_of(values)}))


def of_a_later_version(path):
    values = json.loads(path.read_text())
    del values["checksum"]
    values["schema"] = 9
    path.write_text(json.dumps({**values, "checksum": reproduced.checksum_of(values)}))


def without_a_code(path):
    values = json.loads(path.read_text())
    del values["checksum"], values["code"]
    path.write_text(json.dumps({**values, "checksum": reproduced.checksum_of(values)}))


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edited, "it was changed after it was written"),
        (of_another_run, "it is the note of another run, 0123456789abcdef"),
        (of_a_later_version, "a later version of nlbench wrote it (schema 9)"),
        (without_a_code, "it has no code"),
        (a_folder, "it cannot be read"),
        (lambda path: path.write_text(""), "Expecting value"),
        (lambda path: path.write_bytes(b"\xff"), "no UTF-8"),
        (lambda path: path.write_text("[" * 100_000), "nested"),
        (lambda path: path.write_text("[]"), "it is no JSON object"),
    ],
)
def test_a_note_that_cannot_be_used_is_named_and_ignored(store, damage, reason):
    path = note(store)
    damage(path)

    assert marks(store) == "*"
    (warning,) = store.warnings
    assert warning.startswith(f"{path}: ")
    assert reason in warning
    assert warning.endswith("; it is ignored")
    (finding,) = [found for found in verify(store).findings if found.path == path]
    assert reason in finding.reason


def test_a_note_that_was_copied_to_another_run_does_not_count(store):
    path = note(store)
    other = write_run(store, seed=1)
    shutil.copy(path, store.run_dir(other))

    assert store.note(other) is None
    assert "the note of another run" in store.warnings[0]
