"""What the network predicts for right and for wrong labels, over the epochs.

Source: Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels", 2020,
Figure 1, for any method. The shares are counted in the steps that train on the examples, with
augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from nlbench.figures import style
from nlbench.figures.lines import percent_axis
from nlbench.figures.options import Options, baseline_of, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import (
    EMPTY,
    WHY_NOT_ONLINE,
    Course,
    course,
    labels_of,
    notes_on_seeds,
    nothing_to_draw,
)
from nlbench.figures.style import GREEN, INK, VERMILION, Look
from nlbench.results.cells import Results
from nlbench.results.summary import SHARES, metric_key

COLUMNS = tuple(metric_key("online", share) for share in SHARES)
_CLEAN_RIGHT, _TRUE, _MEMORISED, _OTHER = COLUMNS
# This share of the correctly labelled examples is in no file: it is what remains.
_CLEAN_WRONG = "online_clean_wrong"

# Solid lines are predictions of the true class in both panels.
_LOOKS = {
    _CLEAN_RIGHT: (Look(GREEN, "-", "o"), "true class"),
    _CLEAN_WRONG: (Look(INK, (0, (1, 1)), "^"), "another class"),
    _TRUE: (Look(GREEN, "-", "o"), "true class"),
    _MEMORISED: (Look(VERMILION, (0, (4, 1.2)), "s"), "wrong label (memorised)"),
    _OTHER: (Look(INK, (0, (1, 1)), "^"), "another class"),
}
_PANELS = (
    ("correctly labelled", (_CLEAN_RIGHT, _CLEAN_WRONG)),
    ("wrongly labelled", (_TRUE, _MEMORISED, _OTHER)),
)

# Rows that nobody has chosen.
_MOST_ROWS = 4
# Millimetres.
_ROW_HEIGHT, _AROUND, _BELOW = 26.0, 24.0, 8.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw two panels for each row: of its correctly and of its wrongly labelled examples.

    Raises: NothingToDraw where the true labels are unknown, or no label is wrong.
    """
    rows = rows_of(results, options)
    condition, courses = _read(results, options, rows)
    shown, others = _chosen(courses, baseline_of(rows, options), options)

    seeds = {found.row: found.seeds for found in shown}
    labels = labels_of(results, seeds)
    # Rows that cannot be drawn are named with the reason.
    seeds |= {found.row: found.seeds for found in courses if not found.seeds.used}
    empty = any(found.left_out[EMPTY] for found in seeds.values())
    title = results.conditions[condition]
    figure = Picture(
        title,
        [*_notes(shown, others), *notes_on_seeds(seeds), *([WHY_NOT_ONLINE] if empty else [])],
        _in_words(shown, labels, title),
        options.width,
        _AROUND + _ROW_HEIGHT * len(shown),
    )
    panels = figure.panels(len(shown), len(_PANELS), sharex=True, sharey=True)
    for found, line in zip(shown, panels, strict=True):
        for axes, (_, columns) in zip(line, _PANELS, strict=True):
            _draw_panel(axes, found, columns)
        # A long name stands in several lines beside its panels.
        words = style.wrapped(labels[found.row], style.NORMAL, _ROW_HEIGHT - 4)
        line[0].set_ylabel("\n".join(words))

    for axes, (name, _) in zip(panels[0], _PANELS, strict=True):
        axes.set_title(f"{name} (%)")
    for axes, (_, columns) in zip(panels[-1], _PANELS, strict=True):
        axes.set_xlabel("epoch")
        _legend(axes, columns)
    return figure


def _read(results: Results, options: Options, rows: Sequence[str]) -> tuple[int, list[Course]]:
    """Return the first condition that has something to draw, and the courses of its rows."""
    seen = []
    for condition in conditions_to_try(results, options):
        courses = [_course(results, row, condition) for row in rows]
        if any(found.seeds.used for found in courses):
            return condition, courses
        seen += [found.seeds for found in courses]
    raise nothing_to_draw(
        seen,
        "online_wrong_memorised in history.csv",
        WHY_NOT_ONLINE,
    )


