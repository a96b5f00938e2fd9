"""Plot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlbench.bench.measure import Measurement, crowded
from nlbench.bench.report import hardware
from nlbench.bench.setting import Setting
from nlbench.errors import UserError

_COLOURS = {
    "eager": "#b0b0b0",
    "compile": "#6f6f6f",
    "autograd": "#9ecae1",
    "step+backward": "#3182bd",
    "step": "#08306b",
}


def plot(path: Path, setting: Setting, measurements: Sequence[Measurement]) -> None:
    """Time and share of the copy bandwidth, a column of panels per dtype."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dtypes = [d for d in setting.dtypes if any(m.dtype == d for m in measurements)]
    shapes = list(dict.fromkeys(m.shape for m in measurements))
    names = [name for name in _COLOURS if any(m.variant == name and m.n for m in measurements)]
    width = 2 + max(4.0, 1.15 * len(shapes)) * len(dtypes)
    wide = width > 8
    figure = Figure(figsize=(width, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(dtypes), sharey="row", sharex=True, squeeze=False)
    bar = 0.84 / len(names)
    for column, dtype in enumerate(dtypes):
        above, below = panels[0][column], panels[1][column]
        for place, name in enumerate(names):
            own = [m for m in measurements if m.dtype == dtype and m.variant == name and m.n]
            x = [shapes.index(m.shape) + (place - (len(names) - 1) / 2) * bar for m in own]
            medians = [m.median_us for m in own]
            spread = [[m.median_us - m.p25_us for m in own], [m.p75_us - m.median_us for m in own]]
            style: dict[str, Any] = {"width": bar, "color": _COLOURS[name], "label": name}
            above.bar(x, medians, yerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "black"}, **style)
            below.bar(x, [100 * m.share_of_copy for m in own], **style)
        above.set_title(dtype)
        above.set_yscale("log")
        below.set_xticks(range(len(shapes)), [str(shape) for shape in shapes])
        below.set_xlabel("rows x classes")
        for panel in (above, below):
            panel.grid(axis="y", color="#dddddd", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("µs per step, median and quartiles")
    panels[1][0].set_ylabel("% of the copy bandwidth")
    facts = hardware(setting)
    title = f"{setting.op}: {facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}"
    if loud := dict.fromkeys(f"{m.shape} {m.dtype}" for m in measurements if crowded(m.busy_elsewhere)):
        title += "\n" + textwrap.fill(
            f"NOT RELIABLE, other programs took cores away: {', '.join(loud)}", 20 + 60 * len(dtypes)
        )
    figure.suptitle(title, fontsize=11)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names) if wide else 3, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--plot {path}: cannot be written: {error.strerror}") from None
