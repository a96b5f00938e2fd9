"""Figures of a suite's results: `nlbench plot KIND RESULTS`, and inline in a page.

    from nlbench.figures import KINDS, Options, svg

    figure = KINDS["epochs"].draw(results, Options(condition=0))
    figure.write(Path("epochs.pdf"), ".pdf")
    element = svg(figure)

Each kind is a module beside this file. It is imported when it is drawn, because matplotlib takes
half a second.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from nlbench.figures.options import NothingToDraw, Options, condition_of

if TYPE_CHECKING:
    from nlbench.figures.picture import Picture
    from nlbench.results.cells import Results

__all__ = ["KINDS", "Kind", "NothingToDraw", "Options", "condition_of", "svg"]


@dataclass(frozen=True)
class Kind:
    """One kind of figure.

    Attributes:
        name: as `nlbench plot` takes it.
        help: what it shows, in one line.
        module: the module beside this file that draws it.
        one_condition: whether it shows one condition of a suite, and not several.
        two_sides: whether it compares two conditions, of one suite or of two.
    """

    name: str
    help: str
    module: str
    one_condition: bool = True
    two_sides: bool = False

    def draw(self, results: Results, options: Options | None = None) -> Picture:
        """Draw the figure.

        Raises: NothingToDraw, with a message that says what the results lack; SuiteError for
            options that do not fit the results.
        """
        module = importlib.import_module(f"{__name__}.{self.module}")
        return cast("Picture", module.draw(results, options or Options()))


_LIST = (
    Kind("epochs", "Test accuracy, or another column of history.csv, over the epochs.", "epochs"),
    Kind(
        "memorisation",
        "What is predicted for correctly and wrongly labelled training examples, over the epochs.",
        "memorisation",
    ),
    Kind(
        "gradient",
        "The gradient at the true class, over the epochs, of runs with --record-gradients.",
        "gradient",
    ),
    Kind(
        "noise-rate",
        "A metric against the noise rate, of one dataset and kind of noise.",
        "noise_rate",
        one_condition=False,
    ),
    Kind("transition", "The estimated transition matrix beside the true one.", "transition"),
    Kind("cost", "Seconds or forward passes against a metric.", "cost"),
    Kind("differences", "Each row minus one of them, with intervals.", "differences"),
    Kind(
        "ranks",
        "Average ranks over distinct datasets, with the critical difference.",
        "ranks",
        one_condition=False,
    ),
    Kind(
        "agreement",
        "Each row's value in one suite, or under one condition, against that in another.",
        "agreement",
        one_condition=False,
        two_sides=True,
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _LIST}


def svg(figure: Picture) -> str:
    """Return a figure as a self-contained <svg> element for an HTML page."""
    from nlbench.figures.inline import svg as written

    return written(figure)
