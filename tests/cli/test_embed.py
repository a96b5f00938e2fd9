"""`nlbench embed`: what is in the file, what survives a kill, and what is refused."""

import json
import shutil
import time

import numpy as np
import pytest
import yaml
from layouts import CLASSES, Animal10N, Folder, Mnist

from nlbench.cli.embed import _as_yaml
from nlbench.data import catalogue
from nlbench.data.base import Dataset, ImageFiles, Info
from nlbench.data.places import FolderOptions, Places, TableOptions
from nlbench.embedding import embed as embedding
from nlbench.embedding import extractors, patches
from nlbench.embedding.embed import embed
from nlbench.embedding.pictures import Asked, squares
from nlbench.errors import DataError, SuiteError
from nlbench.files import NotWritten
from nlbench.plan.yaml_lines import parse_yaml

QUIET = ("--filters", "8", "--dims", "6")


@pytest.fixture(autouse=True)
def few_patches(monkeypatch):
    monkeypatch.setattr(patches, "PATCHES", 500)
    monkeypatch.setenv("NLBENCH_WORKERS", "0")


def arrays_of(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def record_of(path):
    return json.loads(arrays_of(path)["embedding"][0])


# ---- Whole commands ------------------------------------------------------------------------------


def test_a_folder_becomes_a_file_of_features_and_labels(cli, place):
    made = Folder()
    made.write_csv(place / "mine")
    result = cli("embed", "mine", *QUIET, "--to", "mine.npz")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("mine.npz: 30 training and 9 test images, 6 features each, by ")

    arrays = arrays_of(place / "mine.npz")
    assert arrays["train_features"].shape == (30, 6)
    assert arrays["test_features"].shape == (9, 6)
    assert {arrays[f"{part}_features"].dtype for part in ("train", "test")} == {np.dtype("<f2")}
    assert arrays["train_labels"].tolist() == made.clean
    assert arrays["train_label_given"].tolist() == made.given
    assert arrays["test_labels"].tolist() == made.test
    assert arrays["class_names"].tolist() == list(CLASSES)
    assert not (place / "mine.npz.parts").exists()

    record = record_of(place / "mine.npz")
    assert (record["model"], record["dataset"], record["dims"]) == ("patches", "folder:mine", 6)
    assert record["transform"]["filters"] == 8
    assert record["fingerprint"]


@pytest.mark.parametrize(
    ("clean", "sets"), [(True, ["given", "clean"]), (False, ["given"])], ids=["clean", "given"]
)
def test_dataset_features_reads_what_the_printed_entry_says(cli, place, clean, sets):
    made = Folder()
    made.write_csv(place / "mine", clean=clean)
    printed = cli("embed", "mine", *QUIET, "--to", "mine.npz").stdout
    entry = yaml.safe_load(printed[printed.index("datasets:") :])["datasets"][0]
    assert entry.pop("name") == "features"

    columns = entry.pop("labels", {})
    options = FolderOptions(
        label_column=entry.pop("label", ""),
        clean_column=entry.pop("clean_label", ""),
        table=TableOptions(label_sets=tuple(columns.items())),
    )
    places = Places(place, place / "cache")
    data = catalogue.open_dataset("features", entry.pop("path"), places, 0, options)
    assert entry == {}
    assert sorted(data.label_sets) == sorted(sets)
    assert data.label_sets["given"].tolist() == made.given
    assert data.test_labels.tolist() == made.test
    assert data.train_images.shape == (30, 6, 1, 1)
    assert data.info.class_names == CLASSES


def test_a_dataset_of_the_data_directory_by_its_name(cli, place):
    small = Animal10N()
    small.write_binary(place / "no-data")
    result = cli("embed", "animal10n", *QUIET, "--size", "16", "--to", "a.npz")
    assert result.exit_code == 0, result.stderr
    arrays = arrays_of(place / "a.npz")
    assert arrays["train_labels"].tolist() == small.labels["train"].tolist()
    assert arrays["test_labels"].tolist() == list(range(10))
    assert arrays["train_features"].shape == (30, 6)
    assert "label: labels" in result.stdout


@pytest.mark.parametrize(
    "name",
    [
        "no",
        "on",
        "Yes",
        "off",
        "y",
        "true",
        "False",
        "null",
        "~",
        "a:b",
        "worst",
        "1",
        ".5",
        ".inf",
        "é",
        "😀",
        "{a}",
        "a,b",
        "#1",
        "'",
        '"',
        "\\",
        "*",
    ],
)
def test_the_printed_entry_has_each_label_set_by_its_name(name):
    sets = {name: f"label_{name}", f"{name}: {name}": f"- {name} #{name}", f"{name}\t": name}
    entry = {"name": "features", "path": f"folder/{name}.npz", "labels": sets}
    line = f"datasets: [{_as_yaml(entry)}]"
    # By the reader of suites, which follows YAML 1.2, and by one that follows 1.1.
    for read in (parse_yaml, yaml.safe_load):
        assert read(line) == {"datasets": [entry]}


def test_the_printed_entry_has_no_needless_quotes():
    entry = {
        "name": "features",
        "path": "../a/cifar10n-x_1.npz",
        "labels": {"worst": "label_worst"},
    }
    assert _as_yaml(entry) == (
        "{name: features, path: ../a/cifar10n-x_1.npz, labels: {worst: label_worst}}"
    )


@pytest.mark.parametrize("places", [("MNIST", "raw"), ("mnist",)])
def test_grey_levels_of_mnist_are_pictures(cli, place, places):
    small = Mnist(num_train=60)
    (small.write_idx if len(places) > 1 else small.write_parquet)(place.joinpath("data", *places))
    data = Asked.of("mnist").open(Places(place / "data", place / "cache"), 0.0)
    for images, part in ((data.train_images, "train"), (data.test_images, "test")):
        assert images.dtype == np.uint8
        # A grey level stands in all three channels.
        expected = np.repeat(small.images[part][..., None], 3, axis=3)
        np.testing.assert_array_equal(images, expected)

    result = cli("embed", "mnist", *QUIET, "--data-dir", place / "data", "--to", "a.npz")
    assert result.exit_code == 0, result.stderr
    arrays = arrays_of(place / "a.npz")
    assert arrays["train_features"].shape == (60, 6)
    assert arrays["train_labels"].tolist() == small.labels["train"].tolist()
    assert arrays["test_labels"].tolist() == small.labels["test"].tolist()


def test_grey_levels_of_digits_are_pictures(place):
    places = Places(place, place / "cache")
    levels = catalogue.open_dataset("digits", "", places, 0).train_images
    found = Asked.of("digits").open(places, 0.0).train_images
    assert (found.shape, found.dtype) == ((1397, 8, 8, 3), np.uint8)
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel] / 255, levels[:, 0], atol=0.5 / 255 + 1e-6)


