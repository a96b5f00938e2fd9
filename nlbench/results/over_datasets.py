"""Average ranks of rows over datasets, each of which counts once.

Label sets and noises of one dataset share its images, so they are no independent datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nlbench.errors import SuiteError
from nlbench.results import wording
from nlbench.results.analysis import LEVEL
from nlbench.results.cells import Results
from nlbench.results.metrics import METRICS, check_metric
from nlbench.results.statistics import datasets as ranking

# Datasets of two names with the same images.
_SAME_IMAGES = {"cifar10n": "cifar10", "cifar100n": "cifar100"}

# With fewer datasets the probabilities of Friedman's and Nemenyi's tests are rough.
FEW = 5


@dataclass(frozen=True)
class AverageRank:
    """The ranks of one row: the mean, and the rank in each condition by its title.

    `label` ends with "(3/4)" where 3 of the 4 planned runs have a value.
    """

    row: str
    label: str
    mean: float
    ranks: dict[str, float]


@dataclass(frozen=True)
class OverDatasets:
    """The rows of a suite over its datasets.

    Attributes:
        conditions: the titles of the conditions, one for each dataset.
        rows: the lowest average rank, which is the best, first.
        critical_difference: average ranks that differ by this or more differ beyond chance.
        friedman_p: the p-value of Friedman's test; None with fewer than three rows.
        groups: names of rows that cannot be told apart.
        left_out: rows that are not ranked, with the reason.
    """

    metric: str
    conditions: list[str]
    rows: list[AverageRank]
    critical_difference: float | None
    friedman_p: float | None
    groups: list[list[str]]
    left_out: dict[str, str]
    sentence: str
    notes: list[str] = field(default_factory=list)


def over_datasets(
    results: Results,
    metric: str = "last",
    *,
    conditions: Sequence[int] | None = None,
    level: float = LEVEL,
) -> OverDatasets:
    """Rank the rows of a suite on each dataset by their means, and average the ranks.

    Args:
        conditions: one for each dataset, as places in `results.conditions`; by default all.

    Raises: SuiteError where two conditions are of one dataset, where there are fewer than two
        datasets with results, and where fewer than two rows can be ranked.
    """
    check_metric(metric)
    places = _one_for_each_dataset(results, conditions)
    values, left_out = _values(results, places, metric)
    if len(values) < 2:
        reasons = [f"{row}: {reason}" for row, reason in left_out.items()]
        raise SuiteError(
            f"{results.suite}: average ranks need two rows with results on every dataset, and there"
            f" {'is' if len(values) == 1 else 'are'} {wording.number(len(values))}"
            f" ({'; '.join(reasons)})"
        )

    found = ranking.average_ranks(values, level)
    labels = {row.name: row.label for row in results.all_rows}
    titles = [results.conditions[place] for place in places]
    rows = []
    for name, mean in found.mean.items():
        ranks = dict(zip(titles, found.ranks[name], strict=True))
        done, planned = _counts(results, name, places, metric)
        label = labels[name] if done == planned else f"{labels[name]} ({done}/{planned})"
        rows.append(AverageRank(name, label, mean, ranks))
    return OverDatasets(
        metric=metric,
        conditions=titles,
        rows=rows,
        critical_difference=found.critical_difference,
        friedman_p=found.friedman_p,
        groups=found.groups,
        left_out=left_out,
        sentence=_sentence(found, len(places)),
        notes=[*_notes(found, titles, left_out), *_incomplete(results, places, metric, values)],
    )


def _one_for_each_dataset(results: Results, conditions: Sequence[int] | None) -> list[int]:
    """Return the conditions to rank under. Raises SuiteError where one dataset has several."""
    of_dataset: dict[str, list[int]] = {}
    for place in range(len(results.conditions)) if conditions is None else conditions:
        dataset = _dataset(results, place)
        if dataset:
            of_dataset.setdefault(dataset, []).append(place)

    for dataset, places in of_dataset.items():
        if len(places) > 1:
            titles = "; ".join(results.conditions[place] for place in places)
            raise SuiteError(
                f"{results.suite}: average ranks count each dataset once, and {dataset} is there "
                f"{len(places)} times, with the same images: {titles}. Choose one of them with "
                "--condition"
            )
    if len(of_dataset) < 2:
        raise SuiteError(
            f"{results.suite}: average ranks need results on two datasets, and there "
            f"{'is one' if of_dataset else 'is none'}. Label sets and noises of one dataset do "
            "not count as datasets"
        )
    return [places[0] for places in of_dataset.values()]


def _dataset(results: Results, place: int) -> str:
    """Return which images a condition has; empty before its first run is done."""
    for record in results.records_under(place):
        # Subsets with unequal classes, such as cifar10@exp-0.01, have the same images.
        name = str(record.spec.get("dataset", "")).partition("@")[0]
        # Folders of users share a name. Their fingerprints tell them apart.
        if name == "folder":
            return f"folder {record.spec.get('fingerprint', '')}"
        return _SAME_IMAGES.get(name, name)
    return ""


def _values(
    results: Results, places: Sequence[int], metric: str
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return the means of each row, higher being better, and why other rows are left out."""
    sign = -1 if METRICS[metric].lower_is_better else 1
    values, left_out = {}, {}
    for row in results.all_rows:
        means, reasons = [], []
        for place in places:
            cell = results.cell(row.name, place, metric)
            title = results.conditions[place]
            statuses = [record.status for record in results.records_of(row.name, place)]
            diverged = statuses.count("diverged")
            if diverged:
                reasons.append(f"{diverged} of {cell.planned} seeds diverged on {title}")
            elif cell.mean is None:
                reasons.append(f"no value on {title}")
            else:
                means.append(sign * cell.mean)
        if reasons:
            left_out[row.name] = ", ".join(reasons)
        else:
            values[row.name] = means
    return values, left_out


