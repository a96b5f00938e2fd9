"""Mini-WebVision: the first 50 of 1,000 classes are kept.

The images of ImageNet get their classes by WordNet id, and never by the order of folders.
"""

import shutil

import numpy as np
import pytest
from layouts import SYNSETS, WebVision, change_line, write_image, write_lines

from nlbench.data.datasets import webvision
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing


def load(data):
    return webvision.load(Places(data, data / "no cache"), 0)


def refused(data, *words):
    """Check that loading fails with a DataError whose message holds all the words."""
    with pytest.raises(DataError) as caught:
        load(data)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.fixture
def small():
    return WebVision()


@pytest.mark.parametrize("place", ["webvision", "WebVision", ""])
@pytest.mark.parametrize("val_prefix", ["", "val_images_256/"])
def test_the_first_fifty_classes(small, tmp_path, place, val_prefix):
    small.write(tmp_path / place, val_prefix)
    dataset = load(tmp_path)
    root = tmp_path / place

    info = dataset.info
    assert (info.num_classes, info.num_train, info.num_test) == (50, 100, 50)
    assert list(dataset.label_sets) == ["noisy"]
    for i, (name, label) in enumerate(small.train):
        assert dataset.train_images.path(i) == str(root / name)
        assert dataset.label_sets["noisy"][i] == label
    assert dataset.test_images.path(0) == str(root / "val_images_256" / "val000049.jpg")
    assert dataset.test_labels.tolist() == list(range(49, -1, -1))


def test_imagenet_is_mapped_by_wordnet_id(small, tmp_path):
    # Folders in the order of their names would give other classes.
    assert sorted(SYNSETS[:50]) != SYNSETS[:50]
    images, labels = load(small.write(tmp_path)).scored["ilsvrc12"]
    for i, label in enumerate(labels):
        assert images.path(i).endswith(f"ilsvrc12/{SYNSETS[label]}/ILSVRC2012_val_00000001.JPEG")
    assert labels.tolist() == list(range(50))


def test_fewer_images_than_imagenet_has_are_a_warning(small, tmp_path):
    small.write(tmp_path)
    (warning,) = load(tmp_path).warnings

    assert "ilsvrc12: 1 images of a class; ILSVRC 2012 has 50" in warning

    for name in SYNSETS[:50]:
        place = tmp_path / "ilsvrc12" / name
        for i in range(2, 51):
            shutil.copy(place / "ILSVRC2012_val_00000001.JPEG", place / f"{i}.JPEG")

    dataset = load(tmp_path)
    assert dataset.warnings == ()
    assert (np.bincount(dataset.scored["ilsvrc12"][1]) == 50).all()


def test_fingerprint(tmp_path):
    first = load(WebVision().write(tmp_path / "a")).fingerprint
    assert load(WebVision().write(tmp_path / "b" / "WebVision")).fingerprint == first

    for part in ("train", "val"):
        other = WebVision()
        rows = getattr(other, part)
        rows[60 if part == "train" else 2] = rows[60 if part == "train" else 2][0], 5
        rows[3] = rows[3][0], 6
        rows.append((rows[0][0].replace(".jpg", "b.jpg"), 3))
        rows.append((rows[0][0].replace(".jpg", "c.jpg"), 46 if part == "val" else 10))
        rows.append((rows[0][0].replace(".jpg", "d.jpg"), 47 if part == "val" else 11))

        assert load(other.write(tmp_path / part)).fingerprint != first

    lines = (tmp_path / "a" / "info" / "synsets.txt").read_text().splitlines()
    lines[3], lines[4] = lines[4], lines[3]
    write_lines(tmp_path / "a" / "info" / "synsets.txt", lines)

    assert load(tmp_path / "a").fingerprint != first


