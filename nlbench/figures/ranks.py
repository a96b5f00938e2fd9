"""Average ranks over datasets with the critical difference.

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006,
Figure 1. Each dataset counts once: label sets and noises of one share its images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from nlbench.errors import SuiteError, on_one_line
from nlbench.figures import style, values
from nlbench.figures.options import NothingToDraw, Options, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.style import INK
from nlbench.results.cells import Results
from nlbench.results.over_datasets import OverDatasets, over_datasets

# Millimetres: a name, a bar below the axis, and the room above the axis.
_NAME, _BAR, _ABOVE = 3.4, 1.6, 9.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the average rank of each row, and bars over rows that cannot be told apart.

    Ranks are among all rows of a suite, so `only` is refused.

    Raises: NothingToDraw where there are no two datasets with results.
    """
    metric = values.metric_of(options)
    rows_of(results, options)
    if options.only:
        raise SuiteError(
            "--only: a rank is among all rows of the suite, so none can be left out of this figure"
        )
    places = options.conditions or ([options.condition] if options.condition is not None else None)
    try:
        found = over_datasets(results, metric.name, conditions=places)
    except SuiteError as error:
        raise NothingToDraw(f"nothing to draw: {error}") from None

    count = len(found.rows)
    half = math.ceil(count / 2)
    bars = [group for group in found.groups if len(group) > 1]
    below = 2.0 + _BAR * len(bars)
    body = _ABOVE + below + _NAME * half + 1.5
    figure = Picture(
        f"{results.suite}: average ranks by {metric.heading}",
        [on_one_line(note) for note in found.notes],
        f"{found.sentence} " + "; ".join(f"{row.label} {row.mean:.2f}" for row in found.rows),
        options.width,
        body,
    )
    axes = figure.panels()[0][0]
    axes.set_axis_off()
    # One unit across is a rank, one unit down a millimetre.
    labels = style.names_shown([row.label for row in found.rows])
    widest = max(style.width_of(label, style.SMALL) for label in labels) + 8
    inner = max(20.0, options.width - 2 - 2 * widest)
    per_rank = inner / max(1, count - 1)
    margin = widest / per_rank
    axes.set_xlim(1 - margin, count + margin)
    axes.set_ylim(body, 0)
    _draw_axis(axes, count)
    _draw_difference(axes, found)
    _draw_bars(axes, found, bars)
    _draw_names(axes, found, labels, half, _ABOVE + below, margin)
    return figure


def _draw_axis(axes: Axes, count: int) -> None:
    """Draw the scale of ranks, 1 being the best, from the left."""
    axes.plot([1, count], [_ABOVE, _ABOVE], color=INK, linewidth=0.8, label="_axis")
    step = 1 if count <= 12 else 2 if count <= 24 else 5
    ranks = [1, *range(1 + step if step == 1 else step, count + 1, step)]
    for rank in ranks:
        axes.plot([rank, rank], [_ABOVE - 1.2, _ABOVE], color=INK, linewidth=0.8)
        axes.text(rank, _ABOVE - 1.8, str(rank), size=style.SMALL, ha="center", va="bottom")


def _draw_difference(axes: Axes, found: OverDatasets) -> None:
    """Draw the length of the critical difference above the scale."""
    length = found.critical_difference
    if length is None:
        return
    # It may be longer than the scale, where no two rows differ.
    end = min(1 + length, axes.get_xlim()[1])
    axes.plot([1, end], [2.6, 2.6], color=INK, linewidth=0.8, label="_critical difference")
    for x in (1, end):
        axes.plot([x, x], [2.0, 3.2], color=INK, linewidth=0.8)
    words = f"critical difference {length:.2f}"
    axes.text(1, 1.6, words, size=style.SMALL, ha="left", va="bottom")


def _draw_bars(axes: Axes, found: OverDatasets, groups: Sequence[Sequence[str]]) -> None:
    """Draw a bar for each group of rows that cannot be told apart."""
    means = {row.row: row.mean for row in found.rows}
    for place, group in enumerate(groups):
        y = _ABOVE + 2.0 + _BAR * place
        ends = [means[row] for row in group]
        axes.plot(
            [min(ends) - 0.04, max(ends) + 0.04],
            [y, y],
            color=style.VERMILION,
            linewidth=2.2,
            solid_capstyle="butt",
            zorder=3,
            label="_group",
        )


def _draw_names(
    axes: Axes,
    found: OverDatasets,
    labels: Sequence[str],
    half: int,
    top: float,
    margin: float,
) -> None:
    """Write the better half left and the others right, each with a line to its rank."""
    count = len(found.rows)
    for place, (row, label) in enumerate(zip(found.rows, labels, strict=True)):
        left = place < half
        number = place if left else count - 1 - place
        y = top + _NAME * number + 1.5
        end = 1 - 0.06 * margin if left else count + 0.06 * margin
        axes.plot(
            [row.mean, row.mean, end],
            [_ABOVE, y, y],
            color=INK,
            linewidth=0.6,
            zorder=2,
            label="_rank",
        )
        axes.text(
            end - 0.04 * margin if left else end + 0.04 * margin,
            y,
            f"{label} {row.mean:.1f}" if left else f"{row.mean:.1f} {label}",
            size=style.SMALL,
            ha="right" if left else "left",
            va="center_baseline",
        )
