"""Tables as Markdown, LaTeX and HTML: a title, headings, lines of cells, and notes below them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from typing import Literal

from nlbench.errors import on_one_line
from nlbench.results.html_table import html as html
from nlbench.results.latex_table import latex as latex
from nlbench.results.latex_table import latex_text as latex_text
from nlbench.results.numbers_in_cells import number_and_marks

Format = Literal["md", "csv", "latex", "html", "json"]

# A Markdown table whose lines are no longer than this fits a terminal.
WIDTH = 80
# Longer lines of text are hard to read, however wide the terminal is.
_TEXT_WIDTH = 100

# Characters with a meaning in the middle of a Markdown text, among them those of links, of entities
# such as &lt;, of formulas and of what is struck out.
_MARKDOWN = re.compile(r"[\\|*`<$]|(?<!\w)_|_(?!\w)|\](?=[(\[])|&(?=#?\w+;)|~(?=~)")

# The same in a note, where "|" and "p <0.001" are text.
_MARKDOWN_OF_NOTES = re.compile(
    r"[\\*`$]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)|\](?=[(\[])|&(?=#?\w+;)|~(?=~)"
)
# Code in notes, as nlbench writes it. Other accents are of names.
_CODE_IN_NOTES = re.compile(
    r"(`(?:nlbench(?: [^`]*)?|ce|label|weights|epochs: 2|noise_rate: [^`]*|transition: T\.csv)`)"
)


def p_value(p: float) -> str:
    """Return a p-value with three digits, or "<0.001"."""
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}"


# ---- Markdown ------------------------------------------------------------------------------------


def markdown(
    title: str,
    headings: list[str],
    lines: Sequence[list[str]],
    notes: Sequence[str],
    *,
    width: int | None = None,
    split: bool = False,
    text: str = "",
    bold: Collection[tuple[int, int]] = (),
) -> str:
    """Return a Markdown table. The first column is aligned to the left, the others to the right.

    Args:
        text: further sentences of the title, which are not bold.
        bold: the cells whose number is bold, as (line, column).
        width: wraps the title and the notes at words. None keeps each on one line.
        split: puts columns that do not fit the width into further tables, which repeat the first
            column.
    """
    headings = [markdown_name(heading) for heading in headings]
    lines = [[markdown_name(first), *rest] for first, *rest in lines]
    for line, column in bold:
        lines[line][column] = _markdown_bold(lines[line][column])

    parts = [list(range(len(headings)))]
    if split and width is not None:
        parts = parts_that_fit(headings, lines, width)

    caption = f"**{markdown_name(title)}**"
    if text:
        # An asterisk at the beginning of a wrapped line would begin a list.
        caption += " " + re.sub(r"(?<!\S)([*+-])(?=\s)", r"\\\1", _sound_note(text))
    written = [*_wrapped(caption, width), ""]
    for part in parts:
        written += _markdown_table(headings, lines, part)
        written.append("")
    for note in notes:
        written += markdown_item(note, width)
    return "\n".join([*written, ""])


def markdown_item(text: str, width: int | None = None) -> list[str]:
    """Return the lines of a list's item; `width` wraps it at words."""
    return _wrapped(f"- {_sound_note(text)}", width, "  ")


def table_width(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    """Return the number of characters of a line of a Markdown table."""
    return sum(_widths(headings, lines)) + 3 * len(headings) + 1


def markdown_name(name: str) -> str:
    """Return a user's name so that Markdown shows it as it is, also inside a table."""
    return _MARKDOWN.sub(r"\\\g<0>", on_one_line(name))


def parts_that_fit(
    headings: Sequence[str], lines: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """Return the columns of each table, the first one always among them.

    Args:
        width: of the terminal, if it is wider than usual.
    """
    width = max(WIDTH, width)
    widths = _widths(headings, lines)
    parts, used = [[0]], widths[0] + 4
    for column in range(1, len(headings)):
        needed = widths[column] + 3
        # A column that is wider than the terminal has a table of its own.
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0] + 4
        parts[-1].append(column)
        used += needed
    return parts


def _widths(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(headings, *lines, strict=True)
    # "-:" is the shortest rule that Markdown reads.
    return [max(2, *map(len, column)) for column in columns]


def _markdown_table(
    headings: Sequence[str], lines: Sequence[Sequence[str]], part: Sequence[int]
) -> list[str]:
    widths = _widths(headings, lines)
    rules = ["-" * widths[0]]
    for width in widths[1:]:
        rules.append("-" * (width - 1) + ":")

    text = []
    for line in (headings, rules, *lines):
        padded = []
        for column in part:
            align = str.rjust if column else str.ljust
            padded.append(align(line[column], widths[column]))
        text.append("| " + " | ".join(padded) + " |")
    return text


def _markdown_bold(cell: str) -> str:
    number, marks = number_and_marks(cell)
    # An asterisk that is a mark would end the bold text.
    return f"**{number}**{marks}".replace("***", "**\\*")


def _sound_note(note: str) -> str:
    """Return a note on one line, in which a name cannot be a tag, a link or a list."""
    parts = _CODE_IN_NOTES.split(on_one_line(note))
    # Every second part is code.
    parts[::2] = [_MARKDOWN_OF_NOTES.sub(r"\\\g<0>", part) for part in parts[::2]]
    note = "".join(parts)
    # A note that begins with one of these would be a list within the list.
    return f"\\{note}" if note.startswith(("- ", "+ ", "#")) else note


def _wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        min(width, _TEXT_WIDTH),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


# ---- CSV -----------------------------------------------------------------------------------------

# Spreadsheets in Japanese and Chinese read the wide signs, too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_name(name: str) -> str:
    """Return a user's name so that no spreadsheet takes it for a formula.

    A spreadsheet runs a cell that begins with one of =+-@ or a tab. An apostrophe before it keeps
    it text, as the OWASP page on CSV injection advises.
    """
    if name.startswith(_FORMULA):
        return f"'{name}"
    return name
