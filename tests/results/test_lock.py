"""Locks with made-up contents: whose process lives, whose has ended, and whose cannot be asked."""

import os
import socket
import subprocess
import sys
import time

import pytest

from nlbench.results import holder, lock
from nlbench.results.holder import Holder

HERE = Holder.here()
HOST = socket.gethostname()


@pytest.fixture
def ended():
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def living():
    """Return the holder that another living process of this host is."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield Holder(HOST, str(process.pid), HERE.boot, HERE.space, holder._started(process.pid))
    process.communicate()


def write(path, content, seconds_ago=0.0):
    """Write a lock whose last heartbeat was so long ago."""
    path.write_text(content)
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
    return path


def taken(path, flock="held"):
    """Return whether the lock is got; `flock` is what the file system answers."""
    with pytest.MonkeyPatch.context() as patch:
        if flock != "held":
            patch.setattr(lock, "flock", lambda file, wait: flock)
        with lock.hold(path) as mine:
            return mine


OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def test_a_lock_names_its_process_and_is_empty_afterwards(tmp_path):
    path = tmp_path / "lock"
    with lock.hold(path) as mine:
        assert mine
        assert Holder.parse(path.read_text()) == HERE
        assert HERE.boot
        assert HERE.started
    assert path.read_text() == ""


@pytest.mark.parametrize("flock", ["held", "unsupported"])
def test_a_dead_holder_of_this_host_is_seen_at_once(tmp_path, ended, flock):
    dead = Holder(HOST, str(ended), HERE.boot, HERE.space, "12345")

    assert taken(write(tmp_path / "lock", dead.line()), flock=flock)


@pytest.mark.parametrize("flock", ["held", "unsupported"])
def test_a_number_that_is_used_again_is_another_process(tmp_path, living, flock):
    """The number of the dead holder is that of a living process, which has begun since."""
    before = Holder(HOST, living.pid, HERE.boot, HERE.space, "1")

    assert taken(write(tmp_path / "lock", before.line()), flock=flock)


def test_a_living_holder_keeps_its_lock_where_there_is_no_flock(tmp_path, living):
    # For example a process that the terminal has suspended, whose heart does not beat.
    path = write(tmp_path / "lock", living.line(), 10_000)

    assert not taken(path, flock="unsupported")
    assert path.read_text() == living.line()


@pytest.mark.parametrize(
    "changed",
    [{"boot": OTHER_BOOT}, {"space": "1"}, {"host": "another", "boot": OTHER_BOOT}],
    ids=["host of the same name", "container of the same name", "another host"],
)
@pytest.mark.parametrize("flock", ["held", "unsupported"])
def test_the_heartbeat_decides_for_a_holder_that_cannot_be_asked(tmp_path, changed, flock):
    """Where flock is local to each of two hosts, both get it."""
    names = {"host": HOST, "boot": HERE.boot, "space": HERE.space}
    other = Holder(pid="12", started="1", **{**names, **changed})
    path = write(tmp_path / "lock", other.line())

    assert not taken(path, flock=flock)
    assert path.read_text() == other.line()
    assert taken(write(path, other.line(), lock.STALE_SECONDS + 1), flock=flock)


def test_a_living_holder_whose_flock_does_not_reach_here_keeps_its_lock(tmp_path, living):
    """Each mount of one folder can have a flock of its own."""
    path = write(tmp_path / "lock", living.line())

    assert not taken(path)
    assert taken(write(path, living.line(), lock.STALE_SECONDS + 1))


@pytest.mark.parametrize(
    ("content", "seconds_ago", "flock", "expected"),
    [
        # As nlbench 0.1 wrote it: flock on this host decides, else the heartbeat.
        (f"{HOST} 12\n", 0, "held", True),
        (f"{HOST} 12\n", 0, "unsupported", False),
        (f"{HOST} OWN\n", 0, "unsupported", True),
        ("another-host 12\n", 0, "held", False),
        ("another-host 12\n", 151, "held", True),
        # What is no name of a holder.
        ("", 0, "unsupported", True),
        ("\n", 0, "held", True),
        ("half-a-na", 0, "held", False),
        ("half-a-na", 151, "held", True),
        (f"{HOST} 99999999999999999999999 boot={HERE.boot} space={HERE.space}", 0, "held", True),
        (f"{HOST} -1 boot={HERE.boot} space={HERE.space} started=1", 0, "held", True),
        (f"{HOST} ²  boot={HERE.boot} space={HERE.space} started=1", 0, "held", True),
        ("\0" * 5000, 0, "held", False),
        ("a b c d = == ===\n" * 500, 0, "held", False),
    ],
)
def test_old_and_odd_contents(tmp_path, content, seconds_ago, flock, expected):
    # Each process of the tests has another number, and all must collect the same tests.
    content = content.replace("OWN", str(os.getpid()))

    assert taken(write(tmp_path / "lock", content, seconds_ago), flock=flock) == expected


def test_what_a_lock_holds_cannot_steer_the_terminal(tmp_path):
    path = write(tmp_path / "lock", "\x1b[31mhost \x1b]0;title\x07\n")

    assert lock.holder_of(path) == "process ?]0;title? of the host ?[31mhost"


@pytest.mark.parametrize("seconds", [60, 7200, 86_400 * 365 * 40])
def test_a_heartbeat_in_the_future_holds_for_a_limited_time(tmp_path, seconds):
    """The clock of the holder's file system goes wrong, or was set back since."""
    said = []
    path = write(tmp_path / "lock", "another-host 12 boot=b space=1 started=1\n", -seconds)
    with lock.hold(path, warn=said.append) as mine:
        assert not mine

    # From the first look on, the time of here counts.
    assert "of the host another-host lies" in said[0]
    assert abs(path.stat().st_mtime - time.time()) < 60
    old = time.time() - lock.STALE_SECONDS - 1
    os.utime(path, (old, old))
    assert taken(path)


def test_a_lock_that_was_taken_over_is_not_emptied_by_its_first_holder(tmp_path):
    """A host that stood still for long does not free the lock of the one that took over."""
    path = tmp_path / "lock"
    other = "another-host 12 boot=b space=1 started=1\n"
    with lock.hold(path):
        path.write_text(other)
    assert path.read_text() == other


def test_the_heart_goes_on_to_beat_in_a_folder_that_was_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    (tmp_path / "a").mkdir()
    with lock.hold(tmp_path / "a" / "lock"):
        (tmp_path / "a").rename(tmp_path / "b")
        # Another folder has the path now, and the lock in it belongs to somebody else.
        (tmp_path / "a").mkdir()
        theirs = write(tmp_path / "a" / "lock", "another-host 12\n", 1000)
        os.utime(tmp_path / "b" / "lock", (1, 1))
        deadline = time.monotonic() + 5
        while (tmp_path / "b" / "lock").stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "b" / "lock").stat().st_mtime > 1
        assert time.time() - theirs.stat().st_mtime > 900


def test_release_clears_the_lock_of_a_dead_process_of_this_container_alone(tmp_path):
    path = tmp_path / "lock"
    for other in ({"boot": OTHER_BOOT}, {"space": "1"}, {"host": "another"}):
        names = {"host": HOST, "boot": HERE.boot, "space": HERE.space, **other}
        line = write(path, Holder(pid="12", started="1", **names).line()).read_text()
        lock.release(path, 12)
        assert path.read_text() == line

    write(path, Holder(HOST, "12", HERE.boot, HERE.space, "1").line())
    lock.release(path, 13)
    assert path.read_text()
    lock.release(path, 12)
    assert path.read_text() == ""
