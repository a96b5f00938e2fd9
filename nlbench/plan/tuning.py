"""The track `tuned`: every row gets as many tries, then runs with the settings they chose.

A tuned suite becomes two ordinary ones. The first holds the tries: per row `tries` settings from
the product of the suite's protocol values and the row's own, on one seed that is not among the
suite's. The sampler `random` draws them all in advance; `optuna` draws half of them, and proposes
each of the others from the accuracies of those before. Plain cross entropy is tuned like the
others. The second suite gives each row the setting with the highest validation accuracy at the last
epoch, on average over the labels and noises of a dataset: one setting per dataset, never one per
noise level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from nlbench import streams
from nlbench.errors import Problem, SuiteError

if TYPE_CHECKING:
    from nlbench.plan.problems import Problems
    from nlbench.plan.spec import Plan, RunSpec
    from nlbench.plan.suite_file import MethodEntry, Suite, Tuning

# The name of a suite of tries ends with this.
TRIES = "#tries"


# --- The two stages ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Values that a try gives to the protocol and to the method."""

    protocol: dict[str, object] = field(default_factory=dict)
    params: dict[str, object] = field(default_factory=dict)


# row -> dataset -> the setting that the tries chose
Chosen = dict[str, dict[str, Setting]]


def stage(
    suite: Suite,
    problems: Problems,
    only: Sequence[str] | None,
    planned: Callable[[Suite], Plan],
    pending: Callable[[Plan], bool],
    score: Callable[[RunSpec], float | None],
) -> Plan:
    """Return the plan of the tries while one of them is to do, then the plan with their choice.

    Args:
        problems: the collector of the suite's problems.
        only: the rows that the suite is narrowed to.
        planned: expands a suite.
        pending: whether some of a plan's runs are still to do.
        score: the validation accuracy of a run at its last epoch; None for one that diverged.
    Raises: SuiteError.
    """
    # Expand the whole suite first: a mistake in it is then reported with its own row names.
    whole = planned(suite)
    tuning = _tuning(suite, problems)
    if tuning.seed in {spec.seed for spec in whole.specs}:
        message = f"{tuning.seed} is one of the suite's seeds, on which settings must not be chosen"
        raise problems.error([Problem(("tuning", "seed"), message)])

    if only:
        suite = suite.model_copy(update={"methods": {row: suite.methods[row] for row in only}})
    axes = _axes(suite, tuning, problems)
    accuracies: Accuracies = {}
    while True:
        drawn = _settings(axes, tuning, accuracies)
        try:
            # Once is enough, whatever the tries are.
            if not accuracies:
                planned(_single_values(suite, tuning))
            plan = planned(tries(suite, tuning, drawn))
        except SuiteError as error:
            raise problems.error([_in_own_row(problem) for problem in error.problems]) from None
        plan.tries = True
        plan.notes = describe_tries(drawn)

        _check_validation(plan, suite, problems)
        if pending(plan):
            return plan
        accuracies = _accuracies(plan, score)
        if all(len(of_row) == tuning.tries for of_row in drawn.values()):
            break

    # All tries are done. Which settings did they choose?
    chosen = choose(accuracies, drawn, problems)
    plan = planned(settled(suite, chosen))
    plan.notes = describe(chosen, tuning)
    return plan


def _tuning(suite: Suite, problems: Problems) -> Tuning:
    if suite.tuning is None:
        message = (
            "is required by the track tuned; for example "
            "{tries: 12, protocol: {lr: [0.01, 0.02, 0.05, 0.1]}}"
        )
        raise problems.error([Problem(("tuning",), message)])
    return suite.tuning


def _check_validation(plan: Plan, suite: Suite, problems: Problems) -> None:
    """Raise SuiteError where a try holds out nothing to choose by."""
    if not all(spec.protocol.val_fraction for spec in plan.specs):
        message = (
            f"protocol {suite.protocol} holds out no validation part to choose by; "
            "add overrides: {val_fraction: 0.1}"
        )
        raise problems.error([Problem(("tuning",), message)])


# --- The tries ---------------------------------------------------------------------------------


class _Axis(NamedTuple):
    """One dimension of a row's grid."""

    part: str  # "protocol" or "params"
    key: str
    values: list[object]


