"""Tables as Markdown and LaTeX: a title, headings, lines of cells, and notes below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Format = Literal["md", "csv", "latex"]

# Characters that LaTeX reads as commands, or that its standard fonts lack.
_LATEX = {
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "‡": r"$\ddagger$",
    "†": r"$\dagger$",
    "<": "$<$",
    "±": r"$\pm$",
    "°": r"$^\circ$",
}


def p_value(p: float) -> str:
    """Return a p-value with three digits, or "<0.001"."""
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}"


def markdown(
    title: str, headings: list[str], lines: Sequence[list[str]], notes: Sequence[str]
) -> str:
    """Return a Markdown table. The first column is aligned to the left, the others to the right."""
    columns = zip(headings, *lines, strict=True)
    widths = [max(map(len, column)) for column in columns]
    rules = ["-" * widths[0]]
    for width in widths[1:]:
        rules.append("-" * (width - 1) + ":")

    text = [f"**{title}**", ""]
    for line in (headings, rules, *lines):
        text.append(_markdown_line(line, widths))
    text.append("")
    for note in notes:
        text.append(f"- {note}")
    return "\n".join([*text, ""])


def _markdown_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join(padded) + " |"


def latex(title: str, headings: list[str], lines: Sequence[list[str]], notes: Sequence[str]) -> str:
    """Return a tabular for the package booktabs, with title and notes as comments."""
    text = [
        f"% {title}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        _latex_line(headings),
        r"\midrule",
    ]
    text += map(_latex_line, lines)
    text += [r"\bottomrule", r"\end{tabular}"]

    # A note can be copied into a caption, so what LaTeX would not print there is escaped.
    for note in notes:
        text.append("% " + note.replace("%", r"\%").replace("±", r"$\pm$"))
    return "\n".join([*text, ""])


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    for character, safe in _LATEX.items():
        text = text.replace(character, safe)
    return text
