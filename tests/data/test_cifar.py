"""CIFAR: every layout is found and gives the same data; damaged files are named."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlbench.data import cache
from nlbench.data.datasets import cifar10, cifar100
from nlbench.data.formats import cifar
from nlbench.data.places import Places
from nlbench.errors import DataError, DataMissing, NlbenchWarning, SuiteError
from nlbench.plan.expand import expand
from nlbench.plan.suite_file import read_suite


def check(dataset, small):
    """Check that a dataset holds the images and labels of `small`, with the right dtypes."""
    np.testing.assert_array_equal(dataset.train_images, small.train[0])
    np.testing.assert_array_equal(dataset.clean_labels, small.train[1])
    np.testing.assert_array_equal(dataset.test_images, small.test[0])
    np.testing.assert_array_equal(dataset.test_labels, small.test[1])
    assert dataset.train_images.dtype == np.uint8
    assert dataset.clean_labels.dtype == dataset.test_labels.dtype == np.int64


def write_archive(small, path):
    """Write the official layout as one archive."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in small.batches().items():
            member = tarfile.TarInfo(f"{small.layout.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("place", ["", "cifar10", "cifar-10"])
def test_folder_of_batches(small10, tmp_path, place):
    small10.write_batches(tmp_path / "data" / place)
    check(cifar10.load(Places(tmp_path / "data", tmp_path / "cache"), 0), small10)


def test_the_folder_of_batches_itself_may_be_the_data_directory(small10, tmp_path):
    folder = small10.write_batches(tmp_path)
    check(cifar10.load(Places(folder, tmp_path / "cache"), 0), small10)


def test_archive_is_read_as_it_is(small10, tmp_path):
    write_archive(small10, tmp_path / "cifar-10-python.tar.gz")
    check(cifar10.load(Places(tmp_path, tmp_path / "cache"), 0), small10)
    assert not (tmp_path / "cifar-10-batches-py").exists()


@pytest.mark.parametrize("place", ["", "cifar10", "cifar10/plain_text"])
@pytest.mark.parametrize(("image", "shards", "struct"), [("img", 1, True), ("image", 3, False)])
def test_parquet(small10, tmp_path, place, image, shards, struct):
    small10.write_parquet(tmp_path / place, image=image, shards=shards, struct=struct)
    dataset = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    check(dataset, small10)
    assert dataset.variant == ""


def test_cifar100_layouts_give_the_same_data(small100, tmp_path):
    small100.write_batches(tmp_path / "a")
    small100.write_parquet(tmp_path / "b", image="img", label="fine_label")
    small100.write_parquet(tmp_path / "c" / "cifar100", image="image", label="label")
    datasets = [cifar100.load(Places(tmp_path / name, tmp_path / "cache"), 0) for name in "abc"]
    for dataset in datasets:
        check(dataset, small100)
    assert len({dataset.fingerprint for dataset in datasets}) == 1


def test_jpeg_is_a_variant_with_a_fingerprint_of_its_own(small10, tmp_path):
    small10.write_parquet(tmp_path / "png")
    small10.write_parquet(tmp_path / "jpeg", form="JPEG")
    png, jpeg = (
        cifar10.load(Places(tmp_path / name, tmp_path / "cache"), 0) for name in ("png", "jpeg")
    )
    assert (png.variant, jpeg.variant) == ("", "JPEG")
    assert png.fingerprint != jpeg.fingerprint


def test_whole_official_files_come_before_parquet_and_incomplete_ones_after(small10, tmp_path):
    small10.write_parquet(tmp_path, form="JPEG")
    folder = small10.write_batches(tmp_path)

    assert cifar10.load(Places(tmp_path, tmp_path / "cache"), 0).variant == ""

    (folder / "data_batch_3").unlink()
    assert cifar10.load(Places(tmp_path, tmp_path / "cache"), 0).variant == "JPEG"


def test_parquet_of_another_dataset_is_left_alone(small10, small100, tmp_path):
    small100.write_parquet(tmp_path, label="fine_label")
    assert cifar10.find(tmp_path).missing
    assert not cifar100.find(tmp_path).missing


def test_missing_data_says_what_goes_where(tmp_path):
    message = r"cifar-10-python\.tar\.gz .*https://www\.cs\.toronto\.edu/~kriz/cifar\.html"
    with pytest.raises(DataMissing, match=message):
        cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar-10-binary.tar.gz", "is another version, and the one for Python is read"),
        ("cifar10/cifar-10-batches-bin", "is another version, and the one for Python is read"),
        ("cifar-10-batches-mat", "is another version"),
        ("cifar-10-python.tar.gz.part", "is an unfinished download"),
        ("cifar10/data_batch_1", "put it and the others into a folder cifar-10-batches-py"),
    ],
)
def test_what_lies_there_in_place_of_the_images_is_named(tmp_path, name, words):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataMissing, match=f"{name}.*{words}"):
        cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)


