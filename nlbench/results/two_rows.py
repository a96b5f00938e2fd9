"""`nlbench compare`: two rows of a suite, or of two suites, by one metric, seed by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlbench.errors import SuiteError, did_you_mean, place_of_condition
from nlbench.results import notes, two_rows_text, wording
from nlbench.results.analysis import RowAnalysis, analyse, without_test
from nlbench.results.cells import Cell, Results
from nlbench.results.metrics import METRICS, check_metric
from nlbench.results.statistics import basic, pairs, power
from nlbench.results.statistics.basic import Interval


@dataclass(frozen=True)
class Side:
    """One row under one condition."""

    results: Results
    row: str
    condition: int

    @property
    def name(self) -> str:
        """The row, as it is called in the words of the comparison."""
        return self.row

    def spec(self) -> Mapping[str, Any]:
        """Return the spec of its first record. Raises SuiteError where there is none."""
        records = self.results.records_of(self.row, self.condition)
        if not records:
            raise SuiteError(
                f"{self.results.suite}, {self.results.conditions[self.condition]}: {self.row} has "
                "no finished run yet; `nlbench run` trains it"
            )
        return records[0].spec


@dataclass(frozen=True)
class Power:
    """Seeds for a difference of this pair, at 5% for this comparison alone.

    Attributes:
        smallest: the true difference that the seeds of today find with probability 0.8.
        seeds: how many these are: pairs of runs, or, not paired, those of the smaller sample.
        asked: the difference that was asked for, if any.
        needed: the seeds that find it; None for more than 10,000, or where none was asked for.
    """

    smallest: float
    seeds: int
    asked: float | None = None
    needed: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Row A minus row B under one condition. Numbers are as in the records.

    Attributes:
        a: A's row, as `analyse` returns it; `b` likewise.
        paired: the difference over the seeds that both have; None where runs of one seed do not
            share their labels, or where there is no such seed.
        welch: the difference as if the seeds of A and B had nothing in common.
        adjusted_p: the p-value of this pair among all pairs of the suite's table; None for rows of
            two suites.
        pairs: how many pairs the table has.
        differing: the parameters that are not the same, as "q 0.7 and 0.5".
        asked: the difference whose seeds were asked for, if any.
        caveats: what beside the rows differs between the sides.
    """

    condition: str
    metric: str
    suites: tuple[str, str]
    a: RowAnalysis
    b: RowAnalysis
    names: tuple[str, str]
    paired: Interval | None
    welch: Interval | None
    adjusted_p: float | None
    adjust: str
    pairs: int
    power: Power | None
    differing: str
    asked: float | None = None
    caveats: list[str] = field(default_factory=list)
    sentence: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Interval | None:
        """The difference that the words are about: the paired one where it has an interval."""
        if self.paired is not None and self.paired.low is not None:
            return self.paired
        return self.welch


@dataclass(frozen=True)
class Options:
    """What to compare, and how.

    Attributes:
        metric: a name of METRICS.
        conditions: titles; all that both suites have if empty. With `across_labels` the one of A
            and the one of B.
        difference: ask for the seeds that find this difference, as in the records.
        across_protocols: compare rows of two suites also where their protocols differ.
        across_labels: compare one condition of A with another one of B, on the same images.
    """

    metric: str = "last"
    conditions: Sequence[str] = ()
    difference: float | None = None
    across_protocols: bool = False
    across_labels: bool = False


def compare(a: Results, row_a: str, b: Results, row_b: str, options: Options) -> list[Comparison]:
    """Compare two rows under each condition that both suites have.

    Raises: SuiteError for unknown rows, conditions and metrics, for a row compared with itself,
        where a side has no finished run, and for rows of two suites with other data or protocols.
    """
    check_metric(options.metric)
    for results, row in ((a, row_a), (b, row_b)):
        names = [known.name for known in results.all_rows]
        if row not in names:
            raise SuiteError(
                f"{row}: {results.suite} has no such row. There are: {', '.join(names)}."
                f"{did_you_mean(row, names)}"
            )
    if a is b and row_a == row_b and not options.across_labels:
        raise SuiteError(f"{row_a}: compared with itself; name another row, or give --suite-b")

    found = []
    if options.across_labels:
        titles = [_of_each(a, b, options.conditions)]
    else:
        titles = [(title, title) for title in _common(a, b, options.conditions)]
    for of_a, of_b in titles:
        left = Side(a, row_a, a.conditions.index(of_a))
        right = Side(b, row_b, b.conditions.index(of_b))
        found.append(_compared(left, right, options))
    return found