def test_a_folder_without_a_test_part_gives_a_share(cli, place):
    Folder().write_classes(place / "mine")
    shutil.rmtree(place / "mine" / "test")
    result = cli("embed", "mine", *QUIET, "--test-share", "0.3", "--to", "mine.npz")
    assert result.exit_code == 0, result.stderr
    assert len(arrays_of(place / "mine.npz")["test_labels"]) == 9


def test_the_same_command_gives_the_same_arrays(cli, place):
    Folder().write_csv(place / "mine")
    for name in ("one.npz", "two.npz"):
        assert cli("embed", "mine", *QUIET, "--to", name).exit_code == 0
    one, two = (arrays_of(place / name) for name in ("one.npz", "two.npz"))
    for name in one.keys() - {"embedding"}:
        assert one[name].tobytes() == two[name].tobytes(), name


def test_the_command_embeds_by_a_published_architecture(cli, place):
    Folder(per_class=2, test=1).write_csv(place / "mine")
    result = cli(
        "embed", "mine", "--model", "timm/test_resnet", "--weights", "none", "--to", "a.npz"
    )
    assert result.exit_code == 0, result.stderr
    with np.load(place / "a.npz") as file:
        assert file["train_features"].shape == (6, 96)


# ---- Interruptions -------------------------------------------------------------------------------


