"""The curves of a run, as small as a picture of a hundred points needs them."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from nlbench.files import read_regular
from nlbench.results.integrity import HISTORY, located

# A picture of a curve is some 300 pixels wide, so that more points could not be told apart.
MOST_POINTS = 80

# Columns of history.csv that are shares, with the name of the curve that they belong to.
SHARES = (
    "test_accuracy",
    "online_clean_right",
    "online_wrong_true",
    "online_wrong_memorised",
    "online_wrong_other",
)
LOSS = "loss"


def read_curves(folder: Path) -> dict[str, list[float | int | None]]:
    """Return curves by column, and under `epoch` the epochs of their points; empty without any.

    Shares are in tenths of a percent, and losses have three digits. A history that is damaged has
    no curves: a note below the tables names it.
    """
    try:
        text = read_regular(located(folder, HISTORY)).decode()
        epochs = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error):
        return {}
    if not epochs:
        return {}

    shown = _thinned(len(epochs))
    curves: dict[str, list[float | int | None]] = {"epoch": list(shown)}
    for name in (*SHARES, LOSS):
        values = [_number(epochs[place].get(name)) for place in shown]
        if any(value is not None for value in values):
            curves[name] = [_rounded(value, name) for value in values]
    return curves if len(curves) > 1 else {}


def _thinned(count: int) -> list[int]:
    """Return which of so many epochs are shown: the first, the last, and evenly those between."""
    if count <= MOST_POINTS:
        return list(range(count))
    step = (count - 1) / (MOST_POINTS - 1)
    return [round(step * place) for place in range(MOST_POINTS)]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _rounded(value: float | None, name: str) -> float | int | None:
    if value is None:
        return None
    if name == LOSS:
        return float(f"{value:.3g}")
    return round(1000 * value)