def test_the_message_about_missing_files_has_their_home_page(small, tmp_path):
    small.write(tmp_path / "webvision")
    shutil.rmtree(tmp_path / "webvision" / "ilsvrc12")
    (tmp_path / "webvision" / "info" / "synsets.txt").unlink()

    with pytest.raises(DataMissing) as caught:
        load(tmp_path)
    files = ("info/synsets.txt; ilsvrc12", "webvision/ilsvrc12")
    for word in ("missing in", "https://image-net.org", *files):
        assert word in str(caught.value)
    assert "val_images_256" not in str(caught.value)


def test_missing_images(tmp_path):
    small = WebVision(per_class=4)
    small.write(tmp_path)
    (tmp_path / small.train[7][0]).unlink()
    dataset = load(tmp_path)

    # Image 7 is in line 10, because two lines of other classes come first.
    image = f"{tmp_path}/google/q0007/im g,0é.jpg"
    message = f"train_filelist_google.txt:10: no image {image}; left out"
    assert message in dataset.warnings[0]
    assert dataset.info.num_train == 199
    assert dataset.label_sets["noisy"][7] == 8

    for i in (8, 9):
        (tmp_path / small.train[i][0]).unlink()
    refused(
        tmp_path,
        "train_filelist_google.txt:10: no image",
        "the first of 3 of 200",
        "more than 1% are missing",
    )


def test_every_image_that_scores_must_be_there(small, tmp_path):
    small.write(tmp_path)
    (tmp_path / "val_images_256" / "val000047.jpg").unlink()
    refused(
        tmp_path,
        "val_filelist.txt:4: no image",
        "val000047.jpg; every image of this part must be there",
    )


def test_a_class_of_imagenet_that_is_not_there(small, tmp_path):
    small.write(tmp_path)
    (tmp_path / "ilsvrc12" / SYNSETS[31] / "ILSVRC2012_val_00000001.JPEG").unlink()
    refused(
        tmp_path,
        f"ilsvrc12/{SYNSETS[31]}: no images of class 31 there",
        f"synsets.txt:32 is {SYNSETS[31]})",
    )


@pytest.mark.parametrize(
    ("file", "number", "line", "message"),
    [
        (
            "train_filelist_google.txt",
            5,
            "google/a.jpg",
            "google.txt:5: must be a file and a label from 0",
        ),
        (
            "train_filelist_google.txt",
            5,
            "google/a.jpg 1000",
            "google.txt:5: label 1000 of google/a.jpg is not below",
        ),
        (
            "val_filelist.txt",
            1,
            "val.jpg x",
            "val_filelist.txt:1: must be a file and a label from 0",
        ),
        (
            "val_filelist.txt",
            3,
            "val000047.jpg 48",
            "val_filelist.txt:4: val_images_256/val000047.jpg is listed already",
        ),
        (
            "val_filelist.txt",
            3,
            None,
            "val_filelist.txt: only 49 of the first 50 classes are in it",
        ),
        (
            "synsets.txt",
            8,
            SYNSETS[3],
            f"synsets.txt:8: {SYNSETS[3]} is the class of line 4 already",
        ),
        ("synsets.txt", 8, "", "synsets.txt: holds 49 of the first 50 WordNet ids"),
    ],
)
def test_a_wrong_line_is_named(small, tmp_path, file, number, line, message):
    small.write(tmp_path)
    change_line(tmp_path / "info" / file, number, line)
    refused(tmp_path, message)


def test_empty_lists(small, tmp_path):
    small.write(tmp_path)
    write_lines(tmp_path / "info" / "val_filelist.txt", [])
    refused(tmp_path, "val_filelist.txt: only 0 of the first 50 classes are in it")


def test_other_files_in_imagenets_folders_are_left_alone(small, tmp_path):
    before = load(small.write(tmp_path)).fingerprint
    (tmp_path / "ilsvrc12" / SYNSETS[0] / "index.html").write_text("x")
    write_image(tmp_path / "ilsvrc12" / SYNSETS[0] / "._ILSVRC2012_val_00000001.jpg")
    assert load(tmp_path).fingerprint == before
