"""What a folder's reading warns of, because a run would go wrong or leave something out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Folder, encoded, write_image
from PIL import Image

from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing


@pytest.fixture
def load(tmp_path):
    """Return load(path), which gives the Dataset."""
    return lambda path: folder.load(Places(path, tmp_path / "cache"), 0)


def warned(dataset, *words):
    """Check that one warning holds all the words."""
    assert any(all(word in text for word in words) for text in dataset.warnings), dataset.warnings


def test_pictures_that_no_list_names_are_counted(load, tmp_path):
    path = Folder().write_csv(tmp_path / "x")
    assert not any("no list names" in text for text in load(path).warnings)
    for name in ("pictures/a.png", "pictures/deep/b.jpg", "c.png"):
        write_image(path / name, 0, 99)
    warned(load(path), "x: left out 3 pictures that no list names: c.png, pictures/a.png,")


def test_one_hot_pixel_among_grey_pictures_is_named(load, tmp_path):
    path = Folder().write_classes(tmp_path / "x")
    for i in range(3):
        pixels = np.full((9, 9), 4000 + i, np.uint16)
        pixels[0, 0] = 65535 if i == 2 else 0
        Image.fromarray(pixels).save(path / "train" / "cat" / f"g{i}.png")
        if i == 1:
            assert not any("depths" in text for text in load(path).warnings)
    # The second time, the result comes from the cache.
    for _ in range(2):
        folder._read.cache_clear()
        warned(
            load(path),
            "(12 bits in 2, 16 bits in 1), and all are read as of 16 bits",
            "cat/g2.png; those of 12 bits are 16 times darker",
        )


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs"])
def test_files_that_are_no_pictures_are_named_before_training(load, tmp_path, content):
    path = Folder().write_classes(tmp_path / "x")
    assert not any("first bytes" in text for text in load(path).warnings)
    (path / "train" / "cat" / "zz.jpg").write_bytes(content)
    (path / "test" / "cat" / "zz.jpg").write_bytes(content)
    kinds = "(0 empty, 2 of other content)" if content else "(2 empty, 0 of other content)"
    warned(load(path), "2 of ", "cannot be decoded, by their first bytes", kinds, "cat/zz.jpg")


def test_a_test_picture_under_two_classes_is_named(load, tmp_path):
    path = Folder().write_classes(tmp_path / "x")
    for label in ("cat", "dog"):
        write_image(path / "test" / label / "same.png", 3, 90)
    warned(load(path), "test images with the bytes of another one; 1 picture with two labels")


def test_integers_that_pandas_wrote_as_floats_are_named(load, tmp_path):
    path = tmp_path / "x"
    for i in range(8):
        write_image(path / f"{i}.png", i % 2, i)
    train = "".join(f"{i}.png,{i % 2}.0\n" for i in range(4))
    test = "".join(f"{i}.png,{i % 2}\n" for i in range(4, 8))
    (path / "train.csv").write_text("path,label\n" + train)
    (path / "test.csv").write_text("path,label\n" + test)
    with pytest.raises(DataError, match=r"class '0' \(the first of 4 of 4 images\).*whole numbers"):
        load(path)


def test_a_validation_folder_without_a_test_part_is_offered_as_one(load, tmp_path):
    path = Folder().write_classes(tmp_path / "x")
    (path / "test").rename(path / "val")
    with pytest.raises(DataMissing, match="There is val: call it test"):
        load(path)


def test_missing_labels_of_parquet_are_counted(load, tmp_path):
    path = tmp_path / "x"
    path.mkdir()
    pictures = [{"bytes": encoded(i % 2, i), "path": None} for i in range(4)]
    table = pa.table({"image": pictures, "label": [0, None, -1, 1]})
    pq.write_table(table, path / "train.parquet")
    with pytest.raises(DataError, match=r"row 1 .*no label \(the first of 2 of 4 rows"):
        load(path)


def test_classes_a_folder_deeper_in_the_training_part_alone_are_named(load, tmp_path):
    for i, name in enumerate(("wild/cat", "wild/dog", "tame/cat", "tame/dog")):
        write_image(tmp_path / "x" / "train" / name / "a.png", i, i)
    write_image(tmp_path / "x" / "test" / "cat" / "a.png", 0, 9)
    with pytest.raises(DataError, match="not the folders cat, dog inside"):
        load(tmp_path / "x")
