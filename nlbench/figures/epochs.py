"""Accuracy over epochs, a line for each row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from nlbench.errors import SuiteError, unknown_name
from nlbench.figures import lines as drawing
from nlbench.figures import style
from nlbench.figures.lines import Line
from nlbench.figures.options import Options, baseline_of, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import (
    EMPTY,
    ONLINE,
    WHY_NOT_ONLINE,
    Course,
    Seeds,
    columns_of,
    course,
    labels_of,
    notes_on_seeds,
    nothing_to_draw,
)
from nlbench.results.cells import Results

_DEFAULT = "test_accuracy"

# What a column of history.csv is, as the axis says it. Columns of shares are in percent.
_NAMES = {
    "test_accuracy": "test accuracy (%)",
    "test_top5": "top-5 test accuracy (%)",
    "val_accuracy": "accuracy on noisy validation labels (%)",
    "target_accuracy": "targets right (%)",
    "online_clean_right": "correctly labelled: right (%)",
    "online_wrong_true": "wrongly labelled: true class (%)",
    "online_wrong_memorised": "wrongly labelled: memorised (%)",
    "online_wrong_other": "wrongly labelled: other class (%)",
    "loss": "training loss",
    "prediction_changes": "changed predictions",
}


def is_share(column: str) -> bool:
    """Tell whether a column of history.csv holds shares, which figures show in percent."""
    return column.startswith("online_") or column.endswith(("_accuracy", "_top5"))


def name_of(column: str) -> str:
    """Return what a column is called at an axis."""
    words = column.replace("_", " ")
    return _NAMES.get(column, f"{words} (%)" if is_share(column) else words)


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw a column of history.csv over the epochs of every row.

    Raises: NothingToDraw where no run has it; SuiteError for a column that there is not.
    """
    column = options.metric or _DEFAULT
    rows = rows_of(results, options)
    condition, courses = _read(results, options, rows, column)

    seeds = {found.row: found.seeds for found in courses}
    labels = labels_of(results, seeds)
    lines = [_line(found, labels[found.row], column) for found in courses if found.seeds.used]
    lines.sort(key=lambda line: -np.nan_to_num(line.end, nan=-np.inf))
    baseline = baseline_of(rows, options)
    names = [line.row for line in lines]
    chosen = drawing.coloured(names, baseline, names[0], options.highlight)
    looks = style.looks(names, baseline, chosen)

    title = results.conditions[condition]
    figure = Picture(
        title,
        [
            *_notes(lines, seeds.values(), chosen),
            *notes_on_seeds(seeds),
            *_why_empty(seeds, column),
        ],
        _in_words(lines, column, title),
        options.width,
        drawing.body_height(len(lines), 46.0),
    )
    axes = figure.panels()[0][0]
    drawing.draw(axes, lines, looks)
    last = max(float(line.x[-1]) for line in lines)
    axes.set_xlim(1 if last > 1 else 0.5, last if last > 1 else 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(name_of(column))
    if is_share(column):
        drawing.percent_axis(axes)
    drawing.name_ends(figure, axes, lines, looks, last)
    return figure


def _read(
    results: Results, options: Options, rows: list[str], column: str
) -> tuple[int, list[Course]]:
    """Return the first condition that has something to draw, and the courses of its rows."""
    seen = []
    known: dict[str, None] = {}
    for condition in conditions_to_try(results, options):
        courses = [course(results, row, condition, [column]) for row in rows]
        if any(found.seeds.used for found in courses):
            return condition, courses
        seen += [found.seeds for found in courses]
        for row in rows:
            known.update(dict.fromkeys(columns_of(results, row, condition)))

    if known and column not in known:
        raise SuiteError(f"--metric: {unknown_name('column of history.csv', column, known)}")
    why = WHY_NOT_ONLINE if column.startswith(ONLINE) else ""
    raise nothing_to_draw(seen, f"{column} in history.csv", why)


def _line(found: Course, label: str, column: str) -> Line:
    values = found.values[column]
    # In records, epochs count from 0. A reader counts those that were trained.
    x = np.arange(1, values.shape[1] + 1)
    if len(values) < 2:
        return Line(found.row, label, x, found.mean(column))
    return Line(found.row, label, x, found.mean(column), values.min(0), values.max(0))


def _notes(lines: Sequence[Line], seeds: Collection[Seeds], chosen: Collection[str]) -> list[str]:
    """Say what lines and bands are."""
    counts = {len(found.used) for found in seeds if found.used}
    number = f"{counts.pop()} " if len(counts) == 1 else ""
    if all(line.low is None for line in lines):
        return ["Lines: one seed."]
    of_which = "" if len(chosen) >= len(lines) else ", of the rows in colour"
    return [
        f"Lines: mean over {number}seeds. Bands: lowest and highest seed of each epoch{of_which}."
    ]


def _why_empty(seeds: Mapping[str, Seeds], column: str) -> list[str]:
    """Say why rows have no share of training examples, where some have none."""
    empty = any(found.left_out[EMPTY] for found in seeds.values())
    return [WHY_NOT_ONLINE] if empty and column.startswith(ONLINE) else []


def _in_words(lines: Sequence[Line], column: str, title: str) -> str:
    """Describe the figure for those who cannot see it."""
    factor, unit = (100.0, "%") if is_share(column) else (1.0, "")
    ends = ", ".join(f"{line.label} {factor * line.end:.4g}{unit}" for line in lines)
    return f"Lines of {name_of(column)} over the epochs, {title}. After the last epoch: {ends}."
