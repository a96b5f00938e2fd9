"""The datasets of a suite: the conditions they stand for, and the fingerprints of their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench.data import catalogue, describe, imbalance
from nlbench.data.base import Dataset, Info
from nlbench.data.places import HUB, FolderOptions, Places, TableOptions
from nlbench.errors import (
    DataMissing,
    Problem,
    SuiteError,
    UserError,
    did_you_mean,
    unknown_name,
)
from nlbench.files import user_path
from nlbench.plan.problems import Problems
from nlbench.plan.spec import STAND_IN, Condition
from nlbench.plan.suite_file import DatasetEntry, Suite
from nlbench.plan.told import told_by_entry

if TYPE_CHECKING:
    from nlbench.data.noise.examples import Examples

# The datasets whose columns a suite names, and the keys that no other one takes.
_TABLE, _TEXT = "features", "text"
_KEYS_OF = {
    _TABLE: set(vars(TableOptions())),
    _TEXT: {"text", "split", "vocabulary", "length"},
}
# A dataset of the hub may be images, a table or texts.
_KEYS_OF[HUB] = {"revision", "config", "test_split"} | _KEYS_OF[_TABLE] | _KEYS_OF[_TEXT]

# --- What is known before the data is read -----------------------------------------------------


def known_infos(suite: Suite, base: Path, places: Places, problems: Problems) -> dict[str, Info]:
    """Return what is known of each dataset of the suite, by `DatasetEntry.id`.

    Where none can be used, the result holds a stand-in, so that rows and protocols can be checked.

    Args:
        base: the folder that paths in the suite are relative to.
    """
    infos: dict[str, Info] = {}
    folders: dict[str, Path] = {}
    options: dict[str, FolderOptions] = {}
    for i, entry in enumerate(suite.datasets):
        found = _info(entry, ("datasets", i), base, places, folders, options, problems)
        if found is not None:
            infos[entry.id] = found
    if infos:
        return infos
    # Without a number of examples, nothing is checked that depends on it.
    return {STAND_IN: replace(catalogue.dataset("digits").INFO, name=STAND_IN, num_train=0)}


def _info(
    entry: DatasetEntry,
    where: tuple[str | int, ...],
    base: Path,
    places: Places,
    folders: dict[str, Path],
    options: dict[str, FolderOptions],
    problems: Problems,
) -> Info | None:
    """Return what is known of one dataset, or None after reporting why it cannot be used.

    Args:
        folders, options: the folder of each dataset with a path so far, and what the suite says
            about it; this one is added.
    """
    known = catalogue.dataset_files()
    if entry.name not in known:
        # A missing name is "" here, and has been reported already.
        if entry.name:
            problems.add([*where, "name"], unknown_name("dataset", entry.name, known))
        return None

    info = catalogue.dataset(entry.name).INFO
    located_by_suite = info.located_by == "suite"
    if not entry.path:
        if located_by_suite:
            problems.add(where, f"{entry.name} needs a path, {_path_in_words(entry)}")
            return None
        _check_takes_no_parts(entry, where, problems)
        _check_keys(entry, info, where, problems)
        _report_other(entry, where, options, problems)
        return catalogue.info(entry.id, "", places)

    try:
        folder = entry.folder(base, places.data_dir)
    except ValueError as error:
        problems.add([*where, "path"], str(error))
        return None
    if not _check_keys(entry, info, where, problems):
        return None
    if not located_by_suite:
        message = f"{entry.name} takes no path; --data-dir says where"
    elif not entry.on_hub and (wrong := _wrong_name(Path(entry.path).name)):
        message = wrong
    elif folders.setdefault(entry.id, folder) != folder:
        message = f"two folders are called {Path(entry.path).name}: rename one of them"
    elif _report_other(entry, where, options, problems):
        return None
    else:
        try:
            return _located(entry, folder, places)
        except UserError as error:
            message = str(error)
    problems.add([*where, "path"], message)
    return None


def _path_in_words(entry: DatasetEntry) -> str:
    if entry.on_hub:
        return "for example `path: uoft-cs/cifar10`"
    return "the file of the table" if entry.name in _KEYS_OF else "the folder it lies in"


def _located(entry: DatasetEntry, folder: Path, places: Places) -> Info:
    """Read what is known of a dataset that the suite locates. Raises UserError."""
    also = user_path(places.data_dir, entry.path)
    if entry.name != _TABLE or folder.exists() or also == folder:
        return catalogue.info(entry.id, folder, places, entry.folder_options)
    try:
        # A table may also lie in the data directory. Its error says how to make it there.
        return catalogue.info(entry.id, also, places, entry.folder_options)
    except DataMissing as error:
        raise DataMissing(f"{folder}: no such file, nor in the data directory: {error}") from None


def _wrong_name(name: str) -> str:
    """Return why a folder or file of this name cannot be a dataset, or ""."""
    if name in ("", ".."):
        return "must end with the folder's own name, which tables and records show"
    if imbalance.parse(name)[1]:
        return "ends as the name of a dataset with an `imbalance` does; rename it"
    return ""


def _check_takes_no_parts(
    entry: DatasetEntry, where: tuple[str | int, ...], problems: Problems
) -> None:
    """Report keys that are for a folder of one's own, in the entry of another dataset."""
    if entry.test_share:
        problems.add([*where, "test_share"], f"{entry.name} has a test part; leave it out")
    for key in ("clean_val", "label_column", "clean_column"):
        if getattr(entry, key):
            problems.add([*where, key], "only a folder of your own takes it; leave it out")


