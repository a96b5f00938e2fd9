"""The commands about data, for datasets of the Hugging Face hub."""

import fake_hub
import pytest
from fake_hub import parquet, pictures

from nlbench.data import cache
from nlbench.data import hub as hub_module

SUITE = """\
name: birds
protocol: images-32
datasets: [{name: hf, path: ann/birds}]
methods: {ce: {}}
seeds: [0]
overrides: {model: cnn3, epochs: 1}
"""


@pytest.fixture
def hub(place, monkeypatch):
    """Run a hub with one dataset."""
    # What other tests of this process have tried to read is not there any more.
    monkeypatch.setattr(cache, "_used", {})
    with fake_hub.serving() as found:
        fake_hub.use(found, monkeypatch, place / "hf")
        files = {}
        for split, labels in (("train", [0, 1] * 6), ("test", [0, 1])):
            columns = {"image": pictures(labels, len(labels)), "label": labels}
            content = parquet(columns, {"label": ["owl", "crow"]})
            files[f"data/{split}-00000-of-00001.parquet"] = content
        found.repository("ann/birds").commit(files)
        (place / "birds.yaml").write_text(SUITE)
        yield found


def test_a_dataset_is_fetched_by_its_name(cli, hub, place):
    commit = hub.repository("ann/birds").refs["main"]
    assert "owner/name" in cli("data", "status", "hf").stdout
    result = cli("data", "fetch", f"hf:ann/birds@{commit}")
    assert result.stdout == f"hf:ann/birds: there, at {commit}, in {place / 'hf'}\n"
    assert "downloading 2 files" in result.stderr
    listed = f"ann/birds at {commit}: 2 of 2 files are in {place / 'hf' / 'hub'}\n"
    assert listed in cli("data", "status", "hf").stdout


def test_a_file_that_is_not_there_is_counted(cli, hub, place):
    cli("data", "fetch", "hf:ann/birds")
    for path in (place / "hf").rglob("test-*.parquet"):
        path.unlink()
    assert ": 1 of 2 files are in" in cli("data", "status", "hf").stdout


def test_a_suite_is_fetched_and_prepared(cli, hub, place):
    assert cli("data", "fetch", "birds.yaml").stdout.startswith("hf:ann/birds: there, at ")
    assert len(hub.downloads()) == 2
    said = cli("run", "birds.yaml", "--prepare").stdout
    assert "data: hf:ann/birds: there, at " in said
    assert f"export HF_HOME={place / 'hf'}\n" in said
    assert len(hub.downloads()) == 2


def test_a_dataset_is_checked(cli, hub):
    said = cli("data", "check", "hf:ann/birds").stdout
    assert "ann/birds: 2 classes (owl, crow); 12 training images" in said
    assert "broken: 0 of 14" in said


def test_refusals_name_the_fix(refused, hub, place):
    assert "named as owner/name" in refused("data", "fetch", "hf:birds")
    assert "Did you mean 'ann/birds'?" in refused("data", "fetch", "hf:ann/brids")
    (place / "birds.yaml").write_text(SUITE.replace("path: ann/birds", "revision: main"))
    message = refused("run", "birds.yaml")
    assert "hf needs a path, for example `path: uoft-cs/cifar10`" in message
    (place / "birds.yaml").write_text(SUITE.replace("ann/birds", "ann/birds, revison: main"))
    assert "Did you mean 'revision'?" in refused("run", "birds.yaml")


def test_data_status_does_without_the_package(cli, place, monkeypatch):
    monkeypatch.setattr(hub_module.importlib.util, "find_spec", lambda name: None)
    assert cli("data", "status", "hf").exit_code == 0