def _of_each(a: Results, b: Results, given: Sequence[str]) -> tuple[str, str]:
    """Return the condition of A and the one of B."""
    if not given and len(a.conditions) == len(b.conditions) == 1:
        given = [*a.conditions, *b.conditions]
    if len(given) != 2:
        raise SuiteError(
            "--across-labels: name the condition of A and then the one of B, as --condition "
            f"{a.conditions[0]!r} --condition {b.conditions[-1]!r}"
        )
    of_a, of_b = _title(given[0], a), _title(given[1], b)
    if a is b and of_a == of_b:
        raise SuiteError(f"--across-labels: {of_a!r} is named twice; name two conditions")
    return of_a, of_b


def _title(name: str, results: Results) -> str:
    """Return the title of a condition. Raises SuiteError for a name of none or several."""
    return results.conditions[place_of_condition(name, results.conditions, results.suite)]


def _common(a: Results, b: Results, given: Sequence[str]) -> list[str]:
    chosen = [_title(name, a) for name in given]
    for name, title in zip(given, chosen, strict=True):
        if _title(name, b) != title:
            raise SuiteError(
                f"--condition {name!r} is {title!r} in {a.suite} and {_title(name, b)!r} in "
                f"{b.suite}. Give a whole name that both have"
            )
    common = [title for title in a.conditions if title in b.conditions]
    if not common:
        raise SuiteError(
            f"no condition is in both suites: {a.suite} has {'; '.join(a.conditions)}; {b.suite} "
            f"has {'; '.join(b.conditions)}. Other data and other labels are another task; "
            "--across-labels compares the same images with other labels"
        )
    return notes.once(chosen) or common


# ---- One condition ------------------------------------------------------------------------------


def _compared(a: Side, b: Side, options: Options) -> Comparison:
    caveats = _check_same_task(a, b, options)
    below = []
    cell_a = a.results.cell(a.row, a.condition, options.metric)
    cell_b = b.results.cell(b.row, b.condition, options.metric)
    for side, cell in ((a, cell_a), (b, cell_b)):
        if not cell.values:
            raise SuiteError(
                f"{side.results.suite}, {side.results.conditions[side.condition]}: {side.row} has "
                f"no value of {METRICS[options.metric].heading}{_why_empty(side, cell)}"
            )

    together = _runs_belong_together(a, b)
    rounding = a.results.rounding(a.condition, options.metric)
    paired = None
    if together:
        paired = pairs.seed_by_seed(cell_a.values, cell_b.values, rounding=rounding)
    welch = basic.welch_interval(
        list(cell_a.values.values()), list(cell_b.values.values()), rounding=rounding
    )
    if not together:
        below.append(
            "Runs of one seed have other labels or another protocol on the two sides, so they are "
            "not compared seed by seed."
        )
    table = analyse(a.results, a.condition, options.metric)
    pair = None
    if a.results is b.results and a.condition == b.condition:
        pair = next((p for p in table.pairs if {p.a, p.b} == {a.row, b.row}), None)
        adjusted = None if pair is None else pair.p
        found_b = table.of(b.row)
    else:
        adjusted = None
        found_b = analyse(b.results, b.condition, options.metric).of(b.row)

    found_a = table.of(a.row)
    known = _power(cell_a, cell_b, options.difference, together, rounding)
    # The seeds that are left where others diverged are no fair sample.
    if found_a.diverged or found_b.diverged:
        paired, welch, known = without_test(paired), without_test(welch), None

    conditions = [side.results.conditions[side.condition] for side in (a, b)]
    comparison = Comparison(
        condition=" and ".join(notes.once(conditions)),
        metric=options.metric,
        suites=(a.results.suite, b.results.suite),
        a=found_a,
        b=found_b,
        names=_names(a, b),
        paired=paired,
        welch=welch,
        adjusted_p=adjusted,
        adjust=table.adjust,
        pairs=sum(p.p is not None for p in table.pairs),
        power=known,
        differing=_differing(a.spec(), b.spec()),
        asked=options.difference,
        caveats=caveats,
    )
    sentence = two_rows_text.sentence(comparison)
    found_notes = [*two_rows_text.notes_of(comparison, a, b), *caveats, *below]
    return dataclasses.replace(comparison, sentence=sentence, notes=found_notes)


def _why_empty(side: Side, cell: Cell) -> str:
    done = side.results.cell(side.row, side.condition, "last").values
    if done:
        return f": its {wording.counted(len(done), 'finished run')} did not measure it"
    if cell.failed:
        return f": {wording.counted(cell.failed, 'run')} of it failed or diverged, and none is done"
    return " yet"


