"""Files that are whole or not there, hashes, and the lock of an open file."""

import hashlib

import pytest

from nlbench import files


def test_a_short_hash_is_the_beginning_of_the_sha256_over_all_parts():
    short = files.short_hash(b"ab", b"c")
    assert short == hashlib.sha256(b"abc").hexdigest()[:16] == "ba7816bf8f01cfea"


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_digest_is_the_same_of_a_file_and_of_its_bytes(tmp_path, algorithm):
    content = bytes(range(256)) * 1000
    (tmp_path / "x").write_bytes(content)
    expected = hashlib.new(algorithm, content).hexdigest()
    assert files.digest(tmp_path / "x", algorithm) == files.digest(content, algorithm) == expected


def test_a_file_that_could_not_be_written_whole_leaves_the_old_one(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail():
        with files.replacing(path) as file:
            file.write(b"half")
            file.flush()
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_process_have_the_name_that_the_store_removes(tmp_path):
    with files.replacing(tmp_path / "x") as file:
        file.write(b"half")
        (temporary,) = tmp_path.iterdir()
        assert temporary.match(".*.tmp")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "entry"

    def fail():
        with files.new_folder(path) as folder:
            (folder / "half").touch()
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="full"):
        fail()
    assert list(path.parent.iterdir()) == []

    with files.new_folder(path) as folder:
        (folder / "whole").touch()
        assert not path.exists()

    assert [file.name for file in path.iterdir()] == ["whole"]


def test_the_folder_of_the_process_that_was_first_stays(tmp_path):
    path = tmp_path / "entry"
    with files.new_folder(path) as second:
        (second / "second").touch()
        with files.new_folder(path) as first:
            (first / "first").touch()
    assert [file.name for file in path.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_open_file_is_locked_until_it_is_closed(tmp_path, monkeypatch):
    with open(tmp_path / "lock", "w") as first, open(tmp_path / "lock", "w") as second:
        assert files.flock(first, wait=False) == "held"
        assert files.flock(second, wait=False) == "busy"
        first.close()
        assert files.flock(second, wait=True) == "held"

    def no_locks(file, operation):
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with open(tmp_path / "lock", "w") as file:
        assert files.flock(file, wait=True) == "unsupported"
