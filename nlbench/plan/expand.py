"""From a suite to the list of its runs. Every problem is found before the first run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nlbench import registry
from nlbench.data.base import Info
from nlbench.data.places import Places
from nlbench.errors import unknown_name
from nlbench.files import short_hash
from nlbench.plan.conditions import conditions_of, known_infos, read_fingerprints
from nlbench.plan.memories import misfit, need_of
from nlbench.plan.presets import PRESETS
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import Protocol
from nlbench.plan.row_protocol import RowProtocols
from nlbench.plan.rows import CheckedRow, check_row_apart
from nlbench.plan.spec import DECODING, STRONG_VIEWS, Condition, Plan, RunSpec, Told
from nlbench.plan.suite_file import MOST_IN_NAME, Suite
from nlbench.plan.told import told_to


def expand(
    suite: Suite,
    problems: Problems,
    *,
    places: Places,
    settings: Mapping[str, object] | None = None,
    seeds: Sequence[int] | None = None,
    methods_dirs: Sequence[Path] = (),
    auto_precision: Callable[[], str] = lambda: "float32",
) -> Plan:
    """Check every name and value, read the data's fingerprints, and list the runs.

    Args:
        problems: may hold some already; they are raised together with those found here.
        settings: protocol values from the command line, over the suite's own.
        seeds: seeds from the command line, which the plan holds beside the suite's.
        methods_dirs: folders of further method files.
        auto_precision: returns the precision of "auto" on the device of the runs.
    Raises: SuiteError with every problem, a line each; DataMissing when a dataset is not there;
        DataError.
    """
    settings = settings or {}
    files = registry.method_files(methods_dirs)
    base = Path(problems.source).parent

    # ---- Names and values ---------------------------------------------------------------------
    if suite.tuning is not None and suite.track != "tuned":
        message = f"only the track tuned takes it; this suite is {suite.track}"
        problems.add(["tuning"], message)
    if suite.protocol and suite.protocol not in PRESETS:
        problems.add(["protocol"], unknown_name("protocol", suite.protocol, PRESETS))

    infos = known_infos(suite, base, places, problems)
    conditions = conditions_of(suite, base, infos, places, problems)
    row_protocols = RowProtocols(suite, base, settings, auto_precision, problems)
    rows: dict[str, CheckedRow] = {}
    for row in suite.methods:
        epochs = row_protocols.epochs(row, infos)
        checked = check_row_apart(row, suite, files, infos, epochs, problems)
        if checked is not None:
            rows[row] = checked

    told = _told(conditions, rows, infos, problems)
    protocols = row_protocols.on(infos)
    for (row, dataset), resolved in protocols.items():
        if row in rows:
            problem = misfit(row, rows[row].memories.get(dataset, ()), resolved.protocol)
            if problem is not None:
                row_protocols.report(problem, row, dataset)
    # Reading the data may take minutes, so everything else is checked before.
    problems.raise_if_any()

    # ---- Data ---------------------------------------------------------------------------------
    fingerprints, counted = read_fingerprints(conditions, places)
    # Some datasets are counted only when they are read: do the protocols still fit?
    changed = {dataset: info for dataset, info in counted.items() if info != infos[dataset]}
    row_protocols.on(changed)
    problems.raise_if_any()

    # ---- Runs ---------------------------------------------------------------------------------
    # Seed by seed, so that every method has a result early.
    specs = []
    needs = {}
    for seed in dict.fromkeys([*suite.seeds, *(seeds or ())]):
        for place, condition in enumerate(conditions):
            for row, checked in rows.items():
                resolved = protocols[row, condition.dataset]
                info = counted.get(condition.dataset, infos[condition.dataset])
                # Float features and texts, which have no mean, are used without augmentation.
                is_images = bool(info.mean)
                needs[row, condition.dataset] = need_of(
                    row, checked.memories[condition.dataset], info, resolved.protocol
                )
                spec = RunSpec(
                    row=row,
                    method=checked.method,
                    params=checked.params[condition.dataset],
                    condition=condition,
                    fingerprint=fingerprints[condition.dataset, condition.labels],
                    protocol=resolved.protocol,
                    weights_path=resolved.weights_path,
                    weights_name=resolved.weights_name,
                    told=told[row, place],
                    strong_views=STRONG_VIEWS if checked.strong_views and is_images else 0,
                    decoding=DECODING if _scales(info, resolved.protocol) else 0,
                    seed=seed,
                )
                specs.append(spec)
    return Plan(
        name=plan_name(suite.name, settings),
        suite=suite,
        specs=specs,
        conditions=conditions,
        told={row: checked.told for row, checked in rows.items()},
        networks={row: checked.networks for row, checked in rows.items()},
        needs=needs,
    )


def _scales(info: Info, protocol: Protocol) -> bool:
    """Tell whether large pictures of a dataset's files are decoded to a part of their size."""
    # Only image files have no shape.
    return not info.shape and bool(protocol.resize) and not protocol.exact_decode


def _told(
    conditions: Sequence[Condition],
    rows: Mapping[str, CheckedRow],
    infos: Mapping[str, Info],
    problems: Problems,
) -> dict[tuple[str, int], dict[str, Told]]:
    """Return what the suite tells each row under each condition, by row and the latter's place."""
    found = {}
    for row, checked in rows.items():
        for place, condition in enumerate(conditions):
            info = infos[condition.dataset]
            found[row, place] = told_to(
                row, checked.declared, checked.own, condition, info, problems
            )
    return found


def plan_name(suite: str, settings: Mapping[str, object]) -> str:
    """Return the name of a plan, shortened to what a file system takes."""
    name = suite + _name_of(settings)
    if len(name) <= 2 * MOST_IN_NAME:
        return name
    # The hash tells apart names that begin alike.
    return f"{name[:MOST_IN_NAME]}-{short_hash(name.encode())}"


def _name_of(settings: Mapping[str, object]) -> str:
    """Return settings as a part of a plan's name, for example "+epochs=1+schedule.rise=0.2"."""
    # The store has a file of this name, so only characters that any file system takes are kept.
    text = "".join(f"+{key}={value}" for key, value in _flat(settings).items())
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", text)


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested values under keys joined with dots."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