def test_batches_too_many_are_named(small10, tmp_path):
    place = small10.write_batches(tmp_path)
    shutil.copy(place / "data_batch_1", place / "data_batch_6")
    warnings = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0).warnings
    assert any("data_batch_6 is not read" in text for text in warnings)


@pytest.mark.parametrize("copy", ["data_batch_2", "test_batch"])
def test_a_batch_that_is_there_twice(small10, tmp_path, copy):
    place = small10.write_batches(tmp_path)
    shutil.copy(place / "data_batch_1", place / copy)
    with pytest.raises(DataError, match=f"{copy}: has the same content as data_batch_1"):
        cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)


def test_missing_batch_and_missing_shard_are_named(small10, tmp_path):
    (small10.write_batches(tmp_path / "a") / "data_batch_3").unlink()
    small10.write_parquet(tmp_path / "b", shards=3)
    (tmp_path / "b" / "train-00001-of-00003.parquet").unlink()
    for name, missing in (("a", "data_batch_3"), ("b", "train-00001-of-00003.parquet")):
        with pytest.raises(DataMissing, match=missing):
            cifar10.load(Places(tmp_path / name, tmp_path / "cache"), 0)


def test_unknown_checksum_is_a_warning_and_a_known_one_is_recorded(small10, tmp_path):
    small10.write_batches(tmp_path)
    dataset = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)

    assert len(dataset.warnings) == 1
    assert "data_batch_1" in dataset.warnings[0]

    # Known checksums give no warning.
    known = {name: text.removeprefix("md5:") for name, text in dataset.checksums.items()}
    layout = replace(cifar10.LAYOUT, md5=known)
    again = cifar.read(cifar10.INFO, layout, cifar10.SOURCES, Places(tmp_path, tmp_path / "cache2"))

    assert again.warnings == ()
    assert again.checksums == dataset.checksums


def test_second_load_does_not_decode(small10, tmp_path, monkeypatch):
    small10.write_parquet(tmp_path)
    first = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    monkeypatch.setattr(cifar, "_decode", lambda *_: pytest.fail("decoded again"))
    second = cifar10.load(Places(tmp_path, tmp_path / "cache"), 1)

    check(second, small10)
    assert isinstance(second.train_images, np.memmap)
    assert first.fingerprint == second.fingerprint
    assert first.checksums == second.checksums
    assert first.warnings == second.warnings


def test_arrays_cannot_be_written_to(small10, tmp_path):
    small10.write_batches(tmp_path)
    dataset = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    images = (dataset.train_images, dataset.test_images)
    labels = (dataset.clean_labels, dataset.test_labels)
    for array in (*images, *labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_changed_files_are_decoded_again(small10, tmp_path):
    folder = small10.write_batches(tmp_path)
    before = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    size = (folder / "data_batch_1").stat().st_size
    # The same bytes in another order do not change the size of the file.
    small10.images[0] = small10.images[0, ::-1].copy()
    (folder / "data_batch_1").write_bytes(small10.batches()["data_batch_1"])
    assert (folder / "data_batch_1").stat().st_size == size

    # A coarse clock could give the new file the time of the old one.
    os.utime(folder / "data_batch_1", ns=(0, 0))
    after = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)

    check(after, small10)
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("file", ["train_images.npy", "meta.json"])
def test_damaged_cache_is_made_again(small10, tmp_path, file):
    small10.write_batches(tmp_path)
    cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    (damaged,) = (tmp_path / "cache").glob(f"*/{file}")
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.warns(NlbenchWarning, match="damaged entry of the cache"):
        dataset = cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)
    check(dataset, small10)


def test_data_directory_is_never_written_to(small10, tmp_path):
    data = tmp_path / "data"
    folder = small10.write_batches(data)
    for path in (*folder.iterdir(), folder, data):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(data.rglob("*"))

    try:
        check(cifar10.load(Places(data, tmp_path / "cache"), 0), small10)
        assert sorted(data.rglob("*")) == before
    finally:
        # pytest cannot remove a folder that nobody may write to.
        for path in (data, folder):
            path.chmod(0o755)


