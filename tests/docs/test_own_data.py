"""Follow docs/your-own-data.md as its readers do, and read the layouts that it names."""

import csv
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from pages import DOCS, blocks, follow, shell

from nlbench.data.datasets import folder
from nlbench.data.places import Places

PAGE = DOCS / "your-own-data.md"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Return the folder of the page's toy dataset."""
    place = tmp_path_factory.mktemp("own")
    script = next(block.text for block in blocks(PAGE) if block.path == "make_shapes.py")
    (place / "make_shapes.py").write_text(script)
    assert shell(place)("python3 make_shapes.py").returncode == 0
    return place / "shapes"


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 15
    # What a reader would have brought from a machine with a network.
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    follow(PAGE, tmp_path, shell(tmp_path, NLBENCH_WORKERS="0"))


def entries(part: Path) -> list[dict[str, str]]:
    """Return the lines of a list of images, each as a dict."""
    with part.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_layouts_are_one_dataset(shapes, tmp_path):
    """Class folders and parquet files give the same images and labels as the lists."""
    classes, parquet = tmp_path / "classes", tmp_path / "parquet"
    parquet.mkdir()
    for part in ("train", "test"):
        listed = entries(shapes / f"{part}.csv")
        write_class_folders(listed, shapes, classes / part)
        write_parquet(listed, shapes, parquet / f"{part}-00000-of-00001.parquet")
    # Layouts order the images differently, so they are compared by the bytes of their files.
    expected = {}
    for entry in entries(shapes / "train.csv"):
        label = ("disc", "square", "triangle").index(entry["label"])
        expected[(shapes / entry["path"]).read_bytes()] = label

    label_sets = []
    for path in (shapes, classes, parquet):
        data = folder.load(Places(path, tmp_path / "cache"), 0)
        label_sets.append(list(data.label_sets))
        given = {}
        for i, label in enumerate(data.label_sets["given"]):
            given[Path(data.train_images.path(i)).read_bytes()] = int(label)

        assert (data.info.num_classes, data.info.num_train, data.info.num_test) == (3, 240, 90)
        assert given == expected

    # The names of folders can tell only one label.
    assert label_sets == [["given", "clean"], ["given"], ["given", "clean"]]


def write_class_folders(listed: list[dict[str, str]], shapes: Path, part: Path) -> None:
    """Copy the images of a list to folders named after their labels."""
    for entry in listed:
        to = part / entry["label"]
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(shapes / entry["path"], to)


def write_parquet(listed: list[dict[str, str]], shapes: Path, file: Path) -> None:
    """Write the images of a list with all of their labels to a file."""
    images = []
    for entry in listed:
        images.append({"bytes": (shapes / entry["path"]).read_bytes()})
    columns = {"image": images}
    for key in listed[0]:
        if key != "path":
            columns[key] = [entry[key] for entry in listed]
    pq.write_table(pa.table(columns), file)


def test_true_test_labels_are_the_truth_where_a_list_has_them(shapes, tmp_path):
    place = shutil.copytree(shapes, tmp_path / "shapes")
    lines = ["path,label,clean_label"]
    for entry in entries(shapes / "test.csv"):
        lines.append(f"{entry['path']},disc,{entry['label']}")
    (place / "test.csv").write_text("\n".join(lines))

    corrected = folder.load(Places(place, tmp_path), 0).test_labels
    original = folder.load(Places(shapes, tmp_path), 0).test_labels

    assert (corrected == original).all()
