"""What a folder's reading leaves out, refuses or names: nothing is dropped, merged or doubled."""

import os
import shutil
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import Folder, encoded, write_image, write_lines
from PIL import Image

from nlbench.data.datasets import folder
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing


@pytest.fixture
def load(tmp_path):
    """Return load(path), which gives the Dataset."""
    return lambda path: folder.load(Places(path, tmp_path / "cache"), 0)


@pytest.fixture
def birds(tmp_path):
    """Return a folder of three classes in class folders."""
    return Folder().write_classes(tmp_path / "birds")


def warned(dataset, *words):
    """Check that one warning holds all the words."""
    assert any(all(word in text for word in words) for text in dataset.warnings), dataset.warnings


# ---- Classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "#recycle", "lost+found", "@tmp"],
)
def test_folders_of_programs_are_no_classes_and_their_files_no_pictures(load, birds, name):
    before = load(birds).fingerprint
    write_image(birds / "train" / name / "a.png" / "SYNOPHOTO_THUMB_M.jpg")
    write_image(birds / "train" / "cat" / name / "b.jpg")
    dataset = load(birds)
    assert dataset.fingerprint == before
    assert dataset.info.class_names == ("cat", "dog", "Überläufer, rot")
    warned(dataset, "train: left out 2 folders of another program: ", f"cat/{name}")


def test_empty_folders_are_no_classes(load, birds):
    (birds / "train" / "cow").mkdir()
    dataset = load(birds)
    assert dataset.info.num_classes == 3
    warned(dataset, "left out 1 folder without a picture, as no class: cow")


def test_a_class_without_test_images_is_named(load, birds):
    write_image(birds / "train" / "cow" / "a.jpg", 3, 90)
    warned(load(birds), "no test image has the class cow (1 of 4 classes)")


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("cat ", "cat"), ("CAT", "cat")])
def test_classes_that_look_alike_are_named(load, tmp_path, one, other):
    for part, number in (("train", 0), ("test", 9)):
        for i, label in enumerate((one, other)):
            write_image(tmp_path / "x" / part / label / "a.png", i, number)
    warned(load(tmp_path / "x"), repr(one), repr(other), "are two classes; is one misspelt?")


def test_composed_and_decomposed_accents_are_one_class(load, tmp_path):
    for part, form in (("train", "NFD"), ("test", "NFC")):
        for i, label in enumerate(("café", "thé")):
            name = unicodedata.normalize(form, label)
            write_image(tmp_path / "x" / part / name / "a.png", i, len(form + part))
    dataset = load(tmp_path / "x")
    assert dataset.info.class_names == ("café", "thé")
    assert dataset.test_labels.tolist() == [0, 1]


def test_a_folder_that_is_called_as_a_missing_label_is_named(load, birds):
    write_image(birds / "train" / "nan" / "a.jpg", 3, 90)
    warned(load(birds), "'nan' is taken for a class; is it a missing label?")


def test_levels_of_folders_are_named(load, tmp_path):
    for part in ("train", "test"):
        for i, year in enumerate(("2023", "2024")):
            for j, label in enumerate(("ant", "bee")):
                path = tmp_path / "x" / part / year / label / "a.png"
                write_image(path, 2 * i + j, len(part))
    dataset = load(tmp_path / "x")
    warned(dataset, "train: the folders 2023, 2024 are the classes, and not the folders ant, bee")
    warned(dataset, "if these are meant, move them up into test/")


# ---- What is read and what is left out -----------------------------------------------------------


