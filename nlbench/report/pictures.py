"""The figures of a page, as SVG within its HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

    from nlbench.results.cells import Results


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn, and the sentence below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Pictures:
    """The figures of a suite.

    Attributes:
        left_out: sentences about figures that the page does not have.
    """

    drawn: list[Drawn] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def of_suite(results: Results) -> Pictures:
    """Draw every figure for which a suite has the data."""
    return Pictures()
