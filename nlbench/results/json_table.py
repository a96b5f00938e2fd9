"""The table as JSON, for programs: every number unrounded, with marks, tests and notes.

docs/tables.md describes the fields. A field that is renamed, removed or given another meaning
raises SCHEMA; a further field does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nlbench.results import notes
from nlbench.results.analysis import Analysis, Interval, Pair, RowAnalysis, analyse
from nlbench.results.cells import MIXED, SIGN, STALE, UNKNOWN_CODE, Cell, Results, SuiteRow
from nlbench.results.groups import datasets_and_noises
from nlbench.results.metrics import MEASURES, METRICS, Metric, Reported
from nlbench.results.order import ordered
from nlbench.results.view import View
from nlbench.results.with_published import Compared, nearest_published

SCHEMA = 1

# The names of marks, which say more to a program than a sign.
_MARKS = {STALE: "stale", UNKNOWN_CODE: "unknown-code", MIXED: "mixed-hardware", SIGN: "signs"}


def document(suites: Sequence[Mapping[str, Any]]) -> str:
    """Return the JSON text of the tables of several suites, in ASCII."""
    whole = {"format": "nlbench-table", "schema": SCHEMA, "suites": list(suites)}
    # Names of files need not be text that UTF-8 can hold, and ASCII needs no encoding.
    return json.dumps(_plain(whole), indent=1, allow_nan=False) + "\n"


def of_suite(
    results: Results, reference: str | None, view: View, left_out: Sequence[str]
) -> dict[str, Any]:
    """Return the table of one suite.

    Args:
        reference: the row that differences are taken to.
        view: its metric, columns and order choose what is there, and `published` adds the
            published numbers.
        left_out: notes about rows that are not shown.
    """
    conditions = []
    names = datasets_and_noises(results)
    for condition, (title, (dataset, noise)) in enumerate(
        zip(results.conditions, names, strict=True)
    ):
        shown, order = ordered(results, condition, reference, view)
        metrics = []
        for name in view.chosen_metrics():
            if results.has(name):
                metrics.append(_of_metric(shown, condition, METRICS[name], reference, view))
        conditions.append(
            {
                "title": title,
                "dataset": dataset,
                "noise": noise,
                "notes": [*order, *notes.of_condition(results, condition)],
                "metrics": metrics,
            }
        )
    return {
        "suite": results.suite,
        "track": results.track,
        "protocol": results.protocol,
        "seeds": results.seeds,
        "reference": reference,
        "rows": [_of_row(row) for row in results.rows],
        "conditions": conditions,
        "notes": notes.once([*results.plan_notes, *notes.of_marks(results), *left_out]),
    }


def _of_row(row: SuiteRow) -> dict[str, Any]:
    return {
        "row": row.name,
        "label": row.label,
        "method": row.method,
        "told": list(row.told),
        "networks": row.networks,
    }


def _of_metric(
    results: Results, condition: int, metric: Metric, reference: str | None, view: View
) -> dict[str, Any]:
    analysis = analyse(results, condition, metric.name, against=reference)
    cells = []
    for row in results.rows:
        cell = _of_cell(results.cell(row.name, condition, metric.name), analysis.of(row.name))
        found: dict[str, Any] = {"row": row.name, **cell}
        if view.published:
            found["published"] = _published(results, row, condition, MEASURES.get(metric.name))
        cells.append(found)
    return {
        "metric": metric.name,
        "meaning": metric.meaning,
        # Shares are fractions here, whatever a table prints.
        "unit": "fraction" if metric.is_share else metric.unit,
        "lower_is_better": metric.lower_is_better,
        "cells": cells,
        "comparison": _of_comparison(analysis),
    }


def _of_cell(cell: Cell, row: RowAnalysis) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "std": cell.std,
        "n": len(cell.values),
        "planned": cell.planned,
        "diverged": row.diverged,
        "failed": row.failed,
        "damaged": cell.damaged,
        "missing": cell.planned - len(cell.values),
        "values": {str(seed): value for seed, value in cell.values.items()},
        "marks": [_MARKS.get(mark, mark) for mark in cell.marks],
        "letters": row.letters,
        "tied": None if row.tied is None else list(row.tied),
        "rank": None if row.rank_low is None else [row.rank_low, row.rank_high],
        "minus_reference": _of_interval(row.minus_baseline),
        "minus_reference_welch": _of_interval(row.minus_baseline_welch),
        "minus_best": _of_interval(row.minus_best),
    }


def _of_interval(interval: Interval | None) -> dict[str, Any] | None:
    """Return an interval for one difference, a fraction, with its test."""
    if interval is None:
        return None
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p": interval.p,
        "n": interval.n,
        "correlation": interval.correlation,
        "kind": interval.kind,
    }


def _of_pair(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "mean": pair.mean,
        "low": pair.low,
        "high": pair.high,
        "p": pair.p,
    }


def _of_comparison(analysis: Analysis) -> dict[str, Any]:
    return {
        "adjust": analysis.adjust,
        "level": analysis.level,
        "smallest_difference": analysis.smallest_difference,
        "test_error": analysis.test_error,
        "test_examples": analysis.num_test,
        "pairs": [_of_pair(pair) for pair in analysis.pairs],
        "sentence": analysis.sentence,
        "notes": list(analysis.notes),
    }


def _published(
    results: Results, row: SuiteRow, condition: int, reported: Reported | None
) -> list[dict[str, Any]]:
    """Return the nearest published numbers of one cell, in percent as their sources print them."""
    if reported is None:
        return []
    found = nearest_published(results, row, condition, reported)
    return [_of_published(compared) for compared in found.nearest]


def _of_published(compared: Compared) -> dict[str, Any]:
    record, test = compared.record, compared.test
    return {
        "percent": record.mean,
        "std": record.std,
        "runs": record.seeds,
        "source": record.source,
        "table": record.table,
        "minus_published": None if test is None else test.difference,
        "se": None if test is None else test.se,
        "df": None if test is None else test.df,
        "p": None if test is None else test.p,
        "why_not": list(compared.reasons),
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: null for what is no number, and text that UTF-8 can hold."""
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, bool | int) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
