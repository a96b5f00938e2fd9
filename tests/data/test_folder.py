"""A user's folder of images in its three forms; an error is named with file and line."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import CLASSES, Folder, change_line, encoded, write_image, write_lines
from PIL import Image

from nlbench.data.datasets import folder
from nlbench.data.formats import image_parquet
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing
from nlbench.training.run_data import prepare


@pytest.fixture
def load(tmp_path):
    """Return load(path), which gives the Dataset; images of parquet go to tmp_path/cache."""
    return lambda path: folder.load(Places(path, tmp_path / "cache"), 0)


@pytest.fixture
def refused(load):
    """Return refused(path, *words), which checks that an error's message holds the words."""

    def check(path, *words):
        with pytest.raises(DataError) as caught:
            load(path)
        for word in words:
            assert word in str(caught.value), caught.value

    return check


@pytest.fixture
def small():
    return Folder()


def colours(images):
    """Return (N, 3), a pixel of each image's lower half."""
    found = [np.asarray(Image.open(images.path(i)))[15, 10] for i in range(len(images))]
    return np.stack(found).astype(int)


def classes_shown(images):
    """Read each image's class from its red, which is 40, 100 or 160."""
    return ((colours(images)[:, 0] - 40 + 30) // 60).tolist()


def check(dataset, small, order=None):
    """Check that labels are in order, and that each belongs to an image of the right class."""
    given, shown = np.array(small.given), np.array(small.clean)
    if order is not None:
        given, shown = given[order], shown[order]

    assert (dataset.info.num_classes, dataset.info.num_train, dataset.info.num_test) == (3, 30, 9)
    assert dataset.label_sets["given"].tolist() == given.tolist()
    assert dataset.label_sets["given"].dtype == dataset.test_labels.dtype == np.int64
    assert classes_shown(dataset.train_images) == shown.tolist()
    assert sorted(dataset.test_labels) == sorted(small.test)
    assert classes_shown(dataset.test_images) == dataset.test_labels.tolist()
    assert dataset.warnings == ()


def test_class_folders(load, small, tmp_path):
    path = small.write_classes(tmp_path / "birds")
    dataset = load(path)

    # Images are in the order of classes and names, and image 1 lies in a folder "more".
    rank = np.arange(30)
    rank[1] = 99
    check(dataset, small, np.lexsort((rank, small.given)))
    assert (dataset.info.name, dataset.info.title) == ("folder:birds", "birds")
    assert dataset.clean_labels is None
    assert dataset.info.label_sets == ("given",)
    paths = [dataset.train_images.path(i) for i in range(30)]
    assert str(path / "train" / "dog" / "more" / "001.jpg") in paths


def test_csv(load, small, tmp_path):
    path = small.write_csv(tmp_path / "birds")
    dataset = load(path)
    check(dataset, small)
    assert dataset.clean_labels.tolist() == small.clean
    assert dataset.info.label_sets == ("given", "clean")
    assert dataset.train_images.path(3) == str(path / "pictures" / "train" / "no 3, ñ.jpg")


def test_csv_without_true_labels(load, small, tmp_path):
    dataset = load(small.write_csv(tmp_path / "birds", clean=False))
    check(dataset, small)
    assert dataset.clean_labels is None


@pytest.mark.parametrize("data", ["data", ""])
@pytest.mark.parametrize(("clean", "named"), [(False, True), (True, True), (True, False)])
def test_parquet(load, small, tmp_path, data, clean, named):
    dataset = load(small.write_parquet(tmp_path / "birds", clean, named, data))
    check(dataset, small)
    assert (dataset.clean_labels is not None) == clean
    if clean:
        assert dataset.clean_labels.tolist() == small.clean

    # No unfinished entry is left in the cache.
    assert not list((tmp_path / "cache").glob(".*"))


def test_parquet_is_written_out_once(load, small, tmp_path, monkeypatch):
    path = small.write_parquet(tmp_path / "birds")
    before = load(path)
    folder._read.cache_clear()
    monkeypatch.setattr(image_parquet, "images", lambda files: pytest.fail("written out again"))
    assert load(path).fingerprint == before.fingerprint


LOADS = """
import sys
from pathlib import Path
from nlbench.data.datasets import folder
from nlbench.data.formats import image_parquet
from nlbench.data.places import Places

root = Path(sys.argv[1])
data = folder.load(Places(root / "birds", root / "cache"), 0)
for i in range(30):
    assert Path(data.train_images.path(i)).is_file()
print(data.fingerprint)
"""


def test_two_processes_may_write_out_at_once(small, tmp_path):
    small.write_parquet(tmp_path / "birds")
    command = [sys.executable, "-c", LOADS, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(printed) == 1


def test_one_parquet_file_that_is_no_struct(load, tmp_path):
    rows = pa.table({"img": [encoded(y, 0) for y in (0, 1, 1)], "label": ["b", "a", "a"]})
    for part in ("train", "test"):
        (tmp_path / "x").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "x" / f"{part}.parquet")
    dataset = load(tmp_path / "x")
    assert dataset.label_sets["given"].tolist() == [1, 0, 0]


@pytest.mark.parametrize("write", ["write_classes", "write_csv", "write_parquet"])
def test_fingerprint(load, tmp_path, write):
    first = load(getattr(Folder(), write)(tmp_path / "a" / "birds")).fingerprint
    assert load(getattr(Folder(), write)(tmp_path / "b" / "other name")).fingerprint == first

    given, test = Folder(), Folder()
    given.given[7] = (given.given[7] + 1) % 3
    test.test[2] = 0

    for name, other in (("c", given), ("d", test)):
        assert load(getattr(other, write)(tmp_path / name)).fingerprint != first


def test_fingerprint_knows_true_labels_and_the_images_of_parquet(load, tmp_path):
    csv = load(Folder().write_csv(tmp_path / "a"))
    parquet = load(Folder().write_parquet(tmp_path / "b"))

    # Another true label also gives the image another class's colour.
    clean, pixels = Folder(), Folder()
    clean.clean[7] = pixels.clean[7] = (clean.clean[7] + 1) % 3
    assert load(clean.write_csv(tmp_path / "c")).fingerprint != csv.fingerprint
    assert load(pixels.write_parquet(tmp_path / "d")).fingerprint != parquet.fingerprint


def test_a_folder_that_changed_is_read_again(load, small, tmp_path):
    path = small.write_classes(tmp_path / "birds")
    before = load(path)
    write_image(path / "train" / "cat" / "new.jpg")
    # A coarse clock could give the folder the time that it had.
    os.utime(path / "train" / "cat", ns=(0, 1))

    assert load(path).info.num_train == before.info.num_train + 1

    parquet = small.write_parquet(tmp_path / "fish")
    assert load(parquet).label_sets["given"][0] == 1

    small.given[0] = 2
    small.write_parquet(tmp_path / "fish")
    for file in (parquet / "data").iterdir():
        os.utime(file, ns=(0, 1))

    assert load(parquet).label_sets["given"][0] == 2


def test_classes_that_are_numbers_are_ordered_as_numbers(load, tmp_path):
    for part in ("train", "test"):
        for label in ("10", "9", "09"):
            write_image(tmp_path / "n" / part / label / "a.png")

    # The images are those of 09, 10 and 9, and the classes are 09, 9 and 10.
    assert load(tmp_path / "n").label_sets["given"].tolist() == [0, 2, 1]


def test_files_that_other_programs_leave_are_no_classes_and_no_images(load, small, tmp_path):
    path = small.write_classes(tmp_path / "birds")
    before = load(path).fingerprint
    write_image(path / "train" / ".ipynb_checkpoints" / "a.jpg")
    write_image(path / "train" / "cat" / ".thumbnails" / "a.jpg")
    (path / "train" / "cat" / "._001.jpg").write_bytes(b"Mac OS X")
    (path / "train" / "dog" / "notes.txt").write_text("x")
    (path / "train" / "list.txt").write_text("x")
    (path / ".#lock").symlink_to("nowhere")
    (path / "test" / ".#lock").symlink_to("nowhere")

    assert load(path).fingerprint == before


def test_missing_training_images(load, refused, tmp_path):
    path = Folder(per_class=70).write_csv(tmp_path / "birds")
    for i in (3, 8):
        (path / "pictures" / "train" / f"no {i}, ñ.jpg").unlink()
    dataset = load(path)
    (warning,) = [text for text in dataset.warnings if "no image" in text]

    image = path / "pictures" / "train" / "no 3, ñ.jpg"
    assert f"{path}/train.csv:5: no image {image} (the first of 2 of 210)" in warning
    assert len(dataset.train_images) == 208
    assert len(dataset.label_sets["given"]) == len(dataset.clean_labels) == 208

    (path / "pictures" / "train" / "no 100, ñ.jpg").unlink()
    # A process keeps what it read, and does not look for removed images again.
    folder._read.cache_clear()
    refused(path, "train.csv:5: no image", "the first of 3 of 210", "more than 1%")


def test_every_test_image_must_be_there(refused, small, tmp_path):
    path = small.write_csv(tmp_path / "birds")
    (path / "pictures" / "test" / "no 4, ñ.jpg").unlink()
    refused(path, "test.csv:6: no image", "every image of this part must be there")


@pytest.mark.parametrize(
    ("file", "number", "line", "message"),
    [
        (
            "train.csv",
            1,
            "what,label,clean_label",
            "train.csv:1: no column 'path', only 'what', 'label', 'clean_label'; rename the column "
            "with the files to 'path' (file, filename,",
        ),
        ("train.csv", 1, "a.jpg,cat,cat", "train.csv:1: the first line does not name the columns"),
        ("train.csv", 1, "# my list", "train.csv:1: the first line is a comment, '# my list'"),
        ("train.csv", 4, "a.jpg,unknown,cat", "another name, such as 'class-unknown'"),
        ("train.csv", 4, "a.jpg,,cat", "train.csv:4: label is empty; take these lines out, or if"),
        ("train.csv", 1, "path,klass,x", "train.csv:1: has no column 'label', only"),
        (
            "train.csv",
            1,
            "path,klass,clean_label",
            "train.csv:1: the column 'clean_label' holds true labels, and no column holds",
        ),
        (
            "train.csv",
            4,
            "a, b.jpg,cat,cat",
            "train.csv:4: more values than columns (4 for 3); put a value with a comma",
        ),
        ("train.csv", 4, "a.jpg,cat", "train.csv:4: has 2 values, expected 3: path, label"),
        ("train.csv", 4, "a.jpg, ,cat", "train.csv:4: label is empty"),
        ("train.csv", 4, '" ",cat,cat', "train.csv:4: path is empty"),
        (
            "train.csv",
            4,
            '"pictures/../pictures/train/no 0, ñ.jpg ",cat,cat',
            "no 0, ñ.jpg is in line 2 already",
        ),
        ("train.csv", 4, 'a.jpg,"cat"s,cat', "train.csv:4: cannot be read as CSV"),
        (
            "test.csv",
            3,
            "a.jpg,cta",
            "test.csv:3: no training image has the class 'cta'. There are: cat, dog, Überl",
        ),
        ("test.csv", 3, "a.jpg,cta", "Did you mean 'cat'?"),
    ],
)
def test_a_wrong_line_is_named(refused, small, tmp_path, file, number, line, message):
    path = small.write_csv(tmp_path / "birds")
    change_line(path / file, number, line)
    refused(path, message)


def test_an_index_column_and_a_byte_order_mark_are_no_harm(load, small, tmp_path):
    path = small.write_csv(tmp_path / "birds")
    before = load(path).fingerprint

    for name in ("train.csv", "test.csv"):
        header, *lines = (path / name).read_text().splitlines()
        numbered = [f"{i},{line}" for i, line in enumerate(lines)]
        text = "\r\n".join([f",{header}", *numbered])
        (path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert load(path).fingerprint == before


def test_other_encodings_and_empty_lists(refused, small, tmp_path):
    path = small.write_csv(tmp_path / "birds")
    write_lines(path / "test.csv", ["path,label"])

    refused(path, "test.csv: holds no images")

    write_lines(path / "test.csv", [])
    refused(path, "test.csv: is empty")

    (path / "train.csv").write_bytes("path,label\nñ.jpg,a\n".encode("latin-1"))
    refused(path, "train.csv:2: byte 11 is no UTF-8; save the file as UTF-8")


def test_nothing_there(refused, small, tmp_path):
    with pytest.raises(DataMissing, match="no such folder; it must hold train/CLASS"):
        folder.load(Places(tmp_path / "nowhere", tmp_path / "cache"), 0)

    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    refused(tmp_path / "empty", "empty/train: holds no images in class folders (.jpg,")

    write_image(tmp_path / "empty" / "train" / "cat" / "a.jpg")
    refused(tmp_path / "empty", "no test images there; it must hold train/CLASS")

    write_image(tmp_path / "empty" / "test" / "cat" / "a.jpg")
    refused(tmp_path / "empty", "empty/train: holds one class, cat; at least two are needed")

    write_image(tmp_path / "empty" / "train" / "dog" / "a.jpg")
    write_image(tmp_path / "empty" / "test" / "cow" / "a.jpg")

    refused(
        tmp_path / "empty",
        "empty/test: no training image has the class 'cow'. There are: cat, dog.",
    )


def test_wrong_parquet_files(refused, small, tmp_path):
    path = small.write_parquet(tmp_path / "birds")
    file = path / "data" / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])

    refused(path, f"{file}: cannot be read as parquet")

    pq.write_table(pa.table({"image": [b"x"], "klass": [0]}), file)
    refused(path, f"{file}: has no column 'label', only 'image', 'klass'")

    image = encoded(0, 0)
    for images, labels, message in (
        ([image, None], [0, 1], "row 1 (from 0) is without image bytes"),
        (["x", "y"], [0, 1], "row 0 (from 0) is without image bytes"),
        ([image, image], [0, None], "row 1 (from 0): label is empty, so there is no label"),
        ([image, image], [0, -1], "row 1 (from 0): label is -1, so there is no label; -1 marks"),
        ([image, image], [0.0, np.nan], "row 1 (from 0): label is nan, so there is no label"),
        ([image, image], [[0], [0, 1]], "row 0 (from 0): label is [0]: an image must have one"),
        ([image, image], [{"a": 1}, {"a": 2}], "row 0 (from 0): label is {'a': 1}: an image must"),
    ):
        pq.write_table(pa.table({"image": images, "label": labels}), file)
        refused(path, f"{file}: {message}")

    assert not list((tmp_path / "cache").glob(".*"))


