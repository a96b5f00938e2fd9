"""Decide by their names which columns of a table hold images, given labels and true labels.

Lists in CSV, parquet files and label files ask here, so that one name means the same in all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlbench.data.formats.class_folders import SUFFIXES
from nlbench.errors import DataError, did_you_mean
from nlbench.files import short_hash

# What the words in a column's name say about it.
_LABEL = {"label", "labels", "lbl", "target", "targets", "class", "category", "y", "annotation"}
_GIVEN = {"noisy", "noise", "given", "observed", "corrupted", "corrupt", "dirty", "weak", "tilde"}
_CLEAN = {"clean", "true", "truth", "gt", "ground", "gold", "correct", "real", "verified"}
# Columns with one of these words are about a label, and hold none.
_ABOUT = {"is", "has", "num", "count", "confidence", "score", "prob", "probability", "weight"}
_ABOUT |= {"quality", "rate", "time", "date", "set", "split", "path", "file", "pred", "hat"}
_ABOUT |= {"predicted", "prediction", "type", "kind", "source"}
# The same label in another form, or the class above it. They matter where nothing else is there.
_FORMS = {"name", "text", "str", "string", "id", "idx", "index", "int", "code", "number", "coarse"}
# Words that add nothing: in CIFAR-100 the fine labels are the labels.
_PLAIN = {"fine", "the", "of", "image", "img", "train", "training"}

_PATH_NAMES: tuple[str, ...] = ("path", "file", "filename", "filepath", "image", "img", "imgpath")
_PATH_NAMES += ("imagepath", "imagefile", "imagename", "imgname", "fname", "imgfile", "relpath")
_PATH_NAMES += ("relativepath",)


# How the owner of a list or parquet file can say which column is which.
WHICH_COLUMN = (
    "name them with `label` (given) and `clean_label` (true) in the suite's dataset entry, for "
    "example `label: category`; or rename the columns to 'noisy_label' and 'clean_label'"
)


@dataclass(frozen=True)
class LabelColumns:
    """The columns of the labels.

    Attributes:
        given: the labels to train on.
        clean: the true labels; empty where the table has none.
    """

    given: str
    clean: str = ""

    def notes(self, where: str | Path) -> list[str]:
        """Return in words which column was taken for what, unless the names are the usual ones."""
        usual = self.given.lower() == "label" and self.clean.lower() in ("", "clean_label")
        if usual or not self.clean:
            return []
        return [f"{where}: the given labels are {self.given!r}, the true ones {self.clean!r}"]


def label_columns(
    names: Sequence[str], where: str | Path, *, given: str = "", clean: str = "", answer: str
) -> LabelColumns:
    """Return the columns of the given and of the true labels.

    Plain names are taken for what they are: `noisy_label`, `label_noisy`, `y_noisy` or
    `given_label` for given labels; `clean_label`, `true_label`, `gt` or `y_true` for true ones;
    `label`, `labels`, `target`, `class`, `category` or `y` for given ones where no other column is
    for these, else for the true ones. Upper and lower case are the same.

    Args:
        where: names the file in errors.
        given, clean: columns that the user has named. The other one is looked for beside it.
        answer: how a user can say which column is meant. It ends the error's message.
    Raises: DataError when no column holds labels, or when names do not tell which.
    """
    for chosen in (given, clean):
        if chosen and chosen not in names:
            raise DataError(
                f"{where}: has no column {chosen!r}, only {_listed(names)}."
                f"{did_you_mean(chosen, names)}"
            )
    if given:
        beside = _by_role([name for name in names if name != given])["clean"]
        return LabelColumns(given, clean or (beside[0] if len(beside) == 1 else ""))

    of = _by_role([name for name in names if name != clean])
    if not (of["given"] or of["label"]):
        if of["clean"]:
            raise DataError(
                f"{where}: the column {of['clean'][0]!r} holds true labels, and no column holds "
                f"the given ones, which may be wrong; {answer}"
            )
        raise DataError(
            f"{where}: has no column 'label', only {_listed(names)}; {answer}"
            f"{did_you_mean('label', names)}"
        )

    # Beside a column of noisy labels, the other one can only hold what they were made from.
    if len(of["given"]) == 1 and len(of["clean"]) + len(of["label"]) <= 1:
        true = [*of["clean"], *of["label"], ""][0]
        return LabelColumns(of["given"][0], clean or true)
    if not of["given"] and len(of["label"]) == 1 and len(of["clean"]) <= 1:
        true = [*of["clean"], ""][0]
        return LabelColumns(of["label"][0], clean or true)

    several = [*of["given"], *of["label"], *of["clean"]]
    raise DataError(
        f"{where}: {_listed(several)} may all be labels; which are the given ones, to train on? "
        f"{answer}"
    )


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of labels that a suite names for a folder.

    Attributes:
        given, clean: empty where the names of the columns tell.
        must: whether a table without them is refused.
    """

    given: str = ""
    clean: str = ""
    must: bool = True

    def among(self, names: Sequence[str], where: str | Path) -> LabelColumns:
        """Return the columns of the labels of a table. Raises DataError, naming the columns."""
        given, clean = self.given, self.clean
        if not self.must:
            given = given if given in names else ""
            clean = clean if clean in names else ""
        return label_columns(names, where, given=given, clean=clean, answer=WHICH_COLUMN)

    @property
    def tag(self) -> str:
        """A part of a file's name that differs for other columns; empty where none is chosen."""
        if not (self.given or self.clean):
            return ""
        return "-" + short_hash(f"{self.given}\0{self.clean}".encode())


def is_label_column(name: str) -> bool:
    """Return whether a column holds labels of some sort, by its name."""
    return _role(name) != ""


