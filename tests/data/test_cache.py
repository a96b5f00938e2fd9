"""Entries of the cache: damage of any kind is named, and the entry is made again."""

import json
import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
from made_stores import dead_process, temporary_of

from nlbench.data import cache
from nlbench.errors import DataError, NlbenchWarning

ARRAYS = {
    "images": np.arange(40 * 4 * 4 * 3, dtype=np.uint8).reshape(40, 4, 4, 3),
    "labels": np.arange(40) % 10,
}
FACTS = {"fingerprint": "f" * 16, "checksums": {"a": "md5:1"}, "warnings": []}


@pytest.fixture
def load(tmp_path):
    """Return load(), which gives arrays and facts from a cache, and how often it decoded."""
    (tmp_path / "source").write_text("x")
    decoded = []

    def load():
        # As in a new process.
        cache._checked.clear()
        before = len(decoded)

        def decode():
            decoded.append(True)
            return ARRAYS, FACTS

        arrays, facts = cache.cached(tmp_path / "cache", "x", [tmp_path / "source"], decode)
        assert facts == FACTS
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
        return len(decoded) - before

    return load


def entry(tmp_path):
    """Return the one entry of the cache."""
    (found,) = (path for path in (tmp_path / "cache").glob("x-*") if "." not in path.name)
    return found


def test_a_whole_entry_is_decoded_once_and_never_warned_of(load):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load() == 1
        assert load() == 0


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_every_flipped_bit_is_found(load, tmp_path):
    load()
    generator = random.Random(0)
    for name in ("images.npy", "labels.npy", "meta.json"):
        size = (entry(tmp_path) / name).stat().st_size
        for place in (*range(0, 128, 9), *(generator.randrange(size) for _ in range(15))):
            bit = generator.randrange(8)
            kept = (entry(tmp_path) / name).read_bytes()
            flip(entry(tmp_path) / name, place, bit)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                again = load()

            # A flip in the layout of meta.json alone changes no value, and is no damage.
            if again == 0:
                assert name == "meta.json"
                assert caught == []
                (entry(tmp_path) / name).write_bytes(kept)
            else:
                assert "damaged entry of the cache" in str(caught[0].message)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "labels.npy").unlink(),
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text("{}"),
        lambda folder: (folder / "meta.json").write_text("[" * 100_000),
        lambda folder: (folder / "labels.npy").write_bytes(b""),
        lambda folder: np.save(folder / "labels.npy", ARRAYS["labels"][::-1]),
        lambda folder: np.save(folder / "labels.npy", ARRAYS["labels"] - 40),
        lambda folder: np.save(folder / "labels.npy", ARRAYS["labels"].astype("<i4")),
        lambda folder: os.replace(folder / "images.npy", folder / "labels.npy"),
        lambda folder: [(folder / "labels.npy").unlink(), os.mkfifo(folder / "labels.npy")],
        lambda folder: [(folder / "meta.json").unlink(), (folder / "meta.json").mkdir()],
        lambda folder: [folder.rename(folder.with_name("y")), folder.write_text("")],
    ],
    ids=[
        "array removed",
        "meta removed",
        "meta empty",
        "meta deep",
        "array empty",
        "labels in another order",
        "labels out of range",
        "another dtype",
        "another array",
        "FIFO",
        "folder",
        "no folder",
    ],
)
def test_a_damaged_entry_is_named_set_aside_and_made_again(load, tmp_path, damage):
    load()
    path = entry(tmp_path)
    damage(path)
    with pytest.warns(NlbenchWarning, match=rf"{path.name}: damaged entry .* set aside as"):
        assert load() == 1

    assert path.with_name(f"{path.name}.damaged-1").exists()
    assert load() == 0


def test_a_lock_that_is_a_fifo_is_named_and_nobody_waits(load, tmp_path):
    load()
    path = entry(tmp_path)
    path.rename(path.with_name("away"))
    lock = path.with_name(f"{path.name}.lock")
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(DataError, match=r"\.lock"):
        load()


