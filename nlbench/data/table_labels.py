"""The labels of a table: which columns hold them, and which classes they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nlbench.data.base import Dataset, Info
from nlbench.data.cache import Arrays, Facts
from nlbench.data.class_names import about_class_names
from nlbench.data.feature_matrix import Part
from nlbench.data.formats.columns import is_label_column, is_no_class, label_columns
from nlbench.data.formats.frames import Frame, shape_of
from nlbench.data.noise.relation import unrelated
from nlbench.data.places import Places
from nlbench.errors import DataError, did_you_mean

LABELS_FIX = "name it in the suite's dataset entry, for example `label: species`"
# In place of a true label that nobody knows.
UNKNOWN = -1


def columns_of_labels(frame: Frame, places: Places) -> dict[str, str]:
    """Return the column of each label set, the default first. "clean" is last.

    Raises: DataError when no column holds labels, or when names do not tell which.
    """
    extra = dict(places.table.label_sets)
    given, clean = places.label_column, places.clean_column
    vectors = {name: column for name, column in frame.columns.items() if not shape_of(column)}
    for key, name in {"label": given, "clean_label": clean, **extra}.items():
        if name and name not in vectors:
            raise DataError(
                f"{frame.path}: `{key}` names {name!r}, and there is no such column of labels, "
                f"only {', '.join(map(repr, list(vectors)[:20]))}.{did_you_mean(name, vectors)}"
            )

    others = [name for name in vectors if name not in (clean, *extra.values())]
    # Sets of given labels that the suite names, or labels that are all true, may be all there are.
    if not given and (extra or (clean and not any(map(is_label_column, others)))):
        found = {**extra, "clean": clean}
    else:
        by_name = label_columns(
            [name for name in vectors if name not in extra.values()],
            frame.path,
            given=given,
            clean=clean,
            answer=LABELS_FIX,
        )
        found = {"given": by_name.given, **extra, "clean": by_name.clean}
    found = {name: column for name, column in found.items() if column}
    for column in found.values():
        twins = [other for other, theirs in found.items() if theirs == column]
        if len(twins) > 1:
            raise DataError(f"{frame.path}: {column!r} is named for {' and for '.join(twins)}")
    return found


def trusted_labels(whole: Part, columns: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the labels that a test part is chosen by, and what is to be said about them.

    They are the true labels where the table has some, "" where one is unknown; else the first set.
    """
    labels = all_labels(whole, columns)
    if "clean" in labels:
        return labels["clean"], []
    first, found = next(iter(labels.items()))
    note = (
        f"{whole.frame.path}: the test rows come from the same table (test_share), so their labels "
        "may be as wrong as those of the training rows. If all labels are true, name the column "
        f"with `clean_label: {columns[first]}`"
    )
    return found, [note]


def all_labels(
    part: Part, columns: Mapping[str, str], name_of_part: str = "train"
) -> dict[str, list[str]]:
    """Return the labels of a part as texts by label set, "" for an unknown true one.

    A column of true labels that is empty in all rows is taken for none. The part "train" must have
    all columns, and another one at least one.
    """
    labels = {}
    names = names_of_classes(part.frame, columns)
    for label_set, column in columns.items():
        if column in part.frame.columns:
            texts = _classes_of(part, column, names, may_be_unknown=label_set == "clean")
            if any(texts):
                labels[label_set] = texts
        elif name_of_part == "train":
            raise DataError(f"{part.frame.path}: has no column {column!r}")
    if not labels:
        there = [name for name, column in part.frame.columns.items() if not shape_of(column)]
        raise DataError(
            f"{part.frame.path}: its {name_of_part} part has none of the columns of labels "
            f"{', '.join(map(repr, columns.values()))}, only {', '.join(map(repr, there[:20]))}; "
            "`label:` or `clean_label:` names the column that both parts have"
        )
    return labels


