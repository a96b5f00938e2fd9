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

# Millimetres: as narrow as a phone, where text must not become smaller. A wide screen shows a
# figure larger.
WIDTH = 85.0

# A figure of one condition is drawn for so many conditions of a suite. A page of forty conditions
# would otherwise have hundreds of figures, which nobody would look through.
MOST_CONDITIONS = 3

# Bytes of the figures of a suite. A page of more than 10 MB opens slowly.
MOST_BYTES = 3_000_000

# What stands above a figure. The help of `nlbench plot` also names what its options would draw.
_CAPTIONS = {
    "epochs": "Test accuracy over the epochs",
    "memorisation": "What is predicted for correctly and wrongly labelled training images",
    "gradient": "The gradient at the true class",
    "noise-rate": "Accuracy against the noise rate",
    "transition": "The estimated transition matrix beside the true one",
    "cost": "Seconds of training against accuracy",
    "differences": "Each row minus one of them, with intervals",
    "ranks": "Average ranks over distinct datasets, with the critical difference",
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

    @property
    def bytes(self) -> int:
        """The size of the figures that were drawn."""
        return sum(len(one) for several in self.drawn.values() for one in several)


def of_suite(results: Results) -> Pictures:
    """Draw every figure for which a suite has the data, and say what the others lack."""
    found = Pictures()
    for kind in KINDS.values():
        # Which two conditions to compare is a question that a page cannot answer.
        if kind.two_sides:
            continue
        if kind.one_condition:
            _of_conditions(kind, results, found)
        else:
            _draw(kind, results, Options(width=WIDTH), found)
    return found


def _of_conditions(kind: Kind, results: Results, found: Pictures) -> None:
    """Draw a figure for each of the first conditions that have results."""
    known = results.begun()
    for condition in known[:MOST_CONDITIONS]:
        _draw(kind, results, Options(condition=condition, width=WIDTH), found)
    if len(known) > MOST_CONDITIONS:
        command = _command(kind, results, known[-1])
        more = len(known) - MOST_CONDITIONS
        conditions = "1 more condition" if more == 1 else f"{more} more conditions"
        found.left_out.append(f"{kind.name}: {conditions}; {command} draws the last one.")


def _draw(kind: Kind, results: Results, options: Options, found: Pictures) -> None:
    from markupsafe import Markup

    if found.bytes > MOST_BYTES:
        command = _command(kind, results, options.condition)
        _leave_out(found, f"{kind.name}: to keep the page small; {command} draws it.")
        return
    try:
        drawn = svg(kind.draw(results, options))
    # What the results lack, or what is wrong with a file of a run.
    except UserError as error:
        _leave_out(found, f"{kind.name}: {error}")
        return
    caption = _CAPTIONS.get(kind.name, kind.help.rstrip("."))
    found.drawn.setdefault(caption, []).append(Markup(drawn))


def _command(kind: Kind, results: Results, condition: int | None) -> str:
    words = ["nlbench", "plot", kind.name, str(FOLDER), "--suite", results.suite]
    if condition is not None:
        words += ["--condition", results.conditions[condition]]
    return f"`{shlex.join(words)}`"


def _leave_out(found: Pictures, line: str) -> None:
    if line not in found.left_out:
        found.left_out.append(line)
