"""One table before it is written in a format: its subject, its cells, and the notes below it."""

from __future__ import annotations

from dataclasses import dataclass

Lines = list[list[str]]


@dataclass
class Block:
    """One table with the subject of its title, and the notes below it.

    Attributes:
        split: whether columns that do not fit the terminal go into further tables.
        unit: that of the numbers, as `Metric.unit`.
    """

    subject: str
    headings: list[str]
    lines: Lines
    notes: list[str]
    split: bool = False
    unit: str = "%"
