"""The cells of a table: values over seeds, and differences to a reference row."""

from __future__ import annotations

import copy
import math
import tokenize
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench import code_hash, registry
from nlbench.errors import StoreError, SuiteError
from nlbench.results import statistics
from nlbench.results.formats import p_value
from nlbench.results.integrity import RunFiles
from nlbench.results.metrics import METRICS
from nlbench.results.plan_file import Origin, origin_of, wrong_cell

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store

# Marks behind a cell; results.notes explains them.
STALE = "*"
UNKNOWN_CODE = "°"
MIXED = "‡"
SIGN = "§"

# No method file is so long. Reading one that is would take minutes.
_MOST_BYTES = 10_000_000

# Before the number of records that cannot be used.
DAMAGED = "?"


# ---- Values of one cell -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One row of the suite under one condition.

    Attributes:
        planned: how many seeds the plan has.
        values: the value of each seed that is done: a share in [0, 1], or in the metric's unit.
        failed: how many seeds failed or diverged.
        damaged: how many seeds have a record that cannot be used.
        scale: the factor of the printed numbers, as `Metric.scale`.
    """

    planned: int
    values: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    marks: str = ""
    damaged: int = 0
    scale: float = 100.0

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None where no seed is done."""
        return statistics.mean(list(self.values.values()))

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two."""
        return statistics.sample_std(list(self.values.values()))

    def text(self) -> str:
        """Return mean±std, followed by what is missing and by the marks.

        Shares are in percent, and other metrics in their unit. "(2/5)" means that 2 of 5 seeds are
        done, "!1" that one failed, "?1" that the record of one is damaged, "-" that there is none.
        """
        unusable = []
        if self.failed:
            unusable.append(f"!{self.failed}")
        if self.damaged:
            unusable.append(f"{DAMAGED}{self.damaged}")
        if self.mean is None:
            return f"{', '.join(unusable) or '-'}{self.marks}"

        missing = []
        if len(self.values) < self.planned:
            missing.append(f"{len(self.values)}/{self.planned}")
        missing += unusable

        text = _scaled(self.mean, self.std, self.scale)
        if missing:
            text += f" ({', '.join(missing)})"
        return text + self.marks


# ---- Differences --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A row minus the reference row, seed by seed.

    Runs of one seed have the same data, initial weights, order of batches and draws.

    Attributes:
        mean: over the `n` seeds that both rows have.
        std: the sample standard deviation; None for one seed.
        p: the two-sided p-value of the paired t test; None for one seed, where the difference is
            the same in each seed, so that its spread is unknown, and where a seed diverged.
        scale: as in Cell.
        diverged: how many seeds of the two rows diverged. The difference is over the others, which
            are no fair sample.
    """

    mean: float
    std: float | None
    n: int
    p: float | None
    marks: str = ""
    scale: float = 100.0
    diverged: int = 0

    def text(self) -> str:
        """Return the difference, of shares in percentage points, with its p-value and marks.

        "!1" says that one seed diverged; there is no p-value then.
        """
        text = _scaled(self.mean, self.std, self.scale, signed=True)
        if self.diverged:
            text += f" (!{self.diverged})"
        if self.p is not None:
            text += f" (p {p_value(self.p)})"
        return text + self.marks


def _scaled(mean: float, std: float | None, scale: float, signed: bool = False) -> str:
    text = f"{scale * mean:.2f}"
    if signed:
        text = f"{scale * mean:+.2f}"
    if std is not None:
        text += f"±{scale * std:.2f}"
    return text


def difference(cell: Cell, reference: Cell, rounding: float = 0.0) -> Difference | None:
    """Return `cell` minus `reference` over the seeds that both have; None where there is none.

    Args:
        rounding: the standard deviation of the rounding error of one value; 0 where unknown.
    """
    # A seed that only one row has would compare different data and weights.
    common = [seed for seed in cell.values if seed in reference.values]
    first = [cell.values[seed] for seed in common]
    second = [reference.values[seed] for seed in common]

    n = len(common)
    deltas = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(deltas)
    if mean is None:
        return None
    std = statistics.sample_std(deltas)
    spread = statistics.difference_std(first, second, rounding)
    if spread is None:
        return Difference(mean, None, n, None, scale=cell.scale)
    return Difference(mean, std, n, statistics.paired_p(mean, spread, n), scale=cell.scale)


# ---- A plan and its records ---------------------------------------------------------------------


@dataclass(frozen=True)
class SuiteRow:
    """A row of the suite.

    Attributes:
        told: names of the privileged information that its method is given.
        networks: how many networks its method trains.
    """

    name: str
    method: str
    told: list[str]
    networks: int

    @property
    def label(self) -> str:
        """The name as tables print it, with the privileged information."""
        if not self.told:
            return self.name
        return f"{self.name} [told {', '.join(self.told)}]"


def _check_cells(plan: Mapping[str, Any], files: Mapping[str, RunFiles], store: Store) -> None:
    """Raise StoreError where the record of a cell is not of its row, seed and condition."""

    def origin(key: str) -> Origin | None:
        record = files[key].record
        return None if record is None else origin_of(record)

    wrong = wrong_cell(plan, origin)
    if wrong:
        raise StoreError(
            f"{store.plan_path(plan['suite'])}: damaged plan: {wrong}. `nlbench run` of the suite "
            "writes the plan again; the records stay as they are"
        )


