"""The cells of a table: values over seeds, and differences to a reference row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlbench import code_hash, registry
from nlbench.errors import SuiteError
from nlbench.results import statistics
from nlbench.results.formats import p_value
from nlbench.results.metrics import METRICS

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store

# Marks behind a cell; results.notes explains them.
STALE = "*"
MIXED = "‡"


# ---- Values of one cell -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One row of the suite under one condition.

    Attributes:
        planned: how many seeds the plan has.
        values: the value of each seed that is done, in [0, 1].
        failed: how many seeds failed or diverged.
    """

    planned: int
    values: dict[int, float] = field(default_factory=dict)
    failed: int = 0
    marks: str = ""

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None where no seed is done."""
        return statistics.mean(list(self.values.values()))

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds; None for fewer than two."""
        return statistics.sample_std(list(self.values.values()))

    def text(self) -> str:
        """Return mean±std in percent, followed by what is missing and by the marks.

        "(2/5)" means that 2 of 5 seeds are done, "!1" that one failed, "-" that there is none.
        """
        if self.mean is None:
            if self.failed:
                return f"!{self.failed}{self.marks}"
            return f"-{self.marks}"

        missing = []
        if len(self.values) < self.planned:
            missing.append(f"{len(self.values)}/{self.planned}")
        if self.failed:
            missing.append(f"!{self.failed}")

        text = _percent(self.mean, self.std)
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
        p: the two-sided p-value of the paired t test; None for one seed.
    """

    mean: float
    std: float | None
    n: int
    p: float | None
    marks: str = ""

    def text(self) -> str:
        """Return the difference in percentage points, with its p-value and marks."""
        text = _percent(self.mean, self.std, signed=True)
        if self.p is not None:
            text += f" (p {p_value(self.p)})"
        return text + self.marks


def _percent(mean: float, std: float | None, signed: bool = False) -> str:
    text = f"{100 * mean:.2f}"
    if signed:
        text = f"{100 * mean:+.2f}"
    if std is not None:
        text += f"±{100 * std:.2f}"
    return text


def difference(cell: Cell, reference: Cell) -> Difference | None:
    """Return `cell` minus `reference` over the seeds that both have; None where there is none."""
    # A seed that only one row has would compare different data and weights.
    deltas = []
    for seed, value in cell.values.items():
        if seed in reference.values:
            deltas.append(value - reference.values[seed])

    mean = statistics.mean(deltas)
    if mean is None:
        return None
    std = statistics.sample_std(deltas)
    if std is None:
        return Difference(mean, None, len(deltas), None)
    return Difference(mean, std, len(deltas), statistics.paired_p(mean, std, len(deltas)))


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
        self._methods = methods

        # In the order of the plan: (condition, record), and the records of each cell by seed.
        self._records: list[tuple[int, RunRecord]] = []
        self._cells: dict[tuple[str, int], dict[int, RunRecord | None]] = {}
        for cell in plan["cells"]:
            record = store.read(cell["key"])
            by_seed = self._cells.setdefault((cell["row"], cell["condition"]), {})
            by_seed[cell["seed"]] = record
            if record is not None:
                self._records.append((cell["condition"], record))

        # The code hash of today by method, model and dataset.
        self._hashes: dict[tuple[str, str, str], str] = {}

    # ---- Records --------------------------------------------------------------------------------

    def records_of(self, row: str, condition: int) -> list[RunRecord]:
        """Return the records of one cell, in the order of the plan."""
        by_seed = self._cells.get((row, condition), {})
        return [record for record in by_seed.values() if record is not None]

    def records_under(self, condition: int) -> list[RunRecord]:
        """Return the records of all rows under one condition."""
        return [record for place, record in self._records if place == condition]

    def all_records(self) -> list[RunRecord]:
        """Return every record of the plan."""
        return [record for _, record in self._records]

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
        failed = 0
        for seed, record in by_seed.items():
            if record is None:
                continue
            # A run that diverged has no value, so no mean contains it, and the cell must say so.
            value = record.metrics.get(key)
            if record.status != "done":
                failed += 1
            elif value is not None:
                values[seed] = value

        records = self.records_of(row, condition)
        marks = ""
        if any(self._is_stale(record) for record in records):
            marks += STALE
        if len(set(map(hardware_kind, records))) > 1:
            marks += MIXED
        return Cell(len(by_seed), values, failed, marks)

    def difference(
        self, row: str, reference: str, condition: int, metric: str = "last"
    ) -> Difference | None:
        """Return `row` minus `reference`, marked where their runs are of several hardware kinds."""
        found = difference(
            self.cell(row, condition, metric), self.cell(reference, condition, metric)
        )
        records = self.records_of(row, condition) + self.records_of(reference, condition)
        if found is not None and len(set(map(hardware_kind, records))) > 1:
            return replace(found, marks=MIXED)
        return found

    def differences(self, reference: str, condition: int) -> dict[str, Difference]:
        """Return each other row minus `reference`, with p-values after Holm over the rows."""
        found = {}
        for row in self.rows:
            if row.name == reference:
                continue
            delta = self.difference(row.name, reference, condition)
            if delta is not None:
                found[row.name] = delta

        # One condition is one family of comparisons. Rows with one seed have no test.
        ps = {name: delta.p for name, delta in found.items() if delta.p is not None}
        adjusted = dict(zip(ps, statistics.holm(list(ps.values())), strict=True))
        return {name: replace(delta, p=adjusted.get(name)) for name, delta in found.items()}

    def _is_stale(self, record: RunRecord) -> bool:
        """Return whether the code that the record's numbers depend on is another one today."""
        spec = record.spec
        file = self._methods.get(spec["method"])
        if file is None:
            # A method of a folder that the command line did not name cannot be compared.
            return False

        model, dataset = spec["protocol"]["model"], spec["dataset"]
        key = (spec["method"], model, dataset)
        if key not in self._hashes:
            try:
                self._hashes[key] = code_hash.code_hash(file.path, model, dataset)
            except SuiteError:
                # The model does not exist any more.
                self._hashes[key] = ""
        return record.code != self._hashes[key]


def hardware_kind(record: RunRecord) -> tuple[str, str]:
    """Return device class and precision. Runs that differ in them are not compared unmarked."""
    return record.environment["device"], record.environment["precision"]
