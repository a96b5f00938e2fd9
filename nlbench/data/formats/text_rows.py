"""Read tables of texts: CSV, TSV, JSON lines and parquet.

A text is never taken for a missing value: somebody has written "n/a" or "null". Missing is a cell
alone that is not there, null in parquet and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlbench.data.formats.frames import class_names_of
from nlbench.data.formats.recognise import require_kind
from nlbench.data.formats.text_table import read_table, read_text
from nlbench.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

# A cell as text; None where there is none.
Cells = list[str | None]


@dataclass(frozen=True)
class Rows:
    """Columns of texts.

    Attributes:
        lines: the line of each row in its file, from 1; empty for parquet.
        class_names: the classes of the columns whose numbers have names.
    """

    path: Path
    columns: Mapping[str, Cells]
    lines: Sequence[int] = ()
    class_names: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return max((len(cells) for cells in self.columns.values()), default=0)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)

    def at(self, row: int) -> str:
        """Return where a row is, for the beginning of a message."""
        if self.lines:
            return f"{self.path}:{self.lines[row]}"
        return f"{self.path}: row {row} (from 0)"

    def column(self, name: str, key: str = "") -> Cells:
        """Return a column; numbers of classes that have names as these.

        Args:
            key: the suite's key that names the column, for the message.
        Raises: DataError where there is no such column, or a number has no name.
        """
        if name not in self.columns:
            asked = f"`{key}` names {name!r}, and it" if key else "it"
            raise DataError(
                f"{self.path}: {asked} has no column {name!r}, only "
                f"{', '.join(map(repr, self.names[:20]))}.{did_you_mean(name, self.names)}"
            )
        cells, classes = self.columns[name], self.class_names.get(name, ())
        if not classes:
            return cells
        return [self._named(cell, classes, name, row) for row, cell in enumerate(cells)]

    def _named(self, cell: str | None, classes: Sequence[str], name: str, row: int) -> str | None:
        # -1 says that the label is hidden; whoever asks for labels refuses it.
        if cell is None or cell == "-1" or cell in classes:
            return cell
        if cell.isdecimal() and int(cell) < len(classes):
            return classes[int(cell)]
        raise DataError(
            f"{self.at(row)}: {name} is {cell}, and the file names {len(classes)} classes, from 0 "
            f"({classes[0]}) to {len(classes) - 1} ({classes[-1]})"
        )


def read_rows(path: Path) -> Rows:
    """Read a table. Its suffix says in which form it is.

    Raises: DataError, naming the file and where possible the line.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        table = read_table(path)
        columns: dict[str, Cells] = {name: [*table.column(name)] for name in table.names}
        rows = Rows(path, columns, table.lines)
    elif suffix == ".jsonl":
        rows = _json_lines(path)
    elif suffix == ".parquet":
        rows = _parquet(path)
    else:
        raise DataError(f"{path}: must be one of {', '.join(SUFFIXES)}")
    if not len(rows):
        raise DataError(f"{path}: holds no rows")
    return rows


def _json_lines(path: Path) -> Rows:
    objects, lines = [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: is no JSON ({error}); was it cut off?") from None
        if not isinstance(found, dict):
            raise DataError(f'{path}:{number}: must be an object, as {{"text": ..., "label": ...}}')
        objects.append(found)
        lines.append(number)

    names = dict.fromkeys(name for found in objects for name in found)
    columns: dict[str, Cells] = {}
    for name in names:
        columns[name] = [_as_text(found.get(name)) for found in objects]
    return Rows(path, columns, lines)


def _parquet(path: Path) -> Rows:
    # Not at the top of the file: pyarrow loads slowly, and few datasets need it.
    from pyarrow import parquet, types

    require_kind(path, "a parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            # Of pictures, vectors and the like nothing is read.
            taken = []
            for column in schema:
                if not (types.is_nested(column.type) or types.is_binary(column.type)):
                    taken.append(column.name)
            table = file.read(columns=taken)
            columns = {}
            for name in taken:
                columns[name] = [_as_text(cell) for cell in table.column(name).to_pylist()]
            named = class_names_of(schema)
    except DataError:
        raise
    # A damaged file makes pyarrow raise almost anything, for example UnicodeDecodeError.
    except Exception as error:
        first_line = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as parquet ({first_line})") from error
    return Rows(path, columns, class_names=named)


def _as_text(value: object) -> str | None:
    """Return a cell as text. Whole numbers are written without a point."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # NaN is what pandas makes of an absent cell in a column of numbers.
    if isinstance(value, float) and value != value:
        return None
    return str(value)
