"""A metric against the noise rate, a line for each row."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import FuncFormatter

from nlbench.figures import lines as drawing
from nlbench.figures import style, values
from nlbench.figures.lines import Line
from nlbench.figures.options import NothingToDraw, Options, baseline_of, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import labels_of, notes_on_seeds, nothing_to_draw, together
from nlbench.results.cells import Results


@dataclass(frozen=True)
class Rates:
    """Conditions that differ in the noise rate alone.

    Attributes:
        title: the dataset and the kind of noise.
        rates: the measured noise rate of each condition, by its place, in ascending order.
    """

    title: str
    rates: dict[int, float]


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw a metric over the noise rates of one dataset and one kind of noise.

    Raises: NothingToDraw where a suite has no two of them.
    """
    metric = values.metric_of(options)
    rows = rows_of(results, options)
    chosen = _choose(results, options)

    found = {}
    for row in rows:
        found[row] = [values.value_of(results, row, place, metric) for place in chosen.rates]
    seeds = {row: together([value.seeds for value in found[row]]) for row in rows}
    if not any(cell.used for cell in seeds.values()):
        raise nothing_to_draw(
            list(seeds.values()), f"a value of {metric.name}", "--metric names another one."
        )

    labels = labels_of(results, seeds)
    x = np.array(list(chosen.rates.values()))
    lines = []
    for row in rows:
        if seeds[row].used:
            y, low, high = (
                np.array([getattr(value, name) for value in found[row]])
                for name in ("mean", "low", "high")
            )
            lines.append(Line(row, labels[row], x, y, low, high))
    sign = -1 if metric.lower_is_better else 1
    lines.sort(key=lambda line: -sign * np.nan_to_num(line.end, nan=-sign * math.inf))

    baseline = baseline_of(rows, options)
    names = [line.row for line in lines]
    best = values.best_of({line.row: line.end for line in lines}, metric)
    coloured = drawing.coloured(names, baseline, best, options.highlight)
    looks = style.looks(names, baseline, coloured)

    body = drawing.body_height(len(lines), 46.0)
    title = chosen.title
    figure = Picture(
        title,
        [*_notes(lines, coloured), *notes_on_seeds(seeds)],
        _in_words(lines, metric, title, x),
        options.width,
        body,
    )
    axes = figure.panels()[0][0]
    drawing.draw(axes, lines, looks, bars=True, marks=0)
    margin = 0.05 * (x[-1] - x[0])
    axes.set_xlim(x[0] - margin, x[-1] + margin)
    axes.set_xticks(x)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
    axes.set_xlabel("wrong training labels, measured (%)")
    values.write_axis(axes, metric, body - 10)
    drawing.name_ends(figure, axes, lines, looks, float(x[-1] + margin))
    return figure


def _choose(results: Results, options: Options) -> Rates:
    """Return the conditions to draw: those of the chosen one, else the first with most rates."""
    groups = _groups(results)
    if options.condition is not None:
        groups = [group for group in groups if options.condition in group.rates]
    if groups:
        return max(groups, key=lambda group: len(group.rates))
    titles = "; ".join(results.conditions)
    of_it = ""
    if options.condition is not None:
        of_it = f" with {results.conditions[options.condition]!r} among them"
    raise NothingToDraw(
        "nothing to draw: this figure needs one dataset with one kind of noise at two rates or "
        f"more{of_it}, and with runs that are done. {results.suite} has: {titles}. A suite has "
        "them where an entry of `datasets` names several rates, such as "
        "noise: [{kind: symmetric, rate: 0.2}, {kind: symmetric, rate: 0.4}]"
    )


def _groups(results: Results) -> list[Rates]:
    """Return the sets of conditions that differ in the noise rate alone.

    Clean labels of the same dataset are the rate 0 of each kind.
    """
    titles: dict[str, str] = {}
    rates: dict[str, dict[int, float]] = {}
    clean: dict[str, tuple[int, float]] = {}
    of_dataset: dict[str, str] = {}
    for place, title in enumerate(results.conditions):
        records = [record for record in results.records_under(place) if record.noise]
        measured = [record.noise.get("noise_rate_train") for record in records]
        known = [rate for rate in measured if rate is not None]
        if not known:
            continue
        rate = float(np.mean(known))
        spec = records[0].spec
        dataset = str(spec["dataset"])
        noise = spec.get("noise")
        if noise is None:
            # Other label sets of a dataset are noise of other kinds, each at one rate.
            if spec.get("labels") == "clean":
                clean[dataset] = place, rate
            continue
        if "rate" not in noise:
            continue
        others = {key: value for key, value in noise.items() if key != "rate"}
        kind = json.dumps([dataset, others], sort_keys=True)
        titles.setdefault(kind, title.removesuffix(f" {noise['rate']:g}"))
        of_dataset[kind] = dataset
        rates.setdefault(kind, {})[place] = rate

    groups = []
    for kind, by_place in rates.items():
        if of_dataset[kind] in clean:
            place, rate = clean[of_dataset[kind]]
            by_place[place] = rate
        if len(by_place) > 1:
            ordered = dict(sorted(by_place.items(), key=lambda item: item[1]))
            groups.append(Rates(titles[kind], ordered))
    return groups


def _notes(lines: Sequence[Line], coloured: set[str]) -> list[str]:
    of_which = "" if len(coloured) >= len(lines) else ", of the rows in colour"
    notes = [f"Lines: mean over seeds. Bars: lowest and highest seed{of_which}."]
    if len(coloured) > 1:
        notes.append("At each rate they stand side by side.")
    return [" ".join(notes)]


def _in_words(lines: Sequence[Line], metric: values.Metric, title: str, x: np.ndarray) -> str:
    """Describe the figure for those who cannot see it."""
    rates = ", ".join(f"{100 * rate:.3g}%" for rate in x)
    parts = []
    for line in lines:
        numbers = ", ".join(
            "no value" if np.isnan(value) else values.shown(value, metric) for value in line.y
        )
        parts.append(f"{line.label}: {numbers}")
    return f"{metric.meaning}, {title}, with {rates} wrong labels. {'. '.join(parts)}."