def _course(results: Results, row: str, condition: int) -> Course:
    """Return the shares of one cell, with the wrong ones among the correctly labelled."""
    found = course(results, row, condition, COLUMNS)
    values = found.values
    if found.seeds.used:
        values = {**values, _CLEAN_WRONG: 1 - values[_CLEAN_RIGHT]}
    return Course(row, found.seeds, values)


def _chosen(
    courses: Sequence[Course], baseline: str | None, options: Options
) -> tuple[list[Course], int]:
    """Return the rows to draw, and how many others could be drawn.

    Of many rows, those asked for are drawn, the baseline, and those that memorise least.
    """
    usable = [found for found in courses if found.seeds.used]
    if options.only or len(usable) <= _MOST_ROWS:
        return usable, 0

    def memorised(found: Course) -> float:
        return float(np.nan_to_num(found.mean(_MEMORISED)[-1], nan=np.inf))

    first = [found for found in usable if found.row == baseline or found.row in options.highlight]
    rest = [found for found in usable if found not in first]
    room = max(0, _MOST_ROWS - 2 - len(first))
    rest = sorted(rest, key=memorised)[: room or (not first)]
    chosen = [*first, *rest]
    return [found for found in usable if found in chosen], len(usable) - len(chosen)


def _draw_panel(axes: Axes, found: Course, columns: Sequence[str]) -> None:
    """Draw the shares of one kind of examples: mean over seeds, and lowest and highest seed."""
    epochs = np.arange(1, found.values[columns[0]].shape[1] + 1)
    for place, column in enumerate(columns):
        look, _ = _LOOKS[column]
        values = found.values[column]
        every = max(1, len(epochs) // 4)
        axes.plot(
            epochs,
            found.mean(column),
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markevery=(place * every // len(columns) % every, every),
            markersize=2.6,
            markeredgewidth=0,
            label=column,
        )
        if len(values) > 1:
            low, high = values.min(0), values.max(0)
            axes.fill_between(epochs, low, high, color=look.colour, alpha=0.18, linewidth=0)

    axes.set_ylim(-0.02, 1.02)
    percent_axis(axes)
    last = float(epochs[-1])
    axes.set_xlim(1 if last > 1 else 0.5, last if last > 1 else 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))


def _legend(axes: Axes, columns: Sequence[str]) -> None:
    """Explain the lines below a column of panels."""
    handles = []
    for column in columns:
        look, name = _LOOKS[column]
        handles.append(
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
        )
    # Below the ticks and the name of the axis, however high the panel is.
    below = ScaledTranslation(0, -_BELOW / 25.4, axes.figure.dpi_scale_trans)
    axes.legend(
        handles=handles,
        title="predicted as",
        title_fontsize=style.SMALL,
        loc="upper left",
        bbox_to_anchor=(-0.05, 0),
        bbox_transform=axes.transAxes + below,
        handlelength=2.6,
        labelspacing=0.15,
        borderpad=0,
        borderaxespad=0,
        alignment="left",
    )


def _notes(shown: Sequence[Course], others: int) -> list[str]:
    notes = []
    if any(len(found.seeds.used) > 1 for found in shown):
        notes.append("Lines: mean over seeds. Bands: lowest and highest seed of each epoch.")
    else:
        notes.append("Lines: one seed.")
    notes.append("Predictions of training examples, in the step that trains on them.")
    if others:
        rows = "1 more row is" if others == 1 else f"{others} more rows are"
        notes.append(f"{rows} not drawn; --only chooses.")
    return [" ".join(notes)]


def _in_words(shown: Sequence[Course], labels: dict[str, str], title: str) -> str:
    """Describe the figure for those who cannot see it."""
    parts = []
    for found in shown:
        right, true, memorised, other = (100 * found.mean(column)[-1] for column in COLUMNS)
        parts.append(
            f"{labels[found.row]}: {right:.1f}% of the correctly labelled are predicted right; of "
            f"the wrongly labelled {true:.1f}% as their true class, {memorised:.1f}% as labelled "
            f"and {other:.1f}% as neither"
        )
    each = ". ".join(parts)
    return f"Predictions for training examples over the epochs, {title}. After the last: {each}."
