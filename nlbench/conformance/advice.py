"""Advice."""

from __future__ import annotations

import re


class Failed(Exception):
    """A method does not hold to a check. The message says what was seen, where, and the likely fix."""


_HINTS = {
    r"not told|'noise_rate'|KeyError: 'T'": "what a method may be told it declares: told = ('noise_rate',) or ('T',)",
    r"has neither loss nor training_step": "define loss(self, logits, batch), or the whole training_step",
    r"networks: define predict": "with num_networks = 2, define predict(self, run, images), which says how they vote",
    r"(Missing|Unexpected) key\(s\) in state_dict|size mismatch for": (
        "a state is restored right after prepare(): register buffers and modules in the constructor or in prepare, "
        "always with the same names and shapes"
    ),
    r"None": "run.validate() is None where the protocol holds out no validation part",
    r"before Module\.__init__|__init__\(\) call": "call super().__init__(task) first",
    r"grad can be implicitly created only for scalar|does not require grad": (
        "backward_step takes a 0-d loss that depends on a network's output"
    ),
    r"modified by an inplace operation": "do not write into logits or batch.images; make a copy",
}


def hint(message: str) -> str:
    return next((f"\nfix: {fix}" for pattern, fix in _HINTS.items() if re.search(pattern, message)), "")
