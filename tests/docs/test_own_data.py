"""docs/your-own-data.md as its readers follow it, and the layouts of a folder that it names."""

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
    """The page's toy dataset."""
    place = tmp_path_factory.mktemp("own")
    script = next(block.text for block in blocks(PAGE) if block.path == "make_shapes.py")
    (place / "make_shapes.py").write_text(script)
    assert shell(place)("python3 make_shapes.py").returncode == 0
    return place / "shapes"


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 10
    # What a reader would have brought from a machine with a network.
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    follow(PAGE, tmp_path, shell(tmp_path, NLBENCH_WORKERS="0"))


def rows(part: Path) -> list[dict[str, str]]:
    with part.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_layouts_are_one_dataset(shapes, tmp_path):
    """Images and labels as the lists have them, from class folders and from parquet files too."""
    classes, parquet = tmp_path / "classes", tmp_path / "parquet"
    parquet.mkdir()
    for part in ("train", "test"):
        listed = rows(shapes / f"{part}.csv")
        for row in listed:
            to = classes / part / row["label"]
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(shapes / row["path"], to)
        images = [{"bytes": (shapes / row["path"]).read_bytes()} for row in listed]
        columns = {"image": images, **{key: [row[key] for row in listed] for key in listed[0] if key != "path"}}
        pq.write_table(pa.table(columns), parquet / f"{part}-00000-of-00001.parquet")
    read = [folder.load(Places(path, tmp_path / "cache"), 0) for path in (shapes, classes, parquet)]
    for data in read:
        assert (data.info.num_classes, data.info.num_train, data.info.num_test) == (3, 240, 90)
        given = {
            Path(data.train_images.path(i)).read_bytes(): int(label) for i, label in enumerate(data.label_sets["given"])
        }
        assert given == {
            (shapes / row["path"]).read_bytes(): ("disc", "square", "triangle").index(row["label"])
            for row in rows(shapes / "train.csv")
        }
    assert [list(data.label_sets) for data in read] == [["given", "clean"], ["given"], ["given", "clean"]]


def test_true_test_labels_are_the_truth_where_a_list_has_them(shapes, tmp_path):
    place = shutil.copytree(shapes, tmp_path / "shapes")
    lines = ["path,label,clean_label", *(f"{row['path']},disc,{row['label']}" for row in rows(shapes / "test.csv"))]
    (place / "test.csv").write_text("\n".join(lines))
    corrected, original = (folder.load(Places(path, tmp_path), 0).test_labels for path in (place, shapes))
    assert (corrected == original).all()
