"""The figures of a page, as SVG within its HTML."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nlbench.errors import UserError
from nlbench.figures import KINDS, Kind, Options, svg
from nlbench.report.state import FOLDER

if TYPE_CHECKING:
    from markupsafe import Markup

    from nlbench.results.cells import Results

# Millimetres. A page shows a figure larger than a paper does.
WIDTH = 110.0

# A figure of one condition is drawn for so many conditions of a suite. A page of forty conditions
# would otherwise have hundreds of figures, which nobody would look through.
MOST_CONDITIONS = 4

# What stands above a figure. The help of `nlbench plot` also names what its options would draw.
_CAPTIONS = {
    "epochs": "Test accuracy over the epochs",
    "memorisation": "What is predicted for correctly and wrongly labelled training images",
}


@dataclass(frozen=True)
class Pictures:
    """The figures of a suite.

    Attributes:
        drawn: the figures of each kind, by the words above them.
        left_out: sentences about figures that the page does not have.
    """

    drawn: dict[str, list[Markup]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def of_suite(results: Results) -> Pictures:
    """Draw every figure for which a suite has the data, and say what the others lack."""
    found = Pictures()
    for kind in KINDS.values():
        if kind.one_condition:
            _of_conditions(kind, results, found)
        else:
            _draw(kind, results, Options(width=WIDTH), found)
    return found


def _of_conditions(kind: Kind, results: Results, found: Pictures) -> None:
    for condition in range(min(len(results.conditions), MOST_CONDITIONS)):
        _draw(kind, results, Options(condition=condition, width=WIDTH), found)
    more = len(results.conditions) - MOST_CONDITIONS
    if more > 0:
        last = shlex.quote(results.conditions[-1])
        found.left_out.append(
            f"{kind.name}: {more} more conditions. `nlbench plot {kind.name} {FOLDER} --suite "
            f"{shlex.quote(results.suite)} --condition {last}` draws the last one."
        )


def _draw(kind: Kind, results: Results, options: Options, found: Pictures) -> None:
    from markupsafe import Markup

    try:
        drawn = svg(kind.draw(results, options))
    # What the results lack, or what is wrong with a file of a run.
    except UserError as error:
        line = f"{kind.name}: {error}"
        if line not in found.left_out:
            found.left_out.append(line)
        return
    caption = _CAPTIONS.get(kind.name, kind.help.rstrip("."))
    found.drawn.setdefault(caption, []).append(Markup(drawn))
