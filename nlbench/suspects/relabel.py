"""`nlbench relabel`: write a copy of a list of labels with those that a person has confirmed."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlbench.data.formats.columns import label_columns
from nlbench.data.formats.text_table import TextTable, read_table
from nlbench.errors import DataError, did_you_mean
from nlbench.files import make_folder, write_new
from nlbench.results.formats import csv_name
from nlbench.suspects.listing import COLUMNS, CONFIRMED, FILE, GIVEN, INDEX, ROW

_SUFFIXES = (".csv", ".tsv", ".txt")

# Names of columns in lower case, without underscores and spaces.
_FILES = ("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename")
_POSITIONS = ("index", "idx", "position", "imageindex", "")

_ROWS = ("row",)

# So many unknown names or labels are listed.
_MOST = 5


@dataclass(frozen=True)
class Relabelled:
    """What became of a list.

    Attributes:
        total: its labels.
        changed: those that are another class now.
        kept: those that were confirmed as they were.
        open: lines of the confirmed labels without a decision.
    """

    total: int
    changed: int
    kept: int
    open: int


@dataclass(frozen=True)
class _List:
    """A table with the column of labels and the one that says which image a line is about.

    Attributes:
        ids: column -> the identity of each line, in one spelling; of "file" and "index", and of
            "row" where a person has confirmed labels, those that the table has.
        names: the columns by the same words, as the table calls them.
        of_suspects: whether the table is a list of suspects, of this or an earlier version.
    """

    table: TextTable
    label: str
    labels: list[str]
    ids: dict[str, list[str]]
    names: dict[str, str]
    of_suspects: bool = False

    def at(self, row: int) -> str:
        """Return the place of a line, for errors."""
        return f"{self.table.path}:{self.table.lines[row]}"


def relabel(listed: Path, confirmed: Path, to: Path, *, label: str = "") -> Relabelled:
    """Write a copy of the list `listed` with the labels of `confirmed` to the new file `to`.

    `confirmed` is a list of suspects whose column `confirmed` a person has filled in, or any table
    with such a column, or with one of labels. Lines without a label there are undecided. If
    `listed` is itself a list of suspects, the copy has its images and labels alone.

    Args:
        label: the column of the labels in `listed`; "" where the names of the columns tell.
    Raises: DataError for a file that exists, an image or label that the list does not have, an
        image that is there twice, and where nobody knows which line an image is in.
    """
    if os.path.lexists(to):
        raise DataError(
            f"{to}: is there already, and nothing is overwritten; choose another name with --to"
        )
    if to.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{to}: a list is written as {', '.join(_SUFFIXES)}")
    new = _read(confirmed, by_person=True)
    old = _read(listed, by_person=False, chosen=label, header=ROW in new.ids)
    by, places = _matched(old, new)
    labels, report = _with_confirmed(old, new, by, places)

    text = _copy(old, labels)
    make_folder(to.parent)
    # Opened as a file that must not exist: another process may have made it since.
    write_new(to, lambda file: file.write(text.encode()))
    return report


# ---- Reading -------------------------------------------------------------------------------------


def _read(path: Path, *, by_person: bool, chosen: str = "", header: bool = True) -> _List:
    """Read a list, or the labels that a person has confirmed. Raises DataError.

    Args:
        by_person: takes the labels from the column that a person has filled in.
        chosen: the column of the labels; "" where the names of the columns tell.
        header: whether the first line of several cells names the columns, be these numbers.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{path}: must be a table with the suffix {', '.join(_SUFFIXES)}")
    spaces = path.suffix.lower() == ".txt"
    table = read_table(path, header=by_person, spaces=spaces)
    if header and not table.names and max(map(len, table.rows), default=0) > 1:
        table = read_table(path, spaces=spaces)
    if not table.rows:
        raise DataError(f"{path}: holds no lines")
    if chosen and (not table.names or _is_of_suspects(table)):
        raise DataError(
            f"{path}: --label {chosen}: this list has labels in one place; leave it out"
        )
    if not table.names:
        return _without_header(table)

    label = _label_column(table, by_person, chosen)
    known = {FILE: _FILES, INDEX: _POSITIONS}
    # In a list, the lines themselves are the rows.
    if by_person:
        known[ROW] = _ROWS
    ids, names = {}, {}
    for word, spellings in known.items():
        column = _column(table, spellings, exclude=label)
        # A list of suspects has an empty column `file` where images are no files.
        if column is not None and any(table.column(column)):
            ids[word] = [_spelt(cell, word) for cell in table.column(column)]
            names[word] = column
    if not ids and by_person:
        raise DataError(
            f"{path}:1: no column says which image a line is about; there must be one called "
            f"{FILE!r}, {ROW!r} or {INDEX!r}"
        )
    return _List(table, label, table.column(label), ids, names, _is_of_suspects(table))


