"""`nlbench table`: the records of a suite as Markdown, LaTeX or CSV.

Reads the plan and the records only. Needs no torch and no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlbench import registry
from nlbench.errors import SuiteError, did_you_mean, look_up
from nlbench.results import csv_table, formats, notes, statistics, with_published
from nlbench.results.cells import Results
from nlbench.results.formats import Format
from nlbench.results.metrics import DETAILS, METRICS, Metric, check_metric

if TYPE_CHECKING:
    from nlbench.results.store import Store

Lines = list[list[str]]


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
    """Return the table of a plan.

    With one condition the table has a column for each metric; with several it has a column for each
    condition, and a second table the paired differences.

    Args:
        metric: a name of METRICS; shows this metric alone.
        against: the row that differences are taken to; `ce` by default.
        details: gives every condition a table of its own, with all metrics.
        published: the same, with published numbers beside the measured ones.
        methods: the files that records are compared with, to mark stale ones; by default those that
            are shipped and installed.

    Raises: SuiteError for an unknown metric or reference row.
    """
    if metric is not None:
        check_metric(metric)
    if methods is None:
        methods = registry.method_files()

    results = Results(plan, store, methods)
    reference = choose_reference(results, against)
    # A program can choose for itself, so the CSV file has all conditions and metrics, whatever the
    # options for the layout say.
    if fmt == "csv":
        return csv_table.render(results, reference, published)

    write = formats.markdown if fmt == "md" else formats.latex
    blocks = []
    if published:
        for condition, name in enumerate(results.conditions):
            headings, lines, below = with_published.render(results, condition, metric, details)
            subject = f"{name}; test accuracy beside published numbers"
            blocks.append(write(_title(results, subject), headings, lines, below))
        return "\n".join(blocks)

    # With one condition there is room for a column of each metric.
    if metric is None and (details or len(results.conditions) == 1):
        for condition, name in enumerate(results.conditions):
            headings, lines = _details(results, condition, reference)
            below = _notes_of_details(results, condition, reference)
            blocks.append(write(_title(results, f"{name}; test accuracy"), headings, lines, below))
        return "\n".join(blocks)

    shown = METRICS[metric or "last"]
    headings, lines = _by_condition(results, shown)
    blocks.append(write(_title(results, shown.meaning), headings, lines, _notes(results)))

    # Differences are taken of the headline, the last epoch, and of no other metric.
    if metric is None and reference is not None and len(results.rows) > 1:
        headings, lines = _differences_by_condition(results, reference)
        below = ["p: paired t test over seeds, Holm-corrected within each column."]
        subject = f"last epoch, minus {reference}, paired over seeds"
        blocks.append(write(_title(results, subject), headings, lines, below))
    return "\n".join(blocks)


def render_suites(store: Store, suite: str | None, *, fmt: Format = "md", **options: Any) -> str:
    """Return the tables of one suite of a store, or of all of them where `suite` is None.

    Args:
        options: those of `render`.
    Raises: StoreError for a store without results, SuiteError for an unknown suite.
    """
    if suite is not None:
        # By its name first: a plan that is damaged must not be called unknown.
        plans = {suite: store.plan(suite) or look_up("suite of this store", suite, store.plans())}
    else:
        plans = store.plans()
        # The tries of a tuned suite are printed only when their name is given, or when nothing else
        # is there.
        plans = {name: plan for name, plan in plans.items() if not plan["tries"]} or plans

    blocks: list[str] = []
    for plan in plans.values():
        block = render(plan, store, fmt=fmt, **options)
        if fmt == "csv" and blocks:
            # All tables share the header of the first one.
            block = block.partition("\n")[2]
        blocks.append(block)

    # The tables of several suites are one CSV, in which an empty line would be a line too many.
    separator = "" if fmt == "csv" else "\n"
    return separator.join(blocks)


def choose_reference(results: Results, against: str | None) -> str | None:
    """Return the row that differences are taken to: `against`, else `ce`, else None.

    Raises: SuiteError for a row that the suite does not have.
    """
    names = [row.name for row in results.rows]
    if against is None:
        return "ce" if "ce" in names else None
    if against not in names:
        raise SuiteError(
            f"--against {against}: no such row. There are: {', '.join(names)}."
            f"{did_you_mean(against, names)}"
        )
    return against


def _title(results: Results, subject: str) -> str:
    seeds = f"{results.seeds} seeds"
    if results.seeds == 1:
        seeds = "1 seed"
    return (
        f"{results.suite}: {subject} in %, mean±sample std over {seeds}; "
        f"protocol {results.protocol}, track {results.track}"
    )


# ---- Several conditions: a column for each ------------------------------------------------------


def _by_condition(results: Results, metric: Metric) -> tuple[list[str], Lines]:
    lines = []
    for row in results.rows:
        line = [row.label]
        for condition in range(len(results.conditions)):
            line.append(results.cell(row.name, condition, metric.name).text())
        lines.append([*line, str(row.networks)])
    return ["method", *results.conditions, "nets"], lines


def _differences_by_condition(results: Results, reference: str) -> tuple[list[str], Lines]:
    columns = []
    for condition in range(len(results.conditions)):
        columns.append(results.differences(reference, condition))

    lines = []
    for row in results.rows:
        if row.name == reference:
            continue
        line = [row.label]
        for differences in columns:
            found = differences.get(row.name)
            line.append("-" if found is None else found.text())
        lines.append(line)
    return ["method", *results.conditions], lines


def _notes(results: Results) -> list[str]:
    found = []
    for condition in range(len(results.conditions)):
        found += notes.of_condition(results, condition)
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])


# ---- One condition: a column for each metric ----------------------------------------------------


def _details(results: Results, condition: int, reference: str | None) -> tuple[list[str], Lines]:
    metrics = _shown_metrics(results, condition)
    headings = ["method", *(metric.heading for metric in metrics)]
    differences = {}
    if reference is not None:
        headings.append(f"last, minus {reference}")
        differences = results.differences(reference, condition)
    headings += ["nets", "passes"]

    lines = []
    for row in results.rows:
        line = [row.label]
        for metric in metrics:
            line.append(results.cell(row.name, condition, metric.name).text())
        if reference is not None:
            found = differences.get(row.name)
            line.append("" if found is None else found.text())
        lines.append([*line, str(row.networks), _passes(results, row.name, condition)])
    return headings, lines


def _shown_metrics(results: Results, condition: int) -> list[Metric]:
    # Top-5 accuracy is for the datasets of image files, whose protocols crop.
    crops = any(record.spec["protocol"].get("crop") for record in results.records_under(condition))
    found = []
    for metric in DETAILS:
        if results.has(metric.name) and (crops or metric.name != "top5"):
            found.append(metric)
    # Before the first run is done no metric has a value. Then the headline has the only column.
    return found or [METRICS["last"]]


def _passes(results: Results, row: str, condition: int) -> str:
    # Only a run that was trained to its end has counted them.
    passes = []
    for record in results.records_of(row, condition):
        if record.status == "done" and "forward_passes" in record.method:
            passes.append(record.method["forward_passes"])

    mean = statistics.mean(passes)
    if mean is None:
        return "-"
    return f"{mean:.3g}"


def _notes_of_details(results: Results, condition: int, reference: str | None) -> list[str]:
    found = notes.of_condition(results, condition)
    if results.has("clean-right") or results.has("memorised"):
        found.append(notes.SHARES)
    found.append(notes.COUNTS)
    if results.has("best"):
        found.append(notes.BEST)
    if reference is not None:
        found.append(
            f"last, minus {reference}: difference to {reference} seed by seed (mean±std), with "
            "the Holm-corrected p-value of a paired t test."
        )
    return notes.once([*found, *results.plan_notes, *notes.of_marks(results)])