def _axes(suite: Suite, tuning: Tuning, problems: Problems) -> dict[str, list[_Axis]]:
    """Return the dimensions of each row's grid.

    Raises: SuiteError for a row whose grid is smaller than `tries`. With fewer tries for one row
        the comparison would not be fair.
    """
    of_rows = {}
    for row, entry in suite.methods.items():
        axes = [_Axis("protocol", key, values) for key, values in tuning.protocol.items()]
        axes += [_Axis("params", key, values) for key, values in entry.search.items()]

        size = math.prod(len(axis.values) for axis in axes)
        if size < tuning.tries:
            message = (
                f"its grid has {size} settings, fewer than the {tuning.tries} tries each row gets: "
                f"give tuning.protocol or methods.{row}.search more values, or lower tuning.tries"
            )
            raise problems.error([Problem(("methods", row), message)])
        of_rows[row] = axes
    return of_rows


def _settings(
    axes: Mapping[str, Sequence[_Axis]], tuning: Tuning, accuracies: Accuracies
) -> dict[str, list[Setting]]:
    """Return the different settings that each row tries, by the tuning seed.

    With the sampler `optuna` these are the settings with an accuracy, and those to try next.

    Args:
        accuracies: of the tries so far, which lie in the same order.
    """
    drawn = {}
    for row, of_row in axes.items():
        sizes = [len(axis.values) for axis in of_row]
        rng = streams.rng(tuning.seed, "tuning", row)
        if tuning.sampler == "optuna":
            # Not at the top of the file: Optuna is optional, and its import takes a while.
            from nlbench.plan import optuna_tries

            known = _means(row, accuracies)
            picked = optuna_tries.places(sizes, tuning.tries, known, rng)
        else:
            # Sorted, so that the numbers of the tries follow the grid and not the draw.
            picked = sorted(rng.choice(math.prod(sizes), tuning.tries, replace=False))
        grid = list(itertools.product(*(axis.values for axis in of_row)))
        drawn[row] = [_setting(of_row, grid[i]) for i in picked]
    return drawn


def _setting(axes: Sequence[_Axis], values: Sequence[object]) -> Setting:
    setting = Setting()
    for axis, value in zip(axes, values, strict=True):
        part = setting.protocol if axis.part == "protocol" else setting.params
        part[axis.key] = value
    return setting


def tries(suite: Suite, tuning: Tuning, drawn: Mapping[str, Sequence[Setting]]) -> Suite:
    """Return the suite of the tries: a row for each setting of each row, on the tuning seed."""
    return _one_row_each(suite, drawn, [tuning.seed])


def _single_values(suite: Suite, tuning: Tuning) -> Suite:
    """Return a suite with a row for each value of each list.

    Expanding it finds every wrong value, even one that no try has drawn.
    """
    single: dict[str, list[Setting]] = {}
    for row, entry in suite.methods.items():
        single[row] = []
        for key, values in tuning.protocol.items():
            single[row] += [Setting(protocol={key: value}) for value in values]
        for key, values in entry.search.items():
            single[row] += [Setting(params={key: value}) for value in values]
    return _one_row_each(suite, single, suite.seeds)


def _one_row_each(suite: Suite, wanted: Mapping[str, Sequence[Setting]], seeds: list[int]) -> Suite:
    rows: dict[str, MethodEntry] = {}
    for row, of_row in wanted.items():
        for i, setting in enumerate(of_row):
            rows[_try_name(row, i)] = _everywhere(suite.methods[row], row, setting)
    changes = {
        "name": suite.name + TRIES,
        "methods": rows or suite.methods,
        "seeds": seeds,
        "tuning": None,
    }
    return suite.model_copy(update=changes)


def _try_name(row: str, number: int) -> str:
    return f"{row}#{number}"


def row_and_number(try_name: str) -> tuple[str, int]:
    """Return the suite's row that a try belongs to, and the number of the try."""
    # The last one, because a row's own name may hold a # as well.
    row, _, number = try_name.rpartition("#")
    return row, int(number)


def _in_own_row(problem: Problem) -> Problem:
    """Return the problem of a try as one of the row that the suite has."""
    match problem.path:
        case ("methods", str(name), *rest) if "#" in name:
            row, _ = row_and_number(name)
            return Problem(("methods", row, *rest), problem.message)
    return problem


# --- The choice --------------------------------------------------------------------------------


# (row, dataset) -> number of the try -> accuracy on noisy validation labels, the mean over the
# dataset's labels and noises; -inf where it diverged
Accuracies = dict[tuple[str, str], dict[int, float]]


