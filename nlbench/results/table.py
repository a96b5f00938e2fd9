"""`nlbench table`: the records of a suite as Markdown, LaTeX, HTML, CSV or JSON.

Reads the plan and the records only. Needs no torch and no data.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nlbench import registry
from nlbench.errors import SuiteError, place_of_condition
from nlbench.results import (
    csv_table,
    formats,
    json_table,
    notes,
    one_condition,
    paper,
    several_conditions,
    unfinished,
    with_published,
)
from nlbench.results.analysis import baseline_of
from nlbench.results.block import Block
from nlbench.results.cells import Results
from nlbench.results.groups import Group, by_dataset, by_noise
from nlbench.results.order import ordered
from nlbench.results.view import DATA_FORMATS, MINUS, View, check_rows

if TYPE_CHECKING:
    from nlbench.results.store import Store


def render(
    plan: Mapping[str, Any],
    store: Store,
    *,
    methods: Mapping[str, registry.MethodFile] | None = None,
    **options: Any,
) -> str:
    """Return the table of a plan.

    With one condition the table has a column for each metric; with several it has a column for each
    condition, and a second table the paired differences. Conditions without a run are named below
    the table, and not shown.

    Args:
        methods: the files that records are compared with, to mark stale ones; by default those that
            are shipped and installed.
        options: the fields of View.

    Raises: SuiteError for an unknown metric, column or row, and for options that exclude each
        other.
    """
    view = View(**options)
    if methods is None:
        methods = registry.method_files()
    if view.fmt == "json":
        return json_table.document([_as_json(plan, store, methods, view)])

    shown = plan
    without_runs: list[str] = []
    if view.fmt not in DATA_FORMATS:
        shown, without_runs = with_runs(plan, store)
        _check_sort(view, plan, shown)
    results = Results(shown, store, methods)
    reference = baseline_of(results, view.against)
    results, left_out = _selected(results, reference, view)
    left_out += without_runs
    if view.purpose != "paper":
        left_out += unfinished.note(plan, store)
    # A program can choose for itself, so a CSV file has all conditions and metrics.
    if view.fmt == "csv":
        return csv_table.render(results, reference, view)

    blocks = _blocks(results, reference, view)
    # One note about the rows is enough for the tables of a suite.
    blocks[-1].notes.extend(left_out)
    return "\n".join(_written(block, results, view) for block in blocks)


def _as_json(
    plan: Mapping[str, Any],
    store: Store,
    methods: Mapping[str, registry.MethodFile],
    view: View,
) -> dict[str, Any]:
    results = Results(plan, store, methods)
    reference = baseline_of(results, view.against)
    results, left_out = _selected(results, reference, view)
    left_out += unfinished.note(plan, store)
    return json_table.of_suite(results, reference, view, left_out)


def _blocks(results: Results, reference: str | None, view: View) -> list[Block]:
    """Return the tables of a suite."""
    if view.purpose == "paper":
        return [paper.block(results, reference, view, group) for group in _groups(results, view)]

    # With one condition there is room for a column of each metric.
    alone = len(results.conditions) == 1 or view.group_by == "dataset,noise"
    of_each = view.details or view.columns or (alone and view.metric is None)
    if view.published or of_each:
        blocks = []
        for condition in range(len(results.conditions)):
            blocks.append(_of_one_condition(results, condition, reference, view))
        return blocks

    blocks = []
    for group in _groups(results, view):
        blocks += several_conditions.blocks(results, reference, view, group)
    return blocks


def _groups(results: Results, view: View) -> Sequence[Group | None]:
    """Return the conditions of each table; None for one table of all."""
    if view.group_by is None or len(results.conditions) == 1:
        return [None]
    if view.group_by == "dataset":
        return by_dataset(results)
    if view.group_by == "noise":
        return by_noise(results)
    groups = []
    for condition, title in enumerate(results.conditions):
        groups.append(Group(title, [condition], [title]))
    return groups


def _of_one_condition(results: Results, condition: int, reference: str | None, view: View) -> Block:
    name = results.conditions[condition]
    results, order = ordered(results, condition, reference, view)
    if view.published:
        found = with_published.render(results, condition, view.metric, view.details)
        block = Block(f"{name}; test accuracy beside published numbers", *found)
    else:
        block = one_condition.block(results, condition, name, reference, view)
    block.notes[:0] = order
    return block


def render_suites(
    store: Store,
    suite: str | None,
    *,
    methods: Mapping[str, registry.MethodFile],
    conditions: Collection[str] = (),
    **options: Any,
) -> str:
    """Return the tables of one suite of a store, or of all of them where `suite` is None.

    Args:
        conditions: the conditions to show, by their titles or parts of them; all by default.
        options: the fields of View.
    Raises: StoreError for a store without results, SuiteError for an unknown suite or condition.
    """
    view = View(**options)
    if suite is not None:
        plans = {suite: store.plan_of(suite)}
    else:
        plans = store.plans()
        # The tries of a tuned suite are printed only when their name is given, or when nothing else
        # is there.
        plans = {name: plan for name, plan in plans.items() if not plan["tries"]} or plans
    plans = _with_rows(plans, view.only)
    if conditions:
        plans = _with_conditions(plans, conditions)

    blocks: list[str] = []
    documents = []
    for plan in plans.values():
        names = [row["row"] for row in plan["rows"]]
        only = [row for row in view.only if row in names]
        if view.fmt == "json":
            documents.append(_as_json(plan, store, methods, replace(view, only=only)))
            store.forget_read()
            continue
        block = render(plan, store, methods=methods, **{**options, "only": only})
        if view.fmt == "csv" and blocks:
            # All tables share the header of the first one.
            block = block.partition("\n")[2]
        blocks.append(block)
        # A store may have more records than the memory has room for.
        store.forget_read()

    if view.fmt == "json":
        return json_table.document(documents)
    # The tables of several suites are one CSV, in which an empty line would be a line too many.
    separator = "" if view.fmt == "csv" else "\n"
    return separator.join(blocks)


def _with_rows(plans: dict[str, dict[str, Any]], only: Collection[str]) -> dict[str, Any]:
    """Return the plans that have one of these rows. Raises SuiteError for a row of no plan."""
    if not only:
        return plans
    rows = {name: [row["row"] for row in plan["rows"]] for name, plan in plans.items()}
    check_rows(only, notes.once(itertools.chain(*rows.values())))
    return {name: plan for name, plan in plans.items() if set(only) & set(rows[name])}


def _with_conditions(
    plans: dict[str, dict[str, Any]], names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return the plans that have one of these conditions, narrowed to them.

    Raises: SuiteError for a name that fits no condition of any plan, or several of one.
    """
    titles = notes.once(itertools.chain(*(plan["conditions"] for plan in plans.values())))
    own: dict[str, list[str]] = {}
    for name in names:
        # A whole name is not a part of others as well.
        fits = {name} if name in titles else {t for t in titles if name.lower() in t.lower()}
        having = [suite for suite, plan in plans.items() if fits.intersection(plan["conditions"])]
        if not having:
            place_of_condition(name, titles, " and ".join(plans))
        for suite in having:
            own.setdefault(suite, []).append(name)
    return {suite: narrowed(plans[suite], of_suite) for suite, of_suite in own.items()}


