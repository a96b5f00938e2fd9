"""The metric of a figure: its values over seeds, its name at an axis, and which row is best."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nlbench.errors import on_one_line
from nlbench.figures import style
from nlbench.figures.options import Options
from nlbench.figures.runs import Seeds, cell_seeds
from nlbench.results.cells import Results
from nlbench.results.metrics import METRICS, Metric, check_metric


@dataclass(frozen=True)
class Value:
    """The value of a metric in one cell.

    Attributes:
        mean, low, high: over the seeds that have it; NaN where none has.
    """

    seeds: Seeds
    mean: float
    low: float
    high: float


def metric_of(options: Options) -> Metric:
    """Return the metric of a figure. Raises SuiteError for an unknown one."""
    name = options.metric or "last"
    check_metric(name)
    return METRICS[name]


def value_of(results: Results, row: str, condition: int, metric: Metric) -> Value:
    """Return the value of a metric in one cell, with the seeds that lack it counted."""
    values = results.cell(row, condition, metric.name).values
    seeds = cell_seeds(results, row, condition, values)
    if not values:
        return Value(seeds, math.nan, math.nan, math.nan)
    numbers = list(values.values())
    return Value(seeds, float(np.mean(numbers)), min(numbers), max(numbers))


def name_of(metric: Metric) -> str:
    """Return what a metric is called at an axis."""
    words = on_one_line(metric.meaning)
    return f"{words} ({metric.unit})"


def write_axis(axes: Axes, metric: Metric, length: float, *, x: bool = False, of: str = "") -> None:
    """Write name and ticks of the axis of a metric.

    Args:
        length: of the axis, in millimetres. A longer name stands in several lines.
        of: what the axis is about, where the two axes differ in that.
    """
    axis = axes.xaxis if x else axes.yaxis
    name = f"{on_one_line(of)}: {name_of(metric)}" if of else name_of(metric)
    axis.set_label_text("\n".join(style.wrapped(name, style.NORMAL, length)))
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{metric.scale * value:.4g}"))


def best_of(means: dict[str, float], metric: Metric) -> str | None:
    """Return the row with the best mean; None where a metric has no better and worse."""
    known = {row: mean for row, mean in means.items() if not math.isnan(mean)}
    if not known or metric.lower_is_better is None:
        return None
    sign = -1 if metric.lower_is_better else 1
    return max(known, key=lambda row: sign * known[row])


def shown(value: float, metric: Metric, *, signed: bool = False) -> str:
    """Return a value with its unit, for a description."""
    number = f"{metric.scale * value:+.2f}" if signed else f"{metric.scale * value:.2f}"
    return f"{number}%" if metric.is_share else f"{number} {metric.unit}"


def in_all(rows: Collection[str], seeds: dict[str, Seeds]) -> str:
    """Return the number of seeds where all rows have the same, with a space, else ""."""
    counts = {len(seeds[row].used) for row in rows if seeds[row].used}
    return f"{counts.pop()} " if len(counts) == 1 else ""
