"""A table as HTML: one element `table` with a caption, and a list of notes below it."""

from __future__ import annotations

import html as standard_html
import re
from collections.abc import Collection, Sequence

from nlbench.errors import on_one_line
from nlbench.results.numbers_in_cells import number_and_marks

# Numbers end at the same place in every line, and no line of a table is broken inside a number.
_NUMBER = "text-align: right; white-space: nowrap; padding: 0.2em 0.6em"
_HEADING = "text-align: right; padding: 0.2em 0.6em"
_NAME = "text-align: left; padding: 0.2em 0.6em"
_GROUP = "text-align: center; padding: 0.2em 0.6em"
_CAPTION = "text-align: left"
# A table that is wider than its page scrolls by itself, and the page does not.
_SCROLLS = "overflow-x: auto"

# What nlbench's own notes print as code, for example a command.
_CODE = re.compile(r"`([^`]+)`")


def html(
    title: str,
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    text: str = "",
    bold: Collection[tuple[int, int]] = (),
    groups: Sequence[tuple[str, int]] = (),
    inline_styles: bool = True,
) -> str:
    """Return a table as a part of a page. The first column holds names, the others numbers.

    Every text is escaped, and the result is ASCII: it means the same in a page of any encoding.

    Args:
        text: further sentences of the caption.
        notes: a list below the table; no list where there are none.
        bold: the cells whose number is bold, as (line, column).
        groups: headings above the headings, each with its number of columns; together they have
            as many columns as `headings`. "" leaves a place empty.
        inline_styles: writes alignment into each cell, so that nothing around the table changes,
            and puts the table into an element that scrolls where the page is too narrow. False
            leaves the table to the style sheet of its page.
    """
    style = _styles if inline_styles else _no_styles
    caption = html_text(title)
    if text:
        caption += f" {_with_code(text)}"
    written = ["<table>", f"  <caption{style(_CAPTION)}>{caption}</caption>"]
    if inline_styles:
        # The arrow keys scroll what has the focus, and a screen reader says what that is.
        name = html_text(title)
        region = f'<div role="region" aria-label="{name}" tabindex="0" style="{_SCROLLS}">'
        written.insert(0, region)
    # A heading of several columns belongs to a group of columns.
    written += [f'  <colgroup span="{columns}"></colgroup>' for _, columns in groups]
    written.append("  <thead>")
    if groups:
        written += ["    <tr>", *_group_cells(groups, style(_GROUP)), "    </tr>"]
    written.append("    <tr>")
    for column, heading in enumerate(headings):
        alignment = style(_HEADING if column else _NAME)
        written.append(f'      <th scope="col"{alignment}>{html_text(heading)}</th>')
    written += ["    </tr>", "  </thead>", "  <tbody>"]

    for number, (name, *cells) in enumerate(lines):
        written.append("    <tr>")
        written.append(f'      <th scope="row"{style(_NAME)}>{html_text(name)}</th>')
        for column, cell in enumerate(cells, 1):
            shown = html_text(cell)
            if (number, column) in bold:
                strong, marks = number_and_marks(cell)
                shown = f"<strong>{html_text(strong)}</strong>{html_text(marks)}"
            written.append(f"      <td{style(_NUMBER)}>{shown}</td>")
        written.append("    </tr>")
    written += ["  </tbody>", "</table>"]
    if inline_styles:
        written.append("</div>")

    if notes:
        written.append("<ul>")
        written += [f"  <li>{_with_code(note)}</li>" for note in notes]
        written.append("</ul>")
    return "\n".join([*written, ""])


def html_text(text: str) -> str:
    """Return a text so that a page shows it as it is, in an element or in an attribute."""
    escaped = standard_html.escape(on_one_line(text))
    return escaped.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _group_cells(groups: Sequence[tuple[str, int]], style: str) -> list[str]:
    cells = []
    for name, columns in groups:
        if name:
            span = f' scope="colgroup" colspan="{columns}"'
            cells.append(f"      <th{span}{style}>{html_text(name)}</th>")
        else:
            # A heading without text would be read out as a heading.
            cells.append(f'      <td colspan="{columns}"></td>')
    return cells


def _with_code(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html_text(text))


def _styles(style: str) -> str:
    return f' style="{style}"'


def _no_styles(style: str) -> str:
    return ""