def test_metadata_that_means_nothing_is_passed_over(load, small, tmp_path):
    path = small.write_parquet(tmp_path / "birds", named=False)
    for file in (path / "data").iterdir():
        table = pq.read_table(file)
        metadata = {"huggingface": json.dumps({"info": None})}
        pq.write_table(table.replace_schema_metadata(metadata), file)
    check(load(path), small)


def test_runs_with_true_labels_measure_their_noise(load, small, tmp_path):
    dataset = load(small.write_csv(tmp_path / "birds"))
    run = prepare(dataset, seed=0, labels="given", val_fraction=0.2)

    assert run.noise_rate_full == 6 / 30

    wrong = np.array(small.given) != np.array(small.clean)
    assert run.noise_rate_train == wrong[run.train_index].mean()

    drawn = prepare(dataset, seed=0, noise={"kind": "symmetric", "rate": 0.4})
    assert drawn.noise_rate_full == 0.4
    assert len(CLASSES) == len(run.T)


def test_a_test_image_by_another_way_is_a_leak(load, small, tmp_path):
    path = small.write_csv(tmp_path / "birds")
    write_image(path / "test" / "cat" / "a.jpg")
    change_line(path / "train.csv", 4, "test/cat/a.jpg,cat,cat")
    (path / "test.csv").unlink()
    message = r"birds/test: .*/test/cat/a.jpg is a training image too \(.*/train.csv:4\)"
    with pytest.raises(DataError, match=message):
        load(path)