class Doubling:
    """An extractor that counts what it is asked for, and stops after some calls."""

    def __init__(self, calls=1000, value=None):
        self.record = {"model": "doubling"}
        self.calls, self.value, self.seen = calls, value, []

    def learn(self, images, parts):
        return 0.0

    def __call__(self, images, index):
        if len(self.seen) == self.calls:
            raise KeyboardInterrupt
        self.seen.append(index.tolist())
        found = images[index].reshape(len(index), -1)[:, :4].astype(np.float32) * 2
        if self.value is not None:
            found[-1, 2] = self.value
        return found


def dataset(count=25):
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    info = Info("made", "Made", 2, count, 4, (4, 4, 3), mean=(0.5,) * 3, std=(0.5,) * 3)
    labels = np.arange(count) % 2
    return Dataset(info, images, images[:4], labels[:4], {"clean": labels}, "0123")


def write(to, extractor=None, data=None):
    return embed(data or dataset(), extractor or Doubling(), to, lambda count: lambda done: None)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding, "PART", 10)


def test_an_interrupted_call_goes_on_and_gives_the_same_arrays(small_parts, tmp_path):
    write(tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut.npz", Doubling(calls=2))
    assert not (tmp_path / "cut.npz").exists()

    rest = Doubling()
    write(tmp_path / "cut.npz", rest)
    # Of three training parts and a test part, two were there.
    assert rest.seen == [list(range(20, 25)), list(range(4))]
    whole, cut = (arrays_of(tmp_path / name) for name in ("whole.npz", "cut.npz"))
    for name in whole.keys() - {"embedding"}:
        assert whole[name].tobytes() == cut[name].tobytes(), name
    assert not (tmp_path / "cut.npz.parts").exists()


class Learning(Doubling):
    """An extractor whose learning takes a while, and which is asked for its first images once."""

    def __init__(self, calls):
        super().__init__(calls)
        self.learned = 0

    def learn(self, images, parts):
        def make():
            self.learned += 1
            time.sleep(0.3)
            return {"weight": np.zeros(1)}

        return float(parts.kept("extractor", make)["seconds"])


def test_the_seconds_count_learning_also_in_a_call_that_goes_on(small_parts, tmp_path):
    whole = write(tmp_path / "whole.npz", Learning(calls=1000)).record["seconds"]
    assert 0.3 <= whole < 10

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut.npz", Learning(calls=2))
    rest = Learning(calls=1000)
    record = write(tmp_path / "cut.npz", rest).record
    assert rest.learned == 0
    assert record["seconds"] >= 0.3
    assert record_of(tmp_path / "cut.npz")["seconds"] == record["seconds"]


def test_the_seconds_of_patches_are_those_of_learning_and_of_images(cli, place, monkeypatch):
    learned = extractors.learn

    def slow(images, settings):
        time.sleep(1.1)
        return learned(images, settings)

    monkeypatch.setattr(extractors, "learn", slow)
    Folder(per_class=2, test=1).write_csv(place / "mine")
    assert cli("embed", "mine", *QUIET, "--to", "a.npz").exit_code == 0
    assert record_of(place / "a.npz")["seconds"] >= 1.1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_part_is_made_again(small_parts, tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.npz", Doubling(calls=2))
    (tmp_path / "a.npz.parts" / "train-00000000.npz").write_bytes(content)
    again = Doubling()
    write(tmp_path / "a.npz", again)
    assert again.seen[0] == list(range(10))


def test_parts_of_other_features_are_refused(small_parts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.npz", Doubling(calls=1))
    other = Doubling()
    other.record = {"model": "tripling"}
    with pytest.raises(SuiteError, match=r"a\.npz\.parts: holds parts of other features: model"):
        write(tmp_path / "a.npz", other)


def test_two_processes_do_not_write_one_file(small_parts, tmp_path):
    class Nested(Doubling):
        def learn(self, images, parts):
            write(tmp_path / "a.npz")
            return 0.0

    with pytest.raises(SuiteError, match="another process is writing a"):
        write(tmp_path / "a.npz", Nested())


@pytest.mark.parametrize("after", [0, 1500, 4500])
def test_a_full_disk_leaves_no_half_file(small_parts, tmp_path, monkeypatch, after):
    from nlbench import files

    written = files.Draft.write

    def full(draft, data):
        if draft.path.parent == tmp_path and draft.size + len(data) > after:
            draft._error = draft._error or OSError(28, "No space left on device")
        return written(draft, data)

    monkeypatch.setattr(files.Draft, "write", full)
    with pytest.raises(NotWritten, match=r"a\.npz: cannot be written .No space left on device.*"):
        write(tmp_path / "a.npz", data=dataset(600))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz.parts"]

    monkeypatch.undo()
    monkeypatch.setattr(embedding, "PART", 10)
    rest = Doubling()
    write(tmp_path / "a.npz", rest, dataset(600))
    assert rest.seen == []


# ---- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_are_no_numbers_of_float16_name_the_image(small_parts, tmp_path, value):
    with pytest.raises(DataError, match=r"image 9: its features are not finite, or too large"):
        write(tmp_path / "a.npz", Doubling(value=value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine", "--to", "a.npy"], "--to a.npy: must end in .npz"),
        (["mine", "--to", "trial.npz"], "--to trial.npz: is there already; remove it"),
        (["cifar10m", "--to", "a.npz"], "unknown dataset 'cifar10m'. There are: "),
        (["no/such", "--to", "a.npz"], "no/such: no such folder, and no dataset of that name"),
        (["gaussians", "--to", "a.npz"], "dataset gaussians holds no pictures, but features"),
        (["features", "--to", "a.npz"], "dataset features holds no pictures, but features"),
        (["features:a.csv", "--to", "a.npz"], "dataset features holds no pictures, but features"),
        (["text", "--to", "a.npz"], "dataset text holds texts, which have no pictures"),
        (["imdb", "--to", "a.npz"], "dataset imdb holds texts, which have no pictures"),
        (["hf", "--to", "a.npz"], "hf needs a path behind a colon: hf:PATH"),
        (["folder", "--to", "a.npz"], "folder needs a path behind a colon: folder:PATH"),
        (["empty", "--to", "a.npz"], "empty: no train images there; it must hold"),
        (["mine", "--model", "patch", "--to", "a.npz"], "Did you mean 'patches'?"),
        (["mine", "--model", "timm/resnet81", "--to", "a.npz"], "unknown model 'timm/resnet81'"),
        (["mine", "--weights", "none", "--to", "a.npz"], "--weights none: patches has no weights"),
        (["mine", "--device", "cuda", "--to", "a.npz"], "--device cuda: patches works on the CPU"),
        (
            ["mine", "--model", "timm/resnet18", "--dims", "8", "--to", "a.npz"],
            "--dims 8: is of patches, and timm/resnet18 has none",
        ),
        (
            ["mine", "--model", "timm/resnet18", "--seed", "1", "--to", "a.npz"],
            "--seed 1: is of patches, and timm/resnet18 has none",
        ),
        (["mine", "--size", "6", "--to", "a.npz"], "images of 6x6 pixels have no room for 3 x 3"),
        (["cifar10", "--test-share", "0.2", "--to", "a.npz"], "--test-share is for folders"),
        (["cifar10", "--to", "a.npz"], "no-data"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(refused, place, arguments, message):
    Folder().write_csv(place / "mine")
    (place / "trial.npz").touch()
    (place / "empty").mkdir()
    assert message in refused("embed", *arguments)
    assert not (place / "a.npz").exists()


def test_a_broken_picture_is_named(refused, place):
    Folder().write_classes(place / "mine")
    (place / "mine" / "test" / "cat" / "000.jpg").write_bytes(b"no picture")
    message = refused("embed", "mine", *QUIET, "--to", "a.npz")
    assert "test/cat/000.jpg: cannot be decoded" in message


# ---- Pictures ------------------------------------------------------------------------------------


def test_pictures_in_files_and_arrays_are_squares(tmp_path):
    made = Folder(per_class=2, test=1)
    made.write_classes(tmp_path)
    data = catalogue.open_dataset("folder", tmp_path, Places(tmp_path, tmp_path / "cache"), 0)
    assert isinstance(data.train_images, ImageFiles)
    assert squares(data.train_images, np.array([2, 0]), 10).shape == (2, 10, 10, 3)

    images = dataset().train_images
    np.testing.assert_array_equal(squares(images, np.array([3, 1]), 0), images[[3, 1]])
    assert squares(images, np.array([3, 1]), 8).shape == (2, 8, 8, 3)
