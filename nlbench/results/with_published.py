"""With published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nlbench.results import statistics
from nlbench.results.cells import Cell, Keys, Results, format_p
from nlbench.results.metrics import MEASURES, METRICS, Reported
from nlbench.results.published import comparable
from nlbench.results.published import records as numbers


@dataclass(frozen=True)
class Beside:
    """A measured cell and the published numbers that come nearest to it.

    Attributes:
        differences: a measured minus a published mean with its test, or why there is none, per record.
        further: how many more records there are of this method and metric.
        marks: of the measured cell, and of runs that its mean leaves out or whose images are a copy.
    """

    records: list[numbers.Published]
    differences: list[statistics.Welch | list[str]]
    further: int
    marks: str = ""


def beside(results: Results, row: Mapping[str, Any], condition: int, reported: Reported) -> Beside:
    """Published numbers of what is `reported`; see published.MEASURES."""
    name = row["row"]
    setting, own = _setting(results, row, condition), results.of(name, condition)
    measure, selection, test_set = reported
    known = setting.records(test_set) if setting else []
    records = [r for r in known if (r.metric, r.selection) == (measure, selection)]
    if not setting or not records:
        return Beside([], [], 0)
    metric = next((m for m, what in MEASURES.items() if what == reported), None)
    cell = results.cell(name, condition, metric) if metric else Cell(0)
    nearest = comparable.nearest(records, setting)
    differences: list[statistics.Welch | list[str]] = []
    for record in nearest:
        against = [reason for part in setting.differences(record) for reason in part]
        if cell.mean is None or against:
            differences.append(against if cell.mean is not None else [])
        else:
            std = None if cell.std is None else 100 * cell.std
            differences.append(statistics.welch(100 * cell.mean, std, len(cell.values), record))
    copies = "†" if any(r.noise.get("variant") for r in own) else ""
    marks = cell.marks + copies + ("!" if cell.failed else "")
    return Beside(nearest, differences, len(records) - len(nearest), marks)


def _setting(results: Results, row: Mapping[str, Any], condition: int) -> comparable.Setting | None:
    """What a cell was trained on, from its records; of a cell without any, from another row's of the same condition."""
    if own := results.of(row["row"], condition):
        return comparable.Setting.of(own[0].spec, next((r.noise for r in own if r.noise), {}))
    others = [r for (_, c, _), r in results.records.items() if c == condition and r]
    if not others:
        return None
    setting = comparable.Setting.of(others[0].spec, next((r.noise for r in others if r.noise), {}))
    return replace(setting, method=row["method"], params={})


# What sources report and no measured column follows: an epoch they do not state, the best one of another measure.
_NOT_MEASURED = [
    Reported("top1", ""),
    Reported("top5", ""),
    Reported("top5", "best"),
    Reported("top1", "", "ilsvrc12"),
    Reported("top5", "", "ilsvrc12"),
    Reported("top1", "best", "ilsvrc12"),
    Reported("top5", "best", "ilsvrc12"),
]


def _unmeasured(results: Results, row: Mapping[str, Any], condition: int) -> Beside:
    cells = [beside(results, row, condition, reported) for reported in _NOT_MEASURED]
    records = [record for cell in cells for record in cell.records]
    return Beside(records, [[] for _ in records], sum(cell.further for cell in cells))


def _of_what(record: numbers.Published) -> str:
    """What tells numbers of one column apart that are not of one measure."""
    return " top-5" * (record.metric == "top5") + " on ILSVRC12" * (record.dataset == "ilsvrc12")


def beside_published(
    results: Results, condition: int, metric: str | None, details: bool, pm: str
) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows and notes: beside each measured column the published one of its selection rule, and the rest."""
    found: dict[tuple[str, str], Beside] = {}
    for row in results.rows:
        for name, what in MEASURES.items():
            found[row["row"], name] = beside(results, row, condition, what)
        found[row["row"], ""] = _unmeasured(results, row, condition)
    known = {name for (_, name), cell in found.items() if cell.records}
    if metric is not None:
        shown = [metric]
    else:
        shown = [m for m in MEASURES if m == "last" or ((details or m in known) and results.has(m))]
    records = [r for (_, name), cell in found.items() if name in (*shown, "") for r in cell.records]
    keyed = {line: i for i, line in enumerate(dict.fromkeys((r.table, r.source) for r in records), 1)}
    reasons = Keys("abcdefghijklmnopqrstuvwxyz")

    def key(record: numbers.Published) -> str:
        return f"[{keyed[record.table, record.source]}]"

    heads, columns = ["method"], [[results.label(row) for row in results.rows]]
    for name in shown:
        heads.append(METRICS[name].heading)
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


def _minus(cell: Beside, key: Callable[[numbers.Published], str], reasons: Keys) -> str:
    parts = []
    for found in cell.differences:
        if isinstance(found, statistics.Welch):
            test = "not testable" if found.p is None else f"p {format_p(found.p)}"
            parts.append(f"{found.difference:+.2f}{cell.marks} ({test})")
        else:
            parts.append(",".join(sorted(map(reasons.of, found))))
    if len(set(parts)) < 2:
        return "".join(parts[:1])
    return "; ".join(f"{part} {key(record)}" for part, record in zip(parts, cell.records, strict=True))


def _published_notes(records: list[numbers.Published], cells: list[Beside], reasons: Keys) -> list[str]:
    if not records:
        return ["No published number is known of these methods on this data."]
    notes = [f"[{i}] {line}" for i, line in enumerate(numbers.sources(records), 1)]
    notes.append(
        "published: as the source prints it, of the epoch that the column before it is of; of several the nearest. "
        "Hyperparameters of a method may differ."
    )
    found = [difference for cell in cells for difference in cell.differences]
    if any(isinstance(difference, statistics.Welch) for difference in found):
        notes.append(
            "minus published: in points; p of Welch's t test, two-sided, unadjusted; not testable: a std or the number "
            "of runs is not known, or there is one run."
        )
    if reasons.texts:
        listed = "; ".join(f"({reasons.of(text)}) {text}" for text in reasons.texts)
        notes.append(f"A letter says why no difference is taken: {listed}.")
    if any("†" in cell.marks and isinstance(d, statistics.Welch) for cell in cells for d in cell.differences):
        notes.append("† measured on a copy of the images, not on the official pixels.")
    if any(record.table == "CIFAR-N Table 2" for cell in cells for record in cell.records):
        notes += numbers.CIFARN_WARNINGS
    if further := sum(cell.further + len(cell.records) for cell in cells) - len(records):
        notes.append(f"Published numbers that are further away and not shown: {further}; `nlbench published` has them.")
    return notes
