"""Chromium, and the pages of two stores: `quick`, trained for three epochs, and 2,000 runs."""

from dataclasses import dataclass
from pathlib import Path

import chromium
import pytest
from many_runs import write_many_runs

import nlbench
from nlbench.report import page
from nlbench.results.store import Store


@dataclass(frozen=True)
class Written:
    """A page, and the store that it shows."""

    store: Store
    path: Path


@pytest.fixture(scope="session")
def axe():
    return chromium.axe_source()


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    def make(folder):
        nlbench.run("quick", out=folder / "results", overrides={"epochs": 3}, device="cpu")
        _write_page(folder)

    return _written(chromium.made_once(tmp_path_factory, "quick", make))


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    def make(folder):
        write_many_runs(folder)
        _write_page(folder)

    return _written(chromium.made_once(tmp_path_factory, "many", make))


@pytest.fixture(params=["quick", "many"])
def written(request):
    """The page of each of the two stores."""
    return request.getfixturevalue(request.param)


def _write_page(folder):
    (folder / "page.html").write_text(page.render(Store(folder / "results")), encoding="utf-8")


def _written(folder):
    return Written(Store(folder / "results"), folder / "page.html")
