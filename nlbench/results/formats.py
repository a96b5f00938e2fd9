"""Formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Format = Literal["md", "csv", "latex"]


def escaped(notes: list[str], fmt: Format) -> list[str]:
    return [note.replace("%", "\\%").replace("±", "$\\pm$") for note in notes] if fmt == "latex" else notes


def markdown(title: str, heads: list[str], rows: list[list[str]], notes: list[str]) -> str:
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |"
    return "\n".join([f"**{title}**", "", line(heads), rule, *map(line, rows), "", *(f"- {n}" for n in notes), ""])


def latex(title: str, heads: list[str], rows: list[list[str]], notes: list[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            f"% {title}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            line(heads),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {note}" for note in notes),
            "",
        ]
    )


def _escape(text: str) -> str:
    for char, safe in {
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "‡": r"$\ddagger$",
        "†": r"$\dagger$",
        "<": "$<$",
    }.items():
        text = text.replace(char, safe)
    return text
