"""From the name of a dataset to the dataset. The folder `datasets` is the registry.

A file in it whose name does not begin with an underscore is a dataset, named after the file:
`cifar10n.py` is `cifar10n`. There is no second list.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from nlbench.data import imbalance
from nlbench.data.base import Dataset, DatasetModule, Found, Info, Source
from nlbench.data.missing import explain
from nlbench.data.places import FolderOptions, Places
from nlbench.data.verify import require_sound
from nlbench.errors import look_up

_FOLDER = Path(__file__).parent / "datasets"

# The name that the rows have among the label sets while examples are selected.
_ROWS = "rows of the table"


@functools.cache
def dataset_files() -> dict[str, Path]:
    """Return the file of each dataset by name, in the order of the names. Imports none of them."""
    # A name with an underscore is for code that several datasets share.
    files = sorted(path for path in _FOLDER.glob("*.py") if not path.name.startswith("_"))
    return {path.stem.replace("_", "-"): path for path in files}


def dataset(name: str) -> DatasetModule:
    """Return the module of dataset `name`.

    A part after a colon, as in "folder:birds", and an imbalance, as in "digits@exp-0.1", are
    ignored.

    Raises: SuiteError for an unknown name.
    """
    plain = imbalance.parse(name)[0].partition(":")[0]
    path = look_up("dataset", plain, dataset_files())

    # mypy cannot see a module that is imported by name; tests check what each one defines.
    return cast(DatasetModule, importlib.import_module(f"nlbench.data.datasets.{path.stem}"))


def info(name: str, path: str | Path, places: Places, options: FolderOptions | None = None) -> Info:
    """Return what is known of a dataset before a run.

    Args:
        path: the folder that a suite names, or "" for a dataset of the data directory. A folder is
            read here, because nothing is known of it before. Of `hf` owner/name, which is
            downloaded here.
        options: what a suite says about a folder.
    Raises: SuiteError for an unknown name; DataMissing, DataError for a folder.
    """
    known, unequal = dataset(name).INFO, imbalance.parse(name)[1]
    if known.located_by == "data-dir":
        return imbalance.about(known, unequal) if unequal else known

    # The seed does not matter: no dataset that a suite locates is redrawn.
    return open_dataset(name, path, places, 0, options).info


def open_dataset(
    name: str,
    path: str | Path,
    places: Places,
    seed: int,
    options: FolderOptions | None = None,
) -> Dataset:
    """Read a dataset: from the folder `path` where a suite names one, else from the data directory.

    Args:
        options: what a suite says about a folder.
    Raises: SuiteError for an unknown name; DataMissing when it is not there; DataError, naming the
        file, when it cannot be used.
    """
    folder = Path(path) if path else places.data_dir
    module = dataset(name)
    data = module.load(places.reading(folder, options), seed)

    # A mistake in a dataset's file would else end in an error of NumPy that names no dataset.
    require_sound(data, module.INFO)
    unequal = imbalance.parse(name)[1]
    return _subset(data, unequal) if unequal else data


def _subset(data: Dataset, unequal: imbalance.Imbalance) -> Dataset:
    """Return the training examples that an imbalance keeps, with their rows where they are known.

    A dataset of the data directory has the order of its files, so that positions in it are rows.
    """
    rows = data.rows
    if rows is None and data.info.located_by == "data-dir":
        rows = np.arange(len(data.train_images))
    if rows is None:
        return imbalance.subset(data, unequal)

    # Whatever is listed by label set is selected in the same way.
    part = imbalance.subset(replace(data, label_sets={**data.label_sets, _ROWS: rows}), unequal)
    label_sets = dict(part.label_sets)
    return replace(part, rows=label_sets.pop(_ROWS), label_sets=label_sets)


@dataclass(frozen=True)
class Status:
    """Tell whether a dataset can be loaded, and from what."""

    info: Info
    sources: tuple[Source, ...]
    found: Found

    @property
    def there(self) -> bool:
        return not self.found.missing


def status(name: str, data_dir: Path) -> Status:
    """Look for the files of dataset `name`. Raises SuiteError for an unknown name."""
    module = dataset(name)
    return Status(module.INFO, module.SOURCES, module.find(data_dir))


def advice(name: str, data_dir: Path) -> str:
    """Return in words what is there or missing, and which file from which page goes where.

    Raises: SuiteError for an unknown name.
    """
    state = status(name, data_dir)
    return explain(state.info, state.sources, state.found, data_dir)


def in_short(name: str, data_dir: Path) -> str:
    """Return the gist of `advice` in a few words."""
    state = status(name, data_dir)
    if state.there:
        return "there"
    if state.info.located_by == "suite":
        return "wherever a suite says it is"
    return f"missing, see `nlbench data status {name}`"
