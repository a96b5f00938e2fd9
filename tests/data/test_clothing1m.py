"""Clothing1M: every known layout is read; an error in a list is named with file and line."""

import numpy as np
import pytest
from layouts import Clothing1M, change_line, write_lines

from nlbench.data.datasets import clothing1m
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing
from nlbench.training.run_data import prepare


def load(data):
    return clothing1m.load(Places(data, data / "no cache"), 0)


def refused(data, *words):
    """Check that loading fails with all the words in the message, and return the message."""
    with pytest.raises(DataError) as caught:
        load(data)
    for word in words:
        assert word in str(caught.value), caught.value
    return str(caught.value)


@pytest.fixture
def small():
    return Clothing1M()


@pytest.mark.parametrize("place", ["clothing1m", "Clothing1M", ""])
@pytest.mark.parametrize(
    ("lists", "images", "prefix"),
    [
        ("", "images", "images/"),
        ("annotations", "images", "images/"),
        ("label", "images", ""),
        # The root of some authors' code is the folder of images.
        ("images", "images", "images/"),
        ("", "", "images/"),
    ],
)
def test_layouts(small, tmp_path, place, lists, images, prefix):
    small.write(tmp_path / place, lists, images, prefix)
    dataset = load(tmp_path)
    train, val, test = small.parts.values()

    assert (dataset.info.num_train, dataset.info.num_test) == (len(train), len(test))
    assert dataset.warnings == ()
    assert list(dataset.label_sets) == ["noisy"]
    assert dataset.clean_labels is None

    val_images, val_labels = dataset.scored["clean_val"]
    for files, labels, part in (
        (dataset.train_images, dataset.label_sets["noisy"], train),
        (dataset.test_images, dataset.test_labels, test),
        (val_images, val_labels, val),
    ):
        assert labels.dtype == np.int64
        assert len(files) == len(labels) == len(part)
        for i, (key, label) in enumerate(part):
            name = key.removeprefix("images/")
            assert files.path(i) == str(tmp_path / place / images / name)
            assert labels[i] == label


def test_the_key_lists_alone_decide_which_image_belongs_to_a_part(small, tmp_path):
    """Give the first training image a clean label as well, and a validation image a noisy one."""
    dataset = load(small.write(tmp_path))
    assert dataset.label_sets["noisy"][0] == 0
    assert dataset.scored["clean_val"][1][1] == 1


def test_fingerprint_is_of_the_lists_and_not_of_the_place(tmp_path):
    first = load(Clothing1M().write(tmp_path / "a"))
    elsewhere = load(Clothing1M().write(tmp_path / "b" / "clothing1m", "label", prefix=""))

    assert first.fingerprint == elsewhere.fingerprint

    for part in ("noisy_train", "clean_val", "clean_test"):
        other = Clothing1M()
        key, label = other.parts[part][3]
        other.parts[part][3] = key, (label + 1) % 14
        assert load(other.write(tmp_path / part)).fingerprint != first.fingerprint

    swapped = Clothing1M()
    swapped.parts["noisy_train"][4:6] = swapped.parts["noisy_train"][5:3:-1]

    assert load(swapped.write(tmp_path / "swapped")).fingerprint != first.fingerprint


def test_missing_files_are_named_with_their_place(tmp_path):
    with pytest.raises(DataMissing) as caught:
        load(tmp_path)

    home = "https://github.com/Cysu/noisy_label"
    for word in ("noisy_train_key_list.txt", "images", home, "clothing1m/"):
        assert word in str(caught.value)

    Clothing1M().write(tmp_path / "Clothing1M")
    (tmp_path / "Clothing1M" / "clean_label_kv.txt").unlink()

    with pytest.raises(DataMissing, match=r"missing in .*: clean_label_kv\.txt\n"):
        load(tmp_path)


def test_a_few_missing_training_images_are_left_out_with_a_warning(tmp_path):
    small = Clothing1M(train=280)
    small.write(tmp_path)
    for i in (5, 9):
        (tmp_path / small.parts["noisy_train"][i][0]).unlink()
    dataset = load(tmp_path)

    (warning,) = dataset.warnings
    path = tmp_path / "noisy_train_key_list.txt"
    assert warning.startswith(f"{path}:6: no image {tmp_path}/images/5/05/5,85.jpg")
    assert "(the first of 2 of 280); left out" in warning

    kept = [label for _, label in small.parts["noisy_train"]]
    del kept[9], kept[5]
    assert dataset.info.num_train == 278
    assert dataset.label_sets["noisy"].tolist() == kept
    assert dataset.train_images.path(5).endswith("/6,102.jpg")

    (tmp_path / small.parts["noisy_train"][7][0]).unlink()
    message = refused(tmp_path, "noisy_train_key_list.txt:6: no image", "the first of 3 of 280")
    assert "more than 1% are missing" in message


