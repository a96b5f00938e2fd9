"""The difference of each row to one of them, with its interval: a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nlbench.figures import style, values
from nlbench.figures.options import NothingToDraw, Options, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import LACKING, Seeds, cell_seeds, labels_of
from nlbench.figures.style import INK
from nlbench.results.analysis import Analysis, Interval, RowAnalysis, analyse
from nlbench.results.cells import Results

# Millimetres.
_ROW = 3.6


class _Line(NamedTuple):
    """A line of the figure. Without an interval, `words` say why."""

    label: str
    found: Interval | None
    words: str


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw each row minus the baseline, the best row first.

    Raises: NothingToDraw where no row can be compared with the baseline.
    """
    metric = values.metric_of(options)
    rows = rows_of(results, options)
    condition, analysis = _analyse(results, options, rows)
    baseline = analysis.baseline or ""
    lines = _lines(results, condition, analysis, rows, metric)

    title = results.conditions[condition]
    figure = Picture(
        title,
        _notes(analysis, lines, metric),
        _in_words(lines, baseline, metric, title),
        options.width,
        _ROW * len(lines) + 12.0,
    )
    axes = figure.panels()[0][0]
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.axvline(0, color=INK, linewidth=0.7, zorder=1)
    for place, line in enumerate(lines):
        if line.found is not None:
            _draw_interval(axes, line.found, place)
        axes.annotate(
            line.words,
            xy=(1, place),
            xycoords=("axes fraction", "data"),
            xytext=(1.5 * style.POINTS_PER_MM, 0),
            textcoords="offset points",
            size=style.SMALL,
            color=INK if line.found is not None else style.FAINT,
            va="center_baseline",
            annotation_clip=False,
        )
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value, metric, ".4g")))
    unit = "percentage points" if metric.is_share else metric.unit
    shown = style.names_shown([baseline])[0]
    # The axis is in the middle, so that a longer name would not fit into a narrow figure.
    length = min(60.0, options.width - 30)
    words = style.wrapped(f"{metric.heading}, minus {shown} ({unit})", style.NORMAL, length)
    axes.set_xlabel("\n".join(words))
    return figure


def _analyse(results: Results, options: Options, rows: Sequence[str]) -> tuple[int, Analysis]:
    """Return the first condition under which a row can be compared with the baseline."""
    reasons = []
    for condition in conditions_to_try(results, options):
        analysis = analyse(results, condition, options.metric or "last", against=options.against)
        if analysis.baseline is None:
            raise NothingToDraw(
                f"nothing to draw: {results.suite} has no row `ce` to compare others with. "
                f"--against names one of {', '.join(row.name for row in results.rows)}"
            )
        # Rows with values and without pairs must not be compared, and the first note says why.
        if sum(row.ranked for row in analysis.rows) > 1 and not analysis.pairs:
            reasons += analysis.notes[:1]
            continue
        if any(row.row in rows and row.minus_baseline for row in analysis.rows):
            return condition, analysis
        title = results.conditions[condition]
        reasons.append(f"{title}: no row has a value beside one of {analysis.baseline}.")
    raise NothingToDraw(
        f"nothing to draw. {' '.join(reasons)} `nlbench table` shows what is there and missing."
    )


def _lines(
    results: Results,
    condition: int,
    analysis: Analysis,
    rows: Sequence[str],
    metric: values.Metric,
) -> list[_Line]:
    """Return the lines from top to bottom, in the order of the analysis."""
    shown = [row for row in analysis.rows if row.row in rows and row.row != analysis.baseline]
    seeds: dict[str, Seeds] = {}
    for row in shown:
        seeds[row.row] = cell_seeds(results, row.row, condition, row.values)
    labels = labels_of(results, seeds)
    lines = []
    for row in shown:
        # Of a row of which a seed diverged, the others are no fair sample.
        found = row.minus_baseline if row.ranked else None
        words = _numbers(found, metric) if found is not None else _why(row, seeds[row.row])
        lines.append(_Line(labels[row.row], found, words))
    return lines


def _numbers(found: Interval, metric: values.Metric) -> str:
    mean = _signed(found.mean, metric)
    if found.low is None or found.high is None:
        return f"{mean} (no interval)"
    return f"{mean} [{_signed(found.low, metric)}, {_signed(found.high, metric)}]"


def _signed(value: float, metric: values.Metric, digits: str = ".2f") -> str:
    """Return a difference in the unit of its metric, with a true minus sign."""
    number = metric.scale * value
    sign = "+" if round(number, 9) else ""
    return format(number, f"{sign}{digits}").replace("-", "\N{MINUS SIGN}")


def _why(row: RowAnalysis, seeds: Seeds) -> str:
    """Return why a row has no difference."""
    if row.diverged:
        return f"{row.diverged} of {row.planned} diverged"
    if row.alone:
        return f"1 of {row.planned} seeds done"
    if not row.n and seeds.left_out[LACKING]:
        return "without this value"
    if not row.n:
        return f"{row.failed} of {row.planned} failed" if row.failed else "no run done"
    return "no baseline"


def _draw_interval(axes: Axes, found: Interval, place: int) -> None:
    """Draw a difference: filled where its interval is without 0, hollow where it is not."""
    differs = found.low is not None and found.high is not None and not found.low <= 0 <= found.high
    colour = style.BLUE
    if found.low is not None and found.high is not None:
        axes.hlines(place, found.low, found.high, color=colour, linewidth=1.1, zorder=2)
    axes.plot(
        [found.mean],
        [place],
        marker="o" if found.kind == "paired" else "s",
        markersize=4.2,
        markerfacecolor=colour if differs else style.PAPER,
        markeredgecolor=colour,
        markeredgewidth=0.9,
        linestyle="none",
        zorder=3,
    )


def _notes(analysis: Analysis, lines: Sequence[_Line], metric: values.Metric) -> list[str]:
    found = [line.found for line in lines if line.found is not None]
    level = f"{100 * analysis.level:g}%"
    notes = [
        f"Bars: {level} intervals of Student's t, each for its difference alone. Filled: 0 is "
        "outside. For all pairs at once, see the letters of `nlbench table`."
    ]
    kinds = {one.kind for one in found}
    if "paired" in kinds:
        counts = sorted({one.n for one in found if one.kind == "paired"})
        numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        pairs = "pair" if counts == [1] else "pairs"
        notes.append(f"Circles: paired by seed, {numbers} {pairs}.")
    if "welch" in kinds:
        notes.append("Squares: not paired (Welch).")
    if metric.lower_is_better:
        notes.append("Lower is better.")
    if any("/" in line.label for line in lines):
        notes.append("(a/b): a of b planned runs have a value.")
    return [" ".join(notes)]


def _in_words(lines: Sequence[_Line], baseline: str, metric: values.Metric, title: str) -> str:
    """Describe the figure for those who cannot see it."""
    parts = [f"{line.label} {line.words}" for line in lines]
    return f"{metric.meaning}, difference to {baseline}, {title}: {'; '.join(parts)}."