def _names(a: Side, b: Side) -> tuple[str, str]:
    """Return how the rows are called: with what is not the same, condition or suite."""
    titles = [side.results.conditions[side.condition] for side in (a, b)]
    if titles[0] != titles[1]:
        return f"{a.row} on {titles[0]}", f"{b.row} on {titles[1]}"
    if a.row != b.row:
        return a.row, b.row
    return f"{a.row} of {a.results.suite}", f"{b.row} of {b.results.suite}"


def _power(a: Cell, b: Cell, asked: float | None, together: bool, rounding: float) -> Power | None:
    """Return what seeds can show of this pair; None where there is no spread to compute with."""
    common = sorted(set(a.values) & set(b.values)) if together else []
    first, second = [a.values[seed] for seed in common], [b.values[seed] for seed in common]
    std = basic.difference_std(first, second, rounding)
    seeds = len(common)
    # Where the words are Welch's, so is the power.
    if not std:
        if a.std is None or b.std is None:
            return None
        std, seeds = math.hypot(a.std, b.std), min(len(a.values), len(b.values))
    if not std:
        return None

    # A table of two rows has one pair, with a t test of its own.
    design = power.Design(std / math.sqrt(2), 2, "holm")
    smallest = power.smallest_difference(design, seeds)
    if smallest is None:
        return None
    needed = None if asked is None else power.seeds_needed(asked, design)
    return Power(smallest, seeds, asked, needed)


# ---- May these be compared? ---------------------------------------------------------------------


def _check_same_task(a: Side, b: Side, options: Options) -> list[str]:
    """Return what a reader must know of labels and protocols.

    Raises: SuiteError for another task.
    """
    one, other = a.spec(), b.spec()
    keys = ["dataset", "fingerprint", "labels", "noise"]
    below = []
    if options.across_labels:
        if all(one.get(key) == other.get(key) for key in keys):
            raise SuiteError(
                f"{a.row} of {a.results.suite} and {b.row} of {b.results.suite} have the same "
                "labels; leave --across-labels out"
            )
        # The part before a hyphen is of the images and their true labels.
        one, other = _of_images(one), _of_images(other)
        keys = ["fingerprint"]
        below.append(_of_labels(one.get("protocol", {})))
    for key in keys:
        if one.get(key) != other.get(key):
            raise SuiteError(
                f"{a.row} of {a.results.suite} and {b.row} of {b.results.suite} are not compared: "
                f"{key} is {one.get(key)} and {other.get(key)}, so they had other data or labels"
            )

    differing = _in_words(one.get("protocol", {}), other.get("protocol", {}))
    if not differing:
        return below
    # Within a suite of published recipes each row has its own protocol, as its table says.
    if a.results is not b.results and not options.across_protocols:
        raise SuiteError(
            f"{a.row} of {a.results.suite} and {b.row} of {b.results.suite} are not compared, "
            f"because their protocols differ: {differing}. --across-protocols compares them, and "
            "says so"
        )
    return [*below, f"The protocols differ, and so may be what decides: {differing}."]


def _of_labels(protocol: Mapping[str, Any]) -> str:
    """Say what is the same where labels differ."""
    text = "The labels differ; dataset and test set are the same."
    is_part = protocol.get("subset") or protocol.get("val_fraction")
    if is_part and protocol.get("stratify") == "given":
        text += " The training images are chosen by their labels, so that some of them differ, too."
    return text


def _of_images(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's values with the fingerprint of the images and true labels alone."""
    return {**spec, "fingerprint": str(spec.get("fingerprint")).partition("-")[0]}


def _runs_belong_together(a: Side, b: Side) -> bool:
    """Tell whether runs of one seed share labels and protocol."""
    if a.results is b.results and a.condition == b.condition:
        return True
    if a.spec().get("protocol") != b.spec().get("protocol"):
        return False
    hashes: list[dict[int, str | None]] = []
    for side in (a, b):
        by_seed = {}
        for record in side.results.records_of(side.row, side.condition):
            by_seed[record.spec["seed"]] = record.noise.get("labels_hash")
        hashes.append(by_seed)
    common = set(hashes[0]) & set(hashes[1])
    return all(hashes[0][seed] == hashes[1][seed] for seed in common)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in which parameters two rows differ, where they have the same method."""
    if one["method"] != other["method"]:
        return ""
    return _in_words(one.get("params") or {}, other.get("params") or {})


def _in_words(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    parts = []
    for key in notes.once([*one, *other]):
        if one.get(key) != other.get(key):
            parts.append(f"{key} {one.get(key)} and {other.get(key)}")
    return ", ".join(parts)
