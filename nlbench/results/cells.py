"""Cells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nlbench import code_hash, registry
from nlbench.errors import SuiteError
from nlbench.results.metrics import METRICS
from nlbench.results.statistics import holm, paired_p

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord
    from nlbench.results.store import Store


@dataclass
class Cell:
    """One row of the table under one condition: a value per seed."""

    planned: int
    values: dict[int, float] = field(default_factory=dict)
    failed: int = 0  # diverged ones too
    marks: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds (ddof 1); None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def text(self, plus_minus: str = "±") -> str:
        """Percent. `-` where nothing is there, `!` with how many where runs failed; n/planned where seeds lack."""
        if self.mean is None:
            return (f"!{self.failed}" if self.failed else "-") + self.marks
        text = f"{100 * self.mean:.2f}"
        if self.std is not None:
            text += f"{plus_minus}{100 * self.std:.2f}"
        short = [f"{len(self.values)}/{self.planned}"] if len(self.values) < self.planned else []
        short += [f"!{self.failed}"] if self.failed else []
        return text + (f" ({', '.join(short)})" if short else "") + self.marks


@dataclass(frozen=True)
class Difference:
    """A row minus the reference, seed by seed: the same seed means the same data, weights, order and draws."""

    mean: float
    std: float | None
    n: int
    p: float | None  # two-sided paired t test
    marks: str = ""

    def text(self, plus_minus: str = "±") -> str:
        text = f"{100 * self.mean:+.2f}"
        if self.std is not None:
            text += f"{plus_minus}{100 * self.std:.2f}"
        return (text if self.p is None else f"{text} (p {format_p(self.p)})") + self.marks


def format_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def difference(cell: Cell, reference: Cell) -> Difference | None:
    """Over the seeds both have; None when there is none."""
    deltas = [cell.values[s] - reference.values[s] for s in cell.values if s in reference.values]
    if not deltas:
        return None
    mean = statistics.fmean(deltas)
    if len(deltas) < 2:
        return Difference(mean, None, 1, None)
    std = statistics.stdev(deltas)
    return Difference(mean, std, len(deltas), paired_p(mean, std, len(deltas)))


class Results:
    """A plan and the records it names, read once."""

    def __init__(self, plan: Mapping[str, Any], store: Store, methods: Mapping[str, registry.MethodFile]):
        self.plan, self._methods = plan, methods
        self.rows: list[dict[str, Any]] = plan["rows"]
        self.conditions: list[str] = plan["conditions"]
        self.records: dict[tuple[str, int, int], RunRecord | None] = {}
        self.planned: dict[tuple[str, int], int] = {}
        for cell in plan["cells"]:
            where = cell["row"], cell["condition"]
            self.records[(*where, cell["seed"])] = store.read(cell["key"])
            self.planned[where] = self.planned.get(where, 0) + 1

    @staticmethod
    def _kind(record: RunRecord) -> tuple[str, str]:
        return record.environment["device"], record.environment["precision"]

    def of(self, row: str, condition: int) -> list[RunRecord]:
        return [r for (name, c, _), r in self.records.items() if (name, c) == (row, condition) and r]

    def cell(self, row: str, condition: int, metric: str) -> Cell:
        """The values of one metric (a name of METRICS)."""
        cell = Cell(self.planned.get((row, condition), 0))
        key = METRICS[metric].key
        for (name, c, seed), record in self.records.items():
            if (name, c) != (row, condition) or record is None:
                continue
            if record.status != "done":
                cell.failed += 1
            elif (value := record.metrics.get(key)) is not None:
                cell.values[seed] = value
        records = self.of(row, condition)
        if any(self._stale(record) for record in records):
            cell.marks += "*"
        if len({self._kind(record) for record in records}) > 1:
            cell.marks += "‡"
        return cell

    def difference(self, row: str, reference: str, condition: int, metric: str = "last") -> Difference | None:
        """`row` minus `reference`, paired; marked where their runs differ in precision or device class."""
        found = difference(self.cell(row, condition, metric), self.cell(reference, condition, metric))
        kinds = {self._kind(record) for name in (row, reference) for record in self.of(name, condition)}
        return replace(found, marks="‡") if found and len(kinds) > 1 else found

    def differences(self, reference: str, condition: int) -> dict[str, Difference]:
        """Every other row minus `reference`, with Holm's p over the rows."""
        names = [row["row"] for row in self.rows if row["row"] != reference]
        found = {name: d for name in names if (d := self.difference(name, reference, condition))}
        tested = [name for name, d in found.items() if d.p is not None]
        adjusted = dict(zip(tested, holm([found[name].p or 0.0 for name in tested]), strict=True))
        return {name: replace(d, p=adjusted.get(name)) for name, d in found.items()}

    def _stale(self, record: RunRecord) -> bool:
        file = self._methods.get(record.spec["method"])
        if file is None:  # a method of a folder that was not named here cannot be compared
            return False
        try:
            model, dataset = record.spec["protocol"]["model"], record.spec["dataset"]
            return record.code != code_hash.code_hash(file.path, model, dataset)
        except SuiteError:  # the model is gone
            return True

    def has(self, metric: str) -> bool:
        return any(r and r.metrics.get(METRICS[metric].key) is not None for r in self.records.values())

    def label(self, row: Mapping[str, Any]) -> str:
        told = f" [told {', '.join(row['told'])}]" if row["told"] else ""
        return row["row"] + told

    def notes(self, condition: int) -> list[str]:
        """What was measured of the data, and what a reader must know of the cells."""
        records = [r for (_, c, _), r in self.records.items() if c == condition and r and r.noise]
        notes = []
        if records:
            rates = [r.noise["noise_rate_train"] for r in records]
            full = [r.noise["noise_rate_full"] for r in records]
            wrong = "how many of the training labels are wrong is unknown, for nobody has the true ones"
            if None not in (*rates, *full):
                drawn = "redrawn for each seed" if records[0].noise["redrawn"] else "the same for all seeds"
                wrong = f"{_range(rates)} of the training labels are wrong as measured "
                wrong += f"({_range(full)} of all labels), {drawn}"
            sizes = {(r.noise["num_train"], r.noise["num_val"], r.noise["num_test"]) for r in records}
            parts = "; ".join(
                f"{train} training" + (f", {val} validation" if val else "") + f", {test} test examples"
                for train, val, test in sorted(sizes)
            )
            notes.append(f"{self.conditions[condition]}: {wrong}; {parts}.")
            estimates = {r.noise["estimated_rate"] for r in records if r.noise.get("estimated_rate")}
            if estimates and any("noise_rate" in row["told"] for row in self.rows):
                given = ", ".join(f"{100 * rate:g}%" for rate in sorted(estimates))
                notes.append(f"told noise_rate: a published estimate, {given}, and not a measurement.")
            if any(r.metrics.get("selected_clean") is not None for r in records):
                notes.append("selected on clean val: at the epoch that true labels of a validation set choose.")
            if variants := {r.noise["variant"] for r in records if r.noise.get("variant")}:
                notes.append(
                    f"The images are a {', '.join(sorted(variants))} copy, not the official pixels: "
                    f"not comparable to the last decimal with numbers from those."
                )
        return notes

    def marks(self) -> list[str]:
        notes = []
        cells = [self.cell(row["row"], c, "last") for row in self.rows for c in range(len(self.conditions))]
        records = [record for record in self.records.values() if record]
        if own := dict.fromkeys(r.spec["method"] for r in records if r.method.get("own_optimisers")):
            notes.append(f"An optimiser of its own in place of the protocol's: {', '.join(own)}.")
        if any("*" in cell.marks for cell in cells):
            notes.append("* made by code that has changed since; `nlbench run --stale rerun` redoes it.")
        kinds = {self._kind(record) for record in self.records.values() if record}
        if len(kinds) > 1:
            notes.append("‡ holds, or compares, runs of different precision or device class.")
        if any(cell.failed for cell in cells):
            notes.append("! runs that failed or diverged; they are in no average.")
        if any(len(cell.values) < cell.planned for cell in cells):
            notes.append("(n/m) n of m seeds; - none yet.")
        return notes


def _range(values: Sequence[float]) -> str:
    low, high = f"{100 * min(values):.2f}%", f"{100 * max(values):.2f}%"
    return low if low == high else f"{low} to {high}"


@dataclass
class Keys:
    """Short keys for what stands in the notes below a table: the n-th new text gets the n-th key."""

    keys: Sequence[str]
    texts: list[str] = field(default_factory=list)

    def of(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        place = self.texts.index(text)
        return self.keys[place] if place < len(self.keys) else f"{self.keys[-1]}{place}"
