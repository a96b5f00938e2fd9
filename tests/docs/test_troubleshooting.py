"""docs/troubleshooting.md quotes what is really said. Each block of text has a case below."""

import errno
import os
import re
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pages import DOCS, blocks, plain
from sweeps import sweep

from nlbench import files
from nlbench.cli import interrupt
from nlbench.data import cache, changes
from nlbench.errors import StoreError
from nlbench.executors import _deaths, _server, _stopping
from nlbench.executors._sweep import announced
from nlbench.plan.spec import key_of
from nlbench.results import lock
from nlbench.results.record import RunRecord
from nlbench.results.store import Store
from nlbench.training import memory
from nlbench.training.checkpoint import Checkpoint

PAGE = DOCS / "troubleshooting.md"
BLOCKS = {block.mark: block for block in blocks(PAGE) if block.kind == "text"}

# Said by a whole sweep alone, and tested there: tests/executors/test_hostile.py.
OF_A_SWEEP = {"later"}

SPEC = {"method": "ce", "params": {}, "seed": 0}
KEY = key_of(SPEC)


def told(text, place):
    """Return a message without what differs from page to machine: places, keys and numbers."""
    text = text.replace(f"{place}/", "").replace(str(Path.cwd()) + "/", "")
    text = re.sub(r"\bx-[0-9a-f]{16}", "x-KEY", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "KEY", text).replace("/data/", "")
    return re.sub(r"# (?:[kMGT]B|bytes?)\b", "# bytes", plain(text))


# ---- The disk ------------------------------------------------------------------------------------


def not_written(number, name="record.json", needed=3400):
    path = Path("results/runs") / KEY / name
    return lambda place, patch: str(files.not_written(OSError(number, ""), place / path, needed))


def without_inodes(place, patch):
    patch.setattr(files, "_free_at", lambda path: (10**9, 0))
    return not_written(errno.ENOSPC, "lock", 0)(place, patch)


