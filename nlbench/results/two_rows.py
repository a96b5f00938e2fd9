"""`nlbench compare`: two rows of a suite, or of two suites, by one metric, seed by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nlbench.errors import SuiteError, did_you_mean, place_of_condition
from nlbench.results import notes, two_rows_text, wording
from nlbench.results.analysis import RowAnalysis, analyse, without_test
from nlbench.results.cells import Cell, Results
from nlbench.results.metrics import METRICS, check_metric
from nlbench.results.statistics import basic, pairs, power
from nlbench.results.statistics.basic import Interval

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord


@dataclass(frozen=True)
class Side:
    """One row under one condition."""

    results: Results
    row: str
    condition: int

    @property
    def title(self) -> str:
        """The title of the condition."""
        return self.results.conditions[self.condition]

    def records(self) -> list[RunRecord]:
        """Return the records of the row under this condition."""
        return self.results.records_of(self.row, self.condition)

    def cell(self, metric: str) -> Cell:
        """Return the values of one metric, a name of METRICS."""
        return self.results.cell(self.row, self.condition, metric)

    def spec(self) -> Mapping[str, Any]:
        """Return the spec of its first record, which `lacks` has found to be there."""
        return self.records()[0].spec

    def lacks(self, metric: str) -> str:
        """Return what is not there, as "no finished run"; empty where there is a value."""
        if self.cell(metric).values:
            return ""
        if not self.records():
            return "no finished run"
        return f"no value of {METRICS[metric].heading}"


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
        missing: which side has no value for some of its seeds, in sentences.
        caveats: what else differs between the sides, in sentences.
        signs: which runs show signs of a training that did not work, in sentences.
        left_out: the conditions that are not compared, and why. Each comparison has the same.
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
    missing: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
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
        conditions: titles. If empty, all that both suites have, without those in which a side has
            no value. With `across_labels` the one of A and the one of B.
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
        where a side has no value in a condition that was named, or in any, and for rows of two
        suites with other data or protocols.
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

    if options.across_labels:
        titles = [_of_each(a, b, options.conditions)]
    else:
        titles = [(title, title) for title in _common(a, b, options.conditions)]
    sides = []
    for of_a, of_b in titles:
        left = Side(a, row_a, a.conditions.index(of_a))
        right = Side(b, row_b, b.conditions.index(of_b))
        sides.append((left, right))

    left_out: list[str] = []
    if not options.conditions:
        sides, left_out = _with_values(sides, options)
    found = []
    for left, right in sides:
        found.append(dataclasses.replace(_compared(left, right, options), left_out=left_out))
    return found


def _with_values(
    sides: Sequence[tuple[Side, Side]], options: Options
) -> tuple[list[tuple[Side, Side]], list[str]]:
    """Return the conditions in which both sides have a value, and sentences about the others.

    Where there is no such condition, all are returned: the first of them is then refused.
    """
    kept = []
    titles: dict[str, list[str]] = {}
    for a, b in sides:
        lacking = _lacking(a, b, options)
        if lacking:
            titles.setdefault(lacking, []).append(a.title)
        else:
            kept.append((a, b))
    if not kept:
        return list(sides), []
    left_out = []
    for lacking, names in titles.items():
        left_out.append(f"Not compared, because {lacking} there: {', '.join(names)}.")
    return kept, left_out


def _lacking(a: Side, b: Side, options: Options) -> str:
    """Return which side lacks what, as "gce has no finished run"; empty where none does."""
    lacks: dict[str, list[str]] = {}
    for name, side in zip(_names(a, b, options), (a, b), strict=True):
        what = side.lacks(options.metric)
        if what:
            lacks.setdefault(what, []).append(name)
    parts = []
    for what, names in lacks.items():
        parts.append(f"{' and '.join(names)} {'have' if len(names) > 1 else 'has'} {what}")
    return " and ".join(parts)


def _of_each(a: Results, b: Results, given: Sequence[str]) -> tuple[str, str]:
    """Return the condition of A and the one of B."""
    if a is b and len(a.conditions) == 1:
        raise SuiteError(
            f"--across-labels: {a.suite} has no condition but {a.conditions[0]!r}; give the suite "
            "with the other labels with --suite-b"
        )
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
    for side in (a, b):
        _require_value(side, options.metric)
    caveats = _check_same_task(a, b, options)
    cell_a, cell_b = a.cell(options.metric), b.cell(options.metric)

    apart = _why_apart(a, b, options.metric)
    rounding = a.results.rounding(a.condition, options.metric)
    paired = None
    if not apart:
        paired = pairs.seed_by_seed(cell_a.values, cell_b.values, rounding=rounding)
    welch = basic.welch_interval(
        list(cell_a.values.values()), list(cell_b.values.values()), rounding=rounding
    )
    below = []
    if apart:
        below.append(
            f"Runs of one seed have {apart} on the two sides, so they are not compared seed by "
            "seed."
        )
    # That labels or protocols differ is reason enough, so the words alone do not repeat it.
    if not caveats:
        caveats += below
    differing = _differing(a.spec(), b.spec())
    # Two rows of one suite have names for what differs.
    if differing and (a.results is not b.results or a.row == b.row):
        caveats.append(f"Parameters that differ: {differing}.")

    table = analyse(a.results, a.condition, options.metric)
    if a.results is b.results and a.condition == b.condition:
        pair = next((p for p in table.pairs if {p.a, p.b} == {a.row, b.row}), None)
        adjusted = None if pair is None else pair.p
        found_b = table.of(b.row)
    else:
        adjusted = None
        found_b = analyse(b.results, b.condition, options.metric).of(b.row)

    found_a = table.of(a.row)
    known = _power(cell_a, cell_b, options.difference, not apart, rounding)
    # The seeds that are left where others diverged are no fair sample.
    if found_a.diverged or found_b.diverged:
        paired, welch, known = without_test(paired), without_test(welch), None

    names = _names(a, b, options)
    missing, signs = [], []
    for name, side, found in zip(names, (a, b), (found_a, found_b), strict=True):
        not_measured = _not_measured(side, options.metric)
        missing += two_rows_text.missing(name, found, not_measured, options.metric)
        signs += two_rows_text.signs(name, side.records())
    comparison = Comparison(
        condition=" and ".join(notes.once([a.title, b.title])),
        metric=options.metric,
        suites=(a.results.suite, b.results.suite),
        a=found_a,
        b=found_b,
        names=names,
        paired=paired,
        welch=welch,
        adjusted_p=adjusted,
        adjust=table.adjust,
        pairs=sum(p.p is not None for p in table.pairs),
        power=known,
        differing=differing,
        asked=options.difference,
        missing=missing,
        caveats=caveats,
        signs=signs,
    )
    sentence = two_rows_text.sentence(comparison)
    found_notes = notes.once([*two_rows_text.notes_of(comparison, a, b), *caveats, *below])
    return dataclasses.replace(comparison, sentence=sentence, notes=found_notes)


def _require_value(side: Side, metric: str) -> None:
    """Raise SuiteError, with the reason, for a side without a value of the metric."""
    lacks = side.lacks(metric)
    if not lacks:
        return
    where = f"{side.results.suite}, {side.title}: {side.row} has {lacks}"
    if not side.records():
        raise SuiteError(f"{where} yet; `nlbench run` trains it")
    done = _not_measured(side, metric)
    if done:
        raise SuiteError(f"{where}: its {wording.counted(done, 'finished run')} did not measure it")
    failed = wording.counted(side.cell(metric).failed, "run")
    raise SuiteError(f"{where}: {failed} of it failed or diverged, and none is done")


def _not_measured(side: Side, metric: str) -> int:
    """Count the finished runs without a value of the metric. Each of them has one of `last`."""
    return len(side.cell("last").values) - len(side.cell(metric).values)


def _names(a: Side, b: Side, options: Options) -> tuple[str, str]:
    """Return how the rows are called: with what is not the same, suite or condition."""
    names = a.row, b.row
    # One row with two kinds of labels is told apart by them, where all else is the same.
    only_labels = a.row == b.row and a.title != b.title and not options.across_protocols
    if a.results is not b.results and not only_labels:
        names = _with_suites(a, b)
    if a.title == b.title:
        return names
    return f"{names[0]} on {a.title}", f"{names[1]} on {b.title}"


def _with_suites(a: Side, b: Side) -> tuple[str, str]:
    """Return the rows with their suites, and with the folders of suites that have one name."""
    names = [f"{side.row} of {side.results.suite}" for side in (a, b)]
    if a.results is not b.results and a.results.suite == b.results.suite:
        folders = [side.results.store.root for side in (a, b)]
        names = [f"{name} in {folder}" for name, folder in zip(names, folders, strict=True)]
    return names[0], names[1]


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
    names = " and ".join(_with_suites(a, b))
    keys = ["dataset", "fingerprint", "labels", "noise"]
    below = []
    if options.across_labels:
        if all(one.get(key) == other.get(key) for key in keys):
            raise SuiteError(f"{names} have the same labels; leave --across-labels out")
        # The part before a hyphen is of the images and their true labels.
        one, other = _of_images(one), _of_images(other)
        keys = ["fingerprint"]
        below.append(_of_labels(one.get("protocol", {})))
    for key in keys:
        if one.get(key) != other.get(key):
            raise SuiteError(
                f"{names} are not compared: {key} is {one.get(key)} and {other.get(key)}, so they "
                "had other data or labels"
            )

    differing = _in_words(one.get("protocol", {}), other.get("protocol", {}))
    if not differing:
        return below
    # Within a suite of published recipes each row has its own protocol, as its table says.
    if a.results is not b.results and not options.across_protocols:
        raise SuiteError(
            f"{names} are not compared, because their protocols differ: {differing}. "
            "--across-protocols compares them, and says so"
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


def _why_apart(a: Side, b: Side, metric: str) -> str:
    """Return what runs of one seed do not share, as "other labels"; empty where they share all."""
    if a.results is b.results and a.condition == b.condition:
        return ""
    if a.spec().get("protocol") != b.spec().get("protocol"):
        return "another protocol"
    hashes = []
    for side in (a, b):
        # A run that failed has measured nothing, not even its labels.
        having = side.cell(metric).values
        done = [record for record in side.records() if record.spec["seed"] in having]
        hashes.append({record.spec["seed"]: record.noise.get("labels_hash") for record in done})
    common = set(hashes[0]) & set(hashes[1])
    if all(hashes[0][seed] == hashes[1][seed] for seed in common):
        return ""
    return "other labels"


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
