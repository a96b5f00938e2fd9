"""The track `tuned`: for every row the same number of tries, chosen on noisy validation labels, then run as any suite.

A tuned suite becomes two ordinary ones. The first holds the tries: per row `tries` settings drawn from the product of
the suite's protocol values and the row's own, plain cross entropy included, on one seed apart from the suite's seeds.
The second gives each row the setting with the highest validation accuracy at the last epoch, on average over the labels
and noises of a dataset: one setting per dataset, never one per noise level.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nlbench import streams
from nlbench.errors import SuiteError

if TYPE_CHECKING:
    from nlbench.plan.spec import Plan
    from nlbench.plan.suite_file import MethodEntry, Suite, Tuning
    from nlbench.results.store import Store

Setting = dict[str, dict[str, Any]]  # {"protocol": {...}, "params": {...}}


TRIES = "#tries"  # a suite's name with this is the plan of its tries


def stage(
    suite: Suite,
    only: Sequence[str] | None,
    planned: Callable[[Suite], Plan],
    pending: Callable[[Plan], bool],
    store: Store,
) -> Plan:
    """The plan of the tries while one of them is to do, then the plan with the settings they chose.

    Args:
        only: rows that the suite is narrowed to.
        planned: expands a suite; called on the suite as it stands first, so that its problems name file and line.
        pending: whether a plan's runs are still to do.
    Raises: SuiteError.
    """
    whole = planned(suite)
    count, seed = _tuning(suite).tries, _tuning(suite).seed
    if seed in {spec.seed for spec in whole.specs}:
        raise SuiteError(f"tuning.seed: {seed} is one of the suite's seeds, on which settings must not be chosen")
    if only:
        suite = suite.model_copy(update={"methods": {row: suite.methods[row] for row in only}})
    try:
        planned(_single_values(suite))
        plan = planned(tries(suite))
    except SuiteError as error:
        lines = (re.sub(r"(methods\..+?)#\d+", r"\1", line) for line in str(error).splitlines())
        raise SuiteError("\n".join(dict.fromkeys(lines))) from None
    plan.tries = True
    if any(not spec.protocol.val_fraction for spec in plan.specs):
        raise SuiteError(
            f"tuning: protocol {suite.protocol} holds out no validation part to choose by; "
            f"add overrides: {{val_fraction: 0.1}}"
        )
    if pending(plan):
        return plan
    settled, chosen = final(suite, plan, store)
    plan = planned(settled)
    plan.notes = describe(chosen, count)
    return plan


def _tuning(suite: Suite) -> Tuning:
    if suite.tuning is None:
        raise SuiteError(
            "tuning: is required by the track tuned; for example {tries: 12, protocol: {lr: [0.01, 0.02, 0.05, 0.1]}}"
        )
    return suite.tuning


def settings(suite: Suite) -> dict[str, list[Setting]]:
    """`tries` different settings for each row, drawn from its grid by the tuning seed.

    Raises SuiteError for a row whose grid is smaller than `tries`: tries are equal or the comparison is not.
    """
    tuning = _tuning(suite)
    drawn = {}
    for row, entry in suite.methods.items():
        axes = [("protocol", key, values) for key, values in tuning.protocol.items()]
        axes += [("params", key, values) for key, values in entry.search.items()]
        size = math.prod(len(values) for _, _, values in axes)
        if size < tuning.tries:
            raise SuiteError(
                f"methods.{row}: its grid has {size} settings, fewer than the {tuning.tries} tries each row gets: "
                f"give tuning.protocol or methods.{row}.search more values, or lower tuning.tries"
            )
        picked = streams.rng(tuning.seed, "tuning", row).choice(size, tuning.tries, replace=False)
        grid = list(itertools.product(*(values for _, _, values in axes)))
        drawn[row] = [_setting(axes, grid[i]) for i in sorted(picked)]
    return drawn


def _setting(axes: list[tuple[str, str, list[Any]]], values: tuple[Any, ...]) -> Setting:
    setting: Setting = {"protocol": {}, "params": {}}
    for (part, key, _), value in zip(axes, values, strict=True):
        setting[part][key] = value
    return setting


def tries(suite: Suite) -> Suite:
    """The suite of the tries: a row `NAME#i` for the i-th setting of each row, on the tuning seed."""
    rows = {
        f"{row}#{i}": _with(suite.methods[row], row, setting)
        for row, drawn in settings(suite).items()
        for i, setting in enumerate(drawn)
    }
    seeds = [_tuning(suite).seed]
    return suite.model_copy(update={"name": suite.name + TRIES, "methods": rows, "seeds": seeds, "tuning": None})


def _single_values(suite: Suite) -> Suite:
    """A row for each value of each list, so that a wrong one is found even where no try drew it."""
    tuning = _tuning(suite)
    rows: dict[str, MethodEntry] = {}
    for row, entry in suite.methods.items():
        parts: list[Setting] = [{"protocol": {k: v}, "params": {}} for k, vs in tuning.protocol.items() for v in vs]
        parts += [{"protocol": {}, "params": {k: v}} for k, vs in entry.search.items() for v in vs]
        rows |= {f"{row}#{i}": _with(entry, row, part) for i, part in enumerate(parts)}
    return suite.model_copy(update={"name": suite.name + TRIES, "methods": rows or suite.methods, "tuning": None})


def _with(entry: MethodEntry, row: str, setting: Setting, dataset: str = "") -> MethodEntry:
    """The row with a setting, everywhere or on one dataset."""
    own = {"method": entry.method or row, "search": {}}
    if dataset:
        merged = {**entry.per_dataset.get(dataset, {}), **setting["params"], "protocol": setting["protocol"]}
        return entry.model_copy(update={**own, "per_dataset": {**entry.per_dataset, dataset: merged}})
    per_dataset = {
        name: {key: value for key, value in values.items() if key not in setting["params"]}
        for name, values in entry.per_dataset.items()
    }
    return entry.model_copy(
        update={**own, "per_dataset": per_dataset, "protocol": setting["protocol"], **setting["params"]}
    )


def final(suite: Suite, plan: Plan, store: Store) -> tuple[Suite, dict[str, dict[str, Setting]]]:
    """The suite with each row's chosen settings, and those by row and dataset.

    A try that diverged has lost. Raises SuiteError when every try of a row diverged on a dataset.
    """
    scores: dict[tuple[str, str, int], list[float]] = {}
    for spec in plan.specs:
        record = store.read(spec.key)
        row, _, number = spec.row.rpartition("#")
        score = record.metrics["val_last"] if record and record.status == "done" else -math.inf
        scores.setdefault((row, spec.condition.dataset, int(number)), []).append(score)
    drawn = settings(suite)
    chosen: dict[str, dict[str, Setting]] = {row: {} for row in suite.methods}
    for row, dataset in dict.fromkeys((row, dataset) for row, dataset, _ in scores):
        means = {i: sum(s) / len(s) for (r, d, i), s in scores.items() if (r, d) == (row, dataset)}
        best = max(means, key=lambda i: (means[i], -i))
        if means[best] == -math.inf:
            raise SuiteError(f"methods.{row}: every try on {dataset} diverged; give it other values to try")
        chosen[row][dataset] = drawn[row][best]
    rows = dict(suite.methods)
    for row, by_dataset in chosen.items():
        name = rows[row].method or row
        for dataset, setting in by_dataset.items():
            rows[row] = _with(rows[row], name, setting, dataset)
    return suite.model_copy(update={"methods": rows, "tuning": None}), chosen


def describe(chosen: Mapping[str, Mapping[str, Setting]], count: int) -> list[str]:
    """Notes for a table: what each row was given."""
    notes = [f"Tuned: every row had {count} tries, chosen by accuracy on noisy validation labels at the last epoch."]
    for row, by_dataset in chosen.items():
        for dataset, setting in by_dataset.items():
            values = {**setting["protocol"], **setting["params"]}
            notes.append(f"{row} on {dataset}: " + ", ".join(f"{key} {value}" for key, value in values.items()) + ".")
    return notes