def full_at_start(place, patch):
    def refuse(*args, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(StoreError) as caught:
        Store(place / "results").require_writable()
    return str(caught.value)


def full_cache(place, patch):
    def refuse(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (place / "source").touch()
    patch.setattr(files, "sync", refuse)
    arrays = {"images": np.zeros(1000, np.uint8)}
    with pytest.raises(cache.CacheNotWritten) as caught:
        cache.cached(place / "cache", "cifar10", [place / "source"], lambda: (arrays, {}))
    return str(caught.value)


# ---- The folder of the results -------------------------------------------------------------------


def gone(act):
    def say(place, patch):
        store = Store(place / "results")
        store.require_writable()
        act(place / "results")
        with pytest.raises(StoreError) as caught:
            store.require_ready()
        return str(caught.value)

    return say


def replaced(folder):
    folder.rename(folder.with_name("away"))
    folder.mkdir()


# ---- Runs that end -------------------------------------------------------------------------------


def died(status, peak=517_100_000, kills=0, place=""):
    run = SimpleNamespace(
        todo=SimpleNamespace(spec=SimpleNamespace(method="mine")),
        kills=0,
        place=lambda: place,
    )

    def say(folder, patch):
        patch.setattr(memory, "kills", lambda: kills)
        if status is None:
            return _deaths.hang(run, 3600)
        return str(_deaths.died(run, _server.ENDED, status, peak))

    return say


PLACE = ', last seen in "mine.py", line 24 in loss'


def since_planned(place, patch):
    folder = place / "birds"
    folder.mkdir()
    (folder / "train.csv").write_text("path,label")
    return str(changes.since_planned(None, "0" * 16, "1" * 16, [], str(folder)))


def under_a_run(place, patch):
    folder = place / "birds" / "train" / "cat"
    folder.mkdir(parents=True)
    (folder / "001.jpg").write_text("a")
    names = np.array([b"birds/train/cat/001.jpg"])
    watched = changes.Watched.of([changes.ImageFiles(place, names)])
    (folder / "001.jpg").write_text("ab")
    with pytest.raises(changes.DataChanged) as caught:
        watched.require_same(final=True)
    return str(caught.value)


# ---- Locks ---------------------------------------------------------------------------------------


def made_lock(place):
    path = place / "results" / "runs" / KEY / "lock"
    path.parent.mkdir(parents=True)
    path.write_text("a 12 boot=b space=1 started=1\n")
    return path


def held(place, patch):
    made_lock(place)
    said = []
    Store(place / "results", said.append).warn_of_holders([KEY])
    return said[0]


def future(place, patch):
    path = made_lock(place)
    later = os.stat(path).st_mtime + 7200
    os.utime(path, (later, later))
    said = []
    with lock.hold(path, warn=said.append) as mine:
        assert not mine
    return said[0]


def in_the_way(place, patch):
    path = made_lock(place)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError) as caught, lock.hold(path):
        pass
    return str(caught.value)


# ---- Damaged files -------------------------------------------------------------------------------


def damaged(name):
    def say(place, patch):
        said = []
        store = Store(place / "results", said.append)
        parts = {part: {} for part in ("noise", "timing", "environment", "method")}
        record = RunRecord(
            key=KEY, status="done", spec=SPEC, metrics={"last": 0.5}, code="c", **parts
        )
        store.write(record, [{"epoch": 0, "loss": 0.5}])
        path = store.run_dir(KEY) / name
        path.write_text(path.read_text().replace("0.5", "0.9"))
        store.check(KEY)
        return said[0]

    return say


def damaged_state(path, tag):
    def say(place, patch):
        said = []
        store = Store(place / "results", said.append)
        made = Checkpoint(store, place / "results" / path, tag)
        made.save({"epoch": 1})
        content = bytearray(made.path.read_bytes())
        content[100] ^= 1
        made.path.write_bytes(content)
        assert made.load() is None
        return said[0]

    return say


def damaged_plan(place, patch):
    sw = sweep(place / "results", {"ce": {}})
    store = sw.store
    store.write_plan({**sw.plan.as_json(), "suite": "small"})
    path = store.plan_path("small")
    path.write_text(path.read_text().replace('"identical"', '"tuned"'))
    with pytest.raises(StoreError) as caught:
        store.plan("small")
    return str(caught.value)


def damaged_entry(place, patch):
    (place / "source").touch()
    arrays = {"labels": np.arange(100)}

    def load():
        cache._checked.clear()
        cache.cached(place / "cache", "x", [place / "source"], lambda: (arrays, {}))

    load()
    (path,) = place.glob("cache/x-*/labels.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load()
    return str(caught[0].message)


CASES = {
    "full": not_written(errno.ENOSPC, "checkpoint.pt", 44_800_000),
    "inodes": without_inodes,
    "full_at_start": full_at_start,
    "full_cache": full_cache,
    "quota": not_written(errno.EDQUOT),
    "broken": not_written(errno.EIO),
    "read_only": not_written(errno.EROFS),
    "permission": not_written(errno.EACCES),
    "removed": gone(lambda folder: folder.rename(folder.with_name("away"))),
    "replaced": gone(replaced),
    "killed_for_memory": died(signal.SIGKILL, 14_800_000_000, kills=1),
    "killed": died(signal.SIGKILL),
    "allocation": lambda place, patch: memory.advice(521_200_000),
    "gpu": lambda place, patch: memory.advice(1, 78_900_000_000),
    "exits": died(7 << 8, place=PLACE),
    "crashes": died(signal.SIGSEGV, place=PLACE),
    "hangs": died(None, place=PLACE),
    "changed": since_planned,
    "changed_under_run": under_a_run,
    "cache_gone": died(signal.SIGBUS),
    "held": held,
    "future": future,
    "lock_in_the_way": in_the_way,
    "record": damaged("record.json"),
    "history": damaged("history.csv"),
    "plan": damaged_plan,
    "checkpoint": damaged_state(f"runs/{KEY}/checkpoint.pt", {"run": KEY}),
    "helper": damaged_state(f"fits/{KEY}.pt", {"helper": KEY}),
    "cache_entry": damaged_entry,
}


def test_every_quote_has_a_case():
    quoted = [block.mark for block in blocks(PAGE) if block.kind == "text"]

    assert len(quoted) == len(set(quoted))
    assert set(quoted) == set(CASES) | OF_A_SWEEP


@pytest.mark.parametrize("name", CASES)
def test_a_quote_is_what_is_said(tmp_path, monkeypatch, name):
    said = CASES[name](tmp_path, monkeypatch)

    assert told(said, tmp_path) == told(BLOCKS[name].text.strip(), "/nowhere")


@pytest.mark.parametrize("number", _stopping.STOPPING)
def test_the_lines_and_the_status_of_every_signal_are_stated(number):
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name}")]

    assert f"`{announced(number)}`" in row
    assert f"`{interrupt.line_for(number)}`" in row
    assert row.endswith(f"| {interrupt.status_of(number)} |")
