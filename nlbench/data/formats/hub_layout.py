"""Tell from the names of a repository's parquet files which configuration and split each has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from nlbench.data.formats.image_parquet import split_of
from nlbench.errors import DataError, did_you_mean

# The hub's name for the configuration of a dataset that has only one.
DEFAULT = "default"

# The hub converts only the beginning of a large dataset, and calls its parts so.
_CUT = "partial-"

# The files of each split, in order.
Splits = dict[str, list[str]]


def configurations(files: Iterable[str]) -> dict[str, Splits]:
    """Return configuration -> split -> files, for the layouts that the hub's own tools write.

    They are `data/train-00000-of-00002.parquet`, `CONFIG/train-00000-of-00002.parquet`, and
    `CONFIG/train/0000.parquet` on the branch `refs/convert/parquet`.
    """
    found: dict[str, Splits] = {}
    for file in sorted(files):
        path = PurePosixPath(file)
        folders = list(path.parts[:-1])
        # A file 0000.parquet is named by its folder.
        named = folders.pop() if path.stem.isdecimal() and folders else path.name
        split = split_of(Path(named))

        config = "/".join(folders)
        if config in ("", "data"):
            config = DEFAULT
        found.setdefault(config, {}).setdefault(split, []).append(file)
    return found


def choose(files: Iterable[str], config: str, where: str) -> Splits:
    """Return the splits of one configuration.

    Args:
        config: its name; "" takes the only one, or the one called "default".
        where: names the repository in errors.
    Raises: DataError, naming the configurations that there are.
    """
    found = configurations(files)
    if not config:
        config = DEFAULT
        if len(found) == 1:
            config = next(iter(found))
        elif DEFAULT not in found:
            names = _listed(list(found))
            raise DataError(
                f"{where}: has {len(found)} configurations, {names}; say which one with `config: "
                f"{next(iter(found), DEFAULT)}` in the suite's dataset entry"
            )
    if config not in found:
        raise DataError(
            f"{where}: has no configuration {config!r}, only {_listed(list(found))}."
            f"{did_you_mean(config, found)}"
        )
    return found[config]


def files_of(splits: Mapping[str, Sequence[str]], split: str, key: str, where: str) -> list[str]:
    """Return the files of one split.

    Args:
        key: the suite's key that names this split.
    Raises: DataError, naming the splits that there are.
    """
    if split in splits:
        return list(splits[split])

    if f"{_CUT}{split}" in splits:
        raise DataError(
            f"{where}: the hub has converted only the beginning of the split {split!r} to parquet, "
            f"as of all large datasets. Get the dataset's own files, and read them as a `folder`"
        )
    names = [name.removeprefix(_CUT) for name in splits]
    fix = f"name another one with `{key}: {names[0] if len(names) == 1 else 'NAME'}`"
    if key == "test_split":
        fix = "name another one with `test_split: NAME`"
        if {*names} & {"validation", "valid", "val", "dev"}:
            other = next(name for name in names if name in ("validation", "valid", "val", "dev"))
            fix = f"`test_split: {other}` tests on that one"
        elif len(names) == 1:
            fix = f"`test_share: 0.2` tests on a fifth of {names[0]}"
    raise DataError(
        f"{where}: has no split {split!r}, only {_listed(names)}; {fix} in the suite's dataset "
        f"entry.{did_you_mean(split, names)}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more or "none"
