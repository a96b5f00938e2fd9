"""A point for each row: its value under one condition against that under another."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from nlbench.errors import SuiteError
from nlbench.figures import lines as drawing
from nlbench.figures import points as on_panel
from nlbench.figures import style, values
from nlbench.figures.options import NothingToDraw, Options, baseline_of, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.points import Point, Spread
from nlbench.figures.runs import Seeds, labels_of
from nlbench.results import agreement
from nlbench.results.agreement import Side
from nlbench.results.cells import SIGN, Cell, Results

# Millimetres.
_BODY = 72.0


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the value of each row under two conditions.

    Raises: NothingToDraw where there are no two conditions; SuiteError where both are the same one,
        have fewer than two rows in common, or no seed of all rows.
    """
    metric = values.metric_of(options)
    rows = rows_of(results, options)
    other = options.other or results
    i, j = _places(results, other, options)
    # A row that is not drawn must not decide which seeds are.
    drawn_rows = set(rows)
    a, b = agreement.sides(results.select(drawn_rows), i, other.select(drawn_rows), j, metric.name)
    kept = list(a.cells)

    labels = labels_of(results, dict.fromkeys(kept, Seeds(len(a.seeds), tuple(a.seeds))))
    points = [Point(row, labels[row], _spread(a.cells[row]), _spread(b.cells[row])) for row in kept]
    baseline = baseline_of(kept, options)
    best = values.best_of({point.row: point.y.mean for point in points}, metric)
    looks = style.looks(kept, baseline, drawing.coloured(kept, baseline, best, options.highlight))
    names = _titles(results, i, other, j)
    equal = _equal_range(points)
    figure = Picture(
        f"{names[0]} and {names[1]}",
        _notes(a, b, len(rows), max(results.seeds, other.seeds), names, equal is not None),
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


def _places(a: Results, b: Results, options: Options) -> tuple[int, int]:
    """Return the condition of each side: as given, else the first that can be compared."""
    if options.conditions:
        i, j = options.conditions[0], options.conditions[-1]
        if a is b and i == j:
            raise SuiteError(
                f"--condition: {a.conditions[i]} cannot be compared with itself; give two "
                "conditions, or another suite with --suite-b"
            )
        return i, j
    begun, of_other = a.begun(), b.begun()
    if a is b:
        if len(begun) < 2:
            raise NothingToDraw(
                f"{a.suite}: nothing to draw, because the figure needs two conditions with runs, "
                "or another suite, which --suite-b names"
            )
        return begun[0], begun[1]
    titles = {b.conditions[place]: place for place in of_other}
    for place in begun:
        if a.conditions[place] in titles:
            return place, titles[a.conditions[place]]
    raise NothingToDraw(
        f"{a.suite} and {b.suite}: nothing to draw, because no condition with runs is in both; "
        "choose one of each: --condition, twice"
    )


def _titles(a: Results, i: int, b: Results, j: int) -> tuple[str, str]:
    """Return what tells the two sides apart: the conditions, or the suites as well."""
    one, two = a.conditions[i], b.conditions[j]
    return (one, two) if one != two else (f"{one} ({a.suite})", f"{two} ({b.suite})")


def _spread(cell: Cell) -> Spread:
    numbers = list(cell.values.values())
    return Spread(sum(numbers) / len(numbers), min(numbers), max(numbers))


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
    a: Side, b: Side, rows: int, planned: int, names: tuple[str, str], equal: bool
) -> list[str]:
    about = "Points: mean over seeds. Bars: lowest and highest seed."
    if equal:
        about += " Dotted: equal on both axes."
    notes = [about, f"{agreement.in_words(a, b, agreement.interval(a, b))}."]
    for name, side in zip(names, (a, b), strict=True):
        if len(side.seeds) < planned:
            notes.append(f"Seeds of all rows, {name}: {_listed(side.seeds)}.")
    if len(a.cells) < rows:
        left_out = rows - len(a.cells)
        notes.append(f"Left out: {left_out} of {rows} rows; `nlbench agreement` says why.")
    signs = [note for note in [*a.notes, *b.notes] if note.startswith(SIGN)]
    return [*notes, *dict.fromkeys(signs)]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _in_words(points: Sequence[Point], metric: values.Metric, names: tuple[str, str]) -> str:
    """Describe the figure for those who cannot see it."""
    parts = []
    for p in points:
        x, y = values.shown(p.x.mean, metric), values.shown(p.y.mean, metric)
        parts.append(f"{p.label}: {x} and {y}")
    return f"{metric.meaning}, {names[0]} and {names[1]}. {'; '.join(parts)}."