def test_a_fact_that_was_edited_is_found(load, tmp_path):
    load()
    path = entry(tmp_path) / "meta.json"
    values = json.loads(path.read_text())
    values["value"]["facts"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(values))
    with pytest.warns(NlbenchWarning, match=r"meta\.json was changed"):
        assert load() == 1


def test_a_file_that_was_checked_is_read_again_only_when_it_changes(load, tmp_path, monkeypatch):
    load()
    read = []
    whole = cache.crc32
    monkeypatch.setattr(cache, "crc32", lambda file: read.append(file.name) or whole(file))
    load()
    assert len(read) == 2

    source = [tmp_path / "source"]
    cache.cached(tmp_path / "cache", "x", source, lambda: pytest.fail("decoded again"))
    assert len(read) == 2

    labels = entry(tmp_path) / "labels.npy"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\1")
    with pytest.warns(NlbenchWarning, match=r"labels\.npy was changed"):
        cache.cached(tmp_path / "cache", "x", source, lambda: (ARRAYS, FACTS))


# ---- Entries of files ---------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Return files(), which gives the list of an entry of files, and how often it was written."""
    written = []
    contents = [b"one", b"two", b"three"]

    def files():
        before = len(written)

        def write(folder):
            written.append(True)
            lines = []
            for number, content in enumerate(contents):
                name = f"{number}-{cache.short_hash(content)}"
                (folder / name).write_bytes(content)
                lines.append([name, str(number)])
            return lines

        lines = cache.cached_files(tmp_path / "cache" / "x-1", write)
        assert [label for _, label in lines] == ["0", "1", "2"]
        assert [(tmp_path / "cache" / "x-1" / name).read_bytes() for name, _ in lines] == contents
        return len(written) - before

    return files


@pytest.mark.parametrize("damage", ["content", "removed", "label", "FIFO", "list removed"])
def test_a_damaged_file_of_an_entry_is_named_and_all_are_written_again(files, tmp_path, damage):
    assert (files(), files()) == (1, 0)

    folder = tmp_path / "cache" / "x-1"
    (path,) = folder.glob("1-*")
    if damage == "content":
        path.write_bytes(b"twa")
    elif damage == "label":
        text = (folder / "list.json").read_text()
        (folder / "list.json").write_text(text.replace('"1"', '"2"'))
    elif damage == "list removed":
        (folder / "list.json").unlink()
    else:
        path.unlink()
    if damage == "FIFO":
        os.mkfifo(path)

    with pytest.warns(NlbenchWarning, match="x-1: damaged entry of the cache"):
        assert files() == 1
    assert files() == 0


def test_what_killed_processes_had_half_written_is_removed_with_the_next_entry(load, tmp_path):
    """They may have 185 MB each. What a living process writes stays, and so does anything else."""
    folder = tmp_path / "cache"
    folder.mkdir()
    dead = temporary_of(folder / "y", dead_process())
    alive = temporary_of(folder / "y", os.getpid())
    other_host = folder / ".y.12-ffffffff-01234567.tmp"
    for path in (dead, alive, other_host):
        path.mkdir()
        (path / "images.npy").write_bytes(b"half")
    (folder / ".git").mkdir()

    assert load() == 1
    assert not dead.exists()
    assert all(path.exists() for path in (alive, other_host, folder / ".git"))


FILL = """
import sys, time
from pathlib import Path
import numpy as np
from nlbench.data import cache
folder = Path(sys.argv[1])

def decode():
    with open(folder / "decoded", "a") as file:
        file.write("once\\n")
    time.sleep(1)
    return {"images": np.arange(100_000)}, {}

arrays, _ = cache.cached(folder / "cache", "x", [folder / "source"], decode)
print(int(arrays["images"].sum()))
"""


def test_eight_processes_that_find_the_cache_cold_decode_once(tmp_path):
    (tmp_path / "source").touch()
    command = [sys.executable, "-c", FILL, tmp_path]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    printed = {process.communicate()[0] for process in processes}

    assert printed == {f"{sum(range(100_000))}\n"}
    assert (tmp_path / "decoded").read_text() == "once\n"
    assert not [path.name for path in (tmp_path / "cache").iterdir() if path.suffix == ".tmp"]
