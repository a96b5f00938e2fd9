"""What a table shows of a suite's results: the options of `nlbench table`, checked together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nlbench.errors import SuiteError, did_you_mean, unknown_name
from nlbench.results.formats import Format
from nlbench.results.metrics import METRICS, check_metric

# Columns that are no metrics.
MINUS, TIES, RANK, NETS, PASSES = "minus", "ties", "rank", "nets", "passes"
COLUMNS = (*METRICS, MINUS, TIES, RANK, NETS, PASSES)

# The columns of a table that nobody chose, and the order in which those are left out that do not
# fit a terminal.
DEFAULT_COLUMNS = ("last", "best", MINUS, TIES, NETS)
LEFT_OUT_FIRST = (NETS, "best")

# Options of which one has no effect beside the other, and why.
_EXCLUDED = (
    ("metric", "details", "--metric shows one metric alone, and --details all of them"),
    ("metric", "columns", "--metric shows one metric alone; --columns can name it"),
    ("details", "columns", "--details shows every column, and --columns chooses some"),
    ("published", "columns", "--published has columns of its own; --metric chooses among them"),
)
# The same for tables in Markdown and LaTeX, and for CSV files.
_EXCLUDED_IN_TABLES = (
    ("metric", "against", "a table of one metric has no differences; --columns METRIC,minus has"),
    ("published", "against", "--published takes differences to published numbers, not to a row"),
)
_EXCLUDED_IN_CSV = (
    ("details", "the CSV file has every metric already"),
    ("columns", "the CSV file has the same columns always; --metric chooses its lines"),
)


@dataclass(frozen=True)
class View:
    """The options of `nlbench table`.

    Attributes:
        fmt: the language of the table.
        metric: a name of METRICS; shows this metric alone.
        against: the row that differences are taken to; `ce` by default.
        details: gives every condition a table of its own, with all metrics.
        published: the same, with published numbers beside the measured ones.
        columns: names of COLUMNS; gives every condition a table of its own, with these.
        only: the rows to show. The others still count in the correction of p-values.
        width: number of characters of a line; None keeps titles and notes on one line.

    Raises: SuiteError for an unknown metric or column, and for options that exclude each other.
    """

    fmt: Format = "md"
    metric: str | None = None
    against: str | None = None
    details: bool = False
    published: bool = False
    columns: Collection[str] = ()
    only: Collection[str] = ()
    width: int | None = None

    def __post_init__(self) -> None:
        if self.metric is not None:
            check_metric(self.metric)
        for column in self.columns:
            if column not in COLUMNS:
                raise SuiteError(f"--columns: {unknown_name('column', column, COLUMNS)}")

        in_tables = _EXCLUDED_IN_TABLES if self.fmt != "csv" else ()
        for first, second, reason in (*_EXCLUDED, *in_tables):
            if self._given(first) and self._given(second):
                raise SuiteError(f"--{first} and --{second} exclude each other: {reason}")
        if self.fmt == "csv":
            for name, reason in _EXCLUDED_IN_CSV:
                if self._given(name):
                    raise SuiteError(f"--{name} and --format csv exclude each other: {reason}")

    def _given(self, name: str) -> bool:
        return getattr(self, name) not in (None, False, ())


def check_rows(only: Collection[str], rows: Collection[str]) -> None:
    """Raise SuiteError for each name in `only` that is no row."""
    unknown = []
    for row in only:
        if row not in rows:
            hint = did_you_mean(row, rows)
            unknown.append(f"--only {row}: no such row. There are: {', '.join(rows)}.{hint}")
    if unknown:
        raise SuiteError("\n".join(unknown))
