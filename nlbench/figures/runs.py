"""What the runs of a cell have measured, with every seed that is left out counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nlbench.errors import on_one_line
from nlbench.figures import style
from nlbench.figures.options import NothingToDraw
from nlbench.results.cells import Results
from nlbench.results.consistency import read_history
from nlbench.results.integrity import HISTORY, PREDICTIONS, RunFiles, located
from nlbench.results.numbers import read_arrays
from nlbench.results.record import RunRecord

# Why a seed is in no mean, in the order in which a note says it.
DIVERGED, FAILED, DAMAGED, MISSING, LACKING, EMPTY = (
    "diverged",
    "failed",
    "damaged",
    "not trained yet",
    "without this value",
    "without this value in any epoch",
)
_REASONS = (DIVERGED, FAILED, DAMAGED, MISSING, LACKING, EMPTY)

# Shares of training examples have these columns.
ONLINE = "online_"
WHY_NOT_ONLINE = (
    "Shares of training examples are counted where true labels are known, and where the steps of a "
    "method return its logits, as those of mixup and dividemix do not. Shares of the wrongly "
    "labelled need wrong labels."
)


@dataclass(frozen=True)
class Seeds:
    """Which seeds of a cell are in a figure.

    Attributes:
        planned: how many the plan has.
        used: those that are drawn.
        left_out: how many of the others there are for each reason.
    """

    planned: int
    used: tuple[int, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def suffix(self) -> str:
        """The numbers behind the name of a row of which seeds are left out, else ""."""
        return f" ({len(self.used)}/{self.planned})" if len(self.used) < self.planned else ""


@dataclass(frozen=True)
class Course:
    """The epochs of one cell.

    Attributes:
        seeds: whose seeds are in `values`.
        values: column -> (seeds, epochs) float64; NaN where a share is one of no example.
    """

    row: str
    seeds: Seeds
    values: dict[str, np.ndarray]

    def mean(self, column: str) -> np.ndarray:
        """Return the mean of each epoch over the seeds, (epochs,)."""
        mean: np.ndarray = self.values[column].mean(0)
        return mean


def course(
    results: Results, row: str, condition: int, columns: Sequence[str], *, some: bool = False
) -> Course:
    """Read epoch metrics of one cell. A run that lacks one of these columns is left out.

    So is a run that has no value in any epoch of one of them, or of all of them where `some` is
    enough, and a run that diverged: its epochs end somewhere.
    """
    found: dict[int, list[list[float]]] = {}
    left_out: Counter[str] = Counter()
    files_by_seed = results.files_of(row, condition)
    for seed, files in files_by_seed.items():
        reason = _unusable(files, HISTORY)
        if not reason and files.record is not None:
            table = _columns(results, files.record, columns)
            if isinstance(table, str):
                reason = table
            elif _is_empty(table, some):
                reason = EMPTY
            else:
                found[seed] = table
        if reason:
            left_out[reason] += 1

    seeds = Seeds(len(files_by_seed), tuple(found), left_out)
    values = {}
    for place, column in enumerate(columns):
        values[column] = np.array([table[place] for table in found.values()], dtype=float)
    return Course(row, seeds, values)


def _is_empty(table: Sequence[Sequence[float]], some: bool) -> bool:
    """Tell whether a column has no value in any epoch; with `some`, whether all have none."""
    empty = [bool(np.isnan(values).all()) for values in table]
    return all(empty) if some else any(empty)


def _unusable(files: RunFiles, name: str) -> str:
    """Return why a file of a run is not read, else ""."""
    if files.record is None:
        return DAMAGED if files.damage else MISSING
    if files.record.status != "done":
        return DIVERGED if files.record.status == "diverged" else FAILED
    return DAMAGED if any(damage.path.name == name for damage in files.damage) else ""


def _columns(
    results: Results, record: RunRecord, columns: Sequence[str]
) -> list[list[float]] | str:
    """Return columns of a run's history.csv, or the reason why there are none."""
    path = located(results.store.run_dir(record.key), HISTORY)
    try:
        history = read_history(path)
    except (OSError, ValueError):
        return DAMAGED
    # A mean over epochs needs all of them.
    if len(history) != record.spec.get("protocol", {}).get("epochs", len(history)):
        return DAMAGED
    if not history or any(column not in history[0] for column in columns):
        return LACKING

    table = []
    for column in columns:
        values = [epoch[column] for epoch in history]
        table.append([float("nan") if value is None else value for value in values])
    return table


