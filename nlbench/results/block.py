"""One table before it is written in a format: its subject, its cells, and the notes below it."""

from __future__ import annotations

from dataclasses import dataclass, field

Lines = list[list[str]]


@dataclass
class Block:
    """One table with the subject of its title, and the notes below it.

    Attributes:
        split: whether columns that do not fit the terminal go into further tables.
        unit: that of the numbers, as `Metric.unit`.
        bold: cells to print bold, as (line, column).
        groups: headings above the headings, each with its number of columns; for HTML and LaTeX.
        title: the title itself; "" for the usual one, which is made of the subject.
        text: further sentences of the caption.
    """

    subject: str
    headings: list[str]
    lines: Lines
    notes: list[str]
    split: bool = False
    unit: str = "%"
    bold: set[tuple[int, int]] = field(default_factory=set)
    groups: list[tuple[str, int]] = field(default_factory=list)
    title: str = ""
    text: str = ""
