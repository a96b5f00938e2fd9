"""The folder of `nlbench publish`: a Hugging Face dataset, a page, and nothing of anybody else."""

import json

import pandas as pd
import pytest
from made_stores import contents, made_store, plan_of, spec_of, write_run
from ruamel.yaml import YAML

from nlbench.errors import UserError
from nlbench.plan.spec import key_of
from nlbench.report import page, pictures
from nlbench.report.publication import publish
from nlbench.results.store import Store

FILES = {
    ".nojekyll",
    "README.md",
    "epochs.parquet",
    "index.html",
    "publication.json",
    "records.parquet",
}


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Draw no figures, which take most of the time."""
    monkeypatch.setattr(pictures, "KINDS", {})


@pytest.fixture
def store(tmp_path):
    return made_store(tmp_path / "results")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "public"


def front_matter(folder):
    """Return what Hugging Face reads of a card."""
    _, text, body = (folder / "README.md").read_text().split("---\n", 2)
    assert body.startswith("\n# ")
    return YAML(typ="safe").load(text)


def test_the_folder_has_the_records_the_epochs_the_card_and_the_page(store, folder):
    made = publish(store, folder)

    assert set(contents(folder)) == FILES
    assert made.records == 4
    assert (folder / "index.html").read_text() == page.render(store)
    records = pd.read_parquet(folder / "records.parquet").set_index("key")
    assert records.loc[key_of(spec_of("elr", 1)), "last"] == 0.475
    assert set(records["suite"]) == {"s"}
    assert set(records["row"]) == {"ce", "elr"}
    assert set(records["condition"]) == {"Digits"}
    epochs = pd.read_parquet(folder / "epochs.parquet")
    assert list(epochs.columns) == ["key", "epoch", "loss", "test_accuracy", "val_accuracy"]
    assert len(epochs) == 8
    assert epochs["epoch"].dtype == "int64"


def test_no_column_is_without_a_type(store, folder):
    import pyarrow.parquet as pq

    publish(store, folder)

    for name in ("records.parquet", "epochs.parquet"):
        for field in pq.read_schema(folder / name):
            assert "null" not in str(field.type), field


def test_the_card_names_its_files_licence_and_size(store, folder):
    publish(store, folder, licence="cc-by-4.0")

    values = front_matter(folder)
    assert values["license"] == "cc-by-4.0"
    assert values["size_categories"] == ["n<1K"]
    named = {}
    for config in values["configs"]:
        named[config["config_name"]] = config["data_files"][0]["path"]
    assert named == {"records": "records.parquet", "epochs": "epochs.parquet"}
    assert all((folder / path).is_file() for path in named.values())
    assert "42.50±7.07" in (folder / "README.md").read_text()


def test_a_hostile_name_of_a_suite_stays_a_text_of_the_card(tmp_path, folder):
    store = made_store(tmp_path / "results")
    name = "a: b\n---\nlicense: mit #'\""
    store.write_plan(plan_of(name.replace("\n", " "), ("ce",), (0, 1)))

    publish(store, folder)

    assert front_matter(folder)["license"] == "unknown"


def test_the_same_store_gives_the_same_folder(store, folder, tmp_path):
    publish(store, folder)
    publish(Store(store.root), tmp_path / "again")

    assert contents(tmp_path / "again") == contents(folder)


def test_an_earlier_publication_is_written_again(store, folder):
    publish(store, folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("mine")
    write_run(store, "ce", 2)

    made = publish(Store(store.root), folder)

    assert made.records == 5
    assert not made.card_stays
    assert "5 trainings" in (folder / "README.md").read_text()
    assert (folder / ".git" / "config").read_text() == "mine"


def test_a_card_that_was_changed_by_hand_stays(store, folder):
    publish(store, folder)
    with open(folder / "README.md", "a") as file:
        file.write("Mine.\n")

    made = publish(store, folder)
    again = publish(store, folder)

    assert made.card_stays
    assert again.card_stays
    assert (folder / "README.md").read_text().endswith("Mine.\n")


def test_a_clone_of_an_empty_repository_is_taken(store, folder):
    (folder / ".git").mkdir(parents=True)
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")

    publish(store, folder)

    assert (folder / ".gitattributes").read_text() == "*.parquet filter=lfs\n"
    assert (folder / "index.html").is_file()


@pytest.mark.parametrize("name", ["notes.txt", "README.md", ".hidden", "index.html"])
def test_a_folder_with_other_things_is_refused(store, folder, name):
    folder.mkdir()
    (folder / name).write_text("mine")

    with pytest.raises(UserError, match=f"is not empty .{name}. and holds no earlier publication"):
        publish(store, folder)

    assert contents(folder) == {name: b"mine"}


@pytest.mark.parametrize("marker", ["", "{", "[]", "3", "[" * 5000])
def test_a_marker_that_is_none_is_refused(store, folder, marker):
    folder.mkdir()
    (folder / "publication.json").write_text(marker)

    with pytest.raises(UserError, match="cannot be read as the list of an earlier publication"):
        publish(store, folder)


@pytest.mark.parametrize("name", ["pub", "runs/pub", "."])
def test_a_folder_in_the_store_is_refused(store, name):
    before = contents(store.root)

    with pytest.raises(UserError, match=r"lies in .*, the folder of the results"):
        publish(store, store.root / name)

    assert contents(store.root) == before


def test_a_file_is_refused(store, folder):
    folder.write_text("mine")

    with pytest.raises(UserError, match="is no folder"):
        publish(store, folder)
    assert folder.read_text() == "mine"


@pytest.mark.parametrize("licence", ["", "CC BY", "mit\nother", "MIT"])
def test_a_licence_that_cannot_be_one_is_refused(store, folder, licence):
    with pytest.raises(UserError, match="write the identifier that Hugging Face lists"):
        publish(store, folder, licence=licence)
    assert not folder.exists()


def test_one_suite_has_its_records_alone(store, folder):
    store.write_plan(plan_of("other", ("ce",), (0, 1)))

    publish(store, folder, "other")

    records = pd.read_parquet(folder / "records.parquet")
    assert set(records["row"]) == {"ce"}
    assert json.loads((folder / "publication.json").read_text())["files"] == sorted(
        FILES - {"publication.json"}
    )
