"""Images, texts or numbers of the Hugging Face hub, from the parquet files of one commit."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nlbench.data import hub
from nlbench.data.base import Dataset, Found, Source
from nlbench.data.cache import file_state
from nlbench.data.datasets import features, folder, text
from nlbench.data.datasets.folder import Part
from nlbench.data.formats import hub_layout, hub_tables, image_parquet
from nlbench.data.places import HUB, Places, cache_dir
from nlbench.errors import DataError

INFO = replace(folder.INFO, name=HUB, title="a dataset of the Hugging Face hub")
SOURCES: tuple[Source, ...] = ()
WHERE = (
    "a dataset of the Hugging Face hub, of which a suite says the name: "
    "datasets: [{name: hf, path: owner/name, revision: main}]"
)
_PARTS = {"split": "train", "test_split": "test"}
FETCH = "`nlbench data fetch hf:OWNER/NAME` downloads one, and `nlbench data check` looks at it"


def find(data_dir: Path) -> Found:
    """Find nothing, because a suite names the dataset. Say which ones are known."""
    return Found(paths=(), looked=(), missing=(WHERE, FETCH, *hub.overview(cache_dir())))


def load(places: Places, seed: int) -> Dataset:
    """Read the dataset `places.data_dir`, which is owner/name, after downloading what is missing.

    Classes of images have the order and the names of the hub's ClassLabel; without one they are
    ordered as a folder's are. Texts and numbers are read as those of a suite's own. The commit is
    in `info`.

    Raises: DataMissing where it cannot be downloaded; DataError, naming the file and the fix.
    """
    repository = places.data_dir.as_posix()
    found = hub.snapshot(repository, places.revision, places.cache_dir)
    splits = hub_layout.choose(found.files, places.config, found.words)

    wanted = _wanted(places, found.words)
    names = {}
    for key, split in wanted.items():
        names[key] = hub_layout.files_of(splits, split, key, found.words)
    there = hub.download(found, [name for part in names.values() for name in part])

    files = {}
    for key, split in wanted.items():
        paths = [there[name] for name in names[key]]
        # The names 0000 and 0001 of the hub's own conversion do not say how many there are.
        if not all(path.stem.isdecimal() for path in paths):
            image_parquet.require_one_copy(paths, split)
        files[key] = tuple(paths)
    kind = hub_tables.kind_of(files["split"][0], places, text.NAMES)
    places = replace(places, revision=found.commit)
    if kind != "images":
        return _table(places, files, kind, seed)
    # Each seed reads the same files.
    state = file_state([path for paths in files.values() for path in paths])
    return _read(places, tuple(files.items()), state)


def _table(
    places: Places, files: Mapping[str, Sequence[Path]], kind: hub_tables.Kind, seed: int
) -> Dataset:
    """Read texts or numbers as a file or folder of one's own."""
    if "clean_val" in files:
        raise DataError(
            f"{places.data_dir.as_posix()}: clean_val is for images, and these are {kind}; leave "
            "it out"
        )
    names: list[str] = []
    wanted = _wanted(places, places.data_dir.as_posix())
    for key, paths in files.items():
        label = hub_tables.label_of(paths[0], places)
        _require_labels(paths, label, key, wanted[key])
        names = _same_classes(paths[0], image_parquet.class_names(paths[0], label), names)

    parts = {_PARTS[key]: paths for key, paths in files.items()}
    path = hub_tables.joined(parts, places.cache_dir)
    if places.test_share:
        path /= "train.parquet"
    inner = replace(places, data_dir=path, table=replace(places.table, split=""))
    data = text.load(inner, seed) if kind == "text" else features.load(inner, seed)
    repository = places.data_dir.as_posix()
    name = f"{HUB}:{repository}"
    info = replace(data.info, name=name, title=repository, commit=places.revision)
    return replace(data, info=info)


def _same_classes(file: Path, names: list[str], before: list[str]) -> list[str]:
    """Return the names of the classes. Raises DataError where two parts disagree."""
    if names and before and names != before:
        raise DataError(
            f"{file}: names the classes {_shortened(names)}, and the training part "
            f"{_shortened(before)}; the labels of both must mean the same classes, in the same "
            f"order"
        )
    return before or names


def _wanted(places: Places, where: str) -> dict[str, str]:
    """Return which split is which part, by the suite's key for it."""
    wanted = {"split": places.table.split or "train"}
    if not places.test_share:
        wanted["test_split"] = places.test_split or "test"
    elif places.test_split:
        raise DataError(f"{where}: test_split and test_share exclude each other; keep one")
    if places.clean_val:
        wanted["clean_val"] = places.clean_val

    keys: dict[str, str] = {}
    for key, split in wanted.items():
        if keys.setdefault(split, key) != key:
            raise DataError(
                f"{where}: {keys[split]} and {key} are both {split!r}; an image may be in one part "
                f"only"
            )
    return wanted


@functools.lru_cache(maxsize=8)
def _read(places: Places, files: tuple[tuple[str, tuple[Path, ...]], ...], state: str) -> Dataset:
    """Read the parts; `state` is that of the files, so that a change is noticed."""
    wanted = _wanted(places, places.data_dir.as_posix())
    parts = {}
    names: list[str] = []
    for key, paths in files:
        parts[key], known = _part(places, key, wanted[key], paths)
        names = _same_classes(paths[0], known, names)

    train = parts["split"]
    if "test_split" in parts:
        test = parts["test_split"]
    else:
        train, test = folder.share_of(train, places)
    held = [parts["clean_val"]] if "clean_val" in parts else []

    repository = places.data_dir.as_posix()
    name = f"{HUB}:{repository}"
    info = replace(INFO, name=name, title=repository, commit=places.revision)
    return folder.as_dataset(train, test, held, info, places.cache_dir, _classes(names, train))


def _part(places: Places, key: str, split: str, paths: Sequence[Path]) -> tuple[Part, list[str]]:
    """Return the images of a split, and the names of the classes where its metadata has them."""
    # Other parts need not have the columns of the training part.
    chosen = folder.chosen_columns(places, must=key == "split")
    label = image_parquet.label_of(paths[0], chosen)
    _require_labels(paths, label, key, split)
    part = folder.from_parquet(paths, chosen, places.cache_dir, split)
    return part, image_parquet.class_names(paths[0], label)


def _require_labels(paths: Sequence[Path], label: str, key: str, split: str) -> None:
    """Raise DataError for labels that the hub hides.

    Args:
        key: the suite's key that names the split.
    """
    hidden = image_parquet.hidden_labels(paths, label)
    if hidden:
        raise DataError(
            f"{paths[0]}: {hidden} of the labels of the split {split!r} are -1, with which the hub "
            f"marks labels that are kept secret; name a split with labels, for example `{key}: "
            f"validation`, or `test_share: 0.2`, in the suite's dataset entry"
        )


def _classes(names: Sequence[str], train: Part) -> list[str]:
    """Return the classes by number: those of the metadata, then others of true labels."""
    if not names:
        return []
    # As the labels are written, with composed accents.
    known = [folder.composed(name) for name in names]
    others = {label for label in (*train.labels, *train.clean) if label} - {*known}
    return [*known, *sorted(others)]


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
