"""Damaged and hostile files of data: each reader returns, or raises an error with a message."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from layouts import encoded
from mutations import EXAMPLES, READ, changed, changed_members, changes, outcome

from nlbench.data.base import Info
from nlbench.data.formats import cifar_batches, cifar_parquet, image_lists, image_parquet
from nlbench.data.formats.image_parquet import ChosenAll
from nlbench.data.noise.examples import Examples
from nlbench.data.noise.label_files import read_label_file
from nlbench.data.noise.matrix_files import matrix_warnings, read_matrix

INFO = Info(
    name="x", title="X", num_classes=3, num_train=6, num_test=2, shape=(32, 32, 3),
    class_names=("cat", "dog", "owl"),
)  # fmt: skip
LABELS = np.array([0, 1, 2, 2, 1, 0])
MATRIX = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]


def examples():
    """Return what a label file is about."""
    return Examples(INFO, tuple(f"{i}.png" for i in range(6)))


def saved(save):
    """Return the bytes that a function writes to a file."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def parquet(**columns):
    """Return a parquet file of these columns."""
    return saved(lambda file: pq.write_table(pa.table(columns), file))


def pictures(size=(24, 20)):
    """Return encoded pictures as Hugging Face keeps them."""
    made = [encoded(label, i) for i, label in enumerate(LABELS)]
    if size == (32, 32):
        from PIL import Image

        made = []
        for label in LABELS:
            image = Image.new("RGB", size, (int(label), 2, 3))
            made.append(saved(lambda file, image=image: image.save(file, "PNG")))
    return [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(made)]


def batch():
    """Return a batch file of CIFAR."""
    data = np.zeros((6, 3072), np.uint8)
    return pickle.dumps({"data": data, "labels": LABELS.tolist()}, protocol=2)


def python_2_batch():
    """Return a batch file of CIFAR as Python 2 wrote it."""
    raw = bytes(3072)
    return (
        b"\x80\x02}(U\x06labels]K\x01aU\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(raw)) + raw + b"tbu."
    )  # fmt: skip


def archive():
    """Return an archive of CIFAR, not compressed."""

    def save(file):
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name in ("data_batch_1", "test_batch"):
                content = b"content of " + name.encode()
                info = tarfile.TarInfo(f"cifar/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return saved(save)


def labels(path):
    """Read a label file as a suite does."""
    read_label_file(path, "a" if path.suffix == ".npz" else "", examples())


def matrix(path):
    """Read a transition matrix as a suite does."""
    read_matrix(path, 3)
    matrix_warnings(path, 3)


def image_list(path):
    """Read a list of images and compare it with the files that are there."""
    found = image_lists.read_list(path, 3, path.parent)
    image_lists.usable(found)


def folder_parquet(path):
    """Read a folder's parquet file of pictures."""
    chosen = ChosenAll()
    image_parquet.splitting_columns([path], chosen)
    for _ in image_parquet.images([path], chosen):
        pass


def cifar_from_parquet(path):
    """Read CIFAR's parquet file."""
    cifar_parquet.decode([path], ("label",), (32, 32, 3))


def cifar_from_pickle(path):
    """Read a batch file of CIFAR."""
    cifar_batches.decode(path.read_bytes(), str(path), "labels", (32, 32, 3))


def cifar_from_archive(path):
    """Read CIFAR's archive."""
    cifar_batches.from_archive(path, "cifar", ["data_batch_1", "test_batch"])


TABLE = "index,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(LABELS))
TOO_SHORT = [b"0 1\n1 2\n", b'{"a.png": 0, "b.png": 2}']
CODES = np.array(LABELS, np.int64)

# Name -> the end of the file's name, its valid contents, and what reads it.
READERS = {
    "csv labels": (".csv", [TABLE.encode(), b"label\ncat\ndog\nowl\nowl\ndog\ncat\n"], labels),
    "text labels": (".txt", [b"0\n1\n2\n2\n1\n0\n", TOO_SHORT[0]], labels),
    "json labels": (".json", [b"[0, 1, 2, 2, 1, 0]", TOO_SHORT[1]], labels),
    "npy labels": (".npy", [saved(lambda file: np.save(file, CODES))], labels),
    "npz labels": (".npz", [saved(lambda file: np.savez_compressed(file, a=CODES))], labels),
    "pt labels": (".pt", [saved(lambda file: torch.save(torch.from_numpy(CODES), file))], labels),
    "pickle labels": (".pkl", [pickle.dumps(CODES), pickle.dumps([0, 1, 2, 2, 1, 0])], labels),
    "csv matrix": (".csv", [b"0.8,0.1,0.1\n0.1,0.8,0.1\n0.1,0.1,0.8\n"], matrix),
    "npy matrix": (".npy", [saved(lambda file: np.save(file, np.array(MATRIX)))], matrix),
    "json matrix": (".json", [str(MATRIX).encode()], matrix),
    "pt matrix": (".pt", [saved(lambda file: torch.save(torch.tensor(MATRIX), file))], matrix),
    "image list": (".txt", [b"a/1.jpg 0\na/2.jpg 1\nb 3.jpg 2\n"], image_list),
    "folder parquet": (".parquet", [parquet(image=pictures(), label=LABELS)], folder_parquet),
    "cifar parquet": (
        ".parquet",
        [parquet(img=pictures((32, 32)), label=LABELS)],
        cifar_from_parquet,
    ),
    "cifar pickle": ("", [batch(), python_2_batch()], cifar_from_pickle),
    "cifar archive": (".tar.gz", [archive()], cifar_from_archive),
}


def test_the_valid_files_are_read(tmp_path):
    for name, (suffix, contents, read) in READERS.items():
        for content in contents:
            path = tmp_path / f"x{suffix}"
            path.write_bytes(content)
            # These two lack lines, and the list names pictures that are not there.
            if name != "image list" and content not in TOO_SHORT:
                assert outcome(lambda path=path, read=read: read(path)) == READ, (name, content)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_with_a_message(name, tmp_path):
    suffix, contents, read = READERS[name]
    path = tmp_path / f"x{suffix}"

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(changes())
    def check(made):
        content = contents[made[0][2] % len(contents)]
        if suffix in (".npz", ".pt") and made[0][2] % 3:
            content = changed_members(content, made)
        elif suffix == ".tar.gz":
            content = gzip.compress(changed(content, made), 1)
        else:
            content = changed(content, made)
        path.write_bytes(content)
        outcome(lambda: read(path))

    check()
