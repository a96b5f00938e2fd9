"""Points of rows in a panel, with bars, and with names beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from nlbench.figures import style
from nlbench.figures.apart import Box, labels_apart
from nlbench.figures.picture import Picture
from nlbench.figures.style import PLAIN, Look

# Millimetres.
_LINE = style.height_of(style.SMALL)
_HALF_BAR = 0.3


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, with the lowest and the highest seed. A cost has its mean alone."""

    mean: float
    low: float
    high: float

    @property
    def varies(self) -> bool:
        """Whether there is a bar to draw."""
        return self.low < self.high


@dataclass(frozen=True)
class Point:
    """The point of one row. It is not named where `x.mean` is NaN."""

    row: str
    label: str
    x: Spread
    y: Spread


def height_for(count: int, least: float) -> float:
    """Return the height of a panel with so many names in it, in millimetres."""
    return least + 0.8 * max(0, count - 15)


def draw(figure: Picture, points: Sequence[Point], looks: dict[str, Look]) -> Axes:
    """Draw points into a new panel, without names, and return the panel."""
    axes = figure.panels()[0][0]
    axes.grid(True, axis="both")
    for point in points:
        _draw_point(axes, point, looks[point.row])
    return axes


def _draw_point(axes: Axes, point: Point, look: Look) -> None:
    """Draw the means, and the lowest and highest seed as bars."""
    front = look is not PLAIN
    axes.plot(
        [point.x.mean],
        [point.y.mean],
        marker=look.marker or "o",
        markersize=4.0 if front else 3.0,
        color=look.colour,
        markeredgewidth=1.0 if look.marker == "x" else 0.0,
        linestyle="none",
        zorder=3 + front,
        label=point.label,
    )
    bar: dict[str, Any] = {"color": look.colour, "linewidth": 0.8, "zorder": 2 + front}
    if point.y.varies:
        axes.vlines(point.x.mean, point.y.low, point.y.high, **bar)
    if point.x.varies:
        axes.hlines(point.y.mean, point.x.low, point.x.high, **bar)


def write_names(
    figure: Picture, axes: Axes, points: Sequence[Point], looks: dict[str, Look]
) -> None:
    """Write each row's name near its point, where it covers no other name, point or bar."""
    figure.settle()
    panel = _Panel(figure, axes)
    named = [point for point in points if not math.isnan(point.x.mean)]
    places = {point.row: panel.place_of(point.x.mean, point.y.mean) for point in named}
    sizes = {point.row: (style.width_of(point.label, style.SMALL), _LINE) for point in named}
    bars = [bar for point in named for bar in panel.bars_of(point)]

    found = labels_apart(places, sizes, bars, panel.width, panel.height)
    for point in named:
        corner, size = found[point.row], sizes[point.row]
        look = looks[point.row]
        _write_name(panel, point.label, corner, look)
        _lead(panel, places[point.row], corner, size, look)


class _Panel:
    """The size of a panel, and places in it, in millimetres from its lower left corner."""

    def __init__(self, figure: Picture, axes: Axes) -> None:
        box = axes.get_position()
        self.axes = axes
        self.width = box.width * figure.get_figwidth() * 25.4
        self.height = box.height * figure.get_figheight() * 25.4
        self._to_axes = axes.transData + axes.transAxes.inverted()

    def place_of(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a value."""
        across, up = self._to_axes.transform((x, y))
        return float(across) * self.width, float(up) * self.height

    def bars_of(self, point: Point) -> list[Box]:
        """Return the boxes of the bars of a point."""
        x, y = self.place_of(point.x.mean, point.y.mean)
        _, low = self.place_of(point.x.mean, point.y.low)
        _, high = self.place_of(point.x.mean, point.y.high)
        boxes = [(x - _HALF_BAR, low, x + _HALF_BAR, high)]
        if point.x.varies:
            left, _ = self.place_of(point.x.low, point.y.mean)
            right, _ = self.place_of(point.x.high, point.y.mean)
            boxes.append((left, y - _HALF_BAR, right, y + _HALF_BAR))
        return boxes


def _write_name(panel: _Panel, label: str, corner: tuple[float, float], look: Look) -> None:
    """Write a name with its lower left corner at `corner`."""
    text = panel.axes.text(
        corner[0] / panel.width,
        (corner[1] + _LINE / 2) / panel.height,
        label,
        transform=panel.axes.transAxes,
        size=style.SMALL,
        color=style.FAINT if look is PLAIN else style.INK,
        va="center_baseline",
        zorder=6,
    )
    text.set_in_layout(False)


def _lead(
    panel: _Panel,
    place: tuple[float, float],
    corner: tuple[float, float],
    size: tuple[float, float],
    look: Look,
) -> None:
    """Draw a thin line from the nearest end of a name to its point, where they are far apart."""
    (x, y), (left, bottom) = place, corner
    near = min(max(x, left), left + size[0])
    beside = min(max(y, bottom), bottom + _LINE)
    if math.hypot(near - x, bottom + _LINE / 2 - y) <= _LINE:
        return
    leader = panel.axes.plot(
        [x / panel.width, near / panel.width],
        [y / panel.height, beside / panel.height],
        transform=panel.axes.transAxes,
        color=look.colour,
        linewidth=0.4,
        zorder=2,
        label="_leader",
    )
    leader[0].set_in_layout(False)
