"""Read the runs of a suite, and put those together that were trained on the same labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nlbench.data import catalogue
from nlbench.errors import StoreError, SuiteError, place_of_condition, unknown_name
from nlbench.results.cells import Results
from nlbench.results.integrity import PREDICTIONS, located
from nlbench.results.numbers import read_arrays
from nlbench.results.plan_file import command_of
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

# The arrays of a run without which nothing can be said of its training labels.
_NEEDED = ("train_index", "labels")

# Why runs are left out -> the names of these runs.
Reasons = dict[str, list[str]]

# So many reasons, and so many runs of each, are named.
_MOST = 3


@dataclass(frozen=True)
class SeenRun:
    """A finished run, and what it says of its training examples.

    Attributes:
        row: the row of the suite.
        arrays: those of predictions.npz, by name.
    """

    row: str
    record: RunRecord
    arrays: Mapping[str, np.ndarray]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.record.spec["seed"])

    @property
    def index(self) -> np.ndarray:
        """(N,) positions of its examples in the dataset's training part."""
        return self.arrays["train_index"]

    def suggestions(self) -> np.ndarray | None:
        """Return the class that the run prefers for each example, (N,); None where it has none.

        The method's own targets count more than the last prediction, where they say anything.
        """
        own, predicted = self.arrays.get("own_label"), self.arrays.get("train")
        if own is None or predicted is None:
            return predicted if own is None else own
        return np.where(own >= 0, own, predicted)


@dataclass(frozen=True)
class Labelling:
    """The given labels of a dataset, and the runs that were trained on parts of it.

    Attributes:
        title: the condition, as tables print it.
        command: the command that made the suite's plan; empty where it is not known.
        alone: whether another seed has other labels, so that its runs are in another labelling.
    """

    suite: str
    title: str
    runs: list[SeenRun]
    command: str = ""
    alone: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of its first run. Dataset, labels, noise and fingerprint are those of all."""
        return self.runs[0].record.spec

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, in order."""
        return sorted({run.seed for run in self.runs})

    @property
    def rows(self) -> list[str]:
        """The rows of its runs, in the order of the suite."""
        return list(dict.fromkeys(run.row for run in self.runs))

    @property
    def seeds_in_words(self) -> str:
        """The seeds, for example "seeds 0, 1"."""
        word = "seed" if len(self.seeds) == 1 else "seeds"
        return f"{word} {', '.join(map(str, self.seeds))}"

    @property
    def name(self) -> str:
        """Condition and seeds in words."""
        return f"{self.title}, {self.seeds_in_words}"

    @property
    def class_names(self) -> Sequence[str]:
        """The classes by number; empty where they have no names."""
        for run in self.runs:
            if "class_names" in run.arrays:
                return [str(name) for name in run.arrays["class_names"]]
        return []

    def in_words(self, label: int) -> str:
        """Return a class as label files name it: by its name where it has one."""
        names = self.class_names
        return names[label] if 0 <= label < len(names) else str(label)


@dataclass
class Found:
    """The labellings of a suite, and what the reader should know about them."""

    labellings: list[Labelling] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose_plan(store: Store, suite: str | None) -> dict[str, Any]:
    """Return the plan of a suite, by default of the only one in the store.

    Raises: StoreError for a store without results, SuiteError where a suite has to be named.
    """
    store.require()
    plans = store.plans()
    if suite is not None:
        if suite not in plans:
            raise SuiteError(unknown_name(f"suite of {store.root}", suite, plans))
        return plans[suite]
    usual = {name: plan for name, plan in plans.items() if not plan["tries"]} or plans
    if len(usual) > 1:
        raise SuiteError(
            f"{store.root}: holds several suites, and their runs differ in more than the method; "
            f"name one with --suite: {', '.join(usual)}"
        )
    return next(iter(usual.values()))


