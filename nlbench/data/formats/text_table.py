"""Read tables that are kept as text: CSV, TSV, and the like."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nlbench.data.formats.recognise import require_kind
from nlbench.errors import DataError

# In the order in which they are looked for. The comma is last, since it may stand in a name.
_SEPARATORS = ("\t", ";", "|", ",")

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(frozen=True)
class TextTable:
    """The lines of a text file in cells. Spaces around a cell are left out.

    Attributes:
        names: the columns, as the first line names them; empty for a table without a header.
        rows: the lines after the header, each with its cells.
        lines: the number of each row's line in the file, from 1. Empty for a table that was not
            read from lines, whose rows are as wide as its names.
        separator: between the cells.
    """

    path: Path
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    separator: str = ","

    def column(self, name: str) -> list[str]:
        """Return the cells of one column.

        Raises: DataError where two columns have the name, or a row has too many or too few cells.
        """
        if self.names.count(name) > 1:
            raise DataError(f"{self.path}:1: two columns are called {name!r}; rename one")
        place = self.names.index(name)
        for i, cells in enumerate(self.rows):
            if len(cells) != len(self.names):
                self._refuse_width(cells, self.lines[i])
        return [cells[place] for cells in self.rows]

    def _refuse_width(self, cells: Sequence[str], line: int) -> NoReturn:
        where = f"{self.path}:{line}"
        if len(cells) > len(self.names):
            raise DataError(
                f"{where}: more values than columns ({len(cells)} for {len(self.names)}); put a "
                f"value with a {_SEPARATOR_NAMES[self.separator]} in it between quotes"
            )
        raise DataError(
            f"{where}: has {len(cells)} values, expected {len(self.names)}: {', '.join(self.names)}"
        )


_SEPARATOR_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}


def read_table(path: Path, *, header: bool = True, spaces: bool = False) -> TextTable:
    """Read a table whose cells are separated by tabs, semicolons, bars or commas.

    The first line says which. The file is UTF-8, or UTF-16 with a byte-order mark.

    Args:
        header: the first line names the columns. Otherwise it does if one of its cells is empty or
            none is a number.
        spaces: cells may be separated by spaces, if the first line has no other separator.
    Raises: DataError, naming the file and where possible the line.
    """
    text = read_text(path)
    first = next((line for line in text.split("\n") if line.strip()), "")
    separator = _separator(first, spaces)

    # NumPy's savetxt aligns numbers with several spaces.
    skip = separator == " "
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=skip, strict=True)
    rows, lines = [], []
    try:
        for cells in reader:
            rows.append([cell.strip() for cell in cells])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: cannot be read as CSV ({error}); is a quote not closed?"
        ) from None
    rows, lines = _without_empty(rows, lines)

    names: list[str] = []
    if rows and (header or _is_header(rows[0])):
        names = rows.pop(0)
        del lines[0]
    return TextTable(path, tuple(names), rows, lines, separator)


def read_json(path: Path) -> object:
    """Return the value of a JSON file. Raises DataError."""
    try:
        return json.loads(read_text(path))
    # Python's parser calls itself for each level.
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); was it cut off?") from None


def read_text(path: Path) -> str:
    """Return the content of a text file with \\n as the end of lines. Raises DataError."""
    require_kind(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    encoding = "utf-8"
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            encoding = name
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: byte {error.start} is no {encoding.removesuffix('-sig').upper()}; "
            f"save the file as UTF-8"
        ) from None

    place = text.find("\0")
    if place >= 0:
        raise DataError(
            f"{path}:{text[:place].count(chr(10)) + 1}: holds a NUL byte, so it is no text in "
            f"UTF-8; save the file as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_number(cell: str) -> bool:
    """Return whether a cell is a number in Python's eyes, also nan and inf."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _separator(first: str, spaces: bool) -> str:
    for separator in _SEPARATORS:
        if separator in first:
            return separator
    return " " if spaces and " " in first.strip() else ","


def _is_header(cells: Sequence[str]) -> bool:
    # pandas writes an empty name over its index, and the number 0 over a column without a name.
    return "" in cells or not any(is_number(cell) for cell in cells)


def _without_empty(rows: list[list[str]], lines: list[int]) -> tuple[list[list[str]], list[int]]:
    """Leave out empty lines: all at the end, and those in between where a row has several cells.

    An empty line among single cells is kept as an empty cell, since leaving it out would move all
    later values to other rows.
    """
    last = 0
    for i, cells in enumerate(rows):
        if any(cells):
            last = i + 1
    single = all(len(cells) <= 1 for cells in rows)

    kept, kept_lines = [], []
    for cells, line in zip(rows[:last], lines[:last], strict=True):
        if any(cells) or single:
            kept.append(cells or [""])
            kept_lines.append(line)
    return kept, kept_lines
