"""How a check says that a method failed it, and fixes for values that are not finite."""

from __future__ import annotations


class Failed(Exception):
    """A method does not meet the demand of a check.

    The message says what was seen, where, and the likely fix.
    """


class Skipped(Exception):
    """There is nothing in the method that a check could judge. The message says why."""


# What was not finite first -> the likely fix.
FIX_IF_NOT_FINITE = {
    "loss": (
        "use log_softmax or logsumexp in place of softmax().log(), and guard divisions and means "
        "of nothing"
    ),
    "gradient": (
        "a square root, a power or a norm has an infinite slope at 0, and torch.where passes NaN "
        "from the branch that was not taken: clamp before, not after"
    ),
    "parameter": "look at the step before: its loss was finite, its update was not",
    "output": "look at the step before: its loss was finite, its update was not",
}