def test_cache_that_cannot_be_written_is_a_data_error(small10, tmp_path):
    small10.write_batches(tmp_path)
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(DataError, match="NLBENCH_CACHE"):
        cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)


# Decodes for a second, so that a second process comes in the meantime.
DECODES = """
import sys, time
from pathlib import Path
import numpy as np
from nlbench.data.cache import cached

root = Path(sys.argv[1])

def decode():
    with (root / "log").open("a") as log:
        log.write("decoded\\n")
    time.sleep(1)
    return {"a": np.arange(1000)}, {"fact": 1}

arrays, facts = cached(root / "cache", "x", [root / "source"], decode)
assert arrays["a"].sum() == 499500 and facts == {"fact": 1}
"""


def test_two_processes_decode_once(tmp_path):
    (tmp_path / "source").write_text("x")
    command = [sys.executable, "-c", DECODES, str(tmp_path)]
    first, second = subprocess.Popen(command), subprocess.Popen(command)
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert (tmp_path / "log").read_text() == "decoded\n"
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_failed_decode_leaves_nothing_behind(tmp_path):
    (tmp_path / "source").write_text("x")

    def fail():
        raise DataError("no")

    with pytest.raises(DataError):
        cache.cached(tmp_path / "cache", "x", [tmp_path / "source"], fail)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


# --- damaged and wrong files ----------------------------------------------------------------------


def refused(data, tmp_path, *words):
    """Check that the files are there, but are refused with all the words in the message."""
    with pytest.raises(DataError) as caught:
        cifar10.load(Places(data, tmp_path / "cache"), 0)
    for word in words:
        assert word in str(caught.value)
    assert not isinstance(caught.value, DataMissing)


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_truncated_pickle(small10, tmp_path, keep):
    path = small10.write_batches(tmp_path) / "data_batch_2"
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, tmp_path, str(path), "truncated")


@pytest.mark.parametrize("keep", [0, 10, 1000, -3])
def test_truncated_parquet(small10, tmp_path, keep):
    small10.write_parquet(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, tmp_path, str(path), "truncated")


def test_damage_inside_parquet(small10, tmp_path):
    small10.write_parquet(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[1000:3000] = bytes(2000)
    path.write_bytes(content)
    refused(tmp_path, tmp_path, str(path))


@pytest.mark.parametrize("keep", [0, 500, -100])
def test_truncated_archive(small10, tmp_path, keep):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(small10, path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, tmp_path, str(path))


def test_archive_without_a_batch(small10, tmp_path):
    small10.layout = replace(small10.layout, train=small10.layout.train[:4])
    write_archive(small10, tmp_path / "cifar-10-python.tar.gz")
    refused(tmp_path, tmp_path, "cifar-10-batches-py/data_batch_5")


def test_wrong_number_of_images(small10, tmp_path):
    small10.num_train -= 1
    small10.write_batches(tmp_path)
    refused(tmp_path, tmp_path, "39 training images", "CIFAR-10 has 40")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"labels": [0]}, ["no 'data'"]),
        ({"data": np.zeros((8, 3072), np.uint8)}, ["no 'labels'"]),
        ({"data": np.zeros((8, 3072)), "labels": [0] * 8}, ["uint8", "float64"]),
        ({"data": np.zeros((8, 1024), np.uint8), "labels": [0] * 8}, ["(n, 3072)", "(8, 1024)"]),
        ({"data": np.zeros((8, 3072), np.uint8), "labels": [0] * 7}, ["8 images", "7 labels"]),
        ({"data": np.zeros((8, 3072), np.uint8), "labels": [0.5] * 8}, ["labels must be integers"]),
        (
            {"data": np.zeros((8, 3072), np.uint8), "labels": [10] * 8},
            ["labels must be in [0, 10)", "got 10"],
        ),
        (
            {"data": np.zeros((8, 3072), np.uint8), "labels": [-1] * 8},
            ["labels must be in [0, 10)", "got -1"],
        ),
        ([1, 2], ["list"]),
    ],
)
def test_wrong_content_of_a_batch(small10, tmp_path, content, words):
    path = small10.write_batches(tmp_path) / "data_batch_1"
    path.write_bytes(pickle.dumps(content))
    refused(tmp_path, tmp_path, str(path), *words)


def test_a_pickle_that_wants_to_run_something(small10, tmp_path):
    path = small10.write_batches(tmp_path) / "test_batch"
    path.write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    refused(tmp_path, tmp_path, str(path), "posix.system")
    assert not (tmp_path / "ran").exists()