def _accuracies(plan: Plan, score: Callable[[RunSpec], float | None]) -> Accuracies:
    """Return the accuracies of tries, all of them done."""
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    for spec in plan.specs:
        row, number = row_and_number(spec.row)
        accuracy = score(spec)
        of_try = scores.setdefault((row, spec.condition.dataset), {}).setdefault(number, [])
        # A try that diverged under one condition has lost on the dataset.
        of_try.append(-math.inf if accuracy is None else accuracy)

    means: Accuracies = {}
    for place, by_number in scores.items():
        means[place] = {number: sum(v) / len(v) for number, v in by_number.items()}
    return means


def _means(row: str, accuracies: Accuracies) -> list[float]:
    """Return the mean accuracy over the datasets of each try of a row, in their order."""
    of_row = [by_number for (name, _), by_number in accuracies.items() if name == row]
    if not of_row:
        return []
    return [sum(by[i] for by in of_row) / len(of_row) for i in range(len(of_row[0]))]


def choose(
    accuracies: Accuracies, drawn: Mapping[str, Sequence[Setting]], problems: Problems
) -> Chosen:
    """Return the best setting of each row on each dataset; of equal ones the first.

    Raises: SuiteError when every try of a row diverged on a dataset.
    """
    chosen: Chosen = {}
    for (row, dataset), means in accuracies.items():
        # With equal means the lowest number wins, so that the choice never depends on the order.
        best = max(means, key=lambda number: (means[number], -number))
        if means[best] == -math.inf:
            message = f"every try on {dataset} diverged; give it other values to try"
            raise problems.error([Problem(("methods", row), message)])
        chosen.setdefault(row, {})[dataset] = drawn[row][best]
    return chosen


def settled(suite: Suite, chosen: Chosen) -> Suite:
    """Return the suite with each row's chosen settings."""
    rows = dict(suite.methods)
    for row, by_dataset in chosen.items():
        for dataset, setting in by_dataset.items():
            rows[row] = _on_dataset(rows[row], row, setting, dataset)
    return suite.model_copy(update={"methods": rows, "tuning": None})


def describe(chosen: Chosen, tuning: Tuning) -> list[str]:
    """Return the notes of a table: which settings each row got."""
    proposed = ", proposed by Optuna" if tuning.sampler == "optuna" else ""
    notes = [
        f"Tuned: every row had {tuning.tries} tries{proposed}, chosen by accuracy on noisy "
        "validation labels at the last epoch."
    ]
    for row, by_dataset in chosen.items():
        for dataset, setting in by_dataset.items():
            notes.append(f"{row} on {dataset}: {_in_words(setting)}.")
    return notes


def describe_tries(drawn: Mapping[str, Sequence[Setting]]) -> list[str]:
    """Return the notes of a table of tries: the setting of each."""
    notes = []
    for row, settings in drawn.items():
        for i, setting in enumerate(settings):
            notes.append(f"{_try_name(row, i)}: {_in_words(setting)}.")
    return notes


def _in_words(setting: Setting) -> str:
    values = {**setting.protocol, **setting.params}
    return ", ".join(f"{key} {value}" for key, value in values.items())


# --- A row with a setting ----------------------------------------------------------------------


def _everywhere(entry: MethodEntry, row: str, setting: Setting) -> MethodEntry:
    """Return the row with a setting on every dataset, over the row's own values for single ones."""
    # A value that is being tried must not be overruled on a single dataset.
    per_dataset = {}
    for dataset, values in entry.per_dataset.items():
        per_dataset[dataset] = {k: v for k, v in values.items() if k not in setting.params}
    changes = {
        "method": entry.method or row,
        "search": {},
        "per_dataset": per_dataset,
        "protocol": setting.protocol,
        **setting.params,
    }
    return entry.model_copy(update=changes)


def _on_dataset(entry: MethodEntry, row: str, setting: Setting, dataset: str) -> MethodEntry:
    """Return the row with a setting on one dataset."""
    values = {
        **entry.per_dataset.get(dataset, {}),
        **setting.params,
        "protocol": setting.protocol,
    }
    changes = {
        "method": entry.method or row,
        "search": {},
        "per_dataset": {**entry.per_dataset, dataset: values},
    }
    return entry.model_copy(update=changes)