def _check_keys(
    entry: DatasetEntry, info: Info, where: tuple[str | int, ...], problems: Problems
) -> bool:
    """Report a key that the dataset does not take. Returns whether there is none."""
    wrong = _unused_key(entry) or _no_column(entry, info)
    if wrong:
        problems.add([*where, wrong[0]], wrong[1])
    return wrong is None


def _no_column(entry: DatasetEntry, info: Info) -> tuple[str, str] | None:
    """Return a key that names a column where the dataset has none to choose, and a message."""
    for key in ("image", "label", "clean_label"):
        if getattr(entry, key) and key not in info.columns:
            takes = f"it takes only {' and '.join(info.columns)}; " if info.columns else ""
            return key, f"{entry.name} has no such column to choose; {takes}leave it out"
    return None


def _unused_key(entry: DatasetEntry) -> tuple[str, str] | None:
    """Return a key of the entry that its dataset does not read, and a message."""
    for one, other in (("label", "label_column"), ("clean_label", "clean_column")):
        if getattr(entry, one) and getattr(entry, other):
            return one, f"is the same as {other}; leave one out"
    if entry.name in (_TABLE, _TEXT) and entry.clean_val:
        return "clean_val", "only a folder of images takes it; leave it out"
    if entry.name == _TABLE and "clean" in entry.label_sets_in:
        return "labels", "the column of the true labels is named by `clean_label`"

    given, default = entry.folder_options, FolderOptions()
    for keys in _KEYS_OF.values():
        for key in sorted(keys - _KEYS_OF.get(entry.name, set())):
            values = [getattr(of.table, key, getattr(of, key, None)) for of in (given, default)]
            if values[0] != values[1]:
                takers = [name for name, taken in _KEYS_OF.items() if key in taken]
                key = "labels" if key == "label_sets" else key
                return key, f"only the dataset {' or '.join(takers)} takes it; leave it out"
    return None


def _report_other(
    entry: DatasetEntry,
    where: tuple[str | int, ...],
    options: dict[str, FolderOptions],
    problems: Problems,
) -> bool:
    """Report a key whose value differs from that of an entry above. Returns whether one does."""
    here = entry.folder_options
    other = _first_other(options.setdefault(entry.id, here), here)
    if other:
        problems.add([*where, entry.key_of(other[0])], other[1])
    return other is not None