def read(
    results: Results, store: Store, plan: Mapping[str, Any], *, condition: str | None = None
) -> Found:
    """Return the labellings of a suite's finished runs.

    Args:
        plan: that of the results.
        condition: reads the runs of this one alone, by its title or a part of it.
    Raises: StoreError where no run says anything of its training labels; SuiteError for an unknown
        condition.
    """
    chosen = None
    if condition is not None:
        chosen = place_of_condition(condition, results.conditions, results.suite)
    found = Found()
    reasons: Reasons = {}
    for place, title in enumerate(results.conditions):
        if chosen not in (None, place):
            continue
        parts = _of_condition(results, store, place, reasons)
        command = command_of(plan, store.root)
        found.labellings += [replace(part, command=command) for part in parts]

        planned = {cell["key"] for cell in plan["cells"] if cell["condition"] == place}
        there = {record.key for record in results.records_under(place)}
        if planned - there:
            found.notes.append(
                f"{title}: {len(there)} of {len(planned)} runs are there; the others may change "
                "this"
            )

    if not found.labellings:
        why = "; ".join(_left_out(reasons)) or "no run is finished"
        raise StoreError(f"{store.root}: no run of {results.suite!r} can be used: {why}")
    found.notes += _left_out(reasons)
    return found


def _left_out(reasons: Reasons) -> list[str]:
    """Say for each reason which runs are left out. Of many, the first are named."""
    sentences = []
    for reason, names in list(reasons.items())[:_MOST]:
        named = "; ".join(names[:_MOST])
        if len(names) > _MOST:
            named += f"; and {len(names) - _MOST} more"
        sentences.append(f"{named} {'is' if len(names) == 1 else 'are'} left out: {reason}")
    if len(reasons) > _MOST:
        sentences.append(f"{len(reasons) - _MOST} more runs are left out for reasons of their own")
    return sentences


def _of_condition(
    results: Results, store: Store, condition: int, reasons: Reasons
) -> list[Labelling]:
    """Return the labellings under one condition. Adds to `reasons` why runs are left out."""
    groups: dict[tuple[object, ...], list[SeenRun]] = {}
    for row in results.rows:
        for record in results.records_of(row.name, condition):
            name = f"{row.name}, {results.conditions[condition]}, seed {record.spec['seed']}"
            if record.status != "done":
                reasons.setdefault(f"the run {record.status}", []).append(name)
                continue
            try:
                arrays = read_arrays(located(store.run_dir(record.key), PREDICTIONS))
            except ValueError as error:
                reasons.setdefault(f"{error}", []).append(name)
                continue
            lacks = [array for array in _NEEDED if array not in arrays]
            if lacks:
                reason = f"its predictions.npz has no {lacks[0]}"
                reasons.setdefault(reason, []).append(name)
                continue
            run = SeenRun(row.name, record, arrays)
            _require_one_length(run, store)
            groups.setdefault(_labels_of(record), []).append(run)

    title = results.conditions[condition]
    several = len(groups) > 1
    return [Labelling(results.suite, title, runs, alone=several) for runs in groups.values()]


def _require_one_length(run: SeenRun, store: Store) -> None:
    """Raise StoreError where an array of the training examples has another length."""
    N = len(run.index)
    known = ("labels", "train", "own_label", "margin", "own_score", "train_prob", "train_loss")
    for name in (*known, "names", "train_probs"):
        if name in run.arrays and len(run.arrays[name]) != N:
            place = store.run_dir(run.record.key) / "predictions.npz"
            raise StoreError(
                f"{place}: {name} is of {len(run.arrays[name])} examples, and train_index of {N}; "
                "`nlbench verify` says what is wrong with a store"
            )


def _labels_of(record: RunRecord) -> tuple[object, ...]:
    """Return what two records share if their runs have the same examples under the same labels."""
    labels = record.noise.get("labels_hash")
    # Of a record that does not say it nobody can tell, so it is put together with no other.
    if labels is None:
        return (record.key,)
    shared = record.spec.get("dataset"), record.spec.get("fingerprint"), labels
    # A dataset that is drawn anew for each seed has another image at the same position.
    seed = record.spec["seed"] if _is_redrawn(str(record.spec.get("dataset", ""))) else None
    return (*shared, seed)


def _is_redrawn(dataset: str) -> bool:
    try:
        return catalogue.dataset(dataset).INFO.redrawn
    # Nothing is known of it, for example because a later version of nlbench has it.
    except SuiteError:
        return True
