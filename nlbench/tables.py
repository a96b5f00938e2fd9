"""Records -> mean±std and paired differences, as Markdown, CSV or LaTeX. Reads plan and records only, without torch."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from nlbench import code, registry
from nlbench import published as numbers
from nlbench.errors import SuiteError, did_you_mean

if TYPE_CHECKING:
    from nlbench.records import RunRecord, Store

Format = Literal["md", "csv", "latex"]

# name on the command line -> (key in a record's metrics, head of its column, what it is)
METRICS = {
    "last": ("last", "last epoch", "test accuracy after the last epoch"),
    "last10": ("last10", "last 10 epochs", "test accuracy, mean of the last ten epochs"),
    "best": ("best", "best (oracle)", "test accuracy at the epoch that is best on the test set, an oracle"),
    "selected": ("selected", "selected", "test accuracy at the epoch that noisy validation labels select"),
    "top5": ("last_top5", "top-5", "top-5 test accuracy after the last epoch"),
    "memorised": ("final_wrong_memorised", "memorised", "wrongly labelled training examples predicted as labelled"),
    "clean-right": ("final_clean_right", "clean right", "correctly labelled training examples predicted right"),
    "targets": ("target_accuracy", "targets right", "target memories whose argmax is the clean label"),
    "selected-clean": (
        "selected_clean",
        "selected on clean val",
        "test accuracy at the epoch that clean labels select",
    ),
    "ilsvrc12": ("ilsvrc12_last", "ILSVRC12", "accuracy on the ILSVRC12 validation images after the last epoch"),
    "ilsvrc12-top5": ("ilsvrc12_last_top5", "ILSVRC12 top-5", "top-5 accuracy on them after the last epoch"),
    "single": ("single_mean", "single network", "test accuracy of the networks one by one, their mean"),
}
_DETAILS = (
    "last", "top5", "last10", "best", "selected", "selected-clean", "ilsvrc12", "ilsvrc12-top5", "single",
    "clean-right", "memorised",
)  # fmt: skip


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
    return Difference(mean, std, len(deltas), _paired_p(mean, std, len(deltas)))


def _paired_p(mean: float, std: float, n: int) -> float:
    from scipy.special import stdtr  # Student's t, without the rest of scipy.stats

    if std == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjustment (Scandinavian Journal of Statistics, 1979) of the p values of several comparisons."""
    adjusted = [0.0] * len(ps)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = running
    return adjusted


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
        key = METRICS[metric][0]
        for (name, c, seed), record in self.records.items():
            if (name, c) != (row, condition) or record is None:
                continue
            if record.status != "done":
                cell.failed += 1
            elif record.metrics.get(key) is not None:
                cell.values[seed] = record.metrics[key]
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
            return record.code != code.code_hash(file.path, record.spec["protocol"]["model"])
        except SuiteError:  # the model is gone
            return True

    def has(self, metric: str) -> bool:
        return any(r and r.metrics.get(METRICS[metric][0]) is not None for r in self.records.values())

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


def choose_reference(results: Results, against: str | None) -> str | None:
    """The row differences are taken to: `against`, else ce where it is there, else none. Raises SuiteError."""
    names = [row["row"] for row in results.rows]
    if against is None:
        return "ce" if "ce" in names else None
    if against not in names:
        raise SuiteError(
            f"--against {against}: no such row. There are: {', '.join(names)}.{did_you_mean(against, names)}"
        )
    return against


def check_metric(metric: str) -> None:
    """Raises SuiteError for a metric that is none of METRICS."""
    if metric not in METRICS:
        raise SuiteError(f"--metric {metric}: unknown. There are: {', '.join(METRICS)}.{did_you_mean(metric, METRICS)}")