def test_missing_columns(small10, tmp_path):
    small10.write_parquet(tmp_path / "cifar10", label="klass")
    refused(tmp_path, tmp_path, "no column label", "klass")
    small10.write_parquet(tmp_path / "other" / "cifar10", image="picture")
    refused(tmp_path / "other", tmp_path, "no column img or image", "picture")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((32, 32), np.uint8), ["L 32x32"]),
        (np.zeros((28, 30, 3), np.uint8), ["RGB 30x28"]),
        (b"no image", ["cannot be decoded"]),
        (None, ["image 3 has no bytes"]),
    ],
)
def test_images_of_another_kind(small10, tmp_path, encode_image, image, words):
    small10.write_parquet(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    cells = table.column("img").to_pylist()
    cells[3]["bytes"] = encode_image(image, "PNG") if isinstance(image, np.ndarray) else image

    column = pa.array(cells, table.schema.field("img").type)
    pq.write_table(table.set_column(0, "img", column), path)

    refused(tmp_path, tmp_path, str(path), *words)


def test_cifar10_taken_for_cifar100(small100, tmp_path):
    small100.labels %= 10
    small100.write_parquet(tmp_path / "cifar100")
    with pytest.raises(DataError, match="only 10 of 100 classes"):
        cifar100.load(Places(tmp_path, tmp_path / "cache"), 0)


def test_unreadable_file_is_named(small10, tmp_path):
    path = small10.write_batches(tmp_path) / "data_batch_4"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataMissing, match="data_batch_4"):
        cifar10.load(Places(tmp_path, tmp_path / "cache"), 0)


# --- the real files -------------------------------------------------------------------------------


def test_real_cifar10(real_cifar10):
    assert real_cifar10.variant == "JPEG"
    assert real_cifar10.warnings == ()
    assert real_cifar10.fingerprint == "4535eeeb2eb6cdf2"
    assert real_cifar10.train_images.shape == (50_000, 32, 32, 3)
    assert real_cifar10.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(real_cifar10.clean_labels).tolist() == [5000] * 10

    std = real_cifar10.train_images[:10_000].reshape(-1, 3).std(0) / 255
    # These are of the JPEG copy; the official images have 0.2470, 0.2435, 0.2616.
    np.testing.assert_allclose(std, [0.2452, 0.2428, 0.2606], atol=2e-3)


# ---- Columns that a suite names ------------------------------------------------------------------


def test_a_suite_names_the_columns_of_parquet_files(small10, tmp_path, monkeypatch):
    monkeypatch.setenv("NLBENCH_CACHE", str(tmp_path / "cache"))
    places = Places.of_user(tmp_path)
    small10.write_parquet(tmp_path / "cifar10", image="photo", label="answer")
    entry = {"name": "cifar10", "image": "photo", "label": "answer"}

    def fingerprint(**changed):
        text = {"name": "x", "protocol": "cifar", "methods": {"ce": {}}, "seeds": [0]}
        suite, problems = read_suite({**text, "datasets": [{**entry, **changed}]})
        return expand(suite, problems, places=places).specs[0].fingerprint

    found = fingerprint()
    with pytest.raises(DataError, match=r"no column foto, only photo, answer; .*'photo'\?"):
        fingerprint(image="foto")
    with pytest.raises(SuiteError, match=r"datasets.0.clean_label: cifar10 has no such column"):
        fingerprint(clean_label="answer")
    with pytest.raises(SuiteError, match=r"datasets.0.split: only the dataset .*hf takes it"):
        fingerprint(split="train")

    # What the columns are called changes no key.
    shutil.rmtree(tmp_path / "cifar10")
    small10.write_parquet(tmp_path / "cifar10")
    assert fingerprint(image="", label="") == found

    shutil.rmtree(tmp_path / "cifar10")
    small10.write_batches(tmp_path)
    with pytest.raises(DataError, match="holds no parquet files, and only these have columns"):
        fingerprint()


def test_another_column_is_another_copy_in_the_cache(small100, tmp_path):
    place = tmp_path / "cifar100"
    small100.write_parquet(place, label="fine_label")
    for path in place.glob("*.parquet"):
        table = pq.read_table(path)
        other = (np.array(table["fine_label"]) + 1) % 100
        pq.write_table(table.append_column("noise", pa.array(other)), path)

    places = Places(tmp_path, tmp_path / "cache")
    check(cifar100.load(places, 0), small100)
    chosen = cifar100.load(replace(places, label_column="noise"), 0)
    np.testing.assert_array_equal(chosen.clean_labels, (small100.train[1] + 1) % 100)