def names_of_classes(frame: Frame, columns: Mapping[str, str]) -> list[str]:
    """Return the names of the classes in the order of the file's numbers; empty where it has none.

    Args:
        columns: those of the labels. Names of one of them count for all.
    Raises: DataError for two classes of one name.
    """
    named = [frame.named[column] for column in columns.values() if frame.named.get(column)]
    names = [_composed(name) for name in named[0]] if named else []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{frame.path}: two classes have the name {twice!r}; rename one")
    return names


def _composed(text: str) -> str:
    """Return a text with composed accents. Some systems write an e and its accent apart."""
    return unicodedata.normalize("NFC", text)


def _classes_of(part: Part, name: str, names: Sequence[str], may_be_unknown: bool) -> list[str]:
    """Return a column of labels as texts. Raises DataError, naming the row of what is no class.

    Args:
        names: the names of the classes by number; empty where the file has none.
    """
    column = part.frame.columns[name]
    texts = part.texts(name)
    known = set(names)
    # Numbers of classes that are -1 and 1 are usual, and -1 alone marks a hidden label.
    signs = not known and {text for text in texts if text is not None} <= {"-1", "1"}
    found = []
    for i, text in enumerate(texts):
        if text is None or (is_no_class(text) and not signs):
            if not may_be_unknown:
                _refuse_label(part, i, name, text)
            found.append("")
            continue
        if not isinstance(column, list) and column.dtype.kind == "f" and "." in text:
            raise DataError(
                f"{part.at(i)}: {name!r} is {text}. A label must be a class, a whole number or a "
                "text; numbers that are measured cannot be one"
            )
        if known and not (isinstance(column, list) and _composed(text) in known):
            text = _named(part, i, name, text, names)
        found.append(_composed(text))
    return found


def _named(part: Part, row: int, column: str, text: str, names: Sequence[str]) -> str:
    """Return the name of a class's number; a text that is no number as it is."""
    if text.isdecimal() and len(text) < 10 and int(text) < len(names):
        return names[int(text)]
    if not text.lstrip("-").isdecimal():
        return text
    raise DataError(
        f"{part.at(row)}: {column!r} is {text}, and the file names {len(names)} classes, from 0 "
        f"({names[0]}) to {len(names) - 1} ({names[-1]})"
    )


def _refuse_label(part: Part, row: int, name: str, text: str | None) -> None:
    what = f"{name} is empty"
    if text is not None:
        what = f"{name} {text!r} says that there is no label, and is no class"
    raise DataError(
        f"{part.at(row)}: {what}; take such rows out, or give a class of that name another one, "
        "such as 'class-unknown' for 'unknown'"
    )


