"""Csv table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from nlbench.results import statistics
from nlbench.results.cells import Results
from nlbench.results.metrics import MEASURES, METRICS, Reported
from nlbench.results.with_published import beside

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


def csv_text(results: Results, reference: str | None, published: bool = False) -> str:
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
    reported = Reported("top1", "") if metric == "unstated" else MEASURES.get(metric)
    cell = None if reported is None else beside(results, row, condition, reported)
    if cell is None or not cell.records:
        return [""] * len(_CSV_PUBLISHED)
    first, found = cell.records[0], cell.differences[0]
    tested: list[Any] = ["", "", "", ""]
    if isinstance(found, statistics.Welch):
        tested = [found.difference / 100, None if found.se is None else found.se / 100, found.df, found.p]
    std = None if first.std is None else round(first.std / 100, 9)  # as printed, without what binary fractions add
    why = "; ".join(found) if isinstance(found, list) else cell.marks
    also = "; ".join(f"{r.text()} {r.table}" for r in cell.records[1:])
    return [round(first.mean / 100, 9), std, first.seeds, f"{first.table}: {first.source}", *tested, why, also]
