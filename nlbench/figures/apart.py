"""Where labels of points can stand so that they cover no other label and no point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

# Left, bottom, right and top, in millimetres.
Box = tuple[float, float, float, float]


def labels_apart(
    points: dict[str, tuple[float, float]],
    sizes: dict[str, tuple[float, float]],
    bars: Sequence[Box],
    width: float,
    height: float,
) -> dict[str, tuple[float, float]]:
    """Return a place for the label of each point, its lower left corner, in millimetres.

    Labels are placed one after the other, those with the most neighbours first, each at the
    place that covers least and is nearest to its point.
    """
    taken: list[Box] = list(bars)
    for x, y in points.values():
        taken.append((x - 0.9, y - 0.9, x + 0.9, y + 0.9))

    def neighbours(name: str) -> int:
        x, y = points[name]
        return sum(math.hypot(x - a, y - b) < 12 for a, b in points.values())

    found = {}
    for name in sorted(points, key=lambda name: (-neighbours(name), name)):
        best = min(
            _candidates(points[name], sizes[name], width, height),
            key=lambda place: (
                _covered(place, sizes[name], taken) * 100
                + _nearer_to_others(place, sizes[name], name, points) * 8
                + place[2]
            ),
        )
        left, bottom, _ = best
        w, h = sizes[name]
        taken.append((left, bottom, left + w, bottom + h))
        found[name] = (left, bottom)
    return found


def _candidates(
    point: tuple[float, float], size: tuple[float, float], width: float, height: float
) -> list[tuple[float, float, float]]:
    """Return lower left corners around a point that are in the panel, with their distances."""
    (x, y), (w, h) = point, size
    found = []
    for distance, turn in itertools.product((0.0, 2.0, 4.0, 7.0, 10.0, 14.0, 19.0), range(16)):
        angle = turn * math.pi / 8
        across, up = math.cos(angle), math.sin(angle)
        left = x + across * (distance + 1.3) - w * (1 - across) / 2
        bottom = y + up * (distance + 1.3) - h * (1 - up) / 2
        left = min(max(left, 0.3), max(0.3, width - w))
        bottom = min(max(bottom, 0.2), height - h)
        # Right of its point a name is read most easily.
        found.append((left, bottom, distance + 0.3 * (1 - across)))
    return found


def _covered(
    place: tuple[float, float, float],
    size: tuple[float, float],
    taken: Sequence[Box],
) -> float:
    """Return the area that a label has in common with others, in square millimetres."""
    left, bottom, _ = place
    right, top = left + size[0], bottom + size[1]
    total = 0.0
    for a, b, c, d in taken:
        total += max(0.0, min(right, c) - max(left, a)) * max(0.0, min(top, d) - max(bottom, b))
    return total


def _nearer_to_others(
    place: tuple[float, float, float],
    size: tuple[float, float],
    name: str,
    points: dict[str, tuple[float, float]],
) -> bool:
    """Tell whether a label would stand nearer to another point than to its own."""
    left, bottom, _ = place

    def away(other: str) -> float:
        x, y = points[other]
        across = max(left - x, 0.0, x - left - size[0])
        return math.hypot(across, max(bottom - y, 0.0, y - bottom - size[1]))

    return any(away(other) < away(name) + 0.3 for other in points if other != name)