def _label_column(table: TextTable, by_person: bool, chosen: str) -> str:
    """Return the column of the labels. Raises DataError."""
    if by_person and CONFIRMED in table.names:
        return CONFIRMED
    if not by_person and _is_of_suspects(table):
        _require_one_list(table)
        return GIVEN
    answer = "call the column with the labels 'confirmed'"
    if not by_person:
        answer = "name the column with the labels with --label"
    return label_columns(table.names, f"{table.path}:1", given=chosen, answer=answer).given


def _without_header(table: TextTable) -> _List:
    """Return a list of labels alone, one on each line, as the one of a label file."""
    widest = max(map(len, table.rows))
    if widest > 1:
        raise DataError(
            f"{table.path}:{table.lines[0]}: must name the columns, for example path,label; this "
            f"file has {widest} columns without a header"
        )
    return _List(table, "", [row[0] for row in table.rows], {}, {})


def _column(table: TextTable, known: Sequence[str], exclude: str) -> str | None:
    """Return the column whose name is the first of the known ones; None where there is none."""
    for plain in known:
        for name in table.names:
            if name != exclude and name.lower().replace("_", "").replace(" ", "") == plain:
                return name
    return None


def _spelt(cell: str, word: str) -> str:
    """Return a file or position in one spelling: composed letters, slashes, no ./ in front."""
    text = unicodedata.normalize("NFC", cell.strip())
    # pandas writes 4 as 4.0 where other cells of a column are empty.
    if word != FILE:
        text = text.removesuffix(".0")
    if text.isdecimal():
        return str(int(text))
    # A list of suspects has an apostrophe before what a spreadsheet would compute.
    return csv_name(text.replace("\\", "/").removeprefix("./"))


def _is_of_suspects(table: TextTable) -> bool:
    # Earlier versions listed no rows.
    return set(COLUMNS) - {ROW} <= set(table.names)


def _require_one_list(table: TextTable) -> None:
    """Raise DataError for suspects of several labellings, in which an image has several labels."""
    columns = [table.column(name) for name in ("suite", "condition", "seeds")]
    found = list(dict.fromkeys(zip(*columns, strict=True)))
    if len(found) > 1:
        shown = "; ".join(", ".join(parts) for parts in found[:_MOST])
        raise DataError(
            f"{table.path}: holds {len(found)} lists, whose labels differ ({shown}); write one of "
            "them with `nlbench suspects --condition ... --seed ...`"
        )


# ---- Matching ------------------------------------------------------------------------------------


def _matched(old: _List, new: _List) -> tuple[str, Mapping[str, int]]:
    """Return by which column lines are matched, and the line of the list of each image.

    Raises: DataError where no column is in both, where it is not known which lines are meant, and
        for an image that is there twice.
    """
    if FILE in old.ids and FILE in new.ids:
        return FILE, _lines(old, FILE, decided=False)
    if ROW in new.ids and not old.of_suspects:
        _require_rows(old, new)
        return ROW, _every_line(old)
    if INDEX in new.ids and (INDEX in old.ids or not old.ids):
        _require_counted_by_index(old, new)
        return INDEX, _lines(old, INDEX, decided=False) if old.ids else _every_line(old)
    raise DataError(
        f"{new.table.path}: names images by {' and '.join(new.ids)}, and {old.table.path} by "
        f"{' and '.join(old.ids) or 'the order of its lines'}; add the column that is missing"
    )


def _every_line(old: _List) -> dict[str, int]:
    return {str(row): row for row in range(len(old.labels))}


_ROWS_FIX = (
    "`nlbench suspects` lists the rows of a .csv or .tsv table where the table lies as the suite "
    f"says, which --from SUITE.yaml names; or fill in {ROW!r}, which counts from 0 without the "
    "header"
)


def _require_rows(old: _List, new: _List) -> None:
    """Raise DataError where a decided line does not say which row of the list it is about."""
    for row, cell in enumerate(new.ids[ROW]):
        if new.labels[row] and not cell.isdecimal():
            what = f"is {cell!r}" if cell else "is empty"
            raise DataError(
                f"{new.at(row)}: column {ROW!r} {what}, so nobody knows which row of "
                f"{old.table.path} is meant. {_ROWS_FIX}"
            )


