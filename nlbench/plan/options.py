"""Options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from nlbench.errors import SuiteError
from nlbench.plan.yaml_lines import NotYaml, parse_yaml, plain


def parse_set(settings: Iterable[str]) -> dict[str, Any]:
    """`--set` options ("epochs=2", "schedule.gamma=0.1") as protocol overrides. Raises SuiteError."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, _, text = (part.strip() for part in setting.partition("="))
        *parents, last = key.split(".")
        if not text or not all([*parents, last]):
            raise SuiteError(f"--set {setting}: write it as KEY=VALUE, for example --set epochs=2")
        try:
            value = plain(parse_yaml(text))
        except NotYaml as error:
            raise SuiteError(f"--set {setting}: {text!r} cannot be read as a value: {error}") from None
        node = overrides
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise SuiteError(f"--set {setting}: another --set gives {part!r} a value of its own; keep one of them")
        node[last] = value
    return overrides


_MOST_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """`--seeds`: "0,1,4" or "0-4". Raises SuiteError."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise SuiteError(f"--seeds {text}: write seeds as 0,1 or as 0-4")
        if last - first >= _MOST_SEEDS:
            raise SuiteError(f"--seeds {text}: {part} are {last - first + 1:,} seeds; at most {_MOST_SEEDS:,} can be")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
