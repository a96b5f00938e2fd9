"""What a table shows of a suite's results: the options of `nlbench table`, checked together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from nlbench.errors import SuiteError, did_you_mean, unknown_name
from nlbench.results.formats import Format
from nlbench.results.metrics import METRICS, check_metric

# Columns that are no metrics.
MINUS, TIES, RANK, NETS, PASSES = "minus", "ties", "rank", "nets", "passes"
COLUMNS = (*METRICS, MINUS, TIES, RANK, NETS, PASSES)

# The column of names, and all columns that rows can be sorted by.
METHOD = "method"
SORT_COLUMNS = (METHOD, *COLUMNS)

# What the conditions of one table may have in common.
GROUPS = ("dataset", "noise", "dataset,noise")

# Formats for programs, which have every condition and metric.
DATA_FORMATS = ("csv", "json")

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
    ("purpose", "details", "a paper prints one metric, or those that --columns names"),
    ("purpose", "published", "a paper names what it compares with in its text"),
)
# The same for tables in Markdown and LaTeX, and for CSV files.
_EXCLUDED_IN_TABLES = (
    ("metric", "against", "a table of one metric has no differences; --columns last,minus has"),
    ("published", "against", "--published takes differences to published numbers, not to a row"),
    ("details", "group_by", "--details has a table for each dataset and noise already"),
    ("columns", "group_by", "--columns has a table for each dataset and noise already"),
    ("published", "group_by", "--published has a table for each dataset and noise already"),
)
# What the options are called that are no words of Python, or whose names have two words.
_OPTIONS = {"purpose": "for", "group_by": "group-by"}
_EXCLUDED_IN_DATA = (
    ("details", "it has every metric already"),
    ("group_by", "each of its entries names its dataset and noise"),
    ("purpose", "a paper prints Markdown, LaTeX or HTML"),
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
        sort: a name of SORT_COLUMNS, or the title of a condition; orders the rows by it.
        ascending: whether the lowest value is first. None puts the best value first, and names in
            the order of the alphabet.
        group_by: a name of GROUPS, what the conditions of one table have in common; None puts all
            conditions into one table.
        purpose: "paper" prints what a paper prints: the best rows bold (`paper.best_group`), and in
            the caption protocol, seeds and test.

    Raises: SuiteError for an unknown metric or column, and for options that exclude each other or
        need another one.
    """

    fmt: Format = "md"
    metric: str | None = None
    against: str | None = None
    details: bool = False
    published: bool = False
    columns: Collection[str] = ()
    only: Collection[str] = ()
    width: int | None = None
    sort: str | None = None
    ascending: bool | None = None
    group_by: str | None = None
    purpose: Literal["paper"] | None = None

    def __post_init__(self) -> None:
        if self.metric is not None:
            check_metric(self.metric)
        for column in self.columns:
            if column not in COLUMNS:
                raise SuiteError(f"--columns: {unknown_name('column', column, COLUMNS)}")
        if self.group_by is not None and self.group_by not in GROUPS:
            raise SuiteError(f"--group-by: {unknown_name('grouping', self.group_by, GROUPS)}")

        self._check_together()
        if self.purpose and self.against is not None and MINUS not in self.columns:
            raise SuiteError(
                "--for and --against exclude each other: a paper's table has differences where "
                "--columns names them, as in --columns last,minus"
            )
        if self.ascending is not None and self.sort is None:
            name = "ascending" if self.ascending else "descending"
            raise SuiteError(f"--{name}: there is nothing to order; give --sort COLUMN, too")
        if self.fmt in DATA_FORMATS:
            self._check_data()

    def chosen_metrics(self) -> list[str]:
        """Return the metrics that a format for programs has, in the order of METRICS."""
        if self.metric is not None:
            return [self.metric]
        return [name for name in METRICS if not self.columns or name in self.columns]

    def _check_together(self) -> None:
        """Raise SuiteError for two options of which one would have no effect."""
        in_tables = _EXCLUDED_IN_TABLES if self.fmt not in DATA_FORMATS else ()
        for first, second, reason in (*_EXCLUDED, *in_tables):
            if self._given(first) and self._given(second):
                one, other = _OPTIONS.get(first, first), _OPTIONS.get(second, second)
                raise SuiteError(f"--{one} and --{other} exclude each other: {reason}")

    def _check_data(self) -> None:
        """Raise SuiteError for an option that has no effect on a format for programs."""
        for name, reason in _EXCLUDED_IN_DATA:
            if self._given(name):
                option = _OPTIONS.get(name, name)
                raise SuiteError(f"--{option} and --format {self.fmt} exclude each other: {reason}")
        for column in self.columns:
            if column not in METRICS:
                raise SuiteError(
                    f"--columns {column} and --format {self.fmt} exclude each other: differences "
                    "and networks are always there; name metrics"
                )

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