def _counts(results: Results, row: str, places: Sequence[int], metric: str) -> tuple[int, int]:
    """Return how many runs of a row have a value, and how many are planned."""
    cells = [results.cell(row, place, metric) for place in places]
    return sum(len(cell.values) for cell in cells), sum(cell.planned for cell in cells)


def _incomplete(
    results: Results, places: Sequence[int], metric: str, rows: Iterable[str]
) -> list[str]:
    """Say which ranks come from a part of the planned runs alone."""
    parts = []
    for row in rows:
        for place in places:
            cell = results.cell(row, place, metric)
            if len(cell.values) < cell.planned:
                counts = f"{len(cell.values)} of {cell.planned} runs"
                parts.append(f"{row} has {counts} on {results.conditions[place]}")
    if not parts:
        return []
    return [f"Ranked by a part of the planned runs (n/m): {'; '.join(parts)}."]


def _sentence(found: ranking.Ranks, count: int) -> str:
    names = list(found.mean)
    first = found.groups[0] if found.groups else []
    on = f"on average over {wording.counted(count, 'dataset')}"
    if len(first) == len(names):
        return f"{on.capitalize()}, no two of the {wording.number(len(names))} rows differ in rank."
    others = len(names) - len(first)
    if len(first) == 1:
        return f"{on.capitalize()}, {names[0]} ranks before each of the other rows."
    return (
        f"{on.capitalize()}, {names[0]} ranks best and cannot be told apart from "
        f"{wording.names(first[1:])}; it ranks before the other {wording.number(others)}."
    )


def _notes(found: ranking.Ranks, titles: Sequence[str], left_out: Mapping[str, str]) -> list[str]:
    notes = [f"Datasets: {'; '.join(titles)}. Each row is ranked by its mean over seeds."]
    if found.critical_difference is not None:
        notes.append(
            "Average ranks that differ by less than the critical difference "
            f"{found.critical_difference:.2f} cannot be told apart (Nemenyi)."
        )
    if found.friedman_p is not None:
        p = "below 0.001" if found.friedman_p < 0.001 else f"{found.friedman_p:.3f}"
        how = "exact, over all orders" if found.exact else "Iman and Davenport's F"
        notes.append(f"Friedman's test that all rows rank alike: p {p} ({how}).")
    if len(titles) < FEW:
        rough = "the critical difference is" if found.exact else "these probabilities are"
        notes.append(f"With fewer than {FEW} datasets {rough} rough.")
    for row, reason in left_out.items():
        notes.append(f"Not ranked: {row} ({reason}).")
    return notes
