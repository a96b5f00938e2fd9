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


def draw(axes: Axes, point: Point, look: Look) -> None:
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
    box = axes.get_position()
    width = box.width * figure.get_figwidth() * 25.4
    height = box.height * figure.get_figheight() * 25.4
    to_axes = axes.transData + axes.transAxes.inverted()

    def place_of(x: float, y: float) -> tuple[float, float]:
        """Return a place in millimetres."""
        across, up = to_axes.transform((x, y))
        return float(across) * width, float(up) * height

    named = [point for point in points if not math.isnan(point.x.mean)]
    places = {point.row: place_of(point.x.mean, point.y.mean) for point in named}
    sizes = {point.row: (style.width_of(point.label, style.SMALL), _LINE) for point in named}
    bars: list[Box] = []
    for point in named:
        x, y = places[point.row]
        _, low = place_of(point.x.mean, point.y.low)
        _, high = place_of(point.x.mean, point.y.high)
        bars.append((x - _HALF_BAR, low, x + _HALF_BAR, high))
        if point.x.varies:
            left, _ = place_of(point.x.low, point.y.mean)
            right, _ = place_of(point.x.high, point.y.mean)
            bars.append((left, y - _HALF_BAR, right, y + _HALF_BAR))

    found = labels_apart(places, sizes, bars, width, height)
    for point in named:
        look = looks[point.row]
        (x, y), (left, bottom) = places[point.row], found[point.row]
        middle = bottom + _LINE / 2
        text = axes.text(
            left / width,
            middle / height,
            point.label,
            transform=axes.transAxes,
            size=style.SMALL,
            color=style.FAINT if look is PLAIN else style.INK,
            va="center_baseline",
            zorder=6,
        )
        text.set_in_layout(False)
        # From the nearest end of a name that stands far away, a thin line leads to the point.
        near = min(max(x, left), left + sizes[point.row][0])
        beside = min(max(y, bottom), bottom + _LINE)
        if math.hypot(near - x, middle - y) > _LINE:
            axes.plot(
                [x / width, near / width],
                [y / height, beside / height],
                transform=axes.transAxes,
                color=look.colour,
                linewidth=0.4,
                zorder=2,
                label="_leader",
            )[0].set_in_layout(False)
