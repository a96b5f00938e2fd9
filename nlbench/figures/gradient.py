"""The gradient's entry of the true class over the epochs, apart for each term of a loss.

Source: Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels", 2020,
Figure 2. A negative entry raises the logit of the true class. For examples with a wrong label, that
of cross entropy is positive: it pushes the network away from the true class. ELR's regulariser
cancels it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from nlbench.errors import on_one_line
from nlbench.figures import style
from nlbench.figures.options import Options, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import (
    Course,
    Seeds,
    columns_of,
    course,
    labels_of,
    notes_on_seeds,
    nothing_to_draw,
)
from nlbench.figures.style import LOOKS, NORMAL, Look
from nlbench.results.cells import Results

_PREFIX = "gradient_"
_PANELS = (("_clean", "correctly labelled"), ("_wrong", "wrongly labelled"))
_TERMS = {"ce": "cross entropy"}

# Rows that nobody has chosen.
_MOST_ROWS = 4
# A line that goes up and down in each of hundreds of epochs is a block of colour. Of more epochs,
# points are means over neighbouring ones.
_MOST_POINTS = 100
# Millimetres.
_ROW_HEIGHT, _AROUND, _BELOW = 27.0, 18.0, 8.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the entries of every row that has recorded them, in two panels for each.

    Raises: NothingToDraw where no run has recorded them.
    """
    rows = rows_of(results, options)
    condition, courses = _read(results, options, rows)
    usable = [found for found in courses if found.seeds.used]
    shown = usable if options.only else usable[:_MOST_ROWS]
    lacking = [found.row for found in courses if not found.seeds.used]
    looks = _looks(shown)

    seeds = {found.row: found.seeds for found in shown}
    labels = labels_of(results, seeds)
    title = results.conditions[condition]
    figure = Picture(
        title,
        [_note(shown, lacking, len(usable) - len(shown)), *notes_on_seeds(seeds)],
        _in_words(shown, labels, title),
        options.width,
        _AROUND + _ROW_HEIGHT * len(shown),
    )
    panels = figure.panels(len(shown), len(_PANELS), sharex=True, sharey=True)
    for found, line in zip(shown, panels, strict=True):
        for axes, (group, _) in zip(line, _PANELS, strict=True):
            _draw_panel(axes, found, group, looks)
        words = style.wrapped(labels[found.row], NORMAL, _ROW_HEIGHT - 4)
        line[0].set_ylabel("\n".join(words))
    for axes, (_, name) in zip(panels[0], _PANELS, strict=True):
        axes.set_title(name)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    _legend(panels[-1][0], looks)
    return figure


def _read(results: Results, options: Options, rows: Sequence[str]) -> tuple[int, list[Course]]:
    """Return the first condition that has recorded gradients, and the courses of its rows."""
    seen: list[Seeds] = []
    for condition in conditions_to_try(results, options):
        courses = []
        for row in rows:
            names = [
                name
                for name in columns_of(results, row, condition)
                if name.startswith(_PREFIX) and name.endswith(tuple(end for end, _ in _PANELS))
            ]
            # Without any, ask for one that every method with the hook has, to count the runs.
            courses.append(
                course(results, row, condition, names or [f"{_PREFIX}ce_clean"], some=True)
            )
        if any(found.seeds.used for found in courses):
            return condition, courses
        seen += [found.seeds for found in courses]
    raise nothing_to_draw(
        seen,
        "columns gradient_... in history.csv",
        "They are recorded on request, in runs that are trained then: `nlbench run SUITE "
        "--record-gradients --out NEWFOLDER`, for methods with the hook `gradient_parts`, such as "
        "ce and elr, and where true labels are known.",
    )


def _terms(found: Course, group: str) -> list[str]:
    """Return the columns of one kind of examples."""
    return [column for column in found.values if column.endswith(group)]


def _name(column: str, group: str) -> str:
    term = column.removeprefix(_PREFIX).removesuffix(group)
    return _TERMS.get(term, on_one_line(term).replace("_", " "))


