"""A point for each row: its value under one condition against that under another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes

from nlbench.figures import lines as drawing
from nlbench.figures import points as on_panel
from nlbench.figures import style, values
from nlbench.figures.options import NothingToDraw, Options, baseline_of, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.points import Point, Spread
from nlbench.figures.runs import names_of
from nlbench.results import agreement
from nlbench.results.agreement import NoOrder, Side
from nlbench.results.cells import SIGN, Results

# Millimetres.
_BODY = 72.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the value of each row under two conditions.

    Raises: NothingToDraw where no two conditions can be compared; SuiteError where two were given
        that are the same one, have fewer than two rows in common, or no seed of all rows.
    """
    metric = values.metric_of(options)
    rows = rows_of(results, options)
    other = options.other or results
    if options.conditions:
        i, j = options.conditions[0], options.conditions[-1]
    else:
        i, j = _first_to_compare(results, other, metric.name, rows)
    # A row that is not drawn must not decide which seeds are.
    a, b = agreement.sides(results, i, other, j, metric.name, rows)
    kept = list(a.cells)

    labels = names_of(results, kept)
    spreads = zip(kept, _spreads(a), _spreads(b), strict=True)
    points = [Point(row, labels[row], x, y) for row, x, y in spreads]
    baseline = baseline_of(kept, options)
    best = values.best_of({point.row: point.y.mean for point in points}, metric)
    looks = style.looks(kept, baseline, drawing.coloured(kept, baseline, best, options.highlight))
    names = _titles(results, i, other, j)
    equal = _equal_range(points)
    figure = Picture(
        f"{names[0]} and {names[1]}",
        _notes((a, results), (b, other), len(rows), names, equal is not None),
        _in_words(points, metric, names),
        options.width,
        on_panel.height_for(len(points), _BODY),
    )
    axes = on_panel.draw(figure, points, looks)
    values.write_axis(axes, metric, options.width - 25, x=True, of=names[0])
    values.write_axis(axes, metric, _BODY - 10, of=names[1])
    axes.margins(0.08)
    if equal is not None:
        _draw_equal(axes, equal)
    on_panel.write_names(figure, axes, points, looks)
    return figure


def _first_to_compare(a: Results, b: Results, metric: str, rows: Sequence[str]) -> tuple[int, int]:
    """Return the first conditions of the two sides that can be compared."""
    if a is b:
        candidates = list(itertools.combinations(range(len(a.conditions)), 2))
        needed = (
            "the figure needs two conditions with runs of the same two rows, or another suite, "
            "which --suite-b names"
        )
    else:
        candidates = agreement.common_conditions(a, b)
        needed = (
            f"no condition of both {a.suite} and {b.suite} has runs of the same two rows in each; "
            "choose one of each: --condition, twice"
        )
    for i, j in candidates:
        try:
            agreement.sides(a, i, b, j, metric, rows)
        except NoOrder:
            continue
        return i, j
    raise NothingToDraw(f"{a.suite}: nothing to draw, because {needed}")


def _titles(a: Results, i: int, b: Results, j: int) -> tuple[str, str]:
    """Return what tells the two sides apart: the conditions, or the suites as well."""
    one, two = a.conditions[i], b.conditions[j]
    return (one, two) if one != two else (f"{one} ({a.suite})", f"{two} ({b.suite})")


def _spreads(side: Side) -> list[Spread]:
    """Return the spread of each row."""
    spreads = []
    for mean, cell in zip(side.means(side.seeds), side.cells.values(), strict=True):
        numbers = cell.values.values()
        spreads.append(Spread(mean, min(numbers), max(numbers)))
    return spreads


def _equal_range(points: Sequence[Point]) -> tuple[float, float] | None:
    """Return the values that both axes have; None where these are a small part of one axis."""
    x, y = [p.x for p in points], [p.y for p in points]
    ends = [(min(s.low for s in side), max(s.high for s in side)) for side in (x, y)]
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    longer = max(end[1] - end[0] for end in ends)
    return (low, high) if high - low > longer / 3 else None


def _draw_equal(axes: Axes, ends: tuple[float, float]) -> None:
    """Draw the line on which both sides have the same value."""
    axes.plot(
        ends,
        ends,
        color=style.GREY,
        linewidth=0.7,
        linestyle=(0, (1, 1.5)),
        zorder=1.5,
        label="_equal",
    )


# ---- Words ---------------------------------------------------------------------------------------


def _notes(
    of_a: tuple[Side, Results],
    of_b: tuple[Side, Results],
    rows: int,
    names: tuple[str, str],
    equal: bool,
) -> list[str]:
    """Return the notes below the figure.

    Args:
        of_a: the side of the first axis, and the suite that it is from; `of_b` likewise.
        rows: how many rows there were to draw.
        names: of the sides.
        equal: whether the line of equal values is drawn.
    """
    a, b = of_a[0], of_b[0]
    about = "Points: mean over seeds. Bars: lowest and highest seed."
    if equal:
        about += " Dotted: equal on both axes."
    around = agreement.interval(a, b)
    notes = [about, f"{agreement.in_words(a, b, around)}."]
    too_narrow = "" if around is None else agreement.why_too_narrow(a, b, names)
    if too_narrow:
        notes.append(f"The interval is too narrow, because {too_narrow}.")
    for _, results in (of_a, of_b):
        if results.track == "tuned":
            notes.append(f"{results.suite}: tries chose values for each row.")
    for name, (side, results) in zip(names, (of_a, of_b), strict=True):
        if len(side.seeds) < results.seeds:
            notes.append(f"{name}: {_only(side.seeds)}, because not all rows have the others.")
    if len(a.cells) < rows:
        left_out = rows - len(a.cells)
        notes.append(f"Left out: {left_out} of {rows} rows; `nlbench agreement` says why.")
    signs = [note for note in [*a.notes, *b.notes] if note.startswith(SIGN)]
    return list(dict.fromkeys([*notes, *signs]))


def _only(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"only seed {seeds[0]} is drawn"
    return f"only seeds {', '.join(map(str, seeds))} are drawn"


def _in_words(points: Sequence[Point], metric: values.Metric, names: tuple[str, str]) -> str:
    """Describe the figure for those who cannot see it."""
    parts = []
    for p in points:
        x, y = values.shown(p.x.mean, metric), values.shown(p.y.mean, metric)
        parts.append(f"{p.label}: {x} and {y}")
    return f"{metric.meaning}, {names[0]} and {names[1]}. {'; '.join(parts)}."
