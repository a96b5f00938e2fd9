"""Lines of many rows in one panel: which have a colour, and names beside their ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from nlbench.figures import style
from nlbench.figures.picture import Picture
from nlbench.figures.style import BASELINE, PLAIN, Look

# With more rows, only the best one, the baseline and those asked for have a colour.
MOST_COLOURED = 7
# With more, the names of grey lines are left out.
MOST_NAMED = 30
# Millimetres between the middles of two names.
STEP = style.height_of(style.SMALL) * 0.98
# Points from a bar to the next one at the same x.
_ASIDE = 1.2
# Millimetres from the panel to the names.
_AWAY = 4.0


@dataclass(frozen=True)
class Line:
    """The line of one row.

    Attributes:
        label: what stands beside its end.
        low, high: the band or the bars around `y`; None where there is one seed.
    """

    row: str
    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def end(self) -> float:
        """The last value that is known; NaN where none is."""
        known = self.y[~np.isnan(self.y)]
        return float(known[-1]) if len(known) else float("nan")


def coloured(
    rows: Sequence[str], baseline: str | None, best: str | None, highlight: Collection[str]
) -> set[str]:
    """Return the rows that get a colour."""
    if len(rows) <= MOST_COLOURED and not highlight:
        return set(rows)
    return {*highlight, *([baseline] if baseline else []), *([best] if best else [])} & set(rows)


def body_height(rows: int, least: float) -> float:
    """Return the height of a panel whose rows are all named beside it, in millimetres."""
    named = rows if rows <= MOST_NAMED else MOST_COLOURED
    return max(least, named * STEP + 9.0)


def draw(
    axes: Axes,
    lines: Sequence[Line],
    looks: dict[str, Look],
    *,
    bars: bool = False,
    marks: int = 6,
) -> None:
    """Draw lines, those in grey below the others.

    Args:
        bars: draw `low` and `high` as bars at each point, else as a band. Lines with bars stand a
            little beside each other, so that no bar hides another.
        marks: about so many markers on each line; 0 marks every point.
    """
    figure = axes.figure
    in_front = [line.row for line in lines if looks[line.row] is not PLAIN]
    for place, line in enumerate(lines):
        look = looks[line.row]
        front = look is not PLAIN
        order = 2.0 + front + (look is BASELINE)
        # Markers of lines that lie on each other stand side by side.
        every = max(1, len(line.x) // marks) if marks else 1
        curve = axes.plot(
            line.x,
            line.y,
            color=look.colour,
            linestyle=look.line,
            marker=look.marker if front else ("." if len(line.x) == 1 else ""),
            markevery=((place * every // max(1, len(lines))) % every, every),
            markerfacecolor=look.colour,
            markeredgecolor=look.colour,
            markeredgewidth=0.8 if look.marker == "x" else 0.0,
            linewidth=1.1 if front else 0.6,
            zorder=order,
            label=line.label,
        )
        if line.low is None or line.high is None or not front:
            continue
        if bars:
            bar = axes.vlines(
                line.x, line.low, line.high, color=look.colour, linewidth=0.8, zorder=order
            )
            aside = _ASIDE * (in_front.index(line.row) - (len(in_front) - 1) / 2)
            shift = ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
            for artist in (*curve, bar):
                artist.set_transform(axes.transData + shift)
        else:
            axes.fill_between(
                line.x, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0, zorder=1.5
            )


def name_ends(
    figure: Picture, axes: Axes, lines: Sequence[Line], looks: dict[str, Look], right: float
) -> None:
    """Write each line's label beside the panel, as near to its end as the others allow.

    Args:
        right: the x of the panel's right border.
    """
    named = [line for line in lines if not np.isnan(line.end)]
    if len(named) > MOST_NAMED:
        named = [line for line in named if looks[line.row] is not PLAIN]
    if not named:
        return

    # First anywhere: their widths decide how wide the panel is.
    texts = []
    for line in named:
        front = looks[line.row] is not PLAIN
        texts.append(
            axes.annotate(
                line.label,
                xy=(1, 0.5),
                xycoords="axes fraction",
                xytext=(_AWAY * style.POINTS_PER_MM, 0),
                textcoords="offset points",
                size=style.SMALL,
                color=style.INK if front else style.FAINT,
                va="center_baseline",
                annotation_clip=False,
            )
        )
    figure.settle()

    height = axes.get_position().height * figure.get_figheight() * 25.4
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((right, line.end))[1]) * height for line in named]
    places = spread(wanted, STEP, -1.0, height + 1.0)
    for line, text, place in zip(named, texts, places, strict=True):
        look = looks[line.row]
        text.xy = (1, place / height)
        end = to_axes.transform((line.x[~np.isnan(line.y)][-1], line.end))
        x_of_text = 1 + (_AWAY - 0.5) / (axes.get_position().width * figure.get_figwidth() * 25.4)
        leader = axes.plot(
            [end[0], x_of_text],
            [end[1], place / height],
            transform=axes.transAxes,
            color=look.colour,
            linewidth=0.5,
            linestyle="-",
            clip_on=False,
            zorder=1.0,
        )
        # It is no data, and must not widen the panel.
        leader[0].set_in_layout(False)
        leader[0].set_label("_leader")


def spread(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, in their order and at least `step` apart.

    Neighbours that are too close become a group around the mean of what its members want. The
    groups stay within `low` and `high` as far as there is room.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # A group is the sum of its members' wishes for its lowest place, and their number.
    groups: list[list[float]] = []
    for i in order:
        groups.append([wanted[i], 1])
        while len(groups) > 1 and _too_close(groups[-2], groups[-1], step, low, high):
            total, count = groups.pop()
            groups[-1][0] += total - count * groups[-1][1] * step
            groups[-1][1] += count

    places = [0.0] * len(wanted)
    members = iter(order)
    for group in groups:
        start = _start(group, step, low, high)
        for number in range(int(group[1])):
            places[next(members)] = start + number * step
    return places


def _start(group: Sequence[float], step: float, low: float, high: float) -> float:
    """Return the lowest place of a group."""
    total, count = group
    return max(low, min(total / count, high - (count - 1) * step))


def _too_close(
    below: Sequence[float], above: Sequence[float], step: float, low: float, high: float
) -> bool:
    last = _start(below, step, low, high) + (below[1] - 1) * step
    return last + step > _start(above, step, low, high) + 1e-9


def percent_axis(axes: Axes, *, x: bool = False) -> None:
    """Write the ticks of an axis of shares as percents."""
    axis = axes.xaxis if x else axes.yaxis
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
