"""`nlbench data check`: every broken picture of a folder is found before anything is trained."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Folder, write_image
from PIL import Image
from typer.testing import CliRunner

from nlbench.cli import app
from nlbench.data import inspect
from nlbench.data.base import ImageFiles
from nlbench.data.decode import BrokenImage
from nlbench.data.formats import image_lists
from nlbench.errors import DataError
from nlbench.executors import local

WORDS = (("good", 1), ("bad", 0))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Decode in this process, and keep copies of parquet files in the test's folder."""
    monkeypatch.setenv("NLBENCH_WORKERS", "0")
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def birds(tmp_path):
    return Folder().write_classes(tmp_path / "birds")


def check(path, *options):
    """Return the exit status and what is printed."""
    result = CliRunner().invoke(app, ["data", "check", str(path), *options])
    return result.exit_code, result.stdout


def test_a_sound_folder(birds):
    status, text = check(birds)
    assert status == 0
    assert "birds: 3 classes (cat, dog, Überläufer, rot); 30 training images" in text
    assert "Überläufer, rot                10     3\n" in text
    assert "forms: JPEG 39\npixels: RGB 39\nsizes: 24 to 24 wide (median 24), 20 to 20" in text
    assert "broken: 0 of 39\n" in text


def test_every_broken_picture_is_listed(birds):
    (birds / "train" / "cat" / "003.jpg").write_bytes(b"")
    (birds / "train" / "dog" / "000.jpg").write_bytes(b"<html>404")
    (birds / "test" / "dog" / "001.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    status, text = check(birds)
    assert status == 1
    assert "broken: 3 of 40\n" in text
    for words in ("cat/003.jpg: cannot be decoded (the file is empty", "dog/001.jpg: cannot be"):
        assert words in text
    assert "dog/000.jpg: is a web page and no image" in text


def test_broken_pictures_of_parquet_files_are_named_by_their_row(tmp_path):
    path = Folder().write_parquet(tmp_path / "birds")
    file = path / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(file)
    images = table.column("image").to_pylist()
    images[2]["bytes"] = b"<html>"
    pq.write_table(table.set_column(0, "image", pa.array(images)), file)
    status, text = check(path)
    assert status == 1
    assert "/0000017-" in text
    assert "a file's first number is the row of the picture, from 0, over all files" in text


def test_what_pictures_are(birds):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(birds / "train" / "cat" / "turned.jpg", exif=exif)
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(birds / "train" / "cat" / "deep.png")
    first, second = Image.new("RGB", (8, 8), (9, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 9))
    first.save(birds / "train" / "cat" / "moves.gif", save_all=True, append_images=[second])
    shutil.copy(birds / "train" / "cat" / "003.jpg", birds / "test" / "cat" / "copy.jpg")
    status, text = check(birds)
    assert status == 0
    assert "turned as their EXIF orientation says: 1\n" in text
    assert "grey of more than 8 bits, of which 12 are used: 1\n" in text
    assert "with several frames or pages, of which the first is used: 1\n" in text
    assert "pictures with the same bytes as another one: 1\n" in text
    assert "1 of 10 test images with the bytes of a training image" in text


def test_a_folder_that_cannot_be_read_as_a_dataset_is_checked_too(tmp_path):
    write_image(tmp_path / "x" / "images" / "a.jpg")
    (tmp_path / "x" / "images" / "b.jpg").write_bytes(b"x")
    status, text = check(tmp_path / "x")
    assert status == 1
    assert "cannot be used as it is:" in text
    assert "There is images" in text
    assert "broken: 1 of 2\n" in text


def test_nothing_to_check(tmp_path):
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "nowhere: no such folder" in result.stderr
    (tmp_path / "empty").mkdir()
    status, text = check(tmp_path / "empty")
    assert status == 1
    assert text.startswith("cannot be used as it is:")
    assert "broken" not in text


@pytest.mark.parametrize("workers", ["0", "2"])
def test_pictures_are_reported_in_their_order(birds, monkeypatch, workers):
    monkeypatch.setenv("NLBENCH_WORKERS", workers)
    monkeypatch.setattr(inspect, "_CHUNK", 2)
    paths = sorted(map(str, birds.glob("train/*/*.jpg")))
    counts = []
    found = inspect.pictures(paths, counts.append)
    assert [picture.path for picture in found] == paths
    assert sum(counts) == len(paths)


def test_a_run_names_all_broken_pictures(birds):
    broken = ["cat/003.jpg", "dog/000.jpg", "dog/004.jpg"]
    for name in broken:
        (birds / "train" / name).write_bytes(b"")
    names = sorted(str(path.relative_to(birds)) for path in birds.glob("*/*/*.jpg"))
    files = image_lists.image_files(birds, names)

    found = inspect.broken([files, None, np.zeros(3)])
    assert [error.partition(": ")[0] for error in found] == [f"{birds}/train/{b}" for b in broken]


def test_the_error_of_a_run_becomes_one_with_all_of_them(birds, monkeypatch):
    data = SimpleNamespace(
        train_images=ImageFiles(birds, np.array(["a.jpg", "b.jpg"], "S")),
        test_images=ImageFiles(birds, np.array(["c.jpg"], "S")),
        val_images=None,
        scored={},
    )
    trainer = local.Trainer(None, None, None)
    monkeypatch.setattr(trainer, "_data_of", lambda spec: data)
    error = trainer._in_full(BrokenImage("x"), None)
    assert type(error) is DataError
    heading, *lines = str(error).split("\n")
    assert heading == "3 images cannot be used; mend them or take them out:"
    assert [line.partition(":")[0].strip() for line in lines] == [
        f"{birds}/{name}.jpg" for name in "abc"
    ]
    other = ValueError("x")
    assert trainer._in_full(other, None) is other


# ---- Tables --------------------------------------------------------------------------------------


def test_a_folder_of_a_table_for_each_part(tmp_path):
    for part, count in (("train", 12), ("test", 6)):
        rows = [f"{i},{i % 3},{i % 2}" for i in range(count)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["age,size,kind", *rows]))

    status, text = check(tmp_path, "--label", "kind")

    assert status == 0
    assert "2 classes (0, 1); 12 training examples, 6 in each class; 6 test examples" in text
    assert "features: 2, of which 0 are the same in all training rows" in text