@dataclass(frozen=True)
class Numbered:
    """The labels of all parts as numbers.

    Attributes:
        arrays: "labels0", "labels1" and so on in the order of the complete label sets;
            "partly_clean" where only some true labels are known; "test_labels".
        complete: the names of the complete label sets.
        clean: the array of the true labels, else "".
    """

    classes: list[str]
    arrays: dict[str, np.ndarray]
    complete: list[str]
    clean: str
    notes: list[str]

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Part],
        columns: Mapping[str, str],
        notes: Sequence[str],
    ) -> Numbered:
        """Give numbers to the classes that the training rows have, or that the file names.

        Args:
            columns: the column of each label set.
            notes: what was said before, for a message.
        """
        labels = {name: all_labels(part, columns, name) for name, part in parts.items()}
        train, path = labels["train"], parts["train"].frame.path
        # Label files and matrices that come with the file have its numbers.
        names = names_of_classes(parts["train"].frame, columns)
        there = {text for texts in train.values() for text in texts if text}
        classes = [*names, *_in_order(there - {*names})]
        if len(classes) < 2:
            message = f"{path}: holds one class, {', '.join(classes)}; at least two are needed"
            raise DataError("\n".join([message, *notes]))
        number = {"": UNKNOWN} | {name: i for i, name in enumerate(classes)}

        complete = [name for name, texts in train.items() if "" not in texts]
        arrays = {}
        for place, name in enumerate(complete):
            arrays[f"labels{place}"] = np.array([number[text] for text in train[name]], np.int64)
        if not complete:
            raise DataError(
                f"{path}: some rows have no true label, and no column holds labels to train on; "
                f"{LABELS_FIX}"
            )
        partly = "clean" in train and "clean" not in complete
        clean = "partly_clean" if partly else ""
        if partly:
            arrays[clean] = np.array([number[text] for text in train["clean"]], np.int64)
        elif "clean" in train:
            clean = f"labels{complete.index('clean')}"

        true = labels["test"].get("clean") or next(iter(labels["test"].values()))
        _require_known(parts["test"], true, number, classes)
        arrays["test_labels"] = np.array([number[text] for text in true], np.int64)
        found = cls(classes, arrays, complete, clean, [])
        found.notes.extend(found._odd(train, path))
        return found

    def _odd(self, train: Mapping[str, list[str]], path: Path) -> list[str]:
        """Say what is odd in the labels."""
        notes = [f"{path}: {note}" for note in about_class_names(self.classes)]
        rows = len(next(iter(train.values())))
        if len(self.classes) > 10 and 2 * len(self.classes) > rows:
            notes.append(f"{path}: {len(self.classes)} classes for {rows} rows; are these labels?")
        trained = {text for texts in train.values() for text in texts}
        tested = {self.classes[i] for i in self.arrays["test_labels"].tolist()}
        for part, there in (("training", trained), ("test", tested)):
            absent = [name for name in self.classes if name not in there]
            if absent:
                more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
                notes.append(f"{path}: no {part} row has the class {', '.join(absent[:5])}{more}")
        if self.clean.startswith("labels") and len(self.complete) > 1:
            given, clean = self.arrays["labels0"], self.arrays[self.clean]
            found = unrelated(clean, given, len(self.classes))
            if found:
                notes.append(f"{path}: {found}: do both columns belong to these rows?")
        return notes


def _in_order(classes: set[str]) -> list[str]:
    """Return the classes in order. Whole numbers are ordered as numbers."""
    # int() refuses thousands of digits.
    if all(name.lstrip("-").isdecimal() and len(name) < 1000 for name in classes):
        return sorted(classes, key=lambda name: (int(name), name))
    return sorted(classes)


def _require_known(
    test: Part, labels: Sequence[str], number: Mapping[str, int], classes: Sequence[str]
) -> None:
    """Raise DataError for a test row without a class, or of one that no training row has."""
    for i, text in enumerate(labels):
        if not text:
            raise DataError(
                f"{test.at(i)}: the true label of a test row is empty (the first of "
                f"{labels.count('')} of {len(labels)}); give it, or take the row out"
            )
        if text not in number:
            raise DataError(
                f"{test.at(i)}: no training row has the class {text!r}. There are: "
                f"{', '.join(classes[:20])}.{did_you_mean(text, classes)}"
            )


# ---- The dataset ---------------------------------------------------------------------------------


def dataset_of(info: Info, path: Path, arrays: Arrays, facts: Facts) -> Dataset:
    """Return the dataset of a table that was read, as the cache holds it.

    Args:
        info: what is known of such datasets without reading one.
        path: of the table.
        arrays: those of `Numbered`, "train" and "test", and "rows", the training examples' rows in
            the table, (N,) int64.
        facts: "classes", "label_sets", "fingerprint" and "notes".
    """
    label_sets = {}
    for place, label_set in enumerate(facts["label_sets"]):
        label_sets[label_set] = arrays[f"labels{place}"]
    found = replace(
        info,
        name=f"{info.name}:{path.name}",
        title=path.stem,
        num_classes=len(facts["classes"]),
        num_train=len(arrays["train"]),
        num_test=len(arrays["test"]),
        shape=arrays["train"].shape[1:],
        label_sets=tuple(label_sets),
        partly_clean="partly_clean" in arrays,
        class_names=tuple(facts["classes"]),
    )
    return Dataset(
        info=found,
        train_images=arrays["train"],
        test_images=arrays["test"],
        test_labels=arrays["test_labels"],
        label_sets=label_sets,
        partly_clean=arrays.get("partly_clean"),
        fingerprint=facts["fingerprint"],
        warnings=tuple(facts["notes"]),
        rows=arrays["rows"],
    )
