"""Draw measurements: time, and share of the copy bandwidth."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.bench.load import crowded
from nlbench.bench.measure import Measurement
from nlbench.bench.options import BenchOptions
from nlbench.bench.report import environment
from nlbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Grey is PyTorch, and blue the fused kernels. The order is that of the bars.
_COLOURS = {
    "eager": "#b0b0b0",
    "compile": "#6f6f6f",
    "autograd": "#9ecae1",
    "step+backward": "#3182bd",
    "step": "#08306b",
}


def plot(path: Path, options: BenchOptions, measurements: Sequence[Measurement]) -> None:
    """Draw two panels for each dtype into a file. Raises UserError if it cannot be written."""
    # Not at the top of the file: most benchmarks draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # After an interrupt not every dtype was measured.
    measured = {m.dtype for m in measurements}
    dtypes = [dtype for dtype in options.dtypes if dtype in measured]
    shapes = list(dict.fromkeys(m.shape for m in measurements))
    timed = [m for m in measurements if m.n]
    timed_names = {m.variant for m in timed}
    names = [name for name in _COLOURS if name in timed_names]

    width = 2 + max(4.0, 1.15 * len(shapes)) * len(dtypes)
    figure = Figure(figsize=(width, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(dtypes), sharey="row", sharex=True, squeeze=False)
    for column, dtype in enumerate(dtypes):
        above, below = panels[0][column], panels[1][column]
        own = [m for m in timed if m.dtype == dtype]
        _draw_bars(above, below, own, shapes, names)

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
    figure.suptitle(_title(options, measurements, 20 + 60 * len(dtypes)), fontsize=11)

    # All panels have the same bars, so one legend serves them all.
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = len(names) if width > 8 else 3
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--plot {path}: cannot be written: {error.strerror}") from None


def _draw_bars(
    above: Axes,
    below: Axes,
    measurements: Sequence[Measurement],
    shapes: Sequence[Any],
    names: Sequence[str],
) -> None:
    """Draw a group of bars for each shape: times above, shares of the copy bandwidth below."""
    bar = 0.84 / len(names)
    for place, name in enumerate(names):
        own = [m for m in measurements if m.variant == name]
        # The bars of a shape are centred on its place.
        offset = (place - (len(names) - 1) / 2) * bar
        x, times, below_times, above_times, shares = [], [], [], [], []
        for m in own:
            x.append(shapes.index(m.shape) + offset)
            times.append(m.median_us)
            below_times.append(m.median_us - m.p25_us)
            above_times.append(m.p75_us - m.median_us)
            shares.append(100 * m.share_of_copy)

        spread = [below_times, above_times]
        style: dict[str, Any] = {"width": bar, "color": _COLOURS[name], "label": name}
        error_style = {"elinewidth": 0.8, "ecolor": "black"}
        above.bar(x, times, yerr=spread, error_kw=error_style, **style)
        below.bar(x, shares, **style)


def _title(options: BenchOptions, measurements: Sequence[Measurement], width: int) -> str:
    facts = environment(options.device)
    machine = f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}"
    title = f"{options.op}: {machine}"

    disturbed = [m for m in measurements if crowded(m.busy_elsewhere)]
    if disturbed:
        places = ", ".join(dict.fromkeys(f"{m.shape} {m.dtype}" for m in disturbed))
        warning = f"NOT RELIABLE, other programs took cores away: {places}"
        title += "\n" + textwrap.fill(warning, width)
    return title
