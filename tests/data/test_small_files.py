"""Small files that would become immense, and archives and pictures that are programs or lie."""

import _codecs
import collections
import gzip
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import tarfile
import time
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy._core.numeric import _frombuffer
from PIL import Image
from trial import NLBENCH

from nlbench.data.decode import BrokenImage, open_image
from nlbench.data.formats import cifar_batches, cifar_parquet, image_parquet
from nlbench.data.formats.image_parquet import ChosenAll
from nlbench.data.formats.numpy_files import read_npy
from nlbench.data.formats.safe_pickle import read_pickle
from nlbench.errors import DataError

CONTENTS = {"data_batch_1": b"one" * 500, "test_batch": b"two" * 500}


def peak():
    """Return the most memory in bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(autouse=True)
def _modest():
    """Fail a test that takes 500 MB or ten seconds."""
    before, began = peak(), time.process_time()
    yield
    assert peak() - before < 500_000_000
    assert time.process_time() - began < 10


# ---- Archives -----------------------------------------------------------------------------------


def member(name, kind=tarfile.REGTYPE, content=b"", **more):
    """Return a member of an archive, and what it holds."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def whole():
    """Return the members of an archive that is as it should be."""
    return [member(f"c/{name}", content=content) for name, content in CONTENTS.items()]


def write(path, members):
    """Write a compressed archive of these members."""
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            archive.addfile(info, content)
    return path


def read(path):
    """Read the two files of CIFAR in an archive."""
    return cifar_batches.from_archive(path, "c", CONTENTS)


def test_no_flipped_bit_of_an_archive_is_read_as_another_content(tmp_path):
    path = write(tmp_path / "x.tar.gz", [*whole(), member("c/readme", content=b"r" * 3000)])
    content = path.read_bytes()
    generator, refused = random.Random(0), 0
    for _ in range(400):
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            assert read(path) == CONTENTS
        except DataError as error:
            refused += 1
            assert "x.tar.gz" in str(error)  # noqa: PT017
    # The others are in the header of gzip, which holds a time and a name.
    assert refused > 350


def test_an_archive_that_is_not_compressed_is_read(tmp_path):
    path = write(tmp_path / "x.tar.gz", whole())
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert read(path) == CONTENTS


@pytest.mark.parametrize(
    "members",
    [
        [member("c/data_batch_1", tarfile.SYMTYPE, linkname="/etc/passwd")],
        [member("c/data_batch_1", tarfile.LNKTYPE, linkname="c/test_batch")],
        [member("c/data_batch_1", tarfile.CHRTYPE, devmajor=1, devminor=5)],
        [member("c/data_batch_1", tarfile.FIFOTYPE)],
        [member("c/data_batch_1", tarfile.GNUTYPE_SPARSE)],
        [member("../c/data_batch_1", content=b"x"), member("/c/data_batch_1", content=b"x")],
        [member("c/../c/data_batch_1", content=b"x")],
    ],
    ids=["link", "hard link", "device", "FIFO", "sparse", "outside", "round about"],
)
def test_links_devices_and_places_outside_are_no_member(tmp_path, members):
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner" / "x.tar.gz", [*whole()[1:], *members])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"x\.tar\.gz: (has no c/data_batch_1|cannot be read)"):
        read(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write(tmp_path / "x.tar.gz", [*whole(), *whole()])
    with pytest.raises(DataError, match=r"holds c/data_batch_1 twice, which CIFAR's does not"):
        read(path)


def test_an_archive_of_gigabytes_or_of_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_batches, "_MOST_BYTES", 1 << 22)
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(bytes(1 << 24))
    with pytest.raises(DataError, match=r"x\.tar\.gz: unpacks to more than"):
        read(path)

    write(path, [member("c/data_batch_1", content=bytes(1 << 24))])
    with pytest.raises(DataError, match="unpacks to more than"):
        read(path)

    write(path, [member(f"c/{i}") for i in range(1100)])
    with pytest.raises(DataError, match="holds more than 1000 files"):
        read(path)


def test_a_header_that_claims_more_than_there_is(tmp_path):
    info, content = member("c/data_batch_1", content=b"x")
    info.size = 1 << 40
    buffer = info.tobuf(tarfile.GNU_FORMAT) + content.read() + bytes(2000)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(buffer))
    with pytest.raises(DataError, match=r"x\.tar\.gz: "):
        read(path)


# ---- Pickles and arrays -------------------------------------------------------------------------


