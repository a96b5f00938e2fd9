"""Records -> mean±std and paired differences, as Markdown, CSV or LaTeX. Reads plan and records only, without torch."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from nlbench import registry
from nlbench.errors import SuiteError, did_you_mean
from nlbench.results.cells import Results
from nlbench.results.csv_table import csv_text
from nlbench.results.formats import Format, escaped, latex, markdown
from nlbench.results.metrics import DETAILS, METRICS, check_metric
from nlbench.results.published import comparable
from nlbench.results.published import records as numbers
from nlbench.results.with_published import beside_published

if TYPE_CHECKING:
    from nlbench.results.store import Store


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
        return csv_text(results, reference, published)
    write = markdown if fmt == "md" else latex
    pm = "±" if fmt == "md" else "$\\pm$"
    conditions = range(len(results.conditions))
    blocks = []
    if published:
        for c in conditions:
            heads, rows, notes = beside_published(results, c, metric, details, pm)
            title = _title(plan, f"{results.conditions[c]}; test accuracy beside published numbers")
            blocks.append(write(title, heads, rows, escaped(notes, fmt)))
    elif metric is not None or (len(conditions) > 1 and not details):
        heads, rows = _wide(results, metric or "last", pm)
        blocks.append(write(_title(plan, METRICS[metric or "last"].meaning), heads, rows, _notes(results, fmt, None)))
        if metric is None and reference is not None and len(results.rows) > 1:
            heads, rows = _wide_differences(results, reference, pm)
            note = escaped(["p of paired t tests, after Holm within each column."], fmt)
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
    metrics = [m for m in (metric.name for metric in DETAILS) if results.has(m) and (m != "top5" or files)] or ["last"]
    heads = ["method", *(METRICS[m].heading for m in metrics)]
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
    return escaped(notes, fmt)


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
        noise = f"{r.noise} {comparable.definition(r)}".rstrip()
        head = [method, r.name("dataset"), noise, r.name("model")]
        rule = numbers.SELECTIONS[r.selection] + (", top-5" if r.metric == "top5" else "")
        rows.append([*head, rule, r.text(), str(r.seeds or "-"), f"[{keyed[r.table, r.source]}]"])
    heads = ["method", "dataset", "noise", "network", "epoch", "accuracy", "runs", "source"]
    title = f"Published numbers: {len(records)}, test accuracy in %, mean±std as printed"
    return markdown(title, heads, rows, [f"[{i}] {line}" for i, line in enumerate(numbers.sources(records), 1)])
