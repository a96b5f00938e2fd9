"""A table as HTML: one element `table` with a caption, and a list of notes below it."""

from __future__ import annotations

import html as standard_html
import re
from collections.abc import Collection, Sequence

from nlbench.errors import on_one_line

# Numbers end at the same place in every line, and no line of a table is broken inside a number.
_NUMBER = "text-align: right; white-space: nowrap; padding: 0.2em 0.6em"
_HEADING = "text-align: right; padding: 0.2em 0.6em"
_NAME = "text-align: left; padding: 0.2em 0.6em"
_GROUP = "text-align: center; padding: 0.2em 0.6em"
_CAPTION = "text-align: left"

# What nlbench's own notes print as code, for example a command.
_CODE = re.compile(r"`([^`]+)`")


def html(
    title: str,
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    bold: Collection[tuple[int, int]] = (),
    groups: Sequence[tuple[str, int]] = (),
    inline_styles: bool = True,
) -> str:
    """Return a table as a part of a page. The first column holds names, the others numbers.

    Every text is escaped, and the result is ASCII: it means the same in a page of any encoding.

    Args:
        notes: a list below the table; no list where there are none.
        bold: the cells to print bold, as (line, column).
        groups: headings above the headings, each with its number of columns; together they have
            as many columns as `headings`. "" leaves a place empty.
        inline_styles: writes alignment into each cell, so that nothing around the table changes.
            False leaves the table to the style sheet of its page.
    """
    style = _styles if inline_styles else _no_styles
    text = [
        "<table>",
        f"  <caption{style(_CAPTION)}>{html_text(title)}</caption>",
    ]
    # A heading of several columns belongs to a group of columns.
    text += [f'  <colgroup span="{columns}"></colgroup>' for _, columns in groups]
    text.append("  <thead>")
    if groups:
        text += ["    <tr>", *_group_cells(groups, style(_GROUP)), "    </tr>"]
    text.append("    <tr>")
    for column, heading in enumerate(headings):
        alignment = style(_HEADING if column else _NAME)
        text.append(f'      <th scope="col"{alignment}>{html_text(heading)}</th>')
    text += ["    </tr>", "  </thead>", "  <tbody>"]

    for number, (name, *cells) in enumerate(lines):
        text.append("    <tr>")
        shown = _strong(html_text(name), (number, 0) in bold)
        text.append(f'      <th scope="row"{style(_NAME)}>{shown}</th>')
        for column, cell in enumerate(cells, 1):
            shown = _strong(html_text(cell), (number, column) in bold)
            text.append(f"      <td{style(_NUMBER)}>{shown}</td>")
        text.append("    </tr>")
    text += ["  </tbody>", "</table>"]

    if notes:
        text.append("<ul>")
        text += [f"  <li>{_CODE.sub(_as_code, html_text(note))}</li>" for note in notes]
        text.append("</ul>")
    return "\n".join([*text, ""])


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


def _strong(text: str, bold: bool) -> str:
    return f"<strong>{text}</strong>" if bold else text


def _as_code(match: re.Match[str]) -> str:
    return f"<code>{match[1]}</code>"


def _styles(style: str) -> str:
    return f' style="{style}"'


def _no_styles(style: str) -> str:
    return ""