@pytest.mark.parametrize("name", ["phone.jfif", "phone", "photo.JPE", "IMG_2.1"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_picture_by_its_content_is_read(load, birds, name, form):
    Image.new("RGB", (9, 9)).save(birds / "train" / "cat" / name, form)
    assert load(birds).info.num_train == 31


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.heic", b"x", "left out 1 picture of a kind that is not read (convert them to JPEG"),
        ("a", b"\0\0\0\x18ftypavif\0\0\0\0", "left out 1 picture of a kind that is not read"),
        ("a.dng", b"II*\0", "left out 1 picture of a kind that is not read"),
        ("a.npy", b"\x93NUMPY", "left out 1 picture of a kind that is not read"),
        ("notes.txt", b"x", "left out 1 file without a picture in it: cat/notes.txt"),
        ("a.zip", b"PK\3\4", "left out 1 file without a picture in it: cat/a.zip"),
        (
            "b.jpg.part",
            b"\xff\xd8\xff",
            "left out 1 file with the name of a backup or an unfinished download",
        ),
        (".hidden.jpg", b"\xff\xd8\xff", "left out 1 picture whose names begin with a dot"),
    ],
)
def test_what_is_left_out_is_named(load, birds, name, content, words):
    before = load(birds).fingerprint
    (birds / "train" / "cat" / name).write_bytes(content)
    os.utime(birds / "train" / "cat", ns=(0, 1))
    dataset = load(birds)
    assert dataset.fingerprint == before
    warned(dataset, words)


def test_pictures_and_lists_beside_class_folders_are_named(load, birds):
    write_image(birds / "train" / "00.jpg")
    (birds / "train" / "labels.csv").write_text("x")
    dataset = load(birds)
    warned(dataset, "left out 1 picture beside the class folders: 00.jpg")
    warned(dataset, "left out 1 file without a picture in it: labels.csv")


def test_pipes_are_not_opened(load, birds):
    os.mkfifo(birds / "train" / "cat" / "a.jpg")
    os.mkfifo(birds / "train" / "cat" / "b")
    warned(load(birds), "left out 2 files of a special kind, such as pipes and sockets")


# ---- Grey of 16 bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "tif", "none"])
@pytest.mark.parametrize(("brightest", "bits"), [(200, 8), (1000, 10), (4000, 12), (60_000, 16)])
def test_the_brightest_picture_says_how_many_bits_are_used(load, birds, form, brightest, bits):
    assert load(birds).train_images.grey_bits == 0
    ending = "" if form == "none" else f".{form}"
    kind = "TIFF" if form == "tif" else "PNG"
    for part, value in (("train", 100), ("test", brightest)):
        pixels = np.full((9, 9), value, np.uint16)
        Image.fromarray(pixels).save(birds / part / "cat" / f"deep{ending}", kind)
    data = load(birds)
    assert data.train_images.grey_bits == data.test_images.grey_bits == bits
    assert data.train_images[np.arange(2)].grey_bits == bits


# ---- Links ---------------------------------------------------------------------------------------


def test_linked_folders_and_files_are_followed_and_loops_end(load, birds, tmp_path):
    write_image(tmp_path / "more" / "x1.jpg", 0, 91)
    write_image(tmp_path / "more" / "x2.jpg", 0, 92)
    (birds / "train" / "cat" / "linked").symlink_to(tmp_path / "more")
    (birds / "train" / "cow").symlink_to(tmp_path / "more")
    (birds / "train" / "cat" / "again").symlink_to(birds / "train" / "cat")
    (birds / "train" / "dog" / "one.jpg").symlink_to(tmp_path / "more" / "x1.jpg")
    dataset = load(birds)
    assert dataset.info.num_train == 30 + 2 + 2 + 1
    warned(dataset, "left out 1 folder to which a link leads again: cat/again")
    warned(dataset, "3 of 35 training images with the bytes of another one; 2 pictures with")


def test_a_link_to_nothing_is_a_missing_image(load, birds):
    (birds / "train" / "cat" / "gone.jpg").symlink_to("../../nowhere.jpg")
    message = r"cat/gone\.jpg is a link to \.\./\.\./nowhere\.jpg, which is not there"
    with pytest.raises(DataError, match=message):
        load(birds)


# ---- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "extra"])
def test_other_parts_are_named(load, birds, name):
    before = load(birds).fingerprint
    write_image(birds / name / "cat" / "a.jpg", 0, 91)
    dataset = load(birds)
    assert dataset.fingerprint == before
    warned(dataset, f"{name}/ (1 picture) is not read as a part; only train and test are")
    if name != "extra":
        warned(dataset, "move those of", "into train or test, or remove them")


def test_other_lists_are_named_and_folders_of_listed_images_are_not(load, tmp_path):
    path = Folder().write_csv(tmp_path / "birds")
    assert load(path).warnings == ()
    write_lines(path / "val.csv", ["path,label"])
    warned(load(path), "val.csv (a list) is not read")


def test_the_parts_by_other_names(tmp_path):
    path = Folder().write_classes(tmp_path / "birds")
    (path / "train").rename(path / "Training")
    with pytest.raises(DataMissing, match="There is Training: call it train, if it is that"):
        folder.load(Places(path, tmp_path / "cache"), 0)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("test", "TEST", "There is TEST: call it test, if it is that"),
        ("test", "testing", "There is testing: call it test"),
        ("test", "other", "`test_share: 0.2` in the suite's dataset entry takes a fifth"),
        ("train", "pictures", "If pictures, test are the classes: `test_share: 0.2`"),
    ],
)
def test_what_a_folder_without_a_part_has(birds, tmp_path, old, new, hint):
    (birds / old).rename(birds / new)
    with pytest.raises(DataMissing) as caught:
        folder.load(Places(birds, tmp_path / "cache"), 0)
    assert hint in str(caught.value)


