"""Everything that a page shows of one suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlbench.errors import SuiteError
from nlbench.report import pictures, protocol, state
from nlbench.report.leaderboard import Entry, Leaderboard, leaderboard
from nlbench.report.pictures import Pictures
from nlbench.report.state import FOLDER, State
from nlbench.results import notes, table, with_published
from nlbench.results.analysis import baseline_of
from nlbench.results.cells import Results
from nlbench.results.over_datasets import OverDatasets, over_datasets

if TYPE_CHECKING:
    from nlbench.registry import MethodFile
    from nlbench.report.runs import Runs
    from nlbench.results.cells import SuiteRow
    from nlbench.results.store import Store


@dataclass(frozen=True)
class GlanceCell:
    """A cell of the table of all conditions; `best` says whether it ties with the best one."""

    entry: Entry
    best: bool


@dataclass(frozen=True)
class GlanceLine:
    """A line of the table of all conditions, with a cell for each condition by its place."""

    row: SuiteRow
    place: int
    cells: dict[int, GlanceCell]


@dataclass(frozen=True)
class PublishedTable:
    """The measured and the published numbers of one condition."""

    title: str
    headings: list[str]
    lines: list[list[str]]
    notes: list[str]


@dataclass(frozen=True)
class PublishedNumbers:
    """The published numbers of a suite.

    Attributes:
        without: the conditions for which none are known.
    """

    tables: list[PublishedTable]
    without: list[str]


@dataclass(frozen=True)
class RunLine:
    """A line of the list of runs.

    Attributes:
        first: whether the run has no earlier line on the page.
    """

    key: str
    seed: int
    what: str
    last: str
    best: str
    seconds: str
    first: bool


@dataclass(frozen=True)
class RunCell:
    """The runs of one cell.

    Attributes:
        row, condition: places in the suite.
        curves: the mean curves of what was memorised.
    """

    row: int
    condition: int
    label: str
    title: str
    runs: list[RunLine] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SuitePage:
    """Everything that a page shows of one suite.

    Attributes:
        over: the average ranks over datasets, where the conditions allow them.
    """

    name: str
    protocol: str
    protocol_words: list[str]
    track: str
    track_words: str
    conditions: str
    rows: list[str]
    methods: list[str]
    caption: str
    data_notes: list[str]
    notes: list[str]
    board: Leaderboard
    glance: list[GlanceLine]
    over: OverDatasets | None
    figures: Pictures
    published: PublishedNumbers
    state: State
    run_cells: list[RunCell]

    def data(self) -> dict[str, Any]:
        """Return what the script needs to find the runs of a cell."""
        cells = []
        for cell in self.run_cells:
            found = [[run.seed, run.key, run.what] for run in cell.runs]
            one = {"row": cell.row, "condition": cell.condition, "runs": found}
            cells.append({**one, "curves": cell.curves} if cell.curves else one)
        titles = {cell.condition: cell.title for cell in self.run_cells}
        return {
            "name": self.name,
            # The script adds the folder for the runs that are trained again.
            "command": self.state.command.removesuffix(f" --out {FOLDER}"),
            "rows": self.rows,
            "conditions": [titles[place] for place in sorted(titles)],
            "cells": cells,
        }


def of_plan(
    plan: Mapping[str, Any], store: Store, methods: Mapping[str, MethodFile], runs: Runs
) -> SuitePage:
    """Return the page of a suite, and add its runs to those of the whole page.

    Raises: StoreError for a plan whose cells name runs of other rows.
    """
    results = Results(plan, store, methods)
    found = state.of_suite(plan, results, store)
    # What is missing is said of all conditions. The tables have those of which a run has ended.
    plan, without_runs = table.with_runs(plan, store)
    if without_runs:
        results = Results(plan, store, methods)
    reference = baseline_of(results, None)
    board = leaderboard(results, reference)
    records = results.all_records()
    return SuitePage(
        name=results.suite,
        protocol=results.protocol,
        protocol_words=protocol.in_words(record.spec.get("protocol", {}) for record in records),
        track=results.track,
        track_words=protocol.track(results.track),
        conditions=_in_words(results.conditions),
        rows=[row.name for row in results.rows],
        methods=[row.method for row in results.rows],
        caption=_caption(results),
        data_notes=_data_notes(results),
        notes=notes.once(
            [notes.BEST, *results.plan_notes, *notes.of_marks(results), *without_runs]
        ),
        board=board,
        glance=_glance(results, board),
        over=_over_datasets(results),
        figures=pictures.of_suite(results),
        published=_published(results),
        state=found,
        run_cells=_run_cells(plan, store, found, runs),
    )


def _in_words(conditions: list[str]) -> str:
    if len(conditions) > 3:
        return f"{len(conditions)} combinations of dataset and noise"
    return ", ".join(conditions)


def _caption(results: Results) -> str:
    seeds = "1 seed" if results.seeds == 1 else f"{results.seeds} seeds"
    where = results.conditions[0] if len(results.conditions) == 1 else results.suite
    return (
        f"{where}: test accuracy in %, mean±sample std over {seeds}; protocol {results.protocol}, "
        f"track {results.track}."
    )


def _data_notes(results: Results) -> list[str]:
    found = []
    for condition in range(len(results.conditions)):
        found += notes.of_condition(results, condition)
    return notes.once(found)


def _glance(results: Results, board: Leaderboard) -> list[GlanceLine]:
    """Return the table of all conditions, with the rows in the order of the suite."""
    by_row: dict[int, dict[int, GlanceCell]] = {place: {} for place in range(len(results.rows))}
    for group in board.groups:
        for line in group.lines:
            by_row[line.place][group.place] = GlanceCell(line.cells["last"], line.best)
    return [GlanceLine(row, place, by_row[place]) for place, row in enumerate(results.rows)]


def _over_datasets(results: Results) -> OverDatasets | None:
    """Return the average ranks, where there is one condition of each of several datasets."""
    if len(results.conditions) < 2:
        return None
    try:
        return over_datasets(results)
    # The message says which condition to choose, and a page has no options for that.
    except SuiteError:
        return None


def _published(results: Results) -> PublishedNumbers:
    tables, without = [], []
    for condition, title in enumerate(results.conditions):
        headings, lines, below = with_published.render(results, condition, None, False)
        if any(heading.startswith("published") for heading in headings):
            tables.append(PublishedTable(title, headings, lines, below))
        else:
            without.append(title)
    return PublishedNumbers(tables, without)


def _run_cells(plan: Mapping[str, Any], store: Store, found: State, runs: Runs) -> list[RunCell]:
    """Return every run of a plan by cell, and add those that have a record to the page's runs."""
    rows = {row["row"]: place for place, row in enumerate(plan["rows"])}
    without = {(run.row, run.condition, run.seed): run.what for run in found.not_done}
    cells: dict[tuple[int, int], RunCell] = {}
    for cell in plan["cells"]:
        row, condition, title = (
            cell["row"],
            cell["condition"],
            plan["conditions"][cell["condition"]],
        )
        place = rows[row], condition
        if place not in cells:
            cells[place] = RunCell(*place, row, title)

        key = cell["key"]
        first = key not in runs.listed
        runs.listed.add(key)
        record = store.read(key)
        if record is not None:
            runs.add(record)
        metrics = record.metrics if record is not None else {}
        seconds = record.timing.get("train") if record is not None else None
        line = RunLine(
            key=key,
            seed=cell["seed"],
            what=without.get((row, title, cell["seed"]), "done"),
            last=_percent(metrics.get("last")),
            best=_percent(metrics.get("best")),
            seconds="-" if seconds is None else f"{seconds:,.1f}",
            first=first,
        )
        cells[place].runs.append(line)
    ordered = [cells[place] for place in sorted(cells)]
    return [replace(c, curves=runs.memorisation(run.key for run in c.runs)) for c in ordered]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
