"""Datasets by name: the folder is the registry, and missing files come with advice."""

import inspect
from pathlib import Path

import pytest

from nlbench.data import catalogue, places
from nlbench.data.base import Info, Source
from nlbench.data.datasets import cifar10
from nlbench.data.fetch import fetch
from nlbench.errors import SuiteError

DATASETS = Path(catalogue.__file__).parent / "datasets"


def test_each_file_of_the_folder_is_a_dataset_named_after_it():
    stems = {path.stem for path in DATASETS.glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in catalogue.dataset_files()} == stems
    assert len(stems) > 5


@pytest.mark.parametrize("name", catalogue.dataset_files())
def test_a_dataset_file_defines_what_the_interface_says(name, tmp_path):
    module = catalogue.dataset(name)
    assert isinstance(module.INFO, Info)
    assert module.INFO.name == name
    assert all(isinstance(source, Source) for source in module.SOURCES)
    assert list(inspect.signature(module.load).parameters) == ["places", "seed"]

    found = module.find(tmp_path)
    assert bool(found.missing) == (not catalogue.status(name, tmp_path).there)
    assert set(found.needs) <= {source.file for source in module.SOURCES}


def test_an_unknown_name_is_guessed():
    message = r"unknown dataset 'cifr10'. There are: .*digits.* Did you mean 'cifar10'\?"
    with pytest.raises(SuiteError, match=message):
        catalogue.dataset("cifr10")


def test_unknown_dataset_gets_a_hint(tmp_path):
    for call in (catalogue.advice, catalogue.status, fetch):
        with pytest.raises(SuiteError, match="Did you mean 'cifar10n'"):
            call("cifar10nn", tmp_path)


def test_status_and_advice(small10, tmp_path):
    assert not catalogue.status("cifar10", tmp_path).there

    text = catalogue.advice("cifar10", tmp_path)
    archive = str(tmp_path / "cifar-10-python.tar.gz")
    for word in ("looked in", "cifar-10-batches-py", archive, cifar10.IMAGES.home):
        assert word in text

    assert "there is no such folder" in catalogue.advice("cifar10", tmp_path / "nowhere")

    folder = small10.write_batches(tmp_path)
    assert catalogue.status("cifar10", tmp_path).there
    assert catalogue.advice("cifar10", tmp_path) == f"cifar10: there, in {folder}"


def test_directories(monkeypatch, tmp_path):
    by_variable = {"NLBENCH_DATA": places.data_dir, "NLBENCH_CACHE": places.cache_dir}
    for variable, directory in by_variable.items():
        monkeypatch.setenv(variable, str(tmp_path))
        assert directory() == tmp_path

        monkeypatch.setenv(variable, "~/x")
        assert directory() == Path.home() / "x"

        monkeypatch.delenv(variable)
        assert "nlbench" in str(directory())

    monkeypatch.setenv("NLBENCH_DATA", "elsewhere")
    assert places.data_dir(tmp_path) == places.data_dir(str(tmp_path)) == tmp_path
