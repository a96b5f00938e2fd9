"""A figure with its heading above and its notes below, at an exact width, and how it is written."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, ParamSpec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nlbench.errors import UserError, on_one_line
from nlbench.figures import style
from nlbench.figures.compact import compact, simplify_bands
from nlbench.files import write_atomic

# Millimetres around the whole figure, and between the heading, the panels and the notes.
_MARGIN, _GAP = 1.0, 1.0

# The formats of files, by the end of their names. Dates would make equal figures differ.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"dpi": 300, "metadata": {"Software": None}},
    ".svg": {"metadata": {"Date": None, "Creator": None}},
    ".pdf": {
        "metadata": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    },
}


class Picture(Figure):
    """A matplotlib figure with words.

    Args:
        heading: what the figure shows, above it.
        notes: sentences below it: what a band is, and which seeds are left out.
        description: for those who cannot see it.
        width: millimetres, of the whole figure.
        body: millimetres, of the panels with their axes.
    """

    def __init__(
        self, heading: str, notes: Sequence[str], description: str, width: float, body: float
    ) -> None:
        text_width = width - 2 * _MARGIN
        above = style.wrapped(heading, style.LARGE, text_width)
        below = [line for note in notes for line in style.wrapped(note, style.SMALL, text_width)]
        top = style.height_of(style.LARGE, len(above)) + _GAP if above else 0.0
        bottom = style.height_of(style.SMALL, len(below)) + _GAP if below else 0.0
        height = style.ceil_to(2 * _MARGIN + top + body + bottom, 1.0)

        super().__init__(figsize=(width / 25.4, height / 25.4), facecolor="white")
        FigureCanvasAgg(self)
        self.heading = on_one_line(heading)
        self.notes = [on_one_line(note) for note in notes]
        self.description = on_one_line(description)

        lowest = (_MARGIN + bottom) / height
        highest = 1 - (_MARGIN + top) / height
        pad = _MARGIN / 25.4
        self.set_layout_engine(
            ConstrainedLayoutEngine(
                rect=(0, lowest, 1, highest - lowest), w_pad=pad, h_pad=0.2 / 25.4, wspace=0.02
            )
        )
        self._write(above, style.LARGE, 1 - _MARGIN / height, style.INK)
        self._write(below, style.SMALL, lowest - _GAP / height, style.FAINT)

    def _write(self, lines: Sequence[str], size: float, top: float, colour: str) -> None:
        """Write lines from a height of the figure downwards."""
        left = _MARGIN / (self.get_figwidth() * 25.4)
        step = style.height_of(size) / (self.get_figheight() * 25.4)
        for number, line in enumerate(lines):
            text = self.text(left, top - number * step, line, size=size, color=colour, va="top")
            text.set_in_layout(False)

    def panels(self, rows: int = 1, columns: int = 1, **options: Any) -> list[list[Axes]]:
        """Return new axes, row by row."""
        found = self.subplots(rows, columns, squeeze=False, **options)
        return [list(line) for line in np.asarray(found)]

    def settle(self) -> None:
        """Lay the figure out, so that the places of its axes are known."""
        with style.context(), _quiet():
            self.draw_without_rendering()

    def _freeze(self) -> None:
        """Keep the places of the axes, rounded.

        The layout is the solution of equations, which differs in its last bits from one time to the
        next. Equal figures have equal files.
        """
        if not isinstance(self.get_layout_engine(), ConstrainedLayoutEngine):
            return
        self.settle()
        self.set_layout_engine("none")
        for axes in self.axes:
            bounds = np.round(axes.get_position(original=True).bounds, 6)
            axes.set_position(tuple(bounds.tolist()))
        simplify_bands(self)

    def write(self, file: Path | IO[bytes], ending: str, *, transparent: bool = False) -> None:
        """Write the figure, in place of an older file. A folder that is not there is made.

        Args:
            ending: a key of FORMATS.
        Raises: UserError if the file cannot be written.
        """
        self._freeze()
        content = io.BytesIO()
        face = "none" if transparent else "white"
        with style.context(), _quiet():
            self.savefig(content, format=ending[1:], facecolor=face, **FORMATS[ending])
        payload = content.getvalue()
        if ending == ".svg":
            payload = compact(payload)

        if not isinstance(file, Path):
            file.write(payload)
            return
        try:
            write_atomic(file, lambda opened: opened.write(payload))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UserError(f"--to {file}: cannot be written ({reason})") from None


class _quiet(warnings.catch_warnings):
    """A context in which characters that the font lacks, which are drawn as boxes, are no news."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        return entered


P = ParamSpec("P")


def drawn(function: Callable[P, Picture]) -> Callable[P, Picture]:
    """Decorate a function that draws a figure, so that it does so in our own style."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with style.context(), _quiet():
            return function(*args, **kwargs)

    return wrapped
