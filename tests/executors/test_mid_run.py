"""What happens to the store and to the data while runs go on: named, and the same goes on after."""

import errno
import os
import shutil
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from layouts import Folder
from sweeps import listener, outcome
from sweeps import sweep as sweep_in

from nlbench import api
from nlbench.data.base import fingerprint
from nlbench.data.changes import DataChanged
from nlbench.data.datasets import digits
from nlbench.errors import StoreError
from nlbench.files import NotWritten
from nlbench.results import table
from nlbench.training import run_data

ROWS = {"ce": {}, "gce": {}}


def sweep(out, methods=ROWS, **more):
    """Return a prepared sweep of two rows on 100 noisy digits."""
    return sweep_in(out, methods, **{"subset": 100, **more})


def table_of(sw):
    return table.render(sw.plan.as_json(), sw.store, methods=sw.methods)


def at_epoch(number, act, row="ce"):
    """Return a listener that acts once, at the end of an epoch of a row."""
    done = []

    def on_epoch(spec, epoch, epochs, metrics):
        if spec.row == row and epoch == number and not done:
            done.append(True)
            act()

    return listener(on_epoch=on_epoch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a sweep whose runs nothing has disturbed. Tests only read it."""
    sw = sweep(tmp_path_factory.mktemp("whole"))
    sw.run()
    return sw


# ---- The folder of the store ---------------------------------------------------------------------


def replaced(out):
    shutil.copytree(out, out.with_name("copy"))
    out.rename(out.with_name("away"))
    out.with_name("copy").rename(out)


def put_back(out):
    if out.with_name("away").exists():
        shutil.rmtree(out, ignore_errors=True)
        out.with_name("away").rename(out)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (shutil.rmtree, "was removed or renamed"),
        (lambda out: out.rename(out.with_name("away")), "was removed or renamed"),
        (replaced, "was replaced by another folder"),
        (lambda out: [out.rename(out.with_name("away")), out.touch()], "was replaced by another"),
    ],
    ids=["removed", "renamed", "replaced", "replaced by a file"],
)
def test_a_folder_that_goes_away_in_mid_run_ends_the_sweep(tmp_path, undisturbed, act, words):
    out = tmp_path / "out"
    sw = sweep(out)
    gone = at_epoch(0, lambda: act(out), row="gce")
    with pytest.raises(StoreError, match=rf"out: {words} .* the same command goes on"):
        sw.run(gone)

    # Nothing was made in the place of the folder.
    assert not (out / "runs" / sw.specs[1].key / "record.json").exists()
    if out.is_file():
        out.unlink()
    put_back(out)
    again = sweep(out)
    kept = 0 if words == "was removed or renamed" and act is shutil.rmtree else 1
    assert len(again.state.done) == kept
    again.run()
    assert table_of(again) == table_of(undisturbed)
    assert outcome(again) == outcome(undisturbed)


def test_a_store_that_becomes_read_only_in_mid_run_ends_the_sweep(
    tmp_path, undisturbed, monkeypatch
):
    sw = sweep(tmp_path / "out")

    def refuse(path, *more, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def remount():
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
        monkeypatch.setattr("os.replace", refuse)

    with pytest.raises(NotWritten, match=r"Read-only file system\).* Make it writable; then the"):
        sw.run(at_epoch(0, remount), checkpoint_seconds=0)
    monkeypatch.undo()
    again = sweep(tmp_path / "out")
    again.run()
    assert outcome(again) == outcome(undisturbed)


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_store_without_permission_in_mid_run_ends_the_sweep(tmp_path, undisturbed):
    out = tmp_path / "out"
    sw = sweep(out)
    run = sw.store.run_dir(sw.specs[0].key)
    with pytest.raises(NotWritten, match=r"Permission denied.* this user may not write there"):
        sw.run(at_epoch(0, lambda: run.chmod(0o500)), checkpoint_seconds=0)
    run.chmod(0o700)
    again = sweep(out)
    again.run()
    assert outcome(again) == outcome(undisturbed)


# ---- The data ------------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """Let digits be mapped from files, as decoded datasets are. Returns their folder."""
    folder = tmp_path / "cache"
    folder.mkdir()
    made = digits.load(None, 0)
    for name in ("train_images", "test_images"):
        np.save(folder / f"{name}.npy", getattr(made, name))

    def load(places, seed):
        parts = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("train_images", "test_images")
        }
        return replace(made, **parts, fingerprint=fingerprint(*parts.values()))

    monkeypatch.setattr(digits, "load", load)
    return folder


def change(path):
    """Change the last value of an array on disk."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\x3f\x3f")