def test_a_table_of_texts_that_is_read_as_features_is_pointed_to_the_option(tmp_path):
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text("text,label\ngood,1\nbad,0\n")

    status, text = check(tmp_path)

    assert status == 1
    assert "to check a table of texts, name their column: --text COLUMN" in text
    assert check(tmp_path, "--text", "text")[0] == 0


def test_the_option_of_texts_is_for_files():
    result = CliRunner().invoke(app, ["data", "check", "hf:ann/reviews", "--text", "said"])

    assert result.exit_code == 2
    assert "--text names a column of a file" in result.output


# ---- Texts ---------------------------------------------------------------------------------------


def test_a_table_of_texts(tmp_path):
    rows = [f"{word} {word} {word}{i},{label}" for i in range(10) for word, label in WORDS]
    (tmp_path / "said.csv").write_text("\n".join(["said,kind", *rows]))

    status, text = check(tmp_path / "said.csv", "--text", "said", "--label", "kind")

    assert status == 0
    assert "said: 2 classes (0, 1); 16 training examples, 8 in each class; 4 test" in text
    # Two words of each kind, and one that no other text has, for each of the 16 and the 4 texts.
    assert "words: 18 have a number; of all words 0.0% in training texts and 33.3% in test" in text
    assert "length of a training text: 3 words in the middle, at most 3;" in text


def test_json_lines_are_texts(tmp_path):
    lines = [json.dumps({"text": f"{w} {i}", "label": k}) for i in range(10) for w, k in WORDS]
    (tmp_path / "said.jsonl").write_text("\n".join(lines))

    status, text = check(tmp_path / "said.jsonl")

    assert status == 0
    assert "said: 2 classes (0, 1); 16 training examples" in text


def test_a_column_of_texts_that_is_not_there(tmp_path):
    (tmp_path / "said.csv").write_text("said,kind\ngood,1\n")

    status, text = check(tmp_path / "said.csv", "--text", "words")

    assert status == 1
    assert "said.csv: `text` names 'words', and it has no column 'words'" in text


def test_a_file_that_is_neither_pictures_nor_a_table(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "notes.txt")])

    assert result.exit_code == 2
    assert "notes.txt: is a file. What is checked is a folder of" in result.output
