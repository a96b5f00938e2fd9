"""Where the number of a cell ends and its marks begin, as in "92.00±1.73*"."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(±\d+(\.\d+)?)?")


def number_and_marks(cell: str) -> tuple[str, str]:
    """Return the number that a cell begins with, and the rest; the whole cell where it has none."""
    found = _NUMBER.match(cell)
    if found is None:
        return cell, ""
    return found[0], cell[found.end() :]
