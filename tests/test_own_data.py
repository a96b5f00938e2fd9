"""docs/your-own-data.md as a new user follows it, its layouts, and what is said of datasets that are no download."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from typer.testing import CliRunner

from nlbench.cli.app import app
from nlbench.cli.progress import Progress
from nlbench.data.datasets import folder
from nlbench.data.places import Places

PAGE = Path(__file__).parents[1] / "docs" / "your-own-data.md"
BLOCK = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def shell(place):
    """shell(script) -> the finished process; nothing of the machine's own methods or data is seen."""
    own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NLBENCH_WORKERS": "0"}
    own |= {"NLBENCH_CACHE": str(place / "cache"), "NLBENCH_DATA": str(place / "no-data"), "NLBENCH_METHODS": ""}

    def call(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script], cwd=place, env=os.environ | own, capture_output=True, text=True, timeout=300
        )

    return call


@pytest.fixture(scope="module")
def shapes(place, shell):
    """The page's toy, a copy for tests that come after those that break it."""
    script = next(b["text"] for b in BLOCKS if b["text"].startswith("# make_shapes.py"))
    (place / "copy").mkdir()
    (place / "copy" / "make_shapes.py").write_text(script)
    assert shell("cd copy && python3 make_shapes.py").returncode == 0
    return place / "copy" / "shapes"


def tables(text: str) -> list[list[str]]:
    """Heads and first columns of the tables in a text."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [line if i == 0 or line[0] in ("method", "row") else line[:1] for i, line in enumerate(lines)]


def plain(text: str) -> str:
    """Without what may differ between processors and versions.

    Numbers, what a decoder calls an error, its seconds; that a processor has no bfloat16.
    """
    text = re.sub(r"(?m)^the protocol's precision is bfloat16, which this hardware has no .*\n", "", text)
    text = re.sub(r"\[[0-9a-f]{16}\]", "[key]", text)
    return re.sub(r" +", " ", re.sub(r"\d[\d.e+-]*", "#", re.sub(r"decoded \(.*?\);", "decoded;", text)))


def test_every_command_of_the_page_works_and_prints_what_it_says(place, shell):
    assert "```" not in BLOCK.sub("", PAGE.read_text(encoding="utf-8"))
    assert sum(block["kind"] == "sh" for block in BLOCKS) == 10
    torch.save(torchvision.models.resnet18().state_dict(), place / "resnet18.pth")  # what a reader would have brought
    printed = ""
    for block in BLOCKS:
        text = block["text"]
        if block["kind"] == "sh":
            done = shell(text)
            refused = block["mark"] == "refused"
            assert (done.returncode != 0) == refused, f"{text}{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr
            printed = done.stderr if refused else done.stdout
        elif block["mark"] == "figures":
            assert tables(text) == tables(printed)
            assert [plain(line) for line in text.splitlines() if line[:2] in ("**", "- ")] == [
                plain(line) for line in printed.splitlines() if line[:2] in ("**", "- ")
            ]
        elif block["kind"] == "text":
            assert plain(printed) == plain(text)
        else:
            (place / re.match(r"# (\S+)", text)[1]).write_text(text)


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


def test_a_warning_of_the_data_is_said_once(capsys):
    spec = SimpleNamespace(row="ce", seed=0, condition=SimpleNamespace(title="birds"), key="0" * 16)
    record = SimpleNamespace(
        status="done",
        metrics={"last": 0.5},
        timing={"train": 1, "evaluate": 1},
        error=None,
        warnings=["a.jpg; left out"],
    )
    with Progress(2) as progress:
        for _ in range(2):
            progress.on_finish(spec, record)
    assert capsys.readouterr().err.count("warning: a.jpg; left out\n") == 1


# --- what is said of datasets that are no download, or whose size nobody knows before it is read ------------------


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """cli("list datasets") -> the result, with an empty data directory."""
    (tmp_path / "data").mkdir()
    for name, value in (("DATA", tmp_path / "data"), ("CACHE", tmp_path / "cache"), ("METHODS", "")):
        monkeypatch.setenv(f"NLBENCH_{name}", str(value))
    return lambda words: CliRunner().invoke(app, words.split())


def test_list_datasets(cli):
    listed = dict(re.split(r"  +", line, maxsplit=1) for line in cli("list datasets").stdout.splitlines())
    assert listed["clothing1m"].startswith("Clothing1M: 14 classes, the images are counted when they are read; ")
    assert "50 classes, the images are counted" in listed["webvision"]
    assert listed["animal10n"] == "ANIMAL-10N: 10 classes, 50,000 training, 5,000 test examples; labels: noisy"
    assert "500 training, 1,000 test examples" in listed["gaussians"]
    assert listed["folder"] == "a folder of your own, named by its path; labels: given, and clean where you know them"
    assert not any(re.search(r"\b0 (training|classes|/)", line) for line in listed.values())


def test_data_status(cli):
    said = cli("data status").stdout
    of = {block.partition(":")[0]: block for block in said.split("\n\n")[1:]}
    assert of["gaussians"] == "gaussians: there, needs no files"
    assert "missing" not in of["folder"]
    assert "path: my_images" in of["folder"]
    assert "train.csv (path,label[,clean_label])" in of["folder"]
    for name, files in (("clothing1m", 6), ("webvision", 5)):  # a page and its terms are said once
        assert of[name].count("get from https://") == 1
        assert len(re.findall(rf"^    \S+/data/{name}/\S+$", of[name], re.MULTILINE)) == files
    assert "not to be passed on), and put each as it is at\n" in of["clothing1m"]
    assert "put it, as it is, at" in of["webvision"]  # ILSVRC12, of another page
    assert of["animal10n"].count("  get ") == 1
    assert re.search(r"put it into \S+/data/animal10n$", of["animal10n"])


def test_doctor(cli):
    lines = [line.strip() for line in cli("doctor").stdout.splitlines()]
    assert "gaussians: there" in lines
    assert "folder: wherever a suite says it is" in lines
    for name in ("clothing1m", "webvision", "animal10n"):
        assert f"{name}: missing, see `nlbench data status {name}`" in lines


def test_a_folder_cannot_be_fetched_or_exported(cli):
    fetched = cli("data fetch folder")
    assert fetched.exit_code == 2
    assert "images of your own" in fetched.stderr
    exported = cli("noise export folder --kind symmetric --rate 0.4 --to x.npy")
    assert exported.exit_code == 2
    assert "its place is named by a suite" in exported.stderr
