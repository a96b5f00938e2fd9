"""What the rounding of a run's numbers depends on, and how far apart it may lead two trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nlbench.results.record import Environment

# Keys of a record's environment, with their names in sentences. Where two trainings of one run
# agree in all of them, their numbers must be the same, bit for bit. The others decide nothing:
# versions of nlbench, whose code has a hash of its own, and of Python; the operating system; how
# many runs were trained at the same time; and CUDA graphs, which replay the same kernels.
DECIDING = {
    "torch": "torch",
    "numpy": "numpy",
    "device": "kind of device",
    "device_name": "device",
    "cpu_capability": "CPU instructions of torch",
    "kernels": "CPU instructions of nlbench's kernels",
    "mkldnn": "oneDNN",
    "ops": "code of the losses",
    "precision": "precision",
    "threads": "threads",
    "compile": "compile",
}

# So many standard errors of the difference of two accuracies are allowed.
STANDARD_ERRORS = 3


@dataclass(frozen=True)
class Apart:
    """A key of the environment in which two trainings differ, with both values as text.

    Attributes:
        name: what sentences call it.
    """

    name: str
    one: str
    other: str


def differing(one: Environment, other: Environment) -> list[Apart]:
    """Return where two environments differ in what decides the rounding.

    A key that one of them does not have counts: nobody knows whether they agree in it.
    """
    found = []
    for key, name in DECIDING.items():
        values = [str(environment.get(key, "not recorded")) for environment in (one, other)]
        if values[0] != values[1] or key not in one:
            found.append(Apart(name, *values))
    return found


def tolerance(one: float, other: float, num_test: int) -> float:
    """Return how far two test accuracies in [0, 1] may be apart after another rounding.

    Two trainings that round differently end in two networks of the same quality. Each accuracy is
    measured on `num_test` images, so that the difference of two has a standard error of
    sqrt(2 p (1 - p) / num_test). That is more than two networks on the same images are apart on
    average, which leaves room for what the training itself adds.
    """
    share = (one + other) / 2
    return STANDARD_ERRORS * math.sqrt(2 * share * (1 - share) / max(num_test, 1))
