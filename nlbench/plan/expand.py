"""A suite file -> the runs it stands for. Every problem is found before the first run, with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlbench import registry
from nlbench.data import catalogue
from nlbench.data.places import Places
from nlbench.errors import DataMissing, UserError, did_you_mean
from nlbench.plan import presets, protocol
from nlbench.plan.fit import row_protocol
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import Protocol
from nlbench.plan.rows import CheckedRow
from nlbench.plan.spec import STAND_IN, Condition, Plan, RunSpec
from nlbench.plan.suite_file import Suite


def expand(
    suite: Suite,
    problems: Problems,
    *,
    places: Places,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    methods_dirs: Sequence[Path] = (),
    auto_precision: Callable[[], str] = lambda: "float32",
) -> Plan:
    """Check every name and value, read the data's fingerprints, and list the runs.

    Args:
        auto_precision: what a protocol's precision "auto" stands for where the runs will be trained.
        settings: protocol overrides from the command line, over the suite's own.
        seeds: further seeds asked for on the command line; the plan holds them beside the suite's.
    Raises: SuiteError with every problem, a line each; DataMissing when a dataset is not there; DataError.
    """
    files = registry.method_files(methods_dirs)
    if suite.tuning is not None and suite.track != "tuned":
        problems.add(["tuning"], f"only the track tuned takes it; this suite is {suite.track}")
    if suite.protocol and suite.protocol not in presets.PRESETS:
        problems.add(["protocol"], protocol.unknown(suite.protocol))
    base = Path(problems.source).parent
    infos = _infos(suite, base, places, problems)
    conditions = _conditions(suite, base, infos, problems)
    rows = {row: CheckedRow.check(row, entry, suite, files, infos, problems) for row, entry in suite.methods.items()}
    protocol_of: dict[tuple[str, str], tuple[Protocol, str]] = {}
    for row, entry in suite.methods.items():
        for dataset, info in infos.items():
            values = row_protocol(suite, entry, row, dataset, info, base, settings or {}, problems)
            if values is not None:
                resolved, weights_path = values
                if resolved.precision == "auto":
                    resolved = resolved.model_copy(update={"precision": auto_precision()})
                protocol_of[row, dataset] = resolved, weights_path
    problems.raise_if_any()
    prints, counted = _fingerprints(conditions, places)
    for dataset, info in counted.items():  # what could not be known before the data was read
        for row, entry in suite.methods.items() if info != infos[dataset] else ():
            row_protocol(suite, entry, row, dataset, info, base, settings or {}, problems)
    problems.raise_if_any()
    specs = [
        RunSpec(
            row=row,
            method=checked.method,
            params=checked.params[condition.dataset],
            condition=condition,
            fingerprint=prints[condition.dataset, condition.labels],
            protocol=protocol_of[row, condition.dataset][0],
            weights_path=protocol_of[row, condition.dataset][1],
            seed=seed,
        )
        for seed in list(dict.fromkeys([*suite.seeds, *(seeds or ())]))
        for condition in conditions
        for row, checked in rows.items()
        if checked is not None
    ]
    changed = "".join(f"+{k}={v}" for k, v in _flat(settings or {}).items())
    return Plan(
        name=suite.name + re.sub(r"[^A-Za-z0-9._+=-]", "_", changed),
        suite=suite,
        specs=specs,
        conditions=conditions,
        told={row: list(checked.told) for row, checked in rows.items() if checked},
        networks={row: checked.networks for row, checked in rows.items() if checked},
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _infos(suite: Suite, base: Path, places: Places, problems: Problems) -> dict[str, Any]:
    """What is known of the suite's datasets, for checking rows and protocols; a stand-in where none can be used."""
    known = catalogue.dataset_files()
    infos: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    for i, entry in enumerate(suite.datasets):
        where: list[str | int] = ["datasets", i]
        if entry.name not in known:
            if entry.name:
                hint = did_you_mean(entry.name, known)
                problems.add([*where, "name"], f"unknown dataset {entry.name!r}. There are: {', '.join(known)}.{hint}")
            continue
        located_by = catalogue.dataset(entry.name).INFO.located_by
        if (located_by == "suite") != bool(entry.path):
            what = "needs a path, the folder it lies in" if not entry.path else "takes no path; --data-dir says where"
            problems.add([*where, "path"] if entry.path else where, f"{entry.name} {what}")
        elif entry.path and Path(entry.path).name in ("", ".."):
            problems.add([*where, "path"], "must end with the folder's own name, which tables and records show")
        elif paths.setdefault(entry.id, entry.folder(base)) != entry.folder(base):
            problems.add([*where, "path"], f"two folders are called {Path(entry.path).name}: rename one of them")
        elif entry.path:
            try:
                infos[entry.id] = catalogue.info(entry.name, entry.folder(base), places)
            except UserError as error:
                problems.add([*where, "path"], str(error))
        else:
            infos[entry.id] = catalogue.dataset(entry.name).INFO
    return infos or {STAND_IN: replace(catalogue.dataset("digits").INFO, name=STAND_IN, num_train=0)}


