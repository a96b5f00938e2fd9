"""The kinds of noise in words, and their parameters from the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nlbench.errors import SuiteError

if TYPE_CHECKING:
    from nlbench.data.noise.kinds import Kind

# What an example has for a parameter that is required.
_EXAMPLES = {"rate": "0.4", "path": "FILE"}


def described() -> dict[str, str]:
    """Return each kind with what it does, its parameters, its source and an example, a line each.

    The example is what a suite has under `noise:`.
    """
    from nlbench.data.noise.kinds import KINDS

    return {kind.name: "\n".join(_lines(kind)) for kind in KINDS.values()}


def parameters(options: Mapping[str, object], settings: Iterable[str]) -> dict[str, object]:
    """Return a noise mapping of the options of `noise export` and of its `--set NAME=VALUE`.

    A parameter that is left out has the default of its kind.

    Raises: SuiteError for a setting that has an option of its own, or is no NAME=VALUE.
    """
    from nlbench.plan.options import parse_set

    given = {name: value for name, value in options.items() if value is not None}
    for name, value in parse_set(settings).items():
        if name in options:
            raise SuiteError(f"--set {name}: write --{name} {value}")
        given[name] = value
    return given


def _lines(kind: Kind) -> list[str]:
    lines = [kind.doc, *(param.in_words for param in kind.params)]
    if kind.class_ids:
        lines.append(f"only for {kind.class_ids} and datasets with its classes")
    if kind.needs_images:
        lines.append("only for images in memory")

    values = [f"kind: {kind.name}"]
    for param in kind.params:
        if param.default is None:
            values.append(f"{param.name}: {_EXAMPLES.get(param.name, 'VALUE')}")
    example = ", ".join(values)
    return [*lines, f"source: {kind.source}", f"noise: {{{example}}}"]
