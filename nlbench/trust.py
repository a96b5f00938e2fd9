"""How far each shipped method is trusted, and what it takes: two files beside the methods.

`methods/trust.toml` is written by hand, and the tests compare it with the tests that it names.
`methods/costs.csv` is written by tests/benchmarks/kept.py. Neither needs torch or a method.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass

from nlbench import registry

TRUST, COSTS = "trust.toml", "costs.csv"

# The levels, lowest first: a name for files and tables, and what is printed for it.
LEVELS = {
    "implemented": "implemented",
    "plain": "equal to a plain re-implementation",
    "authors": "equal to values of the authors' code",
    "published": "reproduced within the published deviation",
}


@dataclass(frozen=True)
class Trust:
    """How far a method is trusted.

    Attributes:
        level: the highest of `LEVELS` that it has reached.
        compared: what was compared, in words.
        tests: the tests that show it, each as FILE::FUNCTION, FILE counted from tests/.
        record: the level `published`: where the record is that shows it.
    """

    level: str
    compared: str = ""
    tests: tuple[str, ...] = ()
    record: str = ""

    @property
    def words(self) -> str:
        """Return the level as it is printed."""
        return LEVELS[self.level]


@dataclass(frozen=True)
class Costs:
    """What a method takes with its defaults; tests/benchmarks/kept.py says how it is counted.

    Attributes:
        passes: forward passes for each training example and epoch.
        helper_passes: the same of helper networks, for each epoch of the run.
        copies: further networks that it keeps.
        bytes_per_example: what it keeps of each training example, with 10 classes.
    """

    networks: int
    told: tuple[str, ...]
    passes: float
    helper_passes: float
    copies: int
    bytes_per_example: int

    def passes_in_words(self) -> str:
        """Return the passes, and those of helper networks if there are any."""
        text = _count(self.passes, "pass", "passes")
        return (
            f"{text} and {self.helper_passes:g} of helper networks" if self.helper_passes else text
        )

    def kept_in_words(self) -> str:
        """Return what it keeps beyond the networks that it trains; empty for nothing."""
        kept = []
        if self.copies:
            kept.append(_count(self.copies, "further network", "further networks"))
        if self.bytes_per_example:
            kept.append(_count(self.bytes_per_example, "byte", "bytes") + " per example")
        return " and ".join(kept)

    def in_words(self) -> list[str]:
        """Return everything in short: privileged information, networks, passes, and memory."""
        told = [f"told {', '.join(self.told)}"] if self.told else []
        networks = _count(self.networks, "network", "networks")
        kept = self.kept_in_words()
        return [*told, networks, self.passes_in_words(), *([f"keeps {kept}"] if kept else [])]


def _count(number: float, one: str, more: str) -> str:
    return f"{number:g} {one if number == 1 else more}"


def trusts() -> dict[str, Trust]:
    """Return how far each shipped method is trusted, by its name."""
    with registry.beside_methods(TRUST).open("rb") as file:
        entries = tomllib.load(file)
    return {name: Trust(**{**one, "tests": tuple(one["tests"])}) for name, one in entries.items()}


def costs() -> dict[str, Costs]:
    """Return what each shipped method takes, by its name."""
    found = {}
    with registry.beside_methods(COSTS).open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            found[line["method"]] = Costs(
                networks=int(line["networks"]),
                told=tuple(line["told"].split()),
                passes=float(line["passes"]),
                helper_passes=float(line["helper_passes"]),
                copies=int(line["copies"]),
                bytes_per_example=int(line["bytes_per_example"]),
            )
    return found