def arrays(
    results: Results, row: str, condition: int, names: Sequence[str]
) -> tuple[Seeds, dict[int, dict[str, np.ndarray]]]:
    """Read predictions.npz of each run of a cell that is done and has these arrays.

    Returns: the seeds, and the arrays of each by name; all of them, also others than `names`.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    left_out: Counter[str] = Counter()
    files_by_seed = results.files_of(row, condition)
    for seed, files in files_by_seed.items():
        reason = _unusable(files, PREDICTIONS)
        if not reason and files.record is not None:
            try:
                values = read_arrays(located(results.store.run_dir(files.record.key), PREDICTIONS))
            except ValueError:
                reason = DAMAGED
            else:
                reason = "" if set(names) <= set(values) else LACKING
        if reason:
            left_out[reason] += 1
        else:
            found[seed] = values
    return Seeds(len(files_by_seed), tuple(found), left_out), found


def cell_seeds(results: Results, row: str, condition: int, used: Iterable[int]) -> Seeds:
    """Return which seeds of a cell have the value of a metric, given by `used`."""
    have = tuple(used)
    left_out: Counter[str] = Counter()
    files_by_seed = results.files_of(row, condition)
    for seed, files in files_by_seed.items():
        if seed not in have:
            left_out[_unusable(files, "") or LACKING] += 1
    return Seeds(len(files_by_seed), have, left_out)


def together(cells: Sequence[Seeds]) -> Seeds:
    """Return the seeds of several cells of one row, for its label."""
    left_out: Counter[str] = Counter()
    used: list[int] = []
    for cell in cells:
        left_out += cell.left_out
        used += cell.used
    return Seeds(sum(cell.planned for cell in cells), tuple(used), left_out)


def names_of(results: Results, rows: Sequence[str]) -> dict[str, str]:
    """Return the name of each row as a figure shows it, with what it is told."""
    by_name = {row.name: row.label for row in results.rows}
    shown = style.names_shown([by_name[row] for row in rows])
    return dict(zip(rows, shown, strict=True))


def labels_of(results: Results, seeds: dict[str, Seeds]) -> dict[str, str]:
    """Return the label of each row: its name, what it is told, and how many seeds are drawn."""
    names = names_of(results, list(seeds))
    return {row: name + seeds[row].suffix for row, name in names.items()}


def notes_on_seeds(seeds: dict[str, Seeds]) -> list[str]:
    """Say which seeds are in no mean, and why; nothing where all are."""
    short = [row for row, found in seeds.items() if found.suffix]
    if not short:
        return []

    parts = []
    for reason in _REASONS:
        counts = []
        for row in short:
            count = seeds[row].left_out[reason]
            if count:
                counts.append(f"{on_one_line(row)} {count}")
        if counts:
            parts.append(f"{reason}: {_listed(counts)}")
    words = "; ".join(parts)
    return [f"(a/b): drawn from a of b planned runs. Left out, {words}."]


def _listed(counts: Sequence[str], most: int = 8) -> str:
    """Return the counts of rows in words, without the last of many."""
    if len(counts) <= most:
        return ", ".join(counts)
    return f"{', '.join(counts[:most])} and {len(counts) - most} more rows"


def nothing_to_draw(seeds: Sequence[Seeds], what: str, advice: str) -> NothingToDraw:
    """Return the error that no run has what a figure shows.

    Args:
        seeds: of all cells that were looked at.
        what: the part of a run that the figure shows, for example "predictions.npz with T".
        advice: sentences that say how to get it, beside those on runs that are missing or damaged.
    """
    together: Counter[str] = Counter()
    for cell in seeds:
        together += cell.left_out
    planned = sum(cell.planned for cell in seeds)
    words = {LACKING: f"without {what}", EMPTY: f"without a value of {what} in any epoch"}
    parts = [f"{together[r]} {words.get(r, r)}" for r in _REASONS if together[r]]
    runs = "1 run" if planned == 1 else f"{planned} runs"
    sentences = [f"nothing to draw, of {runs}: {', '.join(parts)}."]
    if together[MISSING]:
        sentences.append("`nlbench run` trains what is missing.")
    if together[DAMAGED]:
        sentences.append(
            "`nlbench repair RESULTS --again` sets damaged runs aside and prints the command that "
            "trains them again."
        )
    return NothingToDraw(" ".join([*sentences, advice]).rstrip())


def columns_of(results: Results, row: str, condition: int) -> list[str]:
    """Return every column of history.csv that a run of this cell has, in their order."""
    found: dict[str, None] = {}
    for record in results.records_of(row, condition):
        path = located(results.store.run_dir(record.key), HISTORY)
        try:
            history = read_history(path)
        except (OSError, ValueError):
            continue
        if history:
            found.update(dict.fromkeys(history[0]))
    return list(found)