def _require_counted_by_index(old: _List, new: _List) -> None:
    """Raise DataError where an index may count other examples than the lines of a table.

    A file of labels has one line for each training example. So it is where a list of suspects has
    an empty column of rows.
    """
    counted = new.of_suspects and ROW in new.table.names
    # The labels, and at most their positions.
    plain = len(old.table.names) <= 1 + (INDEX in old.ids)
    if old.of_suspects or counted or plain or (INDEX in old.ids and not new.of_suspects):
        return
    raise DataError(
        f"{new.table.path}: has no column {ROW!r}. Its {INDEX!r} counts the training examples, and "
        f"{old.table.path} may have test rows among them. {_ROWS_FIX}"
    )


def _lines(listed: _List, by: str, *, decided: bool) -> dict[str, int]:
    """Return the line of each image. Raises DataError for an image that is there twice.

    Args:
        decided: leaves out lines without a label.
    """
    lines: dict[str, int] = {}
    for row, name in enumerate(listed.ids[by]):
        if decided and not listed.labels[row]:
            continue
        if name in lines:
            raise DataError(
                f"{listed.at(row)}: {by} {name!r} is there a second time, after line "
                f"{listed.table.lines[lines[name]]}; keep one"
            )
        lines[name] = row
    return lines


def _with_confirmed(
    old: _List, new: _List, by: str, places: Mapping[str, int]
) -> tuple[list[str], Relabelled]:
    """Return the labels of the list with the confirmed ones in their places."""
    labels = list(old.labels)
    # The label that a person has confirmed may have an apostrophe, as a list of suspects has.
    known = {csv_name(label): label for label in old.labels}
    given = new.table.column(GIVEN) if GIVEN in new.table.names and new.label != GIVEN else None

    decided = _lines(new, by, decided=True)
    changed = 0
    for name, row in decided.items():
        if name not in places:
            raise _unknown_image(old, new, by, decided, places)
        place = places[name]
        if given is not None and csv_name(given[row]) != csv_name(old.labels[place]):
            raise DataError(
                f"{new.at(row)}: column {GIVEN!r}: {name!r} was given as {given[row]!r} here, and "
                f"{old.at(place)} gives {old.labels[place]!r}; is it the list that the runs were "
                "trained on?"
            )
        label = _known_spelling(csv_name(new.labels[row]), known)
        if label not in known:
            raise DataError(
                f"{new.at(row)}: column {new.label!r}: no line of {old.table.path} has the label "
                f"{new.labels[row]!r}. There are: {', '.join(sorted(known)[:20])}."
                f"{did_you_mean(new.labels[row], known)}"
            )
        changed += known[label] != labels[place]
        labels[place] = known[label]
    open_lines = len(new.labels) - len(decided)
    return labels, Relabelled(len(labels), changed, len(decided) - changed, open_lines)


def _known_spelling(label: str, known: Mapping[str, str]) -> str:
    """Return a confirmed label as the list writes it, where it differs as numbers do."""
    # pandas and spreadsheets write 4 as 4.0 where other cells of a column are empty.
    whole = label.removesuffix(".0")
    return whole if label not in known and whole in known else label


def _unknown_image(
    old: _List, new: _List, by: str, decided: Mapping[str, int], places: Mapping[str, int]
) -> DataError:
    """Return the error about images that the list does not have."""
    unknown = [name for name in decided if name not in places]
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    return DataError(
        f"{new.at(decided[unknown[0]])}: {old.table.path} has no image with the {by} "
        f"{unknown[0]!r}{more}.{did_you_mean(unknown[0], list(places)[:10_000])}"
    )


# ---- Writing -------------------------------------------------------------------------------------


def _end_of_lines(path: Path) -> str:
    """Return how the first line of a file ends: as on Windows, or as elsewhere."""
    with path.open("rb") as file:
        return "\r\n" if file.readline().endswith(b"\r\n") else "\n"


def _copy(old: _List, labels: Sequence[str]) -> str:
    """Return the text of the list with other labels. Nothing else in it changes."""
    table = old.table
    text = io.StringIO()
    writer = csv.writer(text, delimiter=table.separator, lineterminator=_end_of_lines(table.path))
    if not table.names:
        writer.writerows([label] for label in labels)
        return text.getvalue()
    if _is_of_suspects(table):
        by = FILE if FILE in old.ids else INDEX
        writer.writerow(["path" if by == FILE else INDEX, "label"])
        for name, label in zip(table.column(old.names[by]), labels, strict=True):
            writer.writerow([_unquoted(name), _unquoted(label)])
        return text.getvalue()

    place = table.names.index(old.label)
    writer.writerow(table.names)
    for cells, label in zip(table.rows, labels, strict=True):
        writer.writerow([*cells[:place], label, *cells[place + 1 :]])
    return text.getvalue()


def _unquoted(cell: str) -> str:
    """Return a cell of a list of suspects without the apostrophe that `csv_name` has put there."""
    inner = cell.removeprefix("'")
    return inner if csv_name(inner) == cell else cell