@pytest.mark.parametrize("part", ["train", "test"])
def test_classes_a_folder_deeper(load, birds, part):
    (birds / part).rename(birds / "deep")
    (birds / part).mkdir()
    (birds / "deep").rename(birds / part / "images")
    with pytest.raises(DataError) as caught:
        load(birds)
    assert "one class, images" in str(caught.value) or "has the class 'images'" in str(caught.value)
    assert "and not the folders cat, dog, Überläufer, rot inside them" in str(caught.value)


def test_a_part_a_folder_deeper(load, birds, tmp_path):
    (tmp_path / "outer").mkdir()
    birds.rename(tmp_path / "outer" / "birds")
    with pytest.raises(
        DataMissing, match=r"There is birds/train: name the folder .*outer/birds in"
    ):
        load(tmp_path / "outer")
    write_shard(tmp_path / "x" / "plain_text" / "train-00000-of-00001.parquet")
    with pytest.raises(
        DataMissing, match=r"There is plain_text/train-00000.*: put such files into"
    ):
        load(tmp_path / "x")


def test_measured_numbers_are_hardly_labels(load, tmp_path):
    for part in ("train", "test"):
        lines = ["path,label"]
        for i in range(24):
            name = f"{part}{i}.png"
            write_image(tmp_path / "x" / name, i % 16, i + 50 * (part == "test"))
            lines.append(f"{name},{i / 7:.3f}")
        write_lines(tmp_path / "x" / f"{part}.csv", lines)
    warned(load(tmp_path / "x"), "train.csv: 24 classes for 24 images; are these labels?")


def test_lists_by_another_name(tmp_path):
    write_lines(tmp_path / "x" / "train.tsv", ["path\tlabel"])
    with pytest.raises(DataMissing, match=r"There is train\.tsv: call it train\.csv"):
        folder.load(Places(tmp_path / "x", tmp_path / "cache"), 0)


def test_the_same_picture_in_both_parts_is_counted(load, birds):
    shutil.copy(birds / "train" / "cat" / "003.jpg", birds / "test" / "cat" / "copy.jpg")
    shutil.copy(birds / "train" / "cat" / "003.jpg", birds / "train" / "dog" / "copy.jpg")
    dataset = load(birds)
    warned(dataset, "1 of 10 test images with the bytes of a training image", "copy.jpg and")
    warned(dataset, "1 of 31 training images with the bytes", "1 picture with two labels")


# ---- metadata.csv --------------------------------------------------------------------------------


def write_metadata(place, folders):
    """Write pictures of three classes in `folders`, and Hugging Face's list of their labels."""
    for part, number in (("train", 0), ("test", 50)):
        lines = ["file_name,label"]
        for i in range(6):
            name = os.path.join(folders[i % len(folders)], f"{i}.png")
            write_image(place / part / name, i % 3, i + number)
            lines.append(f"{name},{('ant', 'bee', 'fly')[i % 3]}")
        write_lines(place / part / "metadata.csv", lines)


def test_metadata_beside_the_pictures(load, tmp_path):
    write_metadata(tmp_path / "x", [""])
    dataset = load(tmp_path / "x")
    assert dataset.info.class_names == ("ant", "bee", "fly")
    assert dataset.label_sets["given"].tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.warnings == ()


def test_metadata_counts_where_folders_say_something_else(load, tmp_path):
    write_metadata(tmp_path / "x", ["2023", "2024"])
    write_image(tmp_path / "x" / "train" / "2024" / "new.png", 0, 99)
    dataset = load(tmp_path / "x")
    assert dataset.info.class_names == ("ant", "bee", "fly")
    warned(dataset, "the labels are those of metadata.csv, and not the folders 2023, 2024")
    warned(dataset, "train: left out 1 picture that metadata.csv does not list")


