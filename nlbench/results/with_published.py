"""Measured cells with the published numbers that come nearest to them."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nlbench.results import notes, statistics
from nlbench.results.cells import DAMAGED, Cell, Results, SuiteRow
from nlbench.results.formats import p_value
from nlbench.results.metrics import MEASURES, METRICS, Reported
from nlbench.results.published import comparable, records
from nlbench.results.published.comparable import MeasuredSetting
from nlbench.results.published.records import Published
from nlbench.results.statistics import Sample, Welch

COPY = "†"

# What sources report although no measured column follows the same rule.
_NOT_MEASURED = (
    Reported("top1", ""),
    Reported("top5", ""),
    Reported("top5", "best"),
    Reported("top1", "", "ilsvrc12"),
    Reported("top5", "", "ilsvrc12"),
    Reported("top1", "best", "ilsvrc12"),
    Reported("top5", "best", "ilsvrc12"),
)
# The name of those in place of a metric's.
_OTHER = ""


@dataclass(frozen=True)
class Compared:
    """One published number beside a measured cell.

    Attributes:
        test: measured minus published, in percentage points; None where no difference is taken.
        reasons: why none is taken; empty also where nothing was measured.
    """

    record: Published
    test: Welch | None = None
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class PublishedCell:
    """The published numbers beside one measured cell.

    Attributes:
        nearest: those with the most similar setting.
        further: how many more there are of this method and metric.
        marks: those of the measured cell, "!" and "?" where its mean leaves out runs that failed or
            records that are damaged, and COPY.
    """

    nearest: Sequence[Compared] = ()
    further: int = 0
    marks: str = ""

    @property
    def records(self) -> list[Published]:
        """The published numbers themselves."""
        return [compared.record for compared in self.nearest]

    @property
    def tested(self) -> bool:
        """Return whether a difference to any of them is taken."""
        return any(compared.test is not None for compared in self.nearest)


# ---- One cell -----------------------------------------------------------------------------------


def nearest_published(
    results: Results, row: SuiteRow, condition: int, reported: Reported
) -> PublishedCell:
    """Return the published numbers of what is `reported`, compared with the measured cell."""
    setting = _setting(results, row, condition)
    if setting is None:
        return PublishedCell()
    numbers = setting.reported(reported)
    if not numbers:
        return PublishedCell()

    # No measured column may follow this rule: then there is nothing to take a difference to.
    cell = Cell(planned=0)
    for name, measure in MEASURES.items():
        if measure == reported:
            cell = results.cell(row.name, condition, name)

    nearest = comparable.nearest(numbers, setting)
    compared = [_compared(cell, record, setting) for record in nearest]

    marks = cell.marks
    own = results.records_of(row.name, condition)
    if any(record.noise.get("variant") for record in own):
        marks += COPY
    if cell.failed:
        marks += "!"
    if cell.damaged:
        marks += DAMAGED
    return PublishedCell(compared, len(numbers) - len(nearest), marks)


def _compared(cell: Cell, record: Published, setting: MeasuredSetting) -> Compared:
    if cell.mean is None:
        return Compared(record)
    known, unknown = setting.differences(record)
    if known or unknown:
        return Compared(record, reasons=[*known, *unknown])

    # Sources print percent.
    std = None if cell.std is None else 100 * cell.std
    measured = Sample(100 * cell.mean, std, len(cell.values))
    published = Sample(record.mean, record.sample_std, record.seeds)
    return Compared(record, statistics.welch(measured, published))


def _setting(results: Results, row: SuiteRow, condition: int) -> MeasuredSetting | None:
    """Describe how a cell was trained, from its records.

    For a cell without records, take those of another row under the same condition.
    """
    own = results.records_of(row.name, condition)
    found = own or results.records_under(condition)
    if not found:
        return None
    # A run that failed has no facts.
    with_facts = [record for record in found if record.noise] or found
    setting = MeasuredSetting.of(found[0].spec, with_facts[0].noise)
    if own:
        return setting
    # The other row's parameters say nothing about this method.
    return replace(setting, method=row.method, params={})


def _not_measured(results: Results, row: SuiteRow, condition: int) -> PublishedCell:
    """Return the published numbers that follow another rule than any measured column."""
    found: list[Compared] = []
    further = 0
    for reported in _NOT_MEASURED:
        cell = nearest_published(results, row, condition, reported)
        found += map(Compared, cell.records)
        further += cell.further
    return PublishedCell(found, further)


# ---- One table ----------------------------------------------------------------------------------


# By metric, and by _OTHER: a cell for each row of the suite.
_Columns = dict[str, list[PublishedCell]]


@dataclass(frozen=True)
class _Keys:
    """References from cells to notes: numbers of sources, and letters of reasons."""

    numbers: dict[tuple[str, str], int]
    letters: notes.Keys

    def source(self, record: Published) -> str:
        return f"[{self.numbers[record.table, record.source]}]"


def render(
    results: Results, condition: int, metric: str | None, details: bool
) -> tuple[list[str], list[list[str]], list[str]]:
    """Return headings, lines and notes of the table of one condition.

    Each measured column is followed by the numbers that were published for the same rule. Numbers
    of another rule are in a column of their own.
    """
    columns = _columns(results, condition)
    shown = _shown(results, columns, metric, details)
    listed = _listed(columns, shown)
    keys = _Keys(records.numbered(listed), notes.Keys(string.ascii_lowercase))

    headings = ["method"]
    lines = [[row.label] for row in results.rows]
    # Column by column, so that the letters are in the order in which the columns are read.
    for name in shown:
        headings.append(METRICS[name].heading)
        for row, line in zip(results.rows, lines, strict=True):
            line.append(results.cell(row.name, condition, name).text())
        if not _any_numbers(columns, name):
            continue
        headings += ["published", "minus published"]
        for cell, line in zip(columns[name], lines, strict=True):
            line += [_published(cell, keys), _minus(cell, keys)]
    if _any_numbers(columns, _OTHER):
        headings.append("published, by another or no stated rule")
        for cell, line in zip(columns[_OTHER], lines, strict=True):
            line.append(_published(cell, keys, _qualified))
    headings.append("nets")
    for row, line in zip(results.rows, lines, strict=True):
        line.append(str(row.networks))

    below = [*notes.of_condition(results, condition), *_notes(columns, listed, keys)]
    if "best" in shown:
        below.append(notes.BEST)
    below += [*results.plan_notes, *notes.of_marks(results)]
    return headings, lines, notes.once(below)


def _columns(results: Results, condition: int) -> _Columns:
    columns: _Columns = {}
    for name, reported in MEASURES.items():
        columns[name] = []
        for row in results.rows:
            columns[name].append(nearest_published(results, row, condition, reported))
    columns[_OTHER] = [_not_measured(results, row, condition) for row in results.rows]
    return columns


def _any_numbers(columns: _Columns, name: str) -> bool:
    return any(cell.nearest for cell in columns.get(name, ()))


def _shown(results: Results, columns: _Columns, metric: str | None, details: bool) -> list[str]:
    """Return the metrics that the table shows."""
    if metric is not None:
        return [metric]
    # The last epoch is the headline, so its column is there even without a published number.
    shown = []
    for name in MEASURES:
        wanted = details or _any_numbers(columns, name)
        if name == "last" or (wanted and results.has(name)):
            shown.append(name)
    return shown


def _listed(columns: _Columns, shown: Sequence[str]) -> list[Published]:
    """Return the published numbers that the table shows, row by row."""
    listed = []
    for of_one_row in zip(*columns.values(), strict=True):
        for name, cell in zip(columns, of_one_row, strict=True):
            if name in shown or name == _OTHER:
                listed += cell.records
    return listed


# ---- Cells as text ------------------------------------------------------------------------------


def _published(
    cell: PublishedCell, keys: _Keys, text: Callable[[Published], str] = Published.text
) -> str:
    numbers = [f"{text(record)} {keys.source(record)}" for record in cell.records]
    return "; ".join(numbers) or "-"


def _qualified(record: Published) -> str:
    """Return a number of the last column, with measure and test set if they are unusual."""
    text = record.text()
    if record.metric == "top5":
        text += " top-5"
    if record.dataset == "ilsvrc12":
        text += " on ILSVRC12"
    return text


def _minus(cell: PublishedCell, keys: _Keys) -> str:
    # If all numbers have the same reason or difference, it is printed once and without a source.
    parts = [_difference(compared, cell.marks, keys.letters) for compared in cell.nearest]
    if len(set(parts)) < 2:
        return "".join(parts[:1])
    with_sources = []
    for part, record in zip(parts, cell.records, strict=True):
        with_sources.append(f"{part} {keys.source(record)}")
    return "; ".join(with_sources)


def _difference(found: Compared, marks: str, letters: notes.Keys) -> str:
    if found.test is None:
        return ",".join(sorted(map(letters.of, found.reasons)))
    test = "not testable" if found.test.p is None else f"p {p_value(found.test.p)}"
    return f"{found.test.difference:+.2f}{marks} ({test})"


# ---- Notes --------------------------------------------------------------------------------------


def _notes(columns: _Columns, listed: Sequence[Published], keys: _Keys) -> list[str]:
    if not listed:
        return ["No published numbers are known for these methods on this data."]

    # Over all columns, those that the table does not show included.
    known: list[Published] = []
    tested: list[PublishedCell] = []
    further = 0
    for cell in itertools.chain(*columns.values()):
        known += cell.records
        further += cell.further
        if cell.tested:
            tested.append(cell)

    found = []
    for number, line in enumerate(records.sources(listed), 1):
        found.append(f"[{number}] {line}")
    found.append(
        "published: the number as its source prints it, for the same choice of the epoch as the "
        "column before it; of several numbers, those with the most similar setting. "
        "Hyperparameters of the method may differ."
    )
    if tested:
        found.append(
            "minus published: measured minus published in percentage points, with the p-value of "
            "Welch's t test (two-sided, unadjusted). not testable: a std or the number of runs "
            "is not known, or there is one run."
        )
    if keys.letters.texts:
        reasons = [f"({keys.letters.of(text)}) {text}" for text in keys.letters.texts]
        found.append(f"A letter gives a reason why there is no difference: {'; '.join(reasons)}.")
    if any(COPY in cell.marks for cell in tested):
        found.append(f"{COPY} measured on a copy of the images, not on the official pixels.")
    if any(record.table == records.CIFARN for record in known):
        found += records.CIFARN_WARNINGS

    # Numbers of columns that this table leaves out count, too.
    further += len(known) - len(listed)
    if further:
        found.append(
            "Published numbers that are not shown, because their setting is less similar: "
            f"{further}; `nlbench published` lists them."
        )
    return found
