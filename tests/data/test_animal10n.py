"""ANIMAL-10N: binary files and folders of images give the same arrays, decoded once."""

from pathlib import Path

import numpy as np
import pytest
from layouts import Animal10N, write_image
from PIL import Image

from nlbench.data.datasets import animal10n
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing


@pytest.fixture
def small():
    return Animal10N()


def load(data: Path, cache: Path | None = None):
    return animal10n.load(Places(data, cache or data.with_name("cache")), 0)


def refused(data, *words):
    """Check that loading fails with a DataError whose message holds all the words."""
    with pytest.raises(DataError) as caught:
        load(data)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", ["", "animal10n", "ANIMAL-10N"])
def test_binary_files_in_either_byte_order(small, tmp_path, order, place):
    small.write_binary(tmp_path / "data" / place, order)
    dataset = load(tmp_path / "data")

    np.testing.assert_array_equal(dataset.train_images, small.images["train"])
    np.testing.assert_array_equal(dataset.test_images, small.images["test"])
    assert dataset.label_sets["noisy"].tolist() == small.labels["train"].tolist()
    assert dataset.test_labels.tolist() == list(range(10))
    assert dataset.label_sets["noisy"].dtype == dataset.test_labels.dtype == np.int64
    assert list(dataset.label_sets) == ["noisy"]


@pytest.mark.parametrize("place", ["", "animal10n/raw_image", "Animal-10N/raw_image_ver"])
@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("train", "test")])
def test_folders_of_images(small, tmp_path, place, train, test):
    small.write_folders(tmp_path / "data" / place, train, test)
    dataset = load(tmp_path / "data")
    # The files are read in the order of their names, which begin with the label.
    order = np.lexsort((np.arange(30), small.labels["train"]))
    np.testing.assert_array_equal(dataset.train_images, small.images["train"][order])
    assert dataset.label_sets["noisy"].tolist() == small.labels["train"][order].tolist()
    np.testing.assert_array_equal(dataset.test_images, small.images["test"])


def test_jpeg_files_and_files_of_other_names(small, tmp_path):
    small.write_folders(tmp_path / "data", suffix="JPG")
    (tmp_path / "data" / "training" / "Thumbs.db").write_text("x")
    dataset = load(tmp_path / "data")
    assert dataset.train_images.shape == (30, 64, 64, 3)
    assert (abs(dataset.test_images.astype(int) - small.images["test"]) < 128).mean() > 0.9


def test_unusual_counts_are_a_warning_and_decoding_is_kept(small, tmp_path, monkeypatch):
    small.write_binary(tmp_path / "data")
    first = load(tmp_path / "data")

    assert len(first.warnings) == 2
    assert "30 train images, ANIMAL-10N has 50000" in first.warnings[0]

    monkeypatch.setattr(animal10n, "_decode", lambda *_: pytest.fail("decoded again"))
    again = load(tmp_path / "data")

    assert (again.fingerprint, again.warnings) == (first.fingerprint, first.warnings)
    assert isinstance(again.train_images, np.memmap)


def test_fingerprint_is_of_pixels_and_labels(tmp_path):
    def fingerprint(small, name, order="<"):
        return load(small.write_binary(tmp_path / name, order), tmp_path / "cache").fingerprint

    first = fingerprint(Animal10N(), "a")
    assert fingerprint(Animal10N(), "b", ">") == first

    pixel, label = Animal10N(), Animal10N()
    pixel.images["test"][3, 5, 5, 1] ^= 1
    label.labels["train"][:2] = label.labels["train"][1::-1].copy()

    assert fingerprint(pixel, "c") != first
    assert fingerprint(label, "d") != first


def test_missing(tmp_path):
    with pytest.raises(DataMissing, match=r"animal-10n\n.*animal10n") as caught:
        load(tmp_path / "data")
    assert "training/ and testing/" in str(caught.value)

    (tmp_path / "data" / "training").mkdir(parents=True)
    (tmp_path / "data" / "testing").mkdir()

    with pytest.raises(DataMissing):
        load(tmp_path / "data")


def test_damaged_binary_files(small, tmp_path):
    path = small.write_binary(tmp_path / "data") / "data_batch_10.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])

    refused(tmp_path / "data", str(path), "no whole number of records of 12296")

    path.write_bytes(b"")
    refused(tmp_path / "data", str(path), "0 bytes")

    path.write_bytes(content[:4] + b"\x0b\x00\x00\x0a" + content[8:])
    refused(tmp_path / "data", str(path), "labels are not 0 to 9 in either byte order")


def test_a_class_without_an_image(small, tmp_path):
    small.labels["test"][4] = 3
    small.write_binary(tmp_path / "data")
    refused(tmp_path / "data", "test_batch.bin: no image of class 4; is this ANIMAL-10N?")


def test_images_of_another_size_and_broken_ones(small, tmp_path):
    small.write_folders(tmp_path / "data")
    path = write_image(tmp_path / "data" / "training" / "3_x.jpg", size=(64, 63))

    refused(tmp_path / "data", f"{path}: is 64x63, ANIMAL-10N's images are 64x64")

    Image.new("L", (64, 64)).save(path)
    # A grey image of the right size is read: its pixels are copied to three channels.
    assert load(tmp_path / "data").info.num_classes == 10

    (tmp_path / "data" / "training" / "4_y.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "data", "4_y.png: cannot be decoded", "4 bytes")
