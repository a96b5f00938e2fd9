"""A figure as SVG that stands within an HTML page."""

from __future__ import annotations

import hashlib
import io
import re
from html import escape

from nlbench.figures import style
from nlbench.figures.picture import Picture

# In text, and in the values of attributes, "<" and ">" are escaped. So this finds tags alone.
_TAG = re.compile(r"<[^>]*>")


def svg(figure: Picture) -> str:
    """Return a figure as an <svg> element for an HTML page.

    It has no script, loads nothing, and does not change the rest of the page: its ids begin with
    a hash of the figure, and it has no style sheet. Text is text. Axes and text have the colour of
    the page's text (`currentColor`), on no background, and what is hollow is filled with the page's
    background. It has the figure's width, or that of the page if that is less. A title and a
    description are there for screen readers.
    """
    file = io.BytesIO()
    figure.write(file, ".svg", transparent=True)
    text = file.getvalue().decode()
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"

    # Only the element itself: a page has no XML header and no document type in its middle. The
    # style sheet would be for all elements of the page; what it says stands in the tag instead.
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    text = _TAG.sub(lambda match: _for_a_page(match[0], prefix), text)
    return _with_words(text, prefix, figure)


def _for_a_page(tag: str, prefix: str) -> str:
    """Return a tag with ids of its own and the page's colour of text."""
    tag = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", tag.replace("xlink:href", "href"))
    tag = tag.replace(f"fill: {style.FAINT}", "fill: currentColor; fill-opacity: 0.75")
    # A page says its background in `--paper`; Canvas is the browser's own.
    tag = tag.replace(style.PAPER, "var(--paper, Canvas)")
    return tag.replace(style.INK, "currentColor").replace(style.FAINT, "currentColor")


def _with_words(text: str, prefix: str, figure: Picture) -> str:
    """Return an SVG with a title and a description, whose size a page may reduce."""
    width = figure.get_figwidth() * 25.4
    start, rest = text[: text.index(">")], text[text.index(">") + 1 :]
    start = re.sub(r'\s(width|height|version|xmlns:xlink)="[^"]*"', "", start)
    title, words = f"{prefix}title", f"{prefix}desc"
    return (
        f'{start} role="img" aria-labelledby="{title} {words}" stroke-linejoin="round" '
        f'stroke-linecap="butt" style="width: {width:g}mm; max-width: 100%; height: auto">\n'
        f' <title id="{title}">{escape(figure.heading)}</title>\n'
        f' <desc id="{words}">{escape(figure.description)}</desc>{rest}'
    )
