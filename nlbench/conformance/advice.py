"""The likely fix for an error that a method raised."""

from __future__ import annotations

import re


class Failed(Exception):
    """A method does not meet the demand of a check.

    The message says what was seen, where, and the likely fix.
    """


class Skipped(Exception):
    """There is nothing in the method that a check could judge. The message says why."""


# A pattern in the message of an error -> the likely fix. Most of these errors are raised by torch.
# The first pattern that is found counts.
_FIXES = {
    r"not told|'noise_rate'|KeyError: 'T'": (
        "declare the privileged information that the method uses: "
        "told = ('noise_rate',) or told = ('T',)"
    ),
    r"has neither loss nor training_step": (
        "define loss(self, logits, batch), or the whole training_step"
    ),
    r"networks: define predict": (
        "with num_networks = 2, define predict(self, run, images), which combines both outputs"
    ),
    r"(Missing|Unexpected) key\(s\) in state_dict|size mismatch for": (
        "a state is restored right after prepare(): register buffers and modules in the "
        "constructor or in prepare, always with the same names and shapes"
    ),
    r"None": "run.validate() returns None if the protocol has no validation part",
    r"before Module\.__init__|__init__\(\) call": "call super().__init__(task) first",
    r"grad can be implicitly created only for scalar|does not require grad": (
        "backward_step takes a 0-d loss that depends on a network's output"
    ),
    r"modified by an inplace operation": ("do not write into logits or batch.images; make a copy"),
}


def fix_for(message: str) -> str:
    """Return the likely fix for an error's message as a further line, or an empty string."""
    for pattern, fix in _FIXES.items():
        if re.search(pattern, message):
            return f"\nfix: {fix}"
    return ""


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