@pytest.mark.parametrize("seconds", [0, 3600])
def test_data_that_changes_under_a_run_fails_it_and_is_named(tmp_path, mapped, seconds):
    whole = sweep(tmp_path / "whole")
    whole.run()
    path = mapped / "test_images.npy"
    kept, stat = path.read_bytes(), path.stat()

    sw = sweep(tmp_path / "out")
    sw.run(at_epoch(0, lambda: change(path)), checkpoint_seconds=seconds)
    first, second = sw.failures()
    assert f"{path}: " in first.error_message
    assert "while a run was trained on it" in first.error_message
    # The next run is not trained on data that its key does not name.
    assert "was changed since the suite was planned" in second.error_message

    path.write_bytes(kept)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = sweep(tmp_path / "out")
    again.run()
    assert table_of(again) == table_of(whole)
    assert outcome(again) == outcome(whole)


def test_data_whose_file_is_replaced_stays_as_it_was_for_a_run(tmp_path, mapped):
    whole = sweep(tmp_path / "whole")
    whole.run()

    def replace_file():
        path = mapped / "test_images.npy"
        other = shutil.copy(path, path.with_name("other"))
        change(other)
        other.rename(path)

    sw = sweep(tmp_path / "out")
    sw.run(at_epoch(0, replace_file))
    assert outcome(sw) == outcome(whole)


def test_files_of_the_future_are_read(tmp_path, undisturbed):
    """A store is copied from a machine whose clock goes ahead, in the middle of a run."""
    out = tmp_path / "out"

    class Stop(BaseException):
        pass

    def stop():
        raise Stop

    sw = sweep(out)
    with pytest.raises(Stop):
        sw.run(at_epoch(1, stop, row="gce"), checkpoint_seconds=0)
    later = time.time() + 10 * 365 * 86_400
    for path in out.rglob("*"):
        os.utime(path, (later, later))

    again = sweep(out)
    assert [spec.row for spec in again.state.todo] == ["gce"]
    again.run()
    assert outcome(again) == outcome(undisturbed)


def test_another_fingerprint_than_the_planned_one_is_refused(tmp_path):
    spec = replace(sweep(tmp_path / "out").specs[0], fingerprint="0" * 16)

    with pytest.raises(DataChanged, match=r"Digits: .*planned 0{16}\).* start the same command"):
        run_data.load_data(spec, tmp_path)


def test_an_image_file_that_changes_under_a_run_fails_it_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    Folder().write_classes(tmp_path / "shapes")
    image = sorted((tmp_path / "shapes" / "train").rglob("*.jpg"))[0]
    protocol = {
        "model": "cnn3", "weights": "", "resize": 18, "crop": 16, "batch_size": 8, "epochs": 2,
        "lr": 0.01, "precision": "float32", "threads": 1, "batches_per_epoch": 2,
    }  # fmt: skip
    suite = {
        "name": "t",
        "protocol": "clothing1m",
        "datasets": [{"name": "folder", "path": str(tmp_path / "shapes")}],
        "methods": {"ce": {}},
        "seeds": [0],
    }

    def prepared(out):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return api.prepare(suite, out=tmp_path / out, overrides=protocol, device="cpu")

    whole = prepared("whole")
    whole.run()
    sw = prepared("out")
    sw.run(at_epoch(0, image.touch), checkpoint_seconds=0)
    (failed,) = sw.failures()
    assert f"{image}: was changed while a run was trained on it" in failed.error_message

    # Its checkpoint may hold epochs on another image.
    folder = sw.store.run_dir(sw.specs[0].key)
    assert not (folder / "checkpoint.pt").exists()
    again = prepared("out")
    again.run()
    assert outcome(again) == outcome(whole)
