"""Colours, line styles, fonts and sizes of every figure.

Figures are made for the column of a paper: 85 mm wide, with text of 6.5 pt and more, and to be read
on a grey print and by people who do not tell all colours apart.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, get_font

from nlbench.errors import on_one_line

# Points. No text is smaller than SMALL.
SMALL, NORMAL, LARGE = 6.5, 7.0, 7.5
POINTS_PER_MM = 72 / 25.4

# Axes and text. In a page, `svg` replaces these two by the page's own colour of text, so that they
# can be read on a dark page, too. Nothing else may be drawn in them.
INK, FAINT = "#1b1b1b", "#5c5c5d"
# What is hollow. In a page it is filled with the page's background.
PAPER = "#fefefe"

# Lines of rows that are not highlighted, and the grid.
GREY, GRID = "#9c9c9c", "#b8b8b8"

# Okabe and Ito, "Color Universal Design", 2008, without the yellow, which is too light for lines on
# white. They are in an order in which neighbours differ in lightness, too.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
)


class Look(NamedTuple):
    """How the line of one row looks: three signs, of which a grey print keeps two."""

    colour: str
    line: Any
    marker: str


LOOKS = (
    Look(BLUE, "-", "o"),
    Look(VERMILION, (0, (4, 1.2)), "s"),
    Look(GREEN, (0, (1, 1)), "^"),
    Look(ORANGE, (0, (5, 1.2, 1, 1.2)), "D"),
    Look(PURPLE, (0, (2.5, 1)), "v"),
    Look(SKY, (0, (5, 1, 1, 1, 1, 1)), "P"),
)
# The row that others are compared with is always drawn like this.
BASELINE = Look(INK, "-", "x")
PLAIN = Look(GREY, "-", "")

_SETTINGS: dict[str, Any] = {
    # Comes with matplotlib, so that a figure is the same on every machine.
    "font.family": ["DejaVu Sans"],
    "font.size": NORMAL,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "axes.labelpad": 2.0,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.35,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "image.cmap": "cividis",
    # A name such as "a$b$" is no formula.
    "text.parse_math": False,
    "text.usetex": False,
    # Text is as wide at every resolution, so that what fits on a screen fits in a file.
    "text.hinting": "no_hinting",
    # The same figure has the same bytes.
    "svg.hashsalt": "nlbench",
    # Text stays text: it can be searched and read out, and the file is small.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def context() -> Iterator[None]:
    """Let figures be made and written in our style, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        # The backend stays, because another one would close the figures of a notebook.
        matplotlib.rcdefaults()
        # matplotlib's own stubs list every key by name.
        settings: Any = _SETTINGS
        matplotlib.rcParams.update(settings)
        yield


def looks(
    rows: Sequence[str], baseline: str | None, highlighted: Collection[str]
) -> dict[str, Look]:
    """Return the look of each row: its own for those highlighted, grey for the others."""
    found = {}
    own = iter(LOOKS)
    for row in rows:
        if row == baseline:
            found[row] = BASELINE
        elif row in highlighted:
            found[row] = next(own, PLAIN)
        else:
            found[row] = PLAIN
    return found


# ---- Text ----------------------------------------------------------------------------------------

# Characters of a name in a figure. A longer one is shortened in its middle.
_LONGEST = 28


def names_shown(names: Sequence[str]) -> list[str]:
    """Return names as a figure shows them: on one line, and the long ones shortened.

    Names that would become equal stay long.
    """
    lines = [on_one_line(name) for name in names]
    short = [_shortened(line) for line in lines]
    return [cut if short.count(cut) == 1 else line for cut, line in zip(short, lines, strict=True)]


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    end = _LONGEST // 3
    return f"{text[: _LONGEST - end - 1]}…{text[-end:]}"


@functools.cache
def width_of(text: str, size: float) -> float:
    """Return the width of a text in millimetres."""
    font = get_font(findfont(FontProperties(family=_SETTINGS["font.family"])))
    # Large, because the widths of small characters are rounded to whole pixels.
    font.set_size(100, 72)
    font.set_text(text, 0.0)
    return float(font.get_width_height()[0] / 64 * size / 100 / POINTS_PER_MM)


def height_of(size: float, lines: int = 1) -> float:
    """Return the height of lines of text in millimetres."""
    return lines * size * 1.25 / POINTS_PER_MM


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Return a text in lines of at most `width` millimetres. A longer word is broken."""
    lines = [""]
    for word in on_one_line(text).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if width_of(longer, size) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and width_of(lines[-1] + character, size) > width:
                lines.append("")
            lines[-1] += character
    return [line for line in lines if line]


def ceil_to(value: float, step: float) -> float:
    """Return the next multiple of `step`, so that small changes do not change a figure's size."""
    return math.ceil(value / step - 1e-9) * step
