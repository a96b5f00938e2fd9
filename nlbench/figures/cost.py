"""What a method costs against what it achieves, a point for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from nlbench.figures import lines as drawing
from nlbench.figures import points as on_panel
from nlbench.figures import style, values
from nlbench.figures.options import Options, baseline_of, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.points import Point, Spread
from nlbench.figures.runs import Seeds, labels_of, notes_on_seeds, nothing_to_draw
from nlbench.figures.values import Value
from nlbench.results.cells import Results
from nlbench.results.record import RunRecord

_AXIS = {
    "seconds": "seconds of a run, without evaluation",
    "passes": "forward passes per training example and epoch",
}
# From this factor between the cheapest and the dearest on, costs are on a logarithmic axis.
_WIDE_RANGE = 4.0

# Millimetres.
_BODY = 64.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the cost of each row against a metric.

    Raises: NothingToDraw where no run under a condition is done.
    """
    metric = values.metric_of(options)
    rows = rows_of(results, options)
    condition, found = _read(results, options, rows, metric)
    seeds = {row: value.seeds for row, (_, value) in found.items()}
    labels = labels_of(results, seeds)
    points = [
        Point(row, labels[row], Spread(cost, cost, cost), Spread(value.mean, value.low, value.high))
        for row, (cost, value) in found.items()
        if value.seeds.used
    ]

    baseline = baseline_of(rows, options)
    names = [point.row for point in points]
    best = values.best_of({point.row: point.y.mean for point in points}, metric)
    chosen = drawing.coloured(names, baseline, best, options.highlight)
    looks = style.looks(names, baseline, chosen)
    front = _front(points, metric)
    title = results.conditions[condition]
    figure = Picture(
        title,
        [*_notes(results, condition, options, len(front)), *notes_on_seeds(seeds)],
        _in_words(points, metric, options, title),
        options.width,
        on_panel.height_for(len(points), _BODY),
    )
    axes = on_panel.draw(figure, points, looks)
    _cost_axis(axes, [point.x.mean for point in points], _AXIS[options.cost])
    values.write_axis(axes, metric, _BODY - 10)
    _draw_front(axes, front)
    on_panel.write_names(figure, axes, points, looks)
    return figure


def _read(
    results: Results, options: Options, rows: Sequence[str], metric: values.Metric
) -> tuple[int, dict[str, tuple[float, Value]]]:
    """Return the first condition with runs that are done: cost and value of each row."""
    seen: list[Seeds] = []
    for condition in conditions_to_try(results, options):
        found = {}
        for row in rows:
            value = values.value_of(results, row, condition, metric)
            costs = [
                _cost(record, options.cost)
                for record in results.records_of(row, condition)
                if record.spec["seed"] in value.seeds.used and record.status == "done"
            ]
            found[row] = (float(np.mean(costs)) if costs else math.nan, value)
            seen.append(value.seeds)
        if any(value.seeds.used for _, value in found.values()):
            return condition, found
    raise nothing_to_draw(seen, f"a value of {metric.name}", "--metric names another one.")


def _cost(record: RunRecord, kind: str) -> float:
    """Return what a run has cost: preparation, helper networks and training, or passes."""
    if kind == "passes":
        return float(record.method.get("forward_passes", math.nan))
    timing = record.timing
    return float(timing.get("prepare", 0) + timing.get("fits", 0) + timing.get("train", 0))


def _cost_axis(axes: Axes, costs: Sequence[float], name: str) -> None:
    """Write the axis of costs; on a logarithmic one, ticks are plain numbers."""
    known = [cost for cost in costs if cost > 0]
    axes.set_xlabel(name)
    if not known or max(known) / min(known) < _WIDE_RANGE or len(known) < len(costs):
        axes.margins(x=0.08)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08)


def _front(points: Sequence[Point], metric: values.Metric) -> list[Point]:
    """Return the rows of which no other is both cheaper and better; none without a better."""
    if metric.lower_is_better is None:
        return []
    sign = -1 if metric.lower_is_better else 1
    front: list[Point] = []
    known = [point for point in points if not math.isnan(point.x.mean)]
    for point in sorted(known, key=lambda p: (p.x.mean, -sign * p.y.mean)):
        if not front or sign * point.y.mean > sign * front[-1].y.mean:
            front.append(point)
    return front


def _draw_front(axes: Axes, front: Sequence[Point]) -> None:
    """Join these rows."""
    axes.plot(
        [point.x.mean for point in front],
        [point.y.mean for point in front],
        color=style.GREY,
        linewidth=0.7,
        linestyle=(0, (1, 1.5)),
        drawstyle="steps-post",
        zorder=1.5,
        label="_front",
    )


# ---- Words ---------------------------------------------------------------------------------------


def _notes(results: Results, condition: int, options: Options, on_front: int) -> list[str]:
    notes = ["Points: mean over seeds. Bars: lowest and highest seed."]
    if on_front > 1:
        notes.append("On the dotted line nothing is both cheaper and better.")
    if options.cost == "passes":
        notes.append("Passes of helper networks are not counted.")
        return [" ".join(notes)]

    machines = set()
    for record in results.records_under(condition):
        if record.status == "done":
            facts = record.environment
            jobs = facts.get("jobs", 1)
            name, threads = facts.get("device_name", "unknown"), facts.get("threads", 1)
            words = "1 thread" if threads == 1 else f"{threads} threads"
            runs = "1 run" if jobs == 1 else f"{jobs} runs"
            machines.add(f"{name}, {words}, {runs} at a time")
    if len(machines) > 1:
        notes.append(
            f"Not comparable: seconds of different machines or settings: "
            f"{'; '.join(sorted(machines))}. `--cost passes` is the same everywhere."
        )
    else:
        notes += [f"Measured on {machine}." for machine in machines]
    return [" ".join(notes)]


def _in_words(points: Sequence[Point], metric: values.Metric, options: Options, title: str) -> str:
    """Describe the figure for those who cannot see it."""
    ordered = sorted(points, key=lambda point: point.x.mean)
    parts = [f"{p.label}: {p.x.mean:.3g}, {values.shown(p.y.mean, metric)}" for p in ordered]
    return f"{_AXIS[options.cost]} against {metric.meaning}, {title}. {'; '.join(parts)}."