def _first_other(above: FolderOptions, here: FolderOptions) -> tuple[str, str] | None:
    """Return a key whose value differs from that of an entry above, and a message."""
    for key, value in vars(above).items():
        if key == "table":
            continue
        if value != getattr(here, key):
            # The words of a share are those of its number.
            words = f"{value:g}" if isinstance(value, float) else repr(value)
            return key, f"is {words} in an entry above; it must be the same in both"
    for key, value in vars(above.table).items():
        if value != getattr(here.table, key):
            key = "labels" if key == "label_sets" else key
            return key, f"is {_as_yaml(value)} in an entry above; it must be the same in both"
    return None


def _as_yaml(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


# --- Conditions --------------------------------------------------------------------------------


def conditions_of(
    suite: Suite,
    base: Path,
    infos: Mapping[str, Info],
    places: Places,
    problems: Problems,
) -> list[Condition]:
    """Return every dataset with each of its label sets or noises, in the suite's order."""
    conditions: list[Condition] = []
    folders: dict[str, Path] = {}
    for i, entry in enumerate(suite.datasets):
        where = ("datasets", i)
        # A dataset that cannot be used has been reported already, and a second folder of one name.
        try:
            folder = entry.folder(base, places.data_dir)
        except ValueError:
            continue
        if entry.id not in infos or folders.setdefault(entry.id, folder) != folder:
            continue

        info = infos[entry.id]
        # A branch of the hub may move at any time. Everything else reads its commit of now.
        options = replace(entry.folder_options, revision=info.commit)
        found = _with_label_sets(entry, info, where, problems)
        found += _with_noises(entry, info, where, base, places, options, problems)
        told = told_by_entry(entry, info, where, base, problems)
        for condition in found:
            condition = replace(condition, told=told, folder_options=options)
            if entry.path:
                condition = replace(condition, data_path=str(folder))
            condition = _titled_apart(condition, conditions)
            if condition in conditions:
                problems.add(where, f"{condition.title} is listed twice; keep one")
            conditions.append(condition)
    return conditions


def _with_label_sets(
    entry: DatasetEntry, info: Info, where: tuple[str | int, ...], problems: Problems
) -> list[Condition]:
    found = []
    for labels in entry.label_sets(info):
        if labels not in info.label_sets:
            known = ", ".join(info.label_sets)
            hint = did_you_mean(labels, info.label_sets)
            message = f"{entry.name} has no label set {labels!r}. It has: {known}.{hint}"
            if labels == "clean" and info.partly_clean:
                message += " The true labels are known for some images only."
            problems.add([*where, "labels"], message)
            continue

        # Where the suite names several label sets, the first one has its name in tables as well.
        # The true labels of a dataset with wrong ones have it always: "CIFAR-10N" alone would be
        # read as the wrong ones.
        is_default = labels == info.label_sets[0] and len(entry.label_sets_in) < 2
        named = not is_default or (labels == "clean" and len(info.label_sets) > 1)
        title = f"{info.title} {labels}" if named else info.title
        found.append(Condition(entry.id, labels, None, title))
    return found


def _with_noises(
    entry: DatasetEntry,
    info: Info,
    where: tuple[str | int, ...],
    base: Path,
    places: Places,
    options: FolderOptions,
    problems: Problems,
) -> list[Condition]:
    from nlbench.data.noise import resolve
    from nlbench.data.noise.examples import Examples

    # Noise is drawn from the true labels.
    noises = entry.noises()
    if noises and "clean" not in info.label_sets:
        known = "known for some images only" if info.partly_clean else "unknown"
        message = f"the true labels of {info.title} are {known}, so no noise can be drawn"
        if entry.path and any(noise.get("kind") == "file" for noise in noises):
            message += (
                "; to train on labels of your own, write them into the column `label` of train.csv"
            )
        problems.add([*where, "noise"], message)
        return []

    # A folder has been read already, so that its files can be compared with a list of labels here.
    # How many examples an imbalance keeps is known only from the data.
    folder = entry.folder(base, places.data_dir) if entry.path else ""
    unequal = entry.imbalance is not None and any("path" in noise for noise in noises)
    examples = None
    if noises and (entry.path or unequal):
        examples = Examples.of(_opened(entry.id, folder, places, options))

    found = []
    for given in noises:
        try:
            resolved = resolve.resolve(given, info, base, examples)
        except SuiteError as error:
            whole = ""
            if unequal and examples is not None:
                data = _opened(imbalance.parse(entry.id)[0], folder, places, options)
                whole = _of_whole_part(given, Examples.of(data), examples.info, base)
            found_here = [Problem(("noise", "path"), whole)] if whole else error.problems
            problems.extend(problem.under(*where) for problem in found_here)
            continue

        # The place of a file cannot change a result. Its digest is in the identity.
        path = str(resolved.get("path", ""))
        noise = resolve.identity(resolved)
        detail = f"{noise['rate']:g}" if "rate" in noise else Path(path).name
        title = f"{info.title} {noise['kind']} {detail}"
        found.append(Condition(entry.id, "clean", noise, title, path))
    return found


def _opened(name: str, folder: str | Path, places: Places, options: FolderOptions) -> Dataset:
    """Read a dataset. Raises DataMissing, saying which file goes where."""
    plain = imbalance.parse(name)[0]
    if not folder and not catalogue.status(plain, places.data_dir).there:
        raise DataMissing(catalogue.advice(plain, places.data_dir))
    return catalogue.open_dataset(name, folder, places, 0, options)


def _of_whole_part(noise: Mapping[str, object], whole: Examples, kept: Info, base: Path) -> str:
    """Return what to do with a file of all training examples, of which an imbalance keeps some.

    Returns: "" where the file does not fit all examples either.
    """
    from nlbench.data.noise import resolve

    try:
        resolve.resolve(noise, whole.info, base, whole)
    except SuiteError:
        return ""
    message = (
        f"{noise['path']}: is for all {whole.info.num_train} training examples, of which "
        f"`imbalance` keeps {kept.num_train}; a file must be for those alone"
    )
    if kept.located_by == "suite":
        return f"{message}. Write one of them, or leave `imbalance` out"
    return (
        f"{message}. `nlbench noise export {kept.name} --kind {noise['kind']} --path "
        f"{noise['path']} --to FILE` writes their labels, for {{kind: file, path: FILE}}"
    )


def _titled_apart(condition: Condition, others: Sequence[Condition]) -> Condition:
    """Return the condition with a title that no other condition in `others` has."""
    for other in others:
        if condition.title != other.title or condition == other:
            continue
        # For example two files of one name in different folders.
        noise = condition.noise or {}
        more = noise.get("key") or condition.noise_path or _own_parameters(noise)
        if condition.noise == other.noise:
            more = _told_in_words(condition)
        return replace(condition, title=f"{condition.title} ({more})")
    return condition


def _told_in_words(condition: Condition) -> str:
    """Return in words what a suite tells under a condition, such as "told noise_rate 0.2"."""
    words = []
    for name, told in condition.told.items():
        words.append(f"told {name} {Path(told.path).name or told.identity}")
    return ", ".join(words) or "nothing told"


def _own_parameters(noise: Mapping[str, float | str]) -> str:
    """Return in words what a noise has beside its kind and rate, such as "spread 2"."""
    words = []
    for name, value in noise.items():
        if name in ("kind", "rate", "version"):
            continue
        shown = f"{value:g}" if isinstance(value, float) else value
        words.append(f"{name} {shown}")
    return ", ".join(words)


def _places_of(conditions: Sequence[Condition]) -> list[tuple[str, str, FolderOptions]]:
    """Return each dataset once, with its folder and what the suite says about it."""
    found = ((c.dataset, c.data_path, c.folder_options) for c in conditions)
    return list(dict.fromkeys(found))


# --- What the owner of the data should see ------------------------------------------------------


def about_data(
    conditions: Sequence[Condition], places: Places, *, folders_only: bool
) -> tuple[list[str], list[str]]:
    """Return a line on the classes of each dataset, and what is odd in them.

    Warnings about the files of labels and matrices are among them.

    Args:
        folders_only: leave out the datasets of the data directory, which take seconds to read.
    Raises: DataMissing, DataError, if a dataset has changed since it was read.
    """
    lines: list[str] = []
    warnings: list[str] = []
    for dataset, path, options in _places_of(conditions):
        if folders_only and not path:
            continue
        data = catalogue.open_dataset(dataset, path, places, 0, options)
        lines.append(describe.in_short(data))
        warnings += data.warnings
    return lines, [*warnings, *_about_noise_files(conditions, places)]


def _about_noise_files(conditions: Sequence[Condition], places: Places) -> list[str]:
    """Return what is odd in the files of labels and matrices, each line once."""
    from nlbench.data.noise import resolve
    from nlbench.data.noise.examples import Examples

    warnings: list[str] = []
    for condition in conditions:
        if condition.noise is None or not condition.noise_path:
            continue
        # Only in a folder do images have names, by which rows are put in order. How many examples
        # an imbalance keeps is known only from the data.
        if condition.data_path or imbalance.parse(condition.dataset)[1]:
            data = catalogue.open_dataset(
                condition.dataset, condition.data_path, places, 0, condition.folder_options
            )
            examples = Examples.of(data)
        else:
            examples = Examples.unread(catalogue.info(condition.dataset, "", places))
        noise = {**condition.noise, "path": condition.noise_path}
        warnings += resolve.warnings_of(noise, examples)
    return list(dict.fromkeys(warnings))


# --- What is known after reading the data ------------------------------------------------------


def read_fingerprints(
    conditions: Sequence[Condition], places: Places
) -> tuple[dict[tuple[str, str], str], dict[str, Info]]:
    """Read each dataset, and return its fingerprints and what was counted in it.

    Returns: (dataset, label set) -> fingerprint, and dataset -> info.
    Raises: DataMissing, for all datasets that are not there at once; DataError.
    """
    from nlbench.data.noise import resolve
    from nlbench.data.noise.examples import Examples

    # The folders that a suite names have been read already, to learn their classes.
    in_data_dir = dict.fromkeys(c.dataset for c in conditions if not c.data_path)
    missing = [
        catalogue.advice(name, places.data_dir)
        for name in in_data_dir
        if not catalogue.status(name, places.data_dir).there
    ]
    if missing:
        # A dataset may be there twice, with equal classes and with unequal ones.
        raise DataMissing("\n".join(dict.fromkeys(missing)))

    fingerprints: dict[tuple[str, str], str] = {}
    infos: dict[str, Info] = {}
    # Several conditions share a dataset, and reading one takes seconds.
    for dataset, path, options in _places_of(conditions):
        # Any seed does: a fingerprint is the same for all of them.
        data = catalogue.open_dataset(dataset, path, places, 0, options)
        infos[dataset] = data.info
        for condition in conditions:
            if condition.dataset == dataset and condition.noise is not None:
                noise = {**condition.noise, "path": condition.noise_path}
                resolve.require_fit(noise, Examples.of(data))
        for labels in dict.fromkeys(c.labels for c in conditions if c.dataset == dataset):
            fingerprints[dataset, labels] = fingerprint_of(data, labels)
    return fingerprints, infos


def fingerprint_of(data: Dataset, labels: str) -> str:
    """Return the fingerprint of a dataset with one of its label sets, as run keys hold it."""
    from nlbench.data.noise import label_files

    # Clean labels are part of the dataset's own fingerprint. Human labels are not.
    if labels == "clean" or labels not in data.label_sets:
        return data.fingerprint
    return f"{data.fingerprint}-{label_files.labels_hash(data.label_sets[labels])}"
