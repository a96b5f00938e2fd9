"""A comparison of two rows in words, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nlbench.results import formats, notes, wording
from nlbench.results.analysis import LEVEL
from nlbench.results.cells import Cell
from nlbench.results.metrics import METRICS
from nlbench.results.statistics import power
from nlbench.results.statistics.basic import Interval

if TYPE_CHECKING:
    from nlbench.results.two_rows import Comparison, Side


def sentence(found: Comparison) -> str:
    """Say which row is better and by how much, or that this cannot be told."""
    a, b = found.names
    interval = found.chosen
    if interval is None or interval.low is None or interval.high is None or interval.p is None:
        return (
            f"with {wording.counted(min(found.a.n, found.b.n), 'seed')} it cannot be told whether "
            f"{a} and {b} differ."
        )
    # Where a seed of a row diverged, no difference is known.
    where = "where neither diverged, " if found.a.diverged or found.b.diverged else ""
    low, high = _signed(interval.low, found.metric), _signed(interval.high, found.metric)
    if interval.p >= 1 - LEVEL:
        return (
            f"{where}{a} and {b} cannot be told apart: {a} minus {b} is between {low} and {high} "
            "(95%)."
        )

    lower = METRICS[found.metric].lower_is_better
    is_better = (interval.mean > 0) != bool(lower)
    word = "better" if is_better else "worse"
    if lower is None:
        word = "higher" if interval.mean > 0 else "lower"
    size = f"{METRICS[found.metric].scale * abs(interval.mean):.2f}"
    if METRICS[found.metric].is_share:
        size += " points"
    return (
        f"{where}{a} is {word} than {b} by {size} (95% interval of {a} minus {b}: {low} to {high})."
    )


def _signed(value: float, metric: str) -> str:
    return f"{METRICS[metric].scale * value:+.2f}"


def notes_of(found: Comparison, a: Side, b: Side) -> list[str]:
    """Return what a reader of the numbers must know: missing seeds, other pairs, power, marks."""
    below = []
    if found.a.diverged or found.b.diverged:
        for row in (found.a, found.b):
            if row.diverged:
                below.append(
                    f"{row.row}: {row.diverged} of {row.planned} seeds diverged. The difference is "
                    "over the others alone, and says nothing about those."
                )
    for row in (found.a, found.b):
        missing = row.planned - row.n - row.diverged
        if missing:
            below.append(f"{row.row}: {missing} of {row.planned} seeds have no result.")
    if found.adjusted_p is not None and found.pairs > 1:
        test = "Tukey's test" if found.adjust == "tukey" else "Holm's correction"
        below.append(
            "The p-values above are for two rows that were chosen before anybody saw results. As "
            f"one of the {found.pairs} pairs of the table this one has p "
            f"{formats.p_value(found.adjusted_p)} ({test})."
        )
    if found.differing:
        below.append(f"Parameters that differ: {found.differing}.")
    below += _of_power(found)

    marks = notes.of_marks(a.results.select([a.row]))
    if b.results is a.results:
        marks = notes.of_marks(a.results.select([a.row, b.row]))
    else:
        marks += notes.of_marks(b.results.select([b.row]))
    # What is missing and what diverged is said above, of these rows and this condition alone.
    return notes.once([*below, *(m for m in marks if not m.startswith(("! ", "(n/m)")))])


def _of_power(found: Comparison) -> list[str]:
    if found.power is None:
        return []
    smallest = wording.points(found.power.smallest, found.metric)
    seeds = wording.counted(found.power.seeds, "seed")
    below = [
        f"With {seeds} a true difference of {smallest} is found with probability {power.POWER:g}, "
        "in this pair alone."
    ]
    if found.power.asked is None:
        return below
    asked = wording.points(found.power.asked, found.metric)
    if found.power.needed is None:
        below.append(f"For {asked} more than {power.MOST_SEEDS:,} seeds are needed.")
    else:
        below.append(f"For {asked} it needs {wording.counted(found.power.needed, 'seed')}.")
    return below


# ---- Formats ------------------------------------------------------------------------------------


def as_markdown(comparisons: Sequence[Comparison], width: int | None = None) -> str:
    """Return a table of the two tests for each condition, with the words below it."""
    blocks = []
    for found in comparisons:
        metric = METRICS[found.metric]
        unit = "points" if metric.is_share else metric.unit
        title = (
            f"{found.names[0]} minus {found.names[1]}: {found.condition}; {metric.meaning}, in "
            f"{unit}; suite{'s' * (len(set(found.suites)) > 1)} "
            f"{' and '.join(dict.fromkeys(found.suites))}"
        )
        headings = ["over seeds", "difference", "95% interval", "p", "seeds", "correlation"]
        lines = []
        for name, interval in (("paired t", found.paired), ("Welch's t", found.welch)):
            if interval is not None:
                lines.append([name, *_cells(interval, found)])

        means = []
        for name, row in zip(found.names, (found.a, found.b), strict=True):
            cell = Cell(
                planned=row.planned,
                values=row.values,
                failed=row.diverged + row.failed,
                scale=metric.scale,
            )
            means.append(f"{name}: {cell.text()}")
        below = [
            f"In words: {found.sentence}",
            f"{'; '.join(means)} (mean±sample std).",
            *found.notes,
        ]
        blocks.append(formats.markdown(title, headings, lines, below, width=width))
    return "\n".join(blocks)


def _cells(interval: Interval, found: Comparison) -> list[str]:
    ends, p, correlation = "-", "-", "-"
    if interval.low is not None and interval.high is not None:
        ends = f"{_signed(interval.low, found.metric)} to {_signed(interval.high, found.metric)}"
    if interval.p is not None:
        p = formats.p_value(interval.p)
    if interval.correlation is not None:
        correlation = f"{interval.correlation:.2f}"
    seeds = f"{interval.n}"
    if interval.kind == "welch" and found.a.n != found.b.n:
        seeds = f"{found.a.n} and {found.b.n}"
    return [_signed(interval.mean, found.metric), ends, p, seeds, correlation]


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a JSON list. Numbers are as in the records, unrounded."""
    values = [dataclasses.asdict(found) for found in comparisons]
    return json.dumps(values, indent=2, ensure_ascii=False)