def render(
    plan: Mapping[str, Any],
    store: Store,
    *,
    fmt: Format = "md",
    metric: str | None = None,
    against: str | None = None,
    details: bool = False,
    published: bool = False,
    methods: Mapping[str, registry.MethodFile] | None = None,
) -> str:
    """The table of a plan.

    With one condition its details; with several a column for each, and their paired differences. A `metric` gives that
    one alone, `details` every metric, a table for each condition. `published` gives a table for each condition with the
    published numbers beside the measured ones.

    Args:
        methods: the files that records are compared with to mark stale ones; the shipped and installed by default.
    Raises: SuiteError for an unknown metric or reference row.
    """
    if metric is not None:
        check_metric(metric)
    results = Results(plan, store, registry.method_files() if methods is None else methods)
    reference = choose_reference(results, against)
    if fmt == "csv":
        return _csv(results, reference, published)
    write = markdown if fmt == "md" else _latex
    pm = "±" if fmt == "md" else "$\\pm$"
    conditions = range(len(results.conditions))
    blocks = []
    if published:
        for c in conditions:
            heads, rows, notes = _beside_published(results, c, metric, details, pm)
            title = _title(plan, f"{results.conditions[c]}; test accuracy beside published numbers")
            blocks.append(write(title, heads, rows, _escaped(notes, fmt)))
    elif metric is not None or (len(conditions) > 1 and not details):
        heads, rows = _wide(results, metric or "last", pm)
        blocks.append(write(_title(plan, METRICS[metric or "last"][2]), heads, rows, _notes(results, fmt, None)))
        if metric is None and reference is not None and len(results.rows) > 1:
            heads, rows = _wide_differences(results, reference, pm)
            note = _escaped(["p of paired t tests, after Holm within each column."], fmt)
            blocks.append(write(_title(plan, f"last epoch, minus {reference}, paired over seeds"), heads, rows, note))
    else:
        for c in conditions:
            heads, rows = _details(results, c, reference, pm)
            title = _title(plan, f"{results.conditions[c]}; test accuracy")
            blocks.append(write(title, heads, rows, _notes(results, fmt, c, reference)))
    return "\n".join(blocks)


def _title(plan: Mapping[str, Any], subject: str) -> str:
    seeds = len(plan["seeds"])
    return (
        f"{plan['suite']}: {subject} in %, mean±sample std over {seeds} seed{'s' if seeds > 1 else ''}; "
        f"protocol {plan['protocol']}, track {plan['track']}"
    )


def _wide(results: Results, metric: str, pm: str) -> tuple[list[str], list[list[str]]]:
    """A column for each condition."""
    rows = []
    for row in results.rows:
        cells = [results.cell(row["row"], c, metric).text(pm) for c in range(len(results.conditions))]
        rows.append([results.label(row), *cells, str(row["networks"])])
    return ["method", *results.conditions, "nets"], rows


def _wide_differences(results: Results, reference: str, pm: str) -> tuple[list[str], list[list[str]]]:
    columns = [results.differences(reference, c) for c in range(len(results.conditions))]
    rows = [
        [results.label(row), *(column[row["row"]].text(pm) if row["row"] in column else "-" for column in columns)]
        for row in results.rows
        if row["row"] != reference
    ]
    return ["method", *results.conditions], rows


def _details(results: Results, condition: int, reference: str | None, pm: str) -> tuple[list[str], list[list[str]]]:
    files = any(r.spec["protocol"].get("crop") for row in results.rows for r in results.of(row["row"], condition))
    metrics = [m for m in _DETAILS if results.has(m) and (m != "top5" or files)] or ["last"]
    heads = ["method", *(METRICS[m][1] for m in metrics)]
    differences = results.differences(reference, condition) if reference is not None else {}
    heads += [f"last, minus {reference}"] if reference is not None else []
    heads += ["nets", "passes"]
    rows = []
    for row in results.rows:
        name = row["row"]
        line = [results.label(row), *(results.cell(name, condition, m).text(pm) for m in metrics)]
        if reference is not None:
            line.append(differences[name].text(pm) if name in differences else "")
        passes = [r.method["forward_passes"] for r in results.of(name, condition) if r.status == "done"]
        line += [str(row["networks"]), f"{statistics.fmean(passes):.3g}" if passes else "-"]
        rows.append(line)
    return heads, rows


def _notes(results: Results, fmt: Format, condition: int | None, reference: str | None = None) -> list[str]:
    chosen: Iterable[int] = range(len(results.conditions)) if condition is None else [condition]
    notes = [note for c in chosen for note in results.notes(c)]
    if condition is not None:
        shares = (
            "clean right, memorised: of the correctly and of the wrongly labelled training examples, the share "
            "predicted as labelled at the end, without augmentation. "
        )
        known = results.has("clean-right") or results.has("memorised")
        notes.append(
            f"{shares if known else ''}nets: networks. passes: forward passes for each training example and epoch, "
            f"helper networks apart."
        )
        if results.has("best"):
            notes.append("best (oracle) is chosen on the test set and says what a method could have reached.")
        if reference is not None:
            notes.append("minus: paired over seeds, mean±std of the differences, p of a paired t test after Holm.")
    notes = list(dict.fromkeys([*notes, *results.plan.get("notes", []), *results.marks()]))
    return _escaped(notes, fmt)


