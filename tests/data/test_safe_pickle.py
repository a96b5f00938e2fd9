"""The restricted unpickler: reads numbers, runs nothing."""

import collections
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlbench.data.formats.safe_pickle import read_pickle, read_torch
from nlbench.errors import DataError

ARRAYS = [
    np.arange(12, dtype=np.int64).reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    np.arange(5, dtype=">i4"),
    np.array([True, False]),
    np.zeros((0, 3), np.uint8),
    np.array(7, np.int16),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_numbers_come_back(protocol):
    value = {
        "arrays": ARRAYS,
        "numbers": (1, 2.5, np.int64(3), np.float32(0.5)),
        "text": "é",
        b"bytes": b"\x00\xff",
    }
    back = read_pickle(pickle.dumps(value, protocol), "x")

    for got, expected in zip(back["arrays"], ARRAYS, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype.newbyteorder("=")
    assert back["numbers"] == (1, 2.5, 3, 0.5)
    assert (back["text"], back[b"bytes"]) == ("é", b"\x00\xff")


def test_python_2_pickle():
    """Read a pickle as of the official CIFAR files: byte strings stand in place of text."""
    raw = bytes(range(6))
    content = (
        b"\x80\x02}(U\x06labels]K\x03aU\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(raw))
        + raw
        + b"tbu."
    )
    back = read_pickle(content, "x")

    assert back[b"labels"] == [3]
    np.testing.assert_array_equal(back[b"data"], [[0, 1, 2], [3, 4, 5]])


class Runs:
    """Call a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("exit",), "system"),
        (eval, ("1",), "builtins.eval"),
        (exec, ("1",), "builtins.exec"),
        (getattr, (1, "real"), "builtins.getattr"),
        (np.load, ("x",), "load"),
        (collections.Counter, (), "collections.Counter"),
        (torch.load, ("x",), "torch"),
    ],
)
def test_any_other_global_of_a_pickle_is_refused_by_name(function, args, name):
    for value in (Runs(function, *args), {"a": [Runs(function, *args)]}):
        with pytest.raises(DataError, match=rf"^here: refused.*{name}"):
            read_pickle(pickle.dumps(value), "here")


@pytest.mark.parametrize(
    "content",
    [
        # Set an attribute of a function that may be called, and replace such a function.
        b"\x80\x02cnumpy\ndtype\n}U\x01xK\x01sb.",
        b"\x80\x02cnumpy\ndtype\nN}X\x09\x00\x00\x00_functionK\x01s\x86b.",
        # Return a function.
        b"\x80\x02cnumpy\ndtype\n.",
        # Give an array a type that holds objects.
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02i8\x85R.",
        b"\x80\x02c_codecs\nencode\nU\x01xU\x03zip\x86R.",
        # Refer to something outside the pickle.
        b"\x80\x02U\x01xQ.",
    ],
)
def test_tricks_are_refused(content):
    with pytest.raises(DataError, match="here"):
        read_pickle(content, "here")
    array = pickle.dumps(np.arange(3))
    np.testing.assert_array_equal(read_pickle(array, "x"), np.arange(3))


def nested(width, depth):
    """Return a small pickle of a list that holds one other list `width` times, and so on."""
    value = [1] * width
    for _ in range(depth):
        value = [value] * width
    return pickle.dumps(value, protocol=4)


@pytest.mark.parametrize(("width", "depth"), [(2, 40), (10, 12), (100, 6)])
def test_lists_that_hold_one_list_many_times_are_refused_at_once(width, depth):
    content = nested(width, depth)
    assert len(content) < 5000
    began = time.monotonic()
    with pytest.raises(DataError, match="far more values than its size allows"):
        read_pickle(content, "here")
    assert time.monotonic() - began < 2


def test_a_list_that_is_there_twice_is_read():
    labels = [1, 2, 3]
    assert read_pickle(pickle.dumps({"a": labels, "b": labels}), "here") == {
        "a": labels,
        "b": labels,
    }


def test_a_memo_of_gigabytes_is_refused():
    content = b"\x80\x02]r\x00\x00\x00\x70."
    with pytest.raises(DataError, match="a place in the memo beyond the file"):
        read_pickle(content, "here")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_small_torch_file_that_would_fill_the_memory(tmp_path, compressed):
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(3_000_000, dtype=torch.int64), path)
    if compressed:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(DataError, match=r"bytes that would become 24,0.*save it again"):
            read_torch(path)
    else:
        assert read_torch(path).shape == (3_000_000,)


def test_array_that_claims_another_size():
    # The shape (3,) becomes (9,), but the bytes stay those of three numbers.
    content = pickle.dumps(np.arange(3, dtype=np.int64), protocol=2)
    content = content.replace(b"K\x03\x85", b"K\x09\x85")
    with pytest.raises(DataError, match="bytes"):
        read_pickle(content, "here")


VALID = pickle.dumps({"labels": np.arange(20), "rest": [1, 2]}, protocol=2)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, 300),
)
def test_damaged_pickles_give_a_value_or_a_data_error(changes, cut):
    content = bytearray(VALID)
    for place, value in changes:
        content[place] = value
    try:
        read_pickle(bytes(content[: len(content) - cut]), "here")
    except DataError as error:
        assert "here" in str(error)  # noqa: PT017


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32])
def test_torch_files(tmp_path, dtype):
    values = torch.arange(6).to(dtype)
    content = {"a": values, "b": values.reshape(2, 3), "c": np.arange(3), "d": [1, 2]}
    torch.save(content, tmp_path / "x.pt")
    back = read_torch(tmp_path / "x.pt")

    np.testing.assert_array_equal(back["a"], values.numpy())
    np.testing.assert_array_equal(back["b"], values.reshape(2, 3).numpy())
    np.testing.assert_array_equal(back["c"], np.arange(3))
    assert back["d"] == [1, 2]


def test_torch_slices_share_a_storage(tmp_path):
    torch.save(torch.arange(10)[4:7], tmp_path / "x.pt")
    np.testing.assert_array_equal(read_torch(tmp_path / "x.pt"), [4, 5, 6])
    torch.save(torch.arange(10)[::2], tmp_path / "x.pt")
    with pytest.raises(DataError, match="clone"):
        read_torch(tmp_path / "x.pt")


def save_as_before_1_6(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def test_torch_file_before_1_6(tmp_path):
    """CAL's label files are of this time."""
    whole = torch.arange(6)
    saved = {"clean_label_train": whole, "part": whole[2:5], "floats": torch.ones(2, 3), "n": [1]}
    found = read_torch(save_as_before_1_6(tmp_path / "x.pt", saved))

    assert list(found) == list(saved)
    assert found["n"] == [1]
    for name in ("clean_label_train", "part", "floats"):
        np.testing.assert_array_equal(found[name], saved[name].numpy())
        assert found[name].dtype == saved[name].numpy().dtype


def test_a_torch_file_before_1_6_that_was_cut_off_is_refused_wherever_it_ends(tmp_path):
    whole = save_as_before_1_6(tmp_path / "x.pt", {"a": torch.arange(5)}).read_bytes()
    for end in range(1, len(whole)):
        (tmp_path / "x.pt").write_bytes(whole[:end])
        with pytest.raises(DataError, match="get the file again"):
            read_torch(tmp_path / "x.pt")


def test_a_torch_file_before_1_6_that_claims_a_huge_storage_is_refused(tmp_path):
    whole = save_as_before_1_6(tmp_path / "x.pt", torch.arange(200)).read_bytes()
    # The length is a number of one byte in the pickle.
    claimed = whole.replace(b"K\xc8", b"J\xff\xff\xff\x7f")
    assert claimed != whole
    (tmp_path / "x.pt").write_bytes(claimed)
    with pytest.raises(DataError, match="a storage of 2147483647 values"):
        read_torch(tmp_path / "x.pt")


def test_a_torch_file_before_1_6_runs_nothing(tmp_path):
    runs = Runs(os.system, f"touch {tmp_path / 'ran'}")
    with pytest.raises(DataError, match=r"x\.pt: refused.*system"):
        read_torch(save_as_before_1_6(tmp_path / "x.pt", {"clean_label": runs}))
    assert not (tmp_path / "ran").exists()


def test_torch_file_that_wants_to_run_something(tmp_path):
    torch.save({"clean_label": Runs(os.system, f"touch {tmp_path / 'ran'}")}, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt: refused.*system"):
        read_torch(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_zip_that_is_no_torch_file(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(DataError, match=r"not one of torch\.save"):
        read_torch(tmp_path / "x.npz")