@pytest.mark.parametrize("part", ["clean_val", "clean_test"])
def test_every_image_that_scores_must_be_there(small, tmp_path, part):
    small.write(tmp_path)
    (tmp_path / small.parts[part][2][0]).unlink()
    message = refused(tmp_path, f"{tmp_path / part}_key_list.txt:3: no image")
    assert "every image of this part must be there" in message
    assert "first of" not in message


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (
            "noisy_label_kv.txt",
            "images/0/00/0,0.jpg",
            "noisy_label_kv.txt:4: must be a file and a label from 0",
        ),
        (
            "noisy_label_kv.txt",
            "images/0/00/0,0.jpg -1",
            "noisy_label_kv.txt:4: must be a file and a label from 0",
        ),
        (
            "noisy_label_kv.txt",
            "images/0/00/0,0.jpg 3.0",
            "noisy_label_kv.txt:4: must be a file and a label from 0",
        ),
        ("noisy_label_kv.txt", "7", "noisy_label_kv.txt:4: must be a file and a label from 0"),
        (
            "noisy_label_kv.txt",
            "a.jpg 14",
            "noisy_label_kv.txt:4: label 14 of a.jpg is not below the 14 classes",
        ),
        ("clean_label_kv.txt", f"a.jpg {'9' * 5000}", "clean_label_kv.txt:4: label 99999"),
        (
            "noisy_label_kv.txt",
            "images/0/00/0,0.jpg 3",
            "noisy_label_kv.txt:4: images/0/00/0,0.jpg has label 3, and 0",
        ),
        (
            "noisy_train_key_list.txt",
            "images/0/9.jpg",
            "noisy_train_key_list.txt:4: 'images/0/9.jpg' has no label in",
        ),
        (
            "clean_val_key_list.txt",
            "images/0/00/5000,0.jpg",
            "val_key_list.txt:4: 0/00/5000,0.jpg is listed already",
        ),
    ],
)
def test_a_wrong_line_is_named(small, tmp_path, file, line, message):
    small.write(tmp_path)
    change_line(tmp_path / file, 4, line)
    refused(tmp_path, message)


def test_an_image_that_is_listed_twice_is_trained_on_once(small, tmp_path):
    small.write(tmp_path)
    change_line(tmp_path / "noisy_train_key_list.txt", 4, "images/0/00/0,0.jpg")
    dataset = load(tmp_path)
    assert dataset.info.num_train == 14 * 8 - 1
    (warning,) = dataset.warnings
    line = f"{tmp_path}/noisy_train_key_list.txt:4"
    assert warning == f"{line}: 0/00/0,0.jpg is listed already; left out"


def test_other_ends_of_lines_blanks_and_a_byte_order_mark(small, tmp_path):
    before = load(small.write(tmp_path)).fingerprint
    for path in tmp_path.glob("*.txt"):
        text = path.read_text().replace(" ", " \t ").replace("\n", "  \r\n\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load(tmp_path).fingerprint == before


def test_names_may_hold_any_letters(small, tmp_path):
    """Use U+0085 and U+2028, too, at which Python's splitlines() would split."""
    train = small.parts["noisy_train"]
    train[0] = ("images/0/00/a b, é\u0085\u2028漢 7.jpg", 3)
    dataset = load(small.write(tmp_path))

    assert dataset.train_images.path(0).endswith("/a b, é\u0085\u2028漢 7.jpg")
    assert dataset.label_sets["noisy"][0] == 3

    change_line(tmp_path / "clean_val_key_list.txt", 2, "nowhere.jpg")
    refused(tmp_path, "clean_val_key_list.txt:2: 'nowhere.jpg'")


def test_empty_and_foreign_lists(small, tmp_path):
    small.write(tmp_path)
    write_lines(tmp_path / "clean_test_key_list.txt", ["", " "])

    refused(tmp_path, "clean_test_key_list.txt: holds no key")

    (tmp_path / "noisy_label_kv.txt").write_bytes(b"\x89PNG\xff")
    refused(tmp_path, "noisy_label_kv.txt: byte 0 is no UTF-8; is this the list?")


@pytest.mark.parametrize(
    ("one", "other"),
    [("noisy_train", "clean_test"), ("noisy_train", "clean_val"), ("clean_val", "clean_test")],
)
def test_an_image_in_two_parts_is_a_leak(small, tmp_path, one, other):
    small.parts[one][5] = small.parts[other][0]
    with pytest.raises(DataError, match=r"0/00/\d000,0.jpg: is both a .* image"):
        prepare(load(small.write(tmp_path)), seed=0, labels="noisy")


def test_a_run_holds_no_truth(small, tmp_path):
    dataset = load(small.write(tmp_path))
    run = prepare(dataset, seed=0, labels="noisy", val_fraction=0.25, stratify="clean")

    assert run.clean_labels is run.T is None
    assert run.noise_rate_train is run.noise_rate_full is run.noise_rate_val is None
    assert (run.num_train, run.num_val) == (84, 28)

    # Without clean labels the validation part is drawn in proportion to the given ones.
    assert (np.bincount(run.val_labels) == 2).all()

    keys = [key for key, _ in small.parts["noisy_train"]]
    for i, position in enumerate(run.train_index):
        assert run.train_images.path(i).endswith(keys[position])

    with pytest.raises(ValueError, match="no noise can be drawn where the true labels are unknown"):
        prepare(load(tmp_path), seed=0, noise={"kind": "symmetric", "rate": 0.4})