def test_metadata_in_another_form_is_refused(load, birds):
    (birds / "train" / "metadata.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"metadata\.jsonl: is not read; save it as metadata\.csv"):
        load(birds)


# ---- Parquet -------------------------------------------------------------------------------------


def write_shard(path, labels=("a", "b"), number=0):
    """Write a parquet file of one image for each label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [encoded(i, number + i) for i in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": list(labels)}), path)


@pytest.fixture
def shards(tmp_path):
    """Return write(*names), which writes these parquet files, and a test file, into a folder."""

    def write(*names):
        for number, name in enumerate(("test.parquet", *names)):
            write_shard(tmp_path / "x" / name, number=3 * number)
        return tmp_path / "x"

    return write


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"], "00001-of"),
        (["train-00001-of-00002-0123456789abcdef.parquet"], "train-00000-of-00002.parquet is not"),
        (["train_0.parquet", "train_2.parquet"], r"train number 1 is not there \(2 of 3 files"),
        (["train2.parquet"], "train number 1 is not there"),
        (["train.parquet", "data/train-00000-of-00001.parquet"], "the part train is there twice"),
        (["train.parquet", "train-00000-of-00001.parquet"], "are two copies of the part train"),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"],
            "are two copies of the part train",
        ),
        (
            ["train-00000-of-00001-aa.parquet", "train-00000-of-00001-bb.parquet"],
            "the same file as train-00000-of-00001-aa.parquet by its number",
        ),
    ],
)
def test_parts_of_parquet_files_are_whole_and_there_once(load, shards, names, message):
    with pytest.raises(DataError, match=message):
        load(shards(*names))


def test_two_files_of_the_same_content(load, shards, tmp_path):
    path = shards("train_1.parquet")
    shutil.copy(path / "train_1.parquet", path / "train_2.parquet")
    with pytest.raises(DataError, match=r"train_2\.parquet: has the same content as train_1"):
        load(path)


@pytest.mark.parametrize("other", ["train_clean", "validation", "train-test", "trainval"])
def test_splits_are_not_merged(load, shards, other):
    dataset = load(shards("train-00000-of-00001.parquet", f"{other}-00000-of-00001.parquet"))
    assert dataset.info.num_train == 2
    warned(dataset, f"{other} (1 parquet file) is not read as a part; only train and test are")


def test_numbered_files_are_read_in_the_order_of_their_names(load, shards):
    path = shards(*[f"train-{i}.parquet" for i in range(11)])
    write_shard(path / "train-10.parquet", ("b", "a"), 80)
    # In the order of their names, in which 10 comes after 1.
    assert load(path).label_sets["given"].tolist() == [0, 1] * 2 + [1, 0] + [0, 1] * 8


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["ant", "bee"], ("ant", "bee")),
        ([True, False], ("False", "True")),
        ([0.0, 1.0], ("0.0", "1.0")),
        ([b"ant", b"bee"], ("ant", "bee")),
    ],
)
def test_labels_of_several_types(load, tmp_path, labels, classes):
    for part, number in (("train", 0), ("test", 10)):
        write_shard(tmp_path / "x" / f"{part}.parquet", labels, number)
    assert load(tmp_path / "x").info.class_names == classes


def test_a_label_that_no_name_belongs_to(load, tmp_path):
    path = Folder().write_parquet(tmp_path / "birds")
    file = path / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(file)
    labels = table.column("label").to_pylist()
    labels[2] = 3
    pq.write_table(table.set_column(1, "label", pa.array(labels)), file)
    with pytest.raises(DataError, match=r"row 2 .*: label is 3, and the file names 3 classes"):
        load(path)


def test_a_folder_of_parquet_files_is_told_their_place(load, tmp_path):
    write_shard(tmp_path / "x" / "train" / "0000.parquet")
    with pytest.raises(DataError, match=r"put 0000\.parquet as train-00000-of-00001\.parquet into"):
        load(tmp_path / "x")


def test_a_second_form_of_a_part_is_named(load, tmp_path):
    path = Folder().write_csv(tmp_path / "birds")
    write_shard(path / "data" / "train-00000-of-00001.parquet")
    warned(load(path), "train-00000-of-00001.parquet is not read, because train.csv is")


def test_class_folders_beside_a_list_are_named(load, tmp_path):
    path = Folder().write_csv(tmp_path / "birds")
    write_image(path / "train" / "cat" / "a.jpg", 3, 90)
    warned(load(path), "train/ (1 picture) is not read, because train.csv is")

    # Its images may lie there.
    write_lines(path / "train.csv", ["path,label", "train/cat/a.jpg,cat", "train/b.jpg,dog"])
    write_image(path / "train" / "b.jpg", 2, 91)
    write_lines(path / "test.csv", ["path,label", "c.jpg,cat"])
    write_image(path / "c.jpg", 2, 92)
    assert not any("train/ (" in text for text in load(path).warnings)


def test_labels_and_classes_stay_as_they_were(load, birds):
    dataset = load(birds)
    assert np.bincount(dataset.test_labels).tolist() == [3, 3, 3]
    assert dataset.warnings == ()
