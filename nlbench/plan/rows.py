"""Rows."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nlbench import registry
from nlbench.build import build_method, dummy_task, typed_value
from nlbench.errors import SuiteError, did_you_mean
from nlbench.plan.problems import Problems
from nlbench.plan.spec import STAND_IN
from nlbench.plan.suite_file import MethodEntry, Suite


@dataclass(frozen=True)
class CheckedRow:
    """A method row, checked by building it on every dataset of the suite."""

    method: str
    params: dict[str, dict[str, Any]]  # by dataset, fully resolved
    told: tuple[str, ...]
    networks: int

    @classmethod
    def check(
        cls,
        row: str,
        entry: MethodEntry,
        suite: Suite,
        files: Mapping[str, registry.MethodFile],
        infos: Mapping[str, Any],
        problems: Problems,
    ) -> CheckedRow | None:
        where = ["methods", row]
        if not row.strip() or not row.isprintable() or set(row) & set(",|"):  # --only and tables could not have it
            problems.add(where, f"{row!r} cannot be a row's name: it must be text without ',' and '|'")
        name = entry.method or row
        own = [[*where, "protocol"]] if entry.protocol else []
        own += [
            [*where, "per_dataset", d, "protocol"] for d, values in entry.per_dataset.items() if "protocol" in values
        ]
        for path in own if not suite.own_protocols else ():
            message = "only the track as-published gives a method its own protocol"
            problems.add(path, f"{message}; this suite is {suite.track}")
        if entry.search and suite.track != "tuned":
            problems.add([*where, "search"], f"only the track tuned searches; this suite is {suite.track}")
        if name not in files:
            path = [*where, "method"] if entry.method else where
            hint = did_you_mean(name, files)
            problems.add(path, f"unknown method {name!r}. There are: {', '.join(files)}.{hint}")
            return None
        try:
            method_class = registry.load_method(files[name])
            takes = registry.hyperparameters(method_class)
        except SuiteError as error:
            problems.add(where, str(error))
            return None
        for dataset in entry.per_dataset:
            if dataset not in infos and STAND_IN not in infos:
                problems.add(
                    [*where, "per_dataset", dataset],
                    f"this suite has no dataset {dataset!r}. It has: {', '.join(infos)}.{did_you_mean(dataset, infos)}",
                )
        params: dict[str, dict[str, Any]] = {}
        told, networks = tuple[str, ...](), 1
        for dataset, info in infos.items():
            own_values = {k: v for k, v in entry.per_dataset.get(dataset, {}).items() if k != "protocol"}
            given = {**{k: (v, [*where, k]) for k, v in (entry.model_extra or {}).items()},
                     **{k: (v, [*where, "per_dataset", dataset, k]) for k, v in own_values.items()}}  # fmt: skip
            params[dataset] = _check_params(given, takes, where, problems)
            values = dict(params[dataset])
            while values.keys() == takes.keys():  # again without the value that was wrong: there may be others
                try:
                    method = build_method(method_class, values, dummy_task(info))
                    told, networks = method.told, method.num_networks
                    break
                except ValueError as error:
                    wrong = _blame(str(error), given)
                    path, message = (
                        (given[wrong][1], str(error).removeprefix(f"{wrong} ")) if wrong else (where, str(error))
                    )
                    problems.add(path, message)
                    if wrong is None or takes[wrong].required or values[wrong] == takes[wrong].default:
                        break
                    values[wrong] = takes[wrong].default
                except Exception as error:  # a mistake in the method's file, which may be anybody's
                    spot = traceback.extract_tb(error.__traceback__)[-1]
                    message = f"{files[name].path}: cannot be built: {type(error).__name__}: {error}"
                    problems.add(where, f"{message} ({spot.filename}:{spot.lineno})")
                    break
        return cls(name, params, told, networks)


def _blame(message: str, given: Iterable[str]) -> str | None:
    """The given key that a constructor's message begins with, or else names."""
    named = [key for key in given if re.search(rf"\b{re.escape(key)}\b", message)]
    return min(named, key=lambda key: not message.startswith(f"{key} "), default=None)


def _check_params(
    given: Mapping[str, tuple[Any, list[str]]],
    takes: Mapping[str, registry.Hyperparameter],
    where: list[str],
    problems: Problems,
) -> dict[str, Any]:
    """Given values by type, defaults for the rest; in the order of the constructor."""
    known = ", ".join(p.name if p.required else f"{p.name} ({p.default})" for p in takes.values()) or "nothing"
    for key, (_, path) in given.items():
        if key not in takes:
            problems.add(path, f"unknown key. It takes: {known}.{did_you_mean(key, takes)}")
    values = {}
    for p in takes.values():
        if p.required and p.name not in given:
            problems.add(where, f"needs {p.name}, which has no default")
            continue
        # Defaults go through the same door: `lam: float = 3` and a suite's `lam: 3.0` are one run.
        value, path = given.get(p.name, (p.default, where))
        try:
            values[p.name] = typed_value(value, p.annotation)
        except ValueError as error:
            problems.add(path, f"{'' if p.name in given else f'the default of {p.name} '}{error}")
            if not p.required:
                values[p.name] = p.default
    return values