def _conditions(suite: Suite, base: Path, infos: Mapping[str, Any], problems: Problems) -> list[Condition]:
    """Every (dataset, label set or noise) of the suite, in its order."""
    from nlbench.data.noise import resolve

    conditions: list[Condition] = []
    folders: dict[str, Path] = {}
    for i, entry in enumerate(suite.datasets):
        where: list[str | int] = ["datasets", i]
        if entry.id not in infos or folders.setdefault(entry.id, entry.folder(base)) != entry.folder(base):
            continue
        info = infos[entry.id]
        data_path = str(entry.folder(base)) if entry.path else ""
        found: list[Condition] = []
        for labels in entry.label_sets(info):
            if labels in info.label_sets:
                title = info.title if labels == info.label_sets[0] else f"{info.title} {labels}"
                found.append(Condition(entry.id, labels, None, title, data_path=data_path))
            else:
                hint = did_you_mean(labels, info.label_sets)
                problems.add(
                    [*where, "labels"],
                    f"{entry.name} has no label set {labels!r}. It has: {', '.join(info.label_sets)}.{hint}",
                )
        noise = entry.noises()
        if noise and "clean" not in info.label_sets:
            problems.add(
                [*where, "noise"], f"the true labels of {info.title} are unknown, so that no noise can be drawn"
            )
            noise = []
        for given in noise:
            try:
                resolved = resolve.resolve(given, info, base)
            except ValueError as error:
                for line in str(error).splitlines():  # "noise.rate: must be ..."
                    key, _, message = line.partition(": ")
                    problems.add([*where, *key.split(".")], message)
                continue
            path, resolved = str(resolved.get("path", "")), resolve.identity(resolved)
            rate = f" {resolved['rate']:g}" if "rate" in resolved else f" {Path(path).name}"
            title = f"{info.title} {resolved['kind']}{rate}"
            found.append(Condition(entry.id, "clean", resolved, title, path, data_path))
        for i_found, condition in enumerate(found):
            if any(condition.title == other.title and condition != other for other in conditions):
                more = (condition.noise or {}).get("key") or condition.noise_path
                found[i_found] = condition = replace(condition, title=f"{condition.title} ({more})")
            if condition in conditions:
                problems.add(where, f"{condition.title} stands here twice; keep one")
            conditions.append(condition)
    return conditions


def _fingerprints(conditions: Sequence[Condition], places: Places) -> tuple[dict[tuple[str, str], str], dict[str, Any]]:
    """(dataset, label set) -> fingerprint, and dataset -> what was counted when it was read.

    Raises DataMissing for all datasets that are not there at once.
    """
    from nlbench.data.noise import label_files

    missing = [
        catalogue.advice(name, places.data_dir)
        for name in dict.fromkeys(c.dataset for c in conditions if not c.data_path)
        if not catalogue.status(name, places.data_dir).there
    ]
    if missing:
        raise DataMissing("\n".join(missing))
    prints, infos = {}, {}
    for dataset, path in dict.fromkeys((c.dataset, c.data_path) for c in conditions):
        data = catalogue.open_dataset(dataset, path, places, 0)
        infos[dataset] = data.info
        for labels in dict.fromkeys(c.labels for c in conditions if c.dataset == dataset):
            prints[dataset, labels] = data.fingerprint
            if labels != "clean":
                prints[dataset, labels] += "-" + label_files.labels_hash(data.label_sets[labels])
    return prints, infos
