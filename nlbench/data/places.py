"""The two folders of the data layer: where data is read from, and where decoded copies are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

# The dataset whose path in a suite is owner/name on the Hugging Face hub, and no folder.
HUB = "hf"


def _expanded(path: str | Path) -> Path:
    # Unlike Path.expanduser, this leaves a ~ as it is where the home folder is unknown.
    return Path(os.path.expanduser(path))


def data_dir(option: str | Path | None = None) -> Path:
    """Return the folder of data files: `option`, else NLBENCH_DATA, else a per-user folder."""
    chosen = option or os.environ.get("NLBENCH_DATA")
    if chosen:
        return _expanded(chosen)

    # On Linux ~/.local/share/nlbench.
    return platformdirs.user_data_path("nlbench", appauthor=False)


def cache_dir() -> Path:
    """Return the folder of decoded data: NLBENCH_CACHE, else a per-user folder."""
    chosen = os.environ.get("NLBENCH_CACHE")
    if chosen:
        return _expanded(chosen)

    # On Linux ~/.cache/nlbench.
    return platformdirs.user_cache_path("nlbench", appauthor=False)


@dataclass(frozen=True)
class TableOptions:
    """What a suite says about a table of features, beside its path and the columns of its labels.

    Attributes:
        features: names and patterns of the columns to read; empty for all.
        split: the column that says which part a row belongs to; "" for none.
        categorical: names and patterns of the columns that hold categories.
        missing: what becomes of an empty cell: "refuse", "mean", "median" or "most-frequent".
        label_sets: (name, column) of further sets of given labels.
    """

    features: tuple[str, ...] = ()
    split: str = ""
    categorical: tuple[str, ...] = ()
    missing: str = "refuse"
    label_sets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FolderOptions:
    """What a suite says about a folder or file of the user's own, beside its path.

    Attributes:
        test_share: of a folder without a test part, the share of its images to test on; else 0.
        clean_val: the part of a folder whose labels are true and may select an epoch, for example
            "val"; else "".
        label_column, clean_column: the columns of the given and of the true labels in a list or
            parquet file; "" where their names tell.
        table: what it says about a table.
        text: the column of the texts; "" where the names tell.
        vocabulary, length: of texts, how many different words have a number, and how many words of
            a text are kept; 0 for the dataset's own.
        image_column: the column of the images, or of their files; "" where the names tell.
        revision, config: of a dataset of the Hugging Face hub, a branch, tag or commit, and the
            configuration; "" for the default ones.
        test_split: of such a dataset, the part to test on; "" for test.
    """

    test_share: float = 0.0
    clean_val: str = ""
    label_column: str = ""
    clean_column: str = ""
    image_column: str = ""
    revision: str = ""
    config: str = ""
    test_split: str = ""
    table: TableOptions = TableOptions()
    text: str = ""
    vocabulary: int = 0
    length: int = 0


@dataclass(frozen=True)
class Places:
    """The folders that a dataset is read from and decoded into.

    Attributes:
        data_dir: the folder to read. For a dataset that a suite locates, the folder it names; for
            one of the Hugging Face hub owner/name.
        cache_dir: the folder for decoded copies. It need not exist.
        test_share and the others: see `FolderOptions`.
    """

    data_dir: Path
    cache_dir: Path
    test_share: float = 0.0
    clean_val: str = ""
    label_column: str = ""
    clean_column: str = ""
    image_column: str = ""
    revision: str = ""
    config: str = ""
    test_split: str = ""
    table: TableOptions = TableOptions()
    text: str = ""
    vocabulary: int = 0
    length: int = 0

    @classmethod
    def of_user(cls, option: str | Path | None = None) -> Places:
        """Return the user's folders; `option` is what --data-dir says."""
        return cls(data_dir(option), cache_dir())

    def reading(self, folder: Path, options: FolderOptions | None = None) -> Places:
        """Return the same places with `folder` as the folder to read."""
        # `vars`, because `asdict` would make a dict of the options of a table as well.
        return replace(self, data_dir=folder, **vars(options or FolderOptions()))
