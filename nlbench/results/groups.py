"""Which conditions of a suite belong together in tables: `--group-by`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nlbench.results.cells import Results


@dataclass(frozen=True)
class Group:
    """Conditions that share a table, or a heading above their columns.

    Attributes:
        name: what they have in common, as headings print it.
        conditions: their places in `Results.conditions`.
        headings: what tells each from the others.
    """

    name: str
    conditions: list[int]
    headings: list[str]


def by_dataset(results: Results) -> list[Group]:
    """Return a group for each dataset, with its noises as headings, in the suite's order."""
    return _grouped([(dataset, noise) for dataset, noise in datasets_and_noises(results)])


def by_noise(results: Results) -> list[Group]:
    """Return a group for each noise, with its datasets as headings, in the suite's order."""
    return _grouped([(noise, dataset) for dataset, noise in datasets_and_noises(results)])


def datasets_and_noises(results: Results) -> list[tuple[str, str]]:
    """Return the name of the dataset and that of the noise or label set of each condition.

    A condition whose runs have not begun is compared with the names of the others. Where that
    tells nothing, its whole title is the name of its dataset, and its noise is "".
    """
    found = [_split_title(results, condition) for condition in range(len(results.conditions))]
    known = [pair[0] for pair in found if pair is not None]

    complete = []
    for title, pair in zip(results.conditions, found, strict=True):
        complete.append(pair or _split_by_names(title, known))
    return complete


def _split_title(results: Results, condition: int) -> tuple[str, str] | None:
    """Split a title as its first record says; None without records."""
    title = results.conditions[condition]
    records = results.records_under(condition)
    if not records:
        return None

    # A title is the dataset's, followed by the noise, or by a label set that is not the usual one.
    spec = records[0].spec
    noise, labels = spec.get("noise"), str(spec.get("labels", ""))
    second = labels
    if noise:
        second = str(noise.get("kind", ""))
        if "rate" in noise:
            second += f" {noise['rate']:g}"
    dataset, separator, rest = title.rpartition(f" {second}")
    if not separator or (rest and not rest.startswith(" ")):
        return title, labels
    return dataset, f"{second}{rest}"


def _split_by_names(title: str, known: Sequence[str]) -> tuple[str, str]:
    for name in sorted(known, key=len, reverse=True):
        if title.startswith(f"{name} "):
            return name, title.removeprefix(f"{name} ")
    return title, ""


def _grouped(pairs: Sequence[tuple[str, str]]) -> list[Group]:
    groups: dict[str, Group] = {}
    for condition, (name, heading) in enumerate(pairs):
        group = groups.setdefault(name, Group(name, [], []))
        group.conditions.append(condition)
        group.headings.append(heading or name)
    return list(groups.values())