def _looks(shown: Sequence[Course]) -> dict[str, Look]:
    """Return the look of each term, the same in all panels."""
    names = []
    for found in shown:
        for group, _ in _PANELS:
            names += [_name(column, group) for column in _terms(found, group)]
    return dict(zip(dict.fromkeys(names), cycle(LOOKS), strict=False))


def _draw_panel(axes: Axes, found: Course, group: str, looks: dict[str, Look]) -> None:
    """Draw the terms of one kind of examples: mean over seeds, lowest and highest seed."""
    axes.axhline(0, color=style.INK, linewidth=0.5, zorder=1)
    for column in _terms(found, group):
        look = looks[_name(column, group)]
        values = found.values[column]
        windows = _windows(values.shape[1])
        epochs = np.array([window.mean() + 1 for window in windows])
        axes.plot(
            epochs,
            [values[:, window].mean() for window in windows],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markevery=max(1, len(epochs) // 4),
            markersize=2.6,
            markeredgewidth=0,
            label=column,
        )
        if len(values) > 1 or len(windows) < values.shape[1]:
            low = [values[:, window].min() for window in windows]
            high = [values[:, window].max() for window in windows]
            axes.fill_between(epochs, low, high, color=look.colour, alpha=0.18, linewidth=0)
        last = float(values.shape[1])
        axes.set_xlim(1 if last > 1 else 0.5, last if last > 1 else 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _windows(epochs: int) -> list[np.ndarray]:
    """Return the places of the epochs of each point: one epoch, or neighbouring ones of many."""
    step = math.ceil(epochs / _MOST_POINTS)
    # Gradients of full batches often have one size in even epochs and another one in odd ones.
    step += step > 1 and step % 2
    return [np.arange(start, min(start + step, epochs)) for start in range(0, epochs, step)]


def _legend(axes: Axes, looks: dict[str, Look]) -> None:
    """Explain the lines below the panels."""
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markersize=2.6,
            markeredgewidth=0,
            label=name,
        )
        for name, look in looks.items()
    ]
    # Below the ticks and the name of the axis, however high the panel is.
    below = ScaledTranslation(0, -_BELOW / 25.4, axes.figure.dpi_scale_trans)
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.05, 0),
        bbox_transform=axes.transAxes + below,
        handlelength=2.6,
        labelspacing=0.15,
        borderpad=0,
        borderaxespad=0,
    )


def _note(shown: Sequence[Course], lacking: Sequence[str], others: int) -> str:
    note = "The mean gradient at the logit of the true class; a negative one raises that logit. "
    seeds = max(len(found.seeds.used) for found in shown)
    note += _in_lines(seeds, max(len(values[0]) for one in shown for values in one.values.values()))
    if lacking:
        note += f" Not recorded: {on_one_line(', '.join(lacking))}."
    if others:
        rows = "1 more row has" if others == 1 else f"{others} more rows have"
        note += f" {rows} recorded it; --only chooses."
    return note


def _in_lines(seeds: int, epochs: int) -> str:
    """Say what lines and bands are."""
    most = max(len(window) for window in _windows(epochs))
    if most > 1:
        over = f"{most} epochs" if seeds == 1 else f"seeds and {most} epochs"
        return f"Lines: means over {over}. Bands: lowest and highest epoch of all of them."
    if seeds > 1:
        return "Lines: mean over seeds. Bands: lowest and highest seed of each epoch."
    return "Lines: one seed."


def _in_words(shown: Sequence[Course], labels: dict[str, str], title: str) -> str:
    """Describe the figure for those who cannot see it."""
    parts = []
    for found in shown:
        for group, name in _PANELS:
            for column in _terms(found, group):
                last = found.mean(column)[-1]
                parts.append(f"{labels[found.row]}, {name}, {_name(column, group)} {last:+.3g}")
    return (
        f"The mean gradient at the logit of the true class over the epochs, {title}. "
        f"After the last epoch: {'; '.join(parts)}."
    )