class Calls:
    """Become a call of a function that a reader knows, with shared arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_a_pickle_that_has_one_thing_copied_a_thousand_times(tmp_path):
    text = "é" * 1_000_000
    many = pickle.dumps([Calls(_codecs.encode, text, "latin1") for _ in range(3000)], protocol=4)
    assert len(many) < 2_300_000
    with pytest.raises(DataError, match="it copies far more than its size allows"):
        read_pickle(many, "here")

    pairs = [(i, i) for i in range(50_000)]
    many = [Calls(collections.OrderedDict, pairs) for _ in range(3000)]
    with pytest.raises(DataError, match="it copies far more than its size allows"):
        read_pickle(pickle.dumps(many, protocol=4), "here")


@pytest.mark.parametrize("order", "<>")
def test_a_pickle_of_one_content_as_a_thousand_arrays(order):
    content = bytes(2_000_000)
    dtype = np.dtype(f"{order}i8")
    arrays = [Calls(_frombuffer, content, dtype, (250_000,), "C") for _ in range(500)]
    many = pickle.dumps(arrays, protocol=4)

    # In this machine's order they share the content. The others would be copies.
    if dtype.isnative:
        assert len(read_pickle(many, "here")) == 500
    else:
        with pytest.raises(DataError, match="far larger arrays than its size allows"):
            read_pickle(many, "here")


def test_a_mapping_whose_keys_have_one_hash():
    prime = (1 << 61) - 1
    keys = dict.fromkeys(prime * i for i in range(20))
    assert len(set(map(hash, keys))) == 1
    with pytest.raises(DataError, match="an integer of more than 64 bits"):
        read_pickle(pickle.dumps(keys, protocol=4), "here")


def test_a_small_npz_file_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros(40_000_000, np.int64))
    assert path.stat().st_size < 400_000
    with pytest.raises(DataError, match=r"x\.npz: .* bytes that would become 320,000"):
        read_npy(path)


# ---- Parquet ------------------------------------------------------------------------------------


def parquet(path, image, rows):
    """Write a file of one picture in many rows, which takes next to nothing."""
    # pyarrow writes a value that comes again and again once.
    pq.write_table(pa.table({"image": [image] * rows, "label": np.zeros(rows, np.int8)}), path)
    return path


def folder_pictures(path):
    """Read the pictures of a folder's file."""
    return list(image_parquet.images([path], ChosenAll()))


def cifar_pictures(path):
    """Read the pictures of CIFAR's file."""
    return cifar_parquet.decode([path], ("label",), (32, 32, 3))


@pytest.mark.parametrize("reader", [folder_pictures, cifar_pictures])
def test_a_small_parquet_file_of_a_million_pictures(tmp_path, reader):
    path = parquet(tmp_path / "x.parquet", b"x", 1_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"claims to hold 1,000,000 pictures in .* bytes"):
        reader(path)


@pytest.mark.parametrize("reader", [folder_pictures, cifar_pictures])
def test_a_parquet_file_whose_pictures_are_one_picture(tmp_path, reader, monkeypatch):
    from nlbench.data.formats import bounds

    monkeypatch.setattr(bounds, "ROOM", 0)
    path = parquet(tmp_path / "x.parquet", random.Random(0).randbytes(5000), 2500)
    with pytest.raises(DataError, match="bytes that would become more than"):
        reader(path)


# ---- Pictures -----------------------------------------------------------------------------------

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
(ran) (w) file closefile
showpage
"""


def test_an_eps_file_with_the_name_of_a_picture_is_not_run(tmp_path, monkeypatch):
    # A Ghostscript that notes that it was started.
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "x.jpg"
    path.write_bytes(EPS)
    with pytest.raises(BrokenImage, match=r"x\.jpg: cannot be decoded \(it is EPS, .*as PNG\)"):
        open_image(str(path))

    table = pa.table({"image": [EPS], "label": [0]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"image 0 cannot be decoded \(it is EPS"):
        cifar_pictures(tmp_path / "x.parquet")
    assert not (tmp_path / "ran").exists()


def test_a_picture_of_billions_of_pixels_in_a_parquet_file(tmp_path):
    header = b"IHDR" + struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
    png += struct.pack(">I", zlib.crc32(header))
    pq.write_table(pa.table({"image": [png], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="image 0 cannot be decoded"):
        cifar_pictures(tmp_path / "x.parquet")


@pytest.mark.story
def test_a_folder_of_pictures_cannot_replace_a_module(tmp_path):
    """Decode in processes whose working directory holds files of the names of Python's modules."""
    for name in ("multiprocessing", "signal", "selectors", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "x.png")

    done = subprocess.run(
        [NLBENCH, "data", "check", "."],
        cwd=tmp_path,
        env={**os.environ, "NLBENCH_WORKERS": "1", "NLBENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "broken: 0 of 1" in done.stdout, done.stderr
    assert not (tmp_path / "ran").exists()