def is_truth(name: str) -> bool:
    """Return whether a column holds true labels, by its name, such as `clean_label`."""
    return _role(name) == "clean"


def may_name_images(name: str) -> bool:
    """Return whether a column of this name holds the names of images."""
    return _plain(name) in _PATH_NAMES


def path_column(names: Sequence[str], where: str | Path) -> str:
    """Return the column with the names of the images.

    It is `path`, or a single one of file, filename, image, image_path and the like.

    Raises: DataError when there is none, or more than one.
    """
    for exact in ("path", "Path", "PATH"):
        if exact in names:
            return exact
    found = [name for name in names if may_name_images(name)]
    if len(found) == 1:
        return found[0]

    header = "the first line must be path,label[,clean_label]"
    if found:
        raise DataError(
            f"{where}: {_listed(found)} may all be the files of the images; {header}: call the "
            f"right one 'path'"
        )
    if names and names[0].startswith("#"):
        raise DataError(f"{where}: the first line is a comment, '{names[0]}'; remove it: {header}")
    files = [name for name in names if name.lower().endswith(SUFFIXES)]
    if files:
        raise DataError(
            f"{where}: the first line does not name the columns, it holds an image already "
            f"('{files[0]}'); write the line path,label[,clean_label] above it"
        )
    raise DataError(
        f"{where}: no column 'path', only {_listed(names)}; rename the column with the files to "
        f"'path' (file, filename, image, img and the like are accepted, too). Columns of labels "
        f"with other names than label are given as `label: NAME` in the suite's dataset "
        f"entry.{did_you_mean('path', names)}"
    )


# ---- Labels that are no class --------------------------------------------------------------------

# What programs write where a label is missing, in lower case. -100 is torch's.
_NO_CLASS = {"", "nan", "nat", "none", "null", "nil", "na", "n/a", "#n/a", "#na", "<na>", "-1"}
_NO_CLASS |= {"-1.0", "-100", "?", "-", "--", "inf", "-inf", "unknown", "unlabeled", "unlabelled"}
_NO_CLASS |= {"undefined", "missing", "not available", "no label", "nolabel"}

# The way out for a class that is really called so.
_OTHER_NAME = "if this is a class, give it another name, such as 'class-unknown' for 'unknown'"


def is_no_class(label: str) -> bool:
    """Return whether a label says that there is none, as NaN, N/A, -1 or an empty cell do."""
    return label.strip().lower() in _NO_CLASS


def require_class(value: object, where: str, more: str = "") -> None:
    """Raise DataError unless a cell of a parquet file is one class: a text, number or bool.

    Args:
        where: names file, row and column in errors.
        more: how many cells are without a label, in words.
    """
    if value is None or is_no_class(str(value)):
        hidden = "; -1 marks a hidden label, as in many test splits" if value == -1 else ""
        raise DataError(
            f"{where} is {_cell(value)}, so there is no label{more}{hidden}: take such rows out, "
            f"or {_OTHER_NAME}"
        )
    if not isinstance(value, str | int | float):
        raise DataError(
            f"{where} is {_cell(value)}: an image must have one label, a number or a text. Images "
            f"with several labels cannot be used; keep one of them"
        )


def _cell(value: object) -> str:
    if value is None:
        return "empty"
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:37]}..."


def require_classes(
    labels: Collection[str], lines: Sequence[int], where: str | Path, column: str
) -> None:
    """Raise DataError, naming the first line, if a label says that there is none.

    Args:
        lines: the line of each label in its file.
    """
    wrong = []
    for label, line in zip(labels, lines, strict=True):
        if is_no_class(label):
            wrong.append((label, line))
    if not wrong:
        return

    label, line = wrong[0]
    more = f" (the first of {len(wrong)} of {len(labels)})" if len(wrong) > 1 else ""
    what = f"{column} {label!r} says that there is no label, and is no class"
    if not label:
        what = f"{column} is empty"
    raise DataError(f"{where}:{line}: {what}{more}; take these lines out, or {_OTHER_NAME}")


# ---- Names ---------------------------------------------------------------------------------------


def words(name: str) -> list[str]:
    """Return the words of a column's name in lower case: "noisyLabel_2" -> noisy, label, 2."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    found = []
    for part in parts:
        found += _pair(part.lower())
    return found


def _pair(word: str) -> list[str]:
    """Return a word, or the two words that were written together, as in "noisylabel"."""
    known = _LABEL | _GIVEN | _CLEAN
    for i in range(1, len(word)):
        if word not in known and {word[:i], word[i:]} <= known:
            return [word[:i], word[i:]]
    return [word]


def _plain(name: str) -> str:
    return "".join(re.findall(r"[a-z0-9]+", name.lower()))


def _role(name: str) -> str:
    """Return "given", "clean" or "label" for a column of labels, "form" for another form, or ""."""
    found = set(words(name)) - _PLAIN
    if found & _ABOUT or not found:
        return ""

    # A column that is called "noisy" or "ground truth" holds labels. One called "noise" may hold
    # anything.
    alone = found <= (_GIVEN - {"noise"}) or found <= _CLEAN
    if not (found & _LABEL or alone):
        return ""
    if found & _FORMS:
        return "form"
    if found & _GIVEN and not found & _CLEAN:
        return "given"
    if found & _CLEAN and not found & _GIVEN:
        return "clean"
    return "label"


def _by_role(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of each role. A second form of the labels is left out if it can be."""
    of: dict[str, list[str]] = {"given": [], "clean": [], "label": [], "form": []}
    coordinates = "x" in map(_plain, names)
    for name in names:
        role = _role(name)
        # Beside an x, a y is a coordinate.
        if role and not (coordinates and _plain(name) == "y"):
            of[role].append(name)
    if not (of["given"] or of["label"]):
        of["label"] = of["form"]
    return of


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