@dataclass
class _Keys:
    """Short keys for what stands in the notes below a table: the n-th new text gets the n-th key."""

    keys: Sequence[str]
    texts: list[str] = field(default_factory=list)

    def of(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        place = self.texts.index(text)
        return self.keys[place] if place < len(self.keys) else f"{self.keys[-1]}{place}"


@dataclass(frozen=True)
class Beside:
    """A measured cell and the published numbers that come nearest to it.

    Attributes:
        differences: a measured minus a published mean with its test, or why there is none, per record.
        further: how many more records there are of this method and metric.
        marks: of the measured cell, and of runs that its mean leaves out or whose images are a copy.
    """

    records: list[numbers.Published]
    differences: list[numbers.Welch | list[str]]
    further: int
    marks: str = ""


def beside(results: Results, row: Mapping[str, Any], condition: int, reported: numbers.Reported) -> Beside:
    """Published numbers of what is `reported`; see published.MEASURES."""
    name = row["row"]
    setting, own = _setting(results, row, condition), results.of(name, condition)
    measure, selection, test_set = reported
    known = setting.records(test_set) if setting else []
    records = [r for r in known if (r.metric, r.selection) == (measure, selection)]
    if not setting or not records:
        return Beside([], [], 0)
    metric = next((m for m, what in numbers.MEASURES.items() if what == reported), None)
    cell = results.cell(name, condition, metric) if metric else Cell(0)
    nearest = numbers.nearest(records, setting)
    differences: list[numbers.Welch | list[str]] = []
    for record in nearest:
        against = [reason for part in setting.differences(record) for reason in part]
        if cell.mean is None or against:
            differences.append(against if cell.mean is not None else [])
        else:
            std = None if cell.std is None else 100 * cell.std
            differences.append(numbers.welch(100 * cell.mean, std, len(cell.values), record))
    copies = "†" if any(r.noise.get("variant") for r in own) else ""
    marks = cell.marks + copies + ("!" if cell.failed else "")
    return Beside(nearest, differences, len(records) - len(nearest), marks)


def _setting(results: Results, row: Mapping[str, Any], condition: int) -> numbers.Setting | None:
    """What a cell was trained on, from its records; of a cell without any, from another row's of the same condition."""
    if own := results.of(row["row"], condition):
        return numbers.Setting.of(own[0].spec, next((r.noise for r in own if r.noise), {}))
    others = [r for (_, c, _), r in results.records.items() if c == condition and r]
    if not others:
        return None
    setting = numbers.Setting.of(others[0].spec, next((r.noise for r in others if r.noise), {}))
    return replace(setting, method=row["method"], params={})


# What sources report and no measured column follows: an epoch they do not state, the best one of another measure.
_NOT_MEASURED: list[numbers.Reported] = [
    ("top1", "", ""), ("top5", "", ""), ("top5", "best", ""), ("top1", "", "ilsvrc12"), ("top5", "", "ilsvrc12"),
    ("top1", "best", "ilsvrc12"), ("top5", "best", "ilsvrc12"),
]  # fmt: skip


def _unmeasured(results: Results, row: Mapping[str, Any], condition: int) -> Beside:
    cells = [beside(results, row, condition, reported) for reported in _NOT_MEASURED]
    records = [record for cell in cells for record in cell.records]
    return Beside(records, [[] for _ in records], sum(cell.further for cell in cells))


def _of_what(record: numbers.Published) -> str:
    """What tells numbers of one column apart that are not of one measure."""
    return " top-5" * (record.metric == "top5") + " on ILSVRC12" * (record.dataset == "ilsvrc12")


def _beside_published(
    results: Results, condition: int, metric: str | None, details: bool, pm: str
) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows and notes: beside each measured column the published one of its selection rule, and the rest."""
    found: dict[tuple[str, str], Beside] = {}
    for row in results.rows:
        for name, what in numbers.MEASURES.items():
            found[row["row"], name] = beside(results, row, condition, what)
        found[row["row"], ""] = _unmeasured(results, row, condition)
    known = {name for (_, name), cell in found.items() if cell.records}
    if metric is not None:
        shown = [metric]
    else:
        shown = [m for m in numbers.MEASURES if m == "last" or ((details or m in known) and results.has(m))]
    records = [r for (_, name), cell in found.items() if name in (*shown, "") for r in cell.records]
    keyed = {line: i for i, line in enumerate(dict.fromkeys((r.table, r.source) for r in records), 1)}
    reasons = _Keys("abcdefghijklmnopqrstuvwxyz")

    def key(record: numbers.Published) -> str:
        return f"[{keyed[record.table, record.source]}]"

    heads, columns = ["method"], [[results.label(row) for row in results.rows]]
    for name in shown:
        heads.append(METRICS[name][1])
        columns.append([results.cell(row["row"], condition, name).text(pm) for row in results.rows])
        if name in known:
            heads += ["published", "minus published"]
            cells = [found[row["row"], name] for row in results.rows]
            columns.append(["; ".join(f"{r.text(pm)} {key(r)}" for r in cell.records) or "-" for cell in cells])
            columns.append([_minus(cell, key, reasons) for cell in cells])
    if "" in known:
        heads.append("published, by another or no stated rule")
        cells = [found[row["row"], ""] for row in results.rows]
        columns.append(
            ["; ".join(f"{r.text(pm)}{_of_what(r)} {key(r)}" for r in cell.records) or "-" for cell in cells]
        )
    heads.append("nets")
    columns.append([str(row["networks"]) for row in results.rows])
    notes = [*results.notes(condition), *_published_notes(records, list(found.values()), reasons)]
    if "best" in shown:
        notes.append("best (oracle) is chosen on the test set and says what a method could have reached.")
    notes += [*results.plan.get("notes", []), *results.marks()]
    return heads, [list(line) for line in zip(*columns, strict=True)], list(dict.fromkeys(notes))


def _minus(cell: Beside, key: Callable[[numbers.Published], str], reasons: _Keys) -> str:
    parts = []
    for found in cell.differences:
        if isinstance(found, numbers.Welch):
            test = "not testable" if found.p is None else f"p {format_p(found.p)}"
            parts.append(f"{found.difference:+.2f}{cell.marks} ({test})")
        else:
            parts.append(",".join(sorted(map(reasons.of, found))))
    if len(set(parts)) < 2:
        return "".join(parts[:1])
    return "; ".join(f"{part} {key(record)}" for part, record in zip(parts, cell.records, strict=True))


def _published_notes(records: list[numbers.Published], cells: list[Beside], reasons: _Keys) -> list[str]:
    if not records:
        return ["No published number is known of these methods on this data."]
    notes = [f"[{i}] {line}" for i, line in enumerate(numbers.sources(records), 1)]
    notes.append(
        "published: as the source prints it, of the epoch that the column before it is of; of several the nearest. "
        "Hyperparameters of a method may differ."
    )
    found = [difference for cell in cells for difference in cell.differences]
    if any(isinstance(difference, numbers.Welch) for difference in found):
        notes.append(
            "minus published: in points; p of Welch's t test, two-sided, unadjusted; not testable: a std or the number "
            "of runs is not known, or there is one run."
        )
    if reasons.texts:
        listed = "; ".join(f"({reasons.of(text)}) {text}" for text in reasons.texts)
        notes.append(f"A letter says why no difference is taken: {listed}.")
    if any("†" in cell.marks and isinstance(d, numbers.Welch) for cell in cells for d in cell.differences):
        notes.append("† measured on a copy of the images, not on the official pixels.")
    if any(record.table == "CIFAR-N Table 2" for cell in cells for record in cell.records):
        notes += numbers.CIFARN_WARNINGS
    if further := sum(cell.further + len(cell.records) for cell in cells) - len(records):
        notes.append(f"Published numbers that are further away and not shown: {further}; `nlbench published` has them.")
    return notes


def _escaped(notes: list[str], fmt: Format) -> list[str]:
    return [note.replace("%", "\\%").replace("±", "$\\pm$") for note in notes] if fmt == "latex" else notes


def listing(records: Sequence[numbers.Published], fmt: Literal["md", "csv"] = "md") -> str:
    """Published numbers as they are: a line each, the sources below; as CSV every field, under the sources' own ids."""
    if fmt == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [f.name for f in fields(numbers.Published)]
        writer.writerow(names)
        writer.writerows([getattr(record, name) for name in names] for record in records)
        return text.getvalue()
    keyed = {line: i for i, line in enumerate(dict.fromkeys((r.table, r.source) for r in records), 1)}
    rows = []
    for r in records:
        method = f"{r.name('method')} ({r.variant})" if r.variant else r.name("method")
        noise = f"{r.noise} {numbers.definition(r)}".rstrip()
        head = [method, r.name("dataset"), noise, r.name("model")]
        rule = numbers.SELECTIONS[r.selection] + (", top-5" if r.metric == "top5" else "")
        rows.append([*head, rule, r.text(), str(r.seeds or "-"), f"[{keyed[r.table, r.source]}]"])
    heads = ["method", "dataset", "noise", "network", "epoch", "accuracy", "runs", "source"]
    title = f"Published numbers: {len(records)}, test accuracy in %, mean±std as printed"
    return markdown(title, heads, rows, [f"[{i}] {line}" for i, line in enumerate(numbers.sources(records), 1)])


def markdown(title: str, heads: list[str], rows: list[list[str]], notes: list[str]) -> str:
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([f"**{title}**", "", line(heads), rule, *map(line, rows), "", *(f"- {n}" for n in notes), ""])


def _latex(title: str, heads: list[str], rows: list[list[str]], notes: list[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            f"% {title}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            line(heads),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {note}" for note in notes),
            "",
        ]
    )