def with_runs(plan: Mapping[str, Any], store: Store) -> tuple[Mapping[str, Any], list[str]]:
    """Return a plan with the conditions of which a run has ended, and a note about the others.

    Where none has, all are kept: the table then shows what the suite has.
    """
    titles = plan["conditions"]
    store.read_ahead(dict.fromkeys(cell["key"] for cell in plan["cells"]))
    begun = {cell["condition"] for cell in plan["cells"] if store.check(cell["key"]) is not None}
    if not begun or len(begun) == len(titles):
        return plan, []
    others = [title for place, title in enumerate(titles) if place not in begun]
    note = f"Not shown, because none of their runs has ended: {', '.join(others)}."
    return _at(plan, sorted(begun)), [note]


def _check_sort(view: View, plan: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Raise SuiteError if rows are to be sorted by a condition that is not shown."""
    for title in plan["conditions"]:
        if title not in shown["conditions"] and title.casefold() == (view.sort or "").casefold():
            raise SuiteError(f"--sort {view.sort}: none of the runs of {title} has ended")


def narrowed(plan: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a plan with these conditions alone, in its own order.

    Raises: SuiteError for a name that fits no condition, or several.
    """
    titles = plan["conditions"]
    return _at(plan, sorted({place_of_condition(name, titles, plan["suite"]) for name in names}))


def _at(plan: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return a plan with the conditions at these places alone."""
    cells = []
    for cell in plan["cells"]:
        if cell["condition"] in kept:
            cells.append({**cell, "condition": kept.index(cell["condition"])})
    titles = [plan["conditions"][place] for place in kept]
    return {**plan, "conditions": titles, "cells": cells}


def _selected(results: Results, reference: str | None, view: View) -> tuple[Results, list[str]]:
    """Return the results of the rows to show, and a note about the others.

    The reference row is shown wherever differences to it are.
    """
    if not view.only:
        return results, []
    rows = [row.name for row in results.rows]
    check_rows(view.only, rows)
    differences = view.metric is None and not view.published and view.fmt not in DATA_FORMATS
    if view.purpose == "paper":
        differences = MINUS in view.columns
    shown = set(view.only)
    if reference is not None and differences:
        shown.add(reference)

    count = len(rows) - len(shown)
    if not count:
        return results, []
    note = f"{count} of {len(rows)} rows are not shown."
    if differences:
        note = f"{count} of {len(rows)} rows are not shown; p-values are corrected for all of them."
    return results.select(shown), [note]


# ---- Writing -------------------------------------------------------------------------------------


def _written(block: Block, results: Results, view: View) -> str:
    title = block.title or _title(results, block.subject, block.unit)
    if view.fmt == "latex":
        return formats.latex(
            title,
            block.headings,
            block.lines,
            block.notes,
            label=f"{results.suite} {block.subject}",
            text=block.text,
            bold=block.bold,
            groups=block.groups,
        )
    if view.fmt == "html":
        return formats.html(
            title,
            block.headings,
            block.lines,
            block.notes,
            text=block.text,
            bold=block.bold,
            groups=block.groups,
        )
    return formats.markdown(
        title,
        block.headings,
        block.lines,
        block.notes,
        width=view.width,
        split=block.split,
        text=block.text,
        bold=block.bold,
    )


def _title(results: Results, subject: str, unit: str) -> str:
    seeds = f"{results.seeds} seeds"
    if results.seeds == 1:
        seeds = "1 seed"
    return (
        f"{results.suite}: {subject} in {unit}, mean±sample std over {seeds}; "
        f"protocol {results.protocol}, track {results.track}"
    )
