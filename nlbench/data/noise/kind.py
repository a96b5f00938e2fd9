"""What a kind of noise is, what a suite may set for it, and the registry of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlbench.errors import did_you_mean
from nlbench.files import user_path

Rng = np.random.Generator
Array = np.ndarray


@dataclass(frozen=True)
class Param:
    """A parameter that a suite may set for a kind.

    Attributes:
        type: float, bool, str, or Path for a file that must exist.
        low, high: the range of a float.
        default: None where the parameter is required.
        added: it came after the first version, so that it is left out of a run's key when it has
            its default, and existing keys stay.
        choices: the values that a text may have. Empty: any.
    """

    name: str
    type: type
    doc: str
    low: float = -math.inf
    high: float = math.inf
    default: float | str | None = None
    added: bool = False
    choices: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """What a suite may write for it, and what it means."""
        allowed = {float: f"{self.low:g} to {self.high:g}", bool: "true or false"}
        words = [allowed[self.type]] if self.type in allowed else []
        if self.choices:
            words.append(" or ".join(self.choices))
        if self.default is None:
            words.append("required")
        elif self.default != "":
            words.append(f"default {str(self.default).lower()}")
        return f"{self.name} ({', '.join(words or ['optional'])}): {self.doc}"

    def parse(self, value: object, base_dir: Path) -> float | str:
        """Return the value in its canonical type. Raises ValueError that says what it must be."""
        if self.type is float:
            return self._parse_number(value)
        if self.type is bool:
            if not isinstance(value, bool):
                raise ValueError(f"must be true or false, got {value!r}")
            return value
        if not isinstance(value, str | Path):
            quotes = f"; put it in quotes: '{value}'" if isinstance(value, int | float) else ""
            raise ValueError(f"must be text, got {value!r}{quotes}")
        if self.choices and value not in self.choices:
            raise ValueError(
                f"must be {' or '.join(self.choices)}, got {value!r}."
                f"{did_you_mean(str(value), self.choices)}"
            )
        if self.type is str:
            return str(value)

        path = user_path(base_dir, str(value))
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return str(path)

    def _parse_number(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, got {value!r}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be in [{self.low:g}, {self.high:g}], got {value!r}")
        return float(value)


@dataclass(frozen=True)
class Kind:
    """A kind of noise.

    Attributes:
        draw: called as draw(rng, clean, C, **params) with the true labels (N,) int64; returns the
            given labels (N,), integers, and leaves `clean` alone. A kind that needs images gets the
            keywords `images` and `info` as well, one that needs examples the keyword
            `examples`.
        check: called as check(examples, **params) before the first run, with what is known of the
            training examples then; raises DataError for a file that cannot be used.
        source: the paper or code that it follows, in a few words.
        class_ids: the kind is defined for datasets whose `Info.class_ids` is this one. Empty: for
            all datasets.
        redrawn: whether each seed draws its own labels. False for labels from a file.
        version: of the numbers that it draws. Raise it when they change: it is part of a run's key
            from 2 on, so that no key ever stands for other labels than before.
    """

    name: str
    doc: str
    draw: Callable[..., Array]
    params: tuple[Param, ...]
    source: str = ""
    class_ids: str = ""
    needs_images: bool = False
    needs_examples: bool = False
    redrawn: bool = True
    version: int = 1
    check: Callable[..., None] | None = None


KINDS: dict[str, Kind] = {}

RATE = Param("rate", float, "share of the labels to change", 0, 1)
PATH = Param("path", Path, "the file, relative to the suite's folder")
KEY = Param("key", str, "which column of a table, or entry of a .pt with several", default="")
UNRELATED = Param(
    "unrelated",
    bool,
    "true for labels that are meant to have nothing to do with the images",
    default=False,
    added=True,
)


def kind(
    name: str,
    *params: Param,
    source: str,
    class_ids: str = "",
    needs_images: bool = False,
    needs_examples: bool = False,
    redrawn: bool = True,
    version: int = 1,
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register a function as a kind. The first line of its docstring describes it to users."""

    def register(draw: Callable[..., Array]) -> Callable[..., Array]:
        doc = (draw.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(
            name=name,
            doc=doc,
            draw=draw,
            params=params,
            source=source,
            class_ids=class_ids,
            needs_images=needs_images,
            needs_examples=needs_examples,
            redrawn=redrawn,
            version=version,
            check=check,
        )
        return draw

    return register
