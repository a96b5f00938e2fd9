"""Figures as small SVG files, without a change that is seen.

matplotlib writes every point of a band, every number with six decimals, and the font beside each
text. Curves of thousands of epochs made files of hundreds of kilobytes.
"""

from __future__ import annotations

import re

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.path import Path

# In text, and in the values of attributes, "<" and ">" are escaped. So this finds tags alone, but
# for the outermost, whose size is exact.
_TAG = re.compile(rb"<(?!svg\b)[^<>]*>")
_LONG = re.compile(rb"\d+\.\d{3,}")
_POINTS = re.compile(rb'(?<= d=")[^"]*')
_BETWEEN = re.compile(rb"\s*([A-Za-z])\s*")
_NOT_TURNED = re.compile(rb' transform="rotate\(-?0 [^"]*\)"')
_ID = re.compile(rb' id="([^"]*)"')

# Where this font is not installed, a reader must not fall back on one with serifs.
_FONT, _FONTS = b" font-family: 'DejaVu Sans';", b"'DejaVu Sans', Verdana, sans-serif"


def simplify_bands(figure: Figure) -> None:
    """Leave out the points of filled areas that lie on a line between others.

    matplotlib does so for lines, to a ninth of a pixel. The figure must have its final layout.
    """
    for axes in figure.axes:
        for band in axes.collections:
            if not isinstance(band, PolyCollection):
                continue
            on_paper = band.get_transform()
            polygons = []
            for path in band.get_paths():
                small = path.transformed(on_paper).cleaned(simplify=True)
                is_corner = (small.codes == Path.MOVETO) | (small.codes == Path.LINETO)
                corners = np.asarray(small.vertices)[is_corner]
                polygons.append(on_paper.inverted().transform(corners))
            band.set_verts(polygons)


def compact(svg: bytes) -> bytes:
    """Return an SVG of matplotlib with short numbers, its font once and only the ids in use."""
    used = set(re.findall(rb"#([\w-]+)", svg))
    svg = _TAG.sub(lambda tag: _short(tag[0], used), svg)
    return svg.replace(b"<svg ", b'<svg font-family="' + _FONTS + b'" ', 1)


def _short(tag: bytes, used: set[bytes]) -> bytes:
    """Return a tag with coordinates in hundredths of a point, and without what says nothing."""
    tag = _LONG.sub(_rounded, tag)
    tag = _POINTS.sub(lambda points: _BETWEEN.sub(rb"\1", points[0]), tag)
    tag = _NOT_TURNED.sub(b"", tag).replace(_FONT, b"")
    # Older versions of matplotlib write size and font in one word.
    tag = tag.replace(b"'DejaVu Sans'", _FONTS)
    return _ID.sub(lambda name: name[0] if name[1] in used else b"", tag)


def _rounded(number: re.Match[bytes]) -> bytes:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".").encode()
