"""What is brought to the disk, and in which order. After a power failure no run is half there."""

import os
import re
from pathlib import Path

import pytest
from made_stores import history_of, made_store, plan_of, predictions_of, record_of, spec_of

from nlbench import files
from nlbench.plan.spec import key_of
from nlbench.results.store import Store

# The order of calls is what counts here, and what `fsync` does is up to the system.
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Return a list of the calls that change names or wait for the disk, with their paths."""
    found = []

    def short(path):
        text = os.path.relpath(path, tmp_path)
        # A temporary name has a random end.
        return re.sub(r"\.([^/]+)\.\d+-[0-9a-f]{8}-[0-9a-f]{8}\.tmp", r"<\1>", text)

    def noting(name, path_of):
        real = getattr(os, name)

        def call(*args, **options):
            result = real(*args, **options)
            found.append(f"{name} {path_of(*args)}")
            return result

        monkeypatch.setattr(os, name, call)

    noting("fsync", lambda handle: short(os.readlink(f"/proc/self/fd/{handle}")))
    noting("mkdir", lambda path, *mode: short(path))
    for name in ("replace", "rename"):
        noting(name, lambda path, to: f"{short(path)} {short(to)}")
    return found


def test_the_files_of_a_run_are_on_the_disk_before_the_record_says_that_they_are(tmp_path, calls):
    store, spec = Store(tmp_path), spec_of("ce", 0)
    store.require_writable()
    calls.clear()
    store.write(record_of(spec), history_of(spec), predictions_of(spec))

    key = key_of(spec)
    run, staged = f"runs/{key}", f"runs/{key}/<.new>"
    assert calls == [
        # The folder, with its name.
        f"mkdir {run}",
        "fsync runs",
        # The whole run under another name, each file and their names.
        f"mkdir {staged}",
        f"fsync {staged}/history.csv",
        f"fsync {staged}/predictions.npz",
        f"fsync {staged}/record.json",
        f"fsync {staged}",
        # From here on it is the run.
        f"replace {staged} {run}/.new",
        f"fsync {run}",
        f"replace {run}/.new/history.csv {run}/history.csv",
        f"replace {run}/.new/predictions.npz {run}/predictions.npz",
        f"fsync {run}",
        # The record comes last.
        f"replace {run}/.new/record.json {run}/record.json",
        f"fsync {run}",
    ]


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_another(tmp_path, calls):
    files.write_atomic(tmp_path / "a" / "b" / "x", lambda file: file.write(b"x"))
    assert calls == [
        "mkdir a",
        "fsync .",
        "mkdir a/b",
        "fsync a",
        "fsync a/b/<x>",
        "replace a/b/<x> a/b/x",
        "fsync a/b",
    ]


def test_a_folder_is_on_the_disk_before_it_gets_its_name(tmp_path, calls):
    with files.new_folder(tmp_path / "entry") as folder:
        (folder / "x").touch()
    assert calls == ["mkdir <entry>", "fsync <entry>", "rename <entry> entry", "fsync ."]


def test_plans_and_what_is_set_aside_are_on_the_disk(tmp_path, calls):
    store = made_store(tmp_path)
    calls.clear()
    store.write_plan(plan_of("t", ("ce",), (0,)))
    path = store.plan_path("t")
    store.set_aside(path, "a reason")
    assert calls == [
        "fsync suites/<t.json>",
        "replace suites/<t.json> suites/t.json",
        "fsync suites",
        "replace suites/t.json suites/t.json.corrupt-1",
        "fsync suites",
    ]


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    store = made_store(tmp_path / "a")
    assert len(store.run_keys()) == 4
