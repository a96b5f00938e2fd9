"""MNIST: torchvision's idx files and Hugging Face's parquet files give the same arrays."""

import gzip
import struct

import numpy as np
import pytest
from layouts import Mnist

from nlbench.data import catalogue
from nlbench.data.datasets import mnist
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def small():
    return Mnist()


def load(data):
    return catalogue.open_dataset("mnist", "", Places(data, data.with_name("cache")), 0)


def check(dataset, small):
    """Check the arrays: grey levels from 0 to 1, and the digits as labels."""
    for part, images in (("train", dataset.train_images), ("test", dataset.test_images)):
        assert images.dtype == np.float32
        assert images.shape == (len(small.labels[part]), 1, 28, 28)
        # 255 * (x / 255) in float64 is x, but for the rounding of x / 255 to float32.
        np.testing.assert_allclose(255.0 * images[:, 0], small.images[part], atol=1e-4)
    assert dataset.label_sets["clean"].tolist() == small.labels["train"].tolist()
    assert dataset.test_labels.tolist() == small.labels["test"].tolist()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", ""])
def test_idx_files(small, tmp_path, place, packed):
    small.write_idx(tmp_path / "data" / place, packed)
    check(load(tmp_path / "data"), small)


@pytest.mark.parametrize("place", ["mnist", "mnist/mnist"])
def test_parquet_files(small, tmp_path, place):
    small.write_parquet(tmp_path / "data" / place)
    check(load(tmp_path / "data"), small)


def test_the_same_images_have_the_same_fingerprint_in_all_layouts(small, tmp_path):
    small.write_idx(tmp_path / "packed" / "data" / "MNIST" / "raw")
    small.write_idx(tmp_path / "unpacked" / "data", packed=False)
    small.write_parquet(tmp_path / "parquet" / "data" / "mnist")
    found = {
        name: load(tmp_path / name / "data").fingerprint
        for name in ("packed", "unpacked", "parquet")
    }
    assert len(set(found.values())) == 1

    small.images["test"][-1, -1, -1] ^= 1
    small.write_idx(tmp_path / "other" / "data")
    assert load(tmp_path / "other" / "data").fingerprint not in found.values()


def test_the_second_hyphen_of_a_name_may_be_a_dot(small, tmp_path):
    folder = tmp_path / "data"
    small.write_idx(folder, packed=False)
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    check(load(folder), small)


def test_files_that_are_not_the_official_ones_are_named(small, tmp_path):
    small.write_idx(tmp_path / "data" / "MNIST" / "raw")
    dataset = load(tmp_path / "data")
    counts = "MNIST has 60000 train images, and there are 30"
    assert counts in dataset.warnings
    assert sum("is not the official file" in warning for warning in dataset.warnings) == 4
    assert dataset.info.num_train == 30
    assert len(dataset.checksums) == 4


def test_missing_files_are_named_with_their_sources(small, tmp_path):
    small.write_idx(tmp_path / "data" / "MNIST" / "raw")
    (tmp_path / "data" / "MNIST" / "raw" / f"{LABELS}.gz").unlink()
    with pytest.raises(DataMissing) as caught:
        load(tmp_path / "data")
    message = str(caught.value)
    assert f"missing in {tmp_path / 'data'}: {LABELS}" in message
    assert f"put it, as it is, at {tmp_path / 'data' / 'MNIST' / 'raw' / LABELS}.gz" in message
    assert "nlbench data fetch mnist" in message

    found = mnist.find(tmp_path / "nothing")
    assert found.needs == tuple(source.file for source in mnist.SOURCES)


def idx(*head, content=b""):
    return struct.pack(f">{len(head)}i", *head) + content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"\0", "1 bytes are no idx file"),
        (IMAGES, idx(2049, 30, 28, 28), "holds labels, and an idx file of images begins with 2051"),
        (IMAGES, idx(7, 30, 28, 28), "begins with 7, and an idx file of images begins with 2051"),
        (IMAGES, idx(2051, 1, 28, 28, content=b"\0" * 783), "ends too early: its head says 784"),
        (IMAGES, idx(2051, 1, 28, 28, content=b"\0" * 785), "goes on after its end"),
        (IMAGES, idx(2051, -1, 28, 28), "says that it holds -1 x 28 x 28 bytes"),
        (IMAGES, idx(2051, 2**31 - 1, 28, 28), "1 to 784000000 are allowed"),
        (
            IMAGES,
            idx(2051, 1, 2, 3, content=b"\0" * 6),
            "its images are 2x3, and MNIST's are 28x28",
        ),
        (LABELS, idx(2049, 2, content=b"\1\2"), "holds 2 labels, and train-images-idx3-ubyte"),
        (LABELS, idx(2049, 30, content=bytes(range(30))), "label 10 (from 0) is 10; digits are"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_file_is_refused(small, tmp_path, name, content, message, packed):
    small.write_idx(tmp_path / "data", packed)
    path = tmp_path / "data" / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "data")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_cut_archive_is_refused(small, tmp_path):
    small.write_idx(tmp_path / "data")
    path = tmp_path / "data" / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"truncated or damaged .*get the file again"):
        load(tmp_path / "data")


def test_coloured_images_are_refused(small, tmp_path):
    small.images["train"] = np.zeros((30, 28, 28, 3), np.uint8)
    small.write_parquet(tmp_path / "data" / "mnist")
    with pytest.raises(DataError, match="image 0 is RGB 28x28, it must be L 28x28"):
        load(tmp_path / "data")
