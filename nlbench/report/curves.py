"""The curves of runs, as small as a picture a few hundred pixels wide needs them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from nlbench.files import read_regular
from nlbench.results import statistics
from nlbench.results.integrity import HISTORY, located

# In a picture of 300 pixels more points could not be told apart.
MOST_POINTS = 60

ACCURACY, LOSS = "test_accuracy", "loss"

# Columns of history.csv about memorisation, of which the mean over seeds is shown.
MEMORISATION = (
    "online_clean_right",
    "online_wrong_true",
    "online_wrong_memorised",
    "online_wrong_other",
)

# A column of history.csv, thinned; None where an epoch has no value.
Curve = list[float | None]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return curves by column, and under `epoch` the epochs of their points; empty without any.

    A history that is damaged has no curves: a note below the tables names it.
    """
    try:
        text = read_regular(located(folder, HISTORY)).decode()
        epochs = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error):
        return {}

    shown = _thinned(len(epochs))
    curves: dict[str, Curve] = {"epoch": [float(place) for place in shown]}
    for name in (ACCURACY, LOSS, *MEMORISATION):
        values = [_number(epochs[place].get(name)) for place in shown]
        if any(value is not None for value in values):
            curves[name] = values
    return curves if len(curves) > 1 else {}


def of_one_run(curves: dict[str, Curve]) -> dict[str, list[float | int | None]]:
    """Return the accuracies of a run in tenths of a percent, and its losses with three digits."""
    shown: dict[str, list[float | int | None]] = {}
    if ACCURACY in curves:
        shown[ACCURACY] = [*_thousandths(curves[ACCURACY])]
    if LOSS in curves:
        shown[LOSS] = [None if x is None else float(f"{x:.3g}") for x in curves[LOSS]]
    return shown


def mean_of(runs: Sequence[dict[str, Curve]]) -> dict[str, list[int | None]]:
    """Return the means over runs of what was memorised, in tenths of a percent.

    Empty for runs of different lengths, whose points are other epochs.
    """
    if len({tuple(run["epoch"]) for run in runs}) != 1:
        return {}
    means = {}
    for name in MEMORISATION:
        columns = [run[name] for run in runs if name in run]
        if columns:
            points = zip(*columns, strict=True)
            means[name] = _thousandths([_mean(values) for values in points])
    if not means:
        return {}
    return {"epoch": [int(place or 0) for place in runs[0]["epoch"]], **means}


def _mean(values: Sequence[float | None]) -> float | None:
    return statistics.mean([value for value in values if value is not None])


def _thousandths(values: Curve) -> list[int | None]:
    return [None if value is None else round(1000 * value) for value in values]


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