def _escape(text: str) -> str:
    for char, safe in {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "‡": r"$\ddagger$",
        "†": r"$\dagger$",
        "<": "$<$",
    }.items():
        text = text.replace(char, safe)
    return text


_CSV_PUBLISHED = [
    "published",
    "published_std",
    "published_n",
    "published_from",
    "minus_published",
    "se",
    "df",
    "p_welch",
    "why_not_or_marks",
    "also_published",
]


def _csv(results: Results, reference: str | None, published: bool = False) -> str:
    """A line per row, condition and metric; numbers are fractions in [0, 1], unrounded; p is unadjusted.

    With `published` the nearest published number of each, and lines of the metric `unstated` for numbers whose source
    names no rule, or one that is not measured here.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [
        "suite",
        "condition",
        "row",
        "method",
        "told",
        "metric",
        "mean",
        "std",
        "n",
        "planned",
        "failed",
        "networks",
    ]
    head += ["reference", "difference", "difference_std", "p_unadjusted", "marks"]
    writer.writerow(head + _CSV_PUBLISHED if published else head)
    for c, condition in enumerate(results.conditions):
        for metric in (m for m in METRICS if results.has(m)):
            for row in results.rows:
                cell = results.cell(row["row"], c, metric)
                own = [results.plan["suite"], condition, row["row"], row["method"], " ".join(row["told"]), metric]
                delta = results.difference(row["row"], reference, c, metric) if reference else None
                delta = None if row["row"] == reference else delta
                compared = [reference, delta.mean, delta.std, delta.p] if delta else ["", "", "", ""]
                values = [cell.mean, cell.std, len(cell.values), cell.planned, cell.failed, row["networks"]]
                more = _csv_published(results, row, c, metric) if published else []
                writer.writerow([*own, *values, *compared, cell.marks, *more])
        for row in results.rows if published else ():
            if any(more := _csv_published(results, row, c, "unstated")):
                own = [results.plan["suite"], condition, row["row"], row["method"], " ".join(row["told"]), "unstated"]
                empty = [""] * (len(head) - len(own))
                writer.writerow([*own, *empty, *more])
    return text.getvalue()


def _csv_published(results: Results, row: Mapping[str, Any], condition: int, metric: str) -> list[Any]:
    reported = ("top1", "", "") if metric == "unstated" else numbers.MEASURES.get(metric, ("", "", ""))
    cell = beside(results, row, condition, reported)
    if not cell.records:
        return [""] * len(_CSV_PUBLISHED)
    first, found = cell.records[0], cell.differences[0]
    tested: list[Any] = ["", "", "", ""]
    if isinstance(found, numbers.Welch):
        tested = [found.difference / 100, None if found.se is None else found.se / 100, found.df, found.p]
    std = None if first.std is None else round(first.std / 100, 9)  # as printed, without what binary fractions add
    why = "; ".join(found) if isinstance(found, list) else cell.marks
    also = "; ".join(f"{r.text()} {r.table}" for r in cell.records[1:])
    return [round(first.mean / 100, 9), std, first.seeds, f"{first.table}: {first.source}", *tested, why, also]