class Results:
    """A plan and the records that it names, read once.

    A condition is given as its place in `conditions`, a row as its name.

    Args:
        plan: what Plan.as_json() returns.
        methods: the method files that records are compared with, to mark stale ones.
    """

    def __init__(
        self, plan: Mapping[str, Any], store: Store, methods: Mapping[str, registry.MethodFile]
    ) -> None:
        self.suite: str = plan["suite"]
        self.track: str = plan["track"]
        self.protocol: str = plan["protocol"]
        self.seeds = len(plan["seeds"])
        self.plan_notes: list[str] = plan.get("notes", [])
        self.conditions: list[str] = plan["conditions"]
        self.rows = [
            SuiteRow(row["row"], row["method"], row["told"], row["networks"])
            for row in plan["rows"]
        ]
        # A correction of p-values covers all rows of the suite, also where a table shows few.
        self._all_rows = self.rows
        self._methods = methods
        self._store = store
        # Files outside the package, which the plan names so that --methods-dir need not.
        self._method_files: dict[str, str] = plan.get("method_files", {})

        # Two rows may be the same run.
        keys = dict.fromkeys(cell["key"] for cell in plan["cells"])
        store.read_ahead(keys)
        files_of = {key: store.check(key) or RunFiles() for key in keys}
        _check_cells(plan, files_of, store)
        # In the order of the plan: (row, condition, record), and the files of each cell by seed.
        self._records: list[tuple[str, int, RunRecord]] = []
        self._cells: dict[tuple[str, int], dict[int, RunFiles]] = {}
        for cell in plan["cells"]:
            files = files_of[cell["key"]]
            by_seed = self._cells.setdefault((cell["row"], cell["condition"]), {})
            by_seed[cell["seed"]] = files
            if files.record is not None:
                self._records.append((cell["row"], cell["condition"], files.record))

        # The code hash of today by method, model and dataset. None where there is no code.
        self._hashes: dict[tuple[str, str, str, str], str | None] = {}
        # By key, of records that other code made: whether today's code has reproduced them.
        self._reproduced: dict[str, bool] = {}

    def select(self, names: Collection[str]) -> Results:
        """Return the same results with these rows alone. Differences and p-values stay the same."""
        selected = copy.copy(self)
        selected.rows = [row for row in self.rows if row.name in names]
        return selected

    def in_order(self, names: Sequence[str]) -> Results:
        """Return the same results with the rows in the order of these names."""
        ordered = copy.copy(self)
        ordered.rows = sorted(self.rows, key=lambda row: names.index(row.name))
        return ordered

    def under(self, conditions: Collection[int]) -> Results:
        """Return the same results without the runs of other conditions, which keep their places."""
        narrowed = copy.copy(self)
        narrowed._records = [found for found in self._records if found[1] in conditions]
        narrowed._cells = {at: files for at, files in self._cells.items() if at[1] in conditions}
        return narrowed

    @property
    def all_rows(self) -> list[SuiteRow]:
        """The rows of the suite, also those that were not selected."""
        return self._all_rows

    # ---- Records --------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store that holds the runs' other files."""
        return self._store

    def files_of(self, row: str, condition: int) -> Mapping[int, RunFiles]:
        """Return what was found of each planned run of one cell, by seed."""
        return self._cells.get((row, condition), {})

    def records_of(self, row: str, condition: int) -> list[RunRecord]:
        """Return the records of one cell, in the order of the plan."""
        by_seed = self._cells.get((row, condition), {})
        return [files.record for files in by_seed.values() if files.record is not None]

    def records_under(self, condition: int) -> list[RunRecord]:
        """Return the records of all rows under one condition."""
        return [record for _, place, record in self._records if place == condition]

    def begun(self) -> list[int]:
        """Return the places of the conditions of which a run has ended, in their order."""
        return sorted({place for _, place, _ in self._records})

    def all_records(self) -> list[RunRecord]:
        """Return every record of the rows, in the order of the plan."""
        names = {row.name for row in self.rows}
        return [record for row, _, record in self._records if row in names]

    def all_files(self) -> list[RunFiles]:
        """Return what was found of each run of the plan, once for each run."""
        # Two rows may be the same run, whose files are the same object.
        found = {}
        for by_seed in self._cells.values():
            found.update({id(files): files for files in by_seed.values()})
        return list(found.values())

    def has(self, metric: str) -> bool:
        """Return whether any record has a value of this metric."""
        key = METRICS[metric].key
        return any(record.metrics.get(key) is not None for record in self.all_records())

    # ---- Cells ----------------------------------------------------------------------------------

    def cell(self, row: str, condition: int, metric: str) -> Cell:
        """Return the values of one metric, a name of METRICS, with marks."""
        key = METRICS[metric].key
        by_seed = self._cells.get((row, condition), {})

        values = {}
        failed = damaged = 0
        for seed, files in by_seed.items():
            record = files.record
            if record is None:
                damaged += bool(files.damage)
                continue
            # A run that diverged has no value, so no mean contains it, and the cell must say so.
            value = record.metrics.get(key)
            if record.status != "done":
                failed += 1
            elif value is not None:
                values[seed] = value

        marks = self._marks(self.records_of(row, condition))
        return Cell(len(by_seed), values, failed, marks, damaged, METRICS[metric].scale)

    def difference(
        self, row: str, reference: str, condition: int, metric: str = "last"
    ) -> Difference | None:
        """Return `row` minus `reference`, with the marks that a cell of both their runs has."""
        found = difference(
            self.cell(row, condition, metric),
            self.cell(reference, condition, metric),
            self.rounding(condition, metric),
        )
        if found is None:
            return None
        records = self.records_of(row, condition) + self.records_of(reference, condition)
        diverged = sum(record.status == "diverged" for record in records)
        p = None if diverged else found.p
        return replace(found, p=p, diverged=diverged, marks=self._marks(records))

    def rounding(self, condition: int, metric: str) -> float:
        """Return the standard deviation of the rounding error of a value of this metric.

        Accuracies are multiples of 1 / num_test, and an error that is uniform between two of them
        has the variance (1 / num_test)^2 / 12. 0.0 where the metric is no such count, where no
        record has the number of test examples, or where values are no multiples of 1 / num_test.
        """
        if not METRICS[metric].is_count:
            return 0.0
        largest = 0
        for record in self.records_under(condition):
            size = record.noise.get("num_test") or 0
            count = size * (record.metrics.get(METRICS[metric].key) or 0.0)
            if not math.isclose(count, round(count), rel_tol=1e-6, abs_tol=1e-6):
                return 0.0
            largest = max(largest, size)
        return 1 / (largest * math.sqrt(12)) if largest else 0.0

    def differences(self, reference: str, condition: int) -> dict[str, Difference]:
        """Return each other row minus `reference`, with p-values after Holm over the rows."""
        found = {}
        for row in self._all_rows:
            if row.name == reference:
                continue
            delta = self.difference(row.name, reference, condition)
            if delta is not None:
                found[row.name] = delta

        # One condition is one family of comparisons. Rows with one seed have no test.
        ps = {name: delta.p for name, delta in found.items() if delta.p is not None}
        adjusted = dict(zip(ps, statistics.holm(list(ps.values())), strict=True))
        return {name: replace(delta, p=adjusted.get(name)) for name, delta in found.items()}

    def _marks(self, records: Sequence[RunRecord]) -> str:
        """Return what a reader must know about these runs, as marks."""
        marks = ""
        today = [self._code_today(record) for record in records]
        if any(map(self._is_stale, records, today)):
            marks += STALE
        if None in today:
            marks += UNKNOWN_CODE
        if len(set(map(hardware_kind, records))) > 1:
            marks += MIXED
        if any(record.method.get("signs") for record in records):
            marks += SIGN
        return marks

    def _is_stale(self, record: RunRecord, today: str | None) -> bool:
        """Return whether other code made a record, and today's has not reproduced its numbers."""
        if today is None or record.code == today:
            return False
        # The note is read for these records alone: most tables have none.
        if record.key not in self._reproduced:
            self._reproduced[record.key] = self._store.reproduced_under(record.key, today)
        return not self._reproduced[record.key]

    def _code_today(self, record: RunRecord) -> str | None:
        """Return the hash of the code that the record's numbers depend on, as it is today.

        None where the method's file is not known, "" where the model does not exist any more.
        """
        spec = record.spec
        model, dataset = spec.get("protocol", {}).get("model", ""), spec.get("dataset", "")
        drawn = spec.get("noise")
        noise = str(drawn.get("kind", "")) if isinstance(drawn, dict) else ""
        key = (spec["method"], model, dataset, noise)
        if key not in self._hashes:
            self._hashes[key] = self._hash(*key)
        return self._hashes[key]

    def _hash(self, method: str, model: str, dataset: str, noise: str) -> str | None:
        path = self._method_file(method)
        if path is None:
            return None
        try:
            return code_hash.code_hash(path, model, dataset, noise)
        except SuiteError:
            return ""
        except (
            OSError,
            SyntaxError,
            ValueError,
            tokenize.TokenError,
            RecursionError,
            MemoryError,
        ):
            # The file is there, but is no Python that can be read.
            return None

    def _method_file(self, method: str) -> Path | None:
        """Return the file of a method, as the caller or else the plan names it.

        A plan may come from somebody else. Its files are compared, and never imported.
        """
        if method in self._methods:
            return self._methods[method].path
        path = Path(self._method_files.get(method, ""))
        try:
            readable = path.suffix == ".py" and path.is_file()
            return path if readable and path.stat().st_size <= _MOST_BYTES else None
        except OSError:
            return None


def hardware_kind(record: RunRecord) -> tuple[str, str]:
    """Return device class and precision. Runs that differ in them are not compared unmarked."""
    environment = record.environment
    return environment.get("device", ""), environment.get("precision", "")
