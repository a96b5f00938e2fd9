"""Read again the data that runs were trained on: its images, and the true labels where known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data import catalogue, imbalance
from nlbench.data.base import Dataset, ImageFiles
from nlbench.data.noise import label_files, resolve
from nlbench.data.noise.examples import Examples as DataExamples
from nlbench.data.places import HUB, FolderOptions, Places, data_dir
from nlbench.errors import DataError, SuiteError, UserError
from nlbench.plan.conditions import fingerprint_of
from nlbench.plan.suite_file import read_suite
from nlbench.suspects.labelling import Labelling
from nlbench.suspects.ranking import UNKNOWN_ROW, Examples


@dataclass(frozen=True)
class Whereabouts:
    """Where the data lies.

    Attributes:
        suite_file: a suite that says where folders lie, because records hold no paths. None takes
            the suite that made the records, if it is still at its place.
        data_dir: the data directory; None takes the user's.
    """

    suite_file: str | None = None
    data_dir: str | Path | None = None


def open_data(labelling: Labelling, where: Whereabouts) -> Dataset:
    """Read the dataset of a labelling.

    Raises: UserError where it is not there, or is not the one that the runs were trained on.
    """
    spec = labelling.spec
    name, labels = str(spec.get("dataset", "")), str(spec.get("labels", ""))
    folder, options = "", FolderOptions()
    if catalogue.dataset(name).INFO.located_by == "suite":
        folder, options = _folder(name, labelling, where)
        # The branch of a dataset of the hub may have moved since.
        options = replace(options, revision=str(spec.get("commit", "")))

    places = Places.of_user(where.data_dir)
    data = catalogue.open_dataset(name, folder, places, labelling.runs[0].seed, options)
    found = fingerprint_of(data, labels)
    if found != spec.get("fingerprint"):
        raise DataError(
            f"the data of {name} are not those of the runs: their fingerprint is {found} here, and "
            f"the records have {spec.get('fingerprint')}. Were files or labels changed since?"
        )
    return data


def _folder(name: str, labelling: Labelling, where: Whereabouts) -> tuple[str, FolderOptions]:
    """Return the folder of a dataset that a suite locates, and what the suite says about it."""
    if where.suite_file is not None:
        folders = _folders_of(where.suite_file)
        if name not in folders:
            known = ", ".join(folders) or "none"
            raise SuiteError(f"--from {where.suite_file}: names no folder of {name}, only {known}")
        return folders[name]

    # The plan names the file of the suite, which may have been moved since.
    words = shlex.split(labelling.command)
    path = Path(words[2]) if len(words) > 2 else Path()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        found = _folders_of(path).get(name)
        if found is not None:
            return found
    raise SuiteError(
        f"a record holds no paths, and the folder of {name} is needed; name the suite that says "
        "where it lies with --from SUITE.yaml"
    )


def _folders_of(suite_file: str | Path) -> Mapping[str, tuple[str, FolderOptions]]:
    """Return the folders that a suite names, by dataset. No code of a method is loaded."""
    suite, problems = read_suite(suite_file)
    problems.raise_if_any()
    # A path in a suite is relative to its file.
    base = Path(suite_file).parent
    found = {}
    for entry in suite.datasets:
        if entry.path:
            found[entry.id] = str(entry.folder(base, data_dir())), entry.folder_options
    return found


@dataclass(frozen=True)
class Truth:
    """The labels of all N training examples of a dataset.

    Attributes:
        clean: (N,) int64, the true ones; NONE, which is -1, where one is unknown.
        given: (N,) int64; None where they cannot be made again.
    """

    clean: np.ndarray
    given: np.ndarray | None


def truth_of(labelling: Labelling, data: Dataset) -> Truth | None:
    """Return the true labels of a dataset, and the given ones; None where no true label is known.

    The given labels are those of the runs: their hash is compared.
    """
    clean = data.clean_labels if data.clean_labels is not None else data.partly_clean
    if clean is None:
        return None
    try:
        given = _given(labelling, data)
    # For example a label file, of which a record has no path.
    except UserError:
        return Truth(clean, None)
    hashes = {run.record.noise.get("labels_hash") for run in labelling.runs}
    return Truth(clean, given if hashes == {label_files.labels_hash(given)} else None)


def _given(labelling: Labelling, data: Dataset) -> np.ndarray:
    """Return the given labels of all training examples, as a run of the labelling has them."""
    spec = labelling.spec
    noise, labels = spec.get("noise"), str(spec.get("labels", ""))
    if noise is None:
        return data.label_sets[labels]
    if data.clean_labels is None or "sha256" in noise:
        raise DataError("these labels cannot be made again")
    images = None if isinstance(data.train_images, ImageFiles) else data.train_images
    examples = DataExamples.of(data)
    return resolve.apply(
        noise, data.clean_labels, data.info, labelling.runs[0].seed, images, examples
    )


# ---- Where the given labels are ------------------------------------------------------------------


def with_rows(
    labelling: Labelling, examples: Examples, where: Whereabouts
) -> tuple[Examples, list[str]]:
    """Return the examples of a labelling with their rows, and what is to be said about them.

    Rows are needed where an example has no file, and its index counts other examples than the
    person's list: test rows of a table are left out, and those that an imbalance does not keep.
    Labels of a file are counted as training examples are.
    """
    name, noise = str(labelling.spec.get("dataset", "")), labelling.spec.get("noise") or {}
    unequal = imbalance.parse(name)[1]
    of_a_file = "sha256" in noise and noise["kind"] != "matrix"
    if examples.files is not None or of_a_file:
        return examples, []
    try:
        if catalogue.dataset(name).INFO.located_by == "data-dir" and not unequal:
            return examples, []
        # Of the hub there is no file of a person's, and reading it may download it again.
        rows = None if name.startswith(HUB + ":") else open_data(labelling, where).rows
        why = "its examples are no rows of a table of yours"
    except UserError as error:
        rows, why = None, str(error)

    if rows is None:
        unknown = np.full(len(examples.index), UNKNOWN_ROW)
        note = (
            f"{labelling.title}: `index` counts the training examples, and their rows are unknown, "
            f"so that `nlbench relabel` can correct no table: {why}"
        )
        return replace(examples, rows=unknown), [note]
    notes = []
    if unequal:
        notes.append(
            f"{labelling.title}: `index` counts the {len(rows):,} training examples that the "
            "imbalance keeps, and `row` all of the data"
        )
    return replace(examples, rows=rows[examples.index]), notes
