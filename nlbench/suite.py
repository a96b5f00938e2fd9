"""A suite file -> the runs it stands for. Every problem is found before the first run, with file and line."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.errors import PydanticUserError

from nlbench import protocols, registry
from nlbench.errors import DataMissing, SuiteError, UserError, did_you_mean
from nlbench.problems import NotYaml, Problems, in_words, parse_yaml, plain, read_yaml, shown

SCHEMA = 1  # of what a run key hashes; a change of meaning without a change of values raises it

Track = Literal["identical", "tuned", "as-published"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DatasetEntry(_Model):
    """`labels` names label sets the dataset carries, `noise` draws synthetic labels; neither means its first set."""

    name: str
    path: str = ""  # of the dataset `folder`: where it lies, relative to the suite's file
    labels: list[str] = Field(default_factory=list, min_length=1)
    noise: list[dict[str, Any]] = Field(default_factory=list, min_length=1)

    @field_validator("labels", "noise", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @property
    def id(self) -> str:
        """The dataset's name; of a folder together with the folder's, which tables and records show."""
        return f"{self.name}:{Path(self.path).name}" if self.path else self.name

    def folder(self, base: Path) -> Path:
        """Where a dataset with a path lies, in a suite whose file is in `base`."""
        return base / Path(self.path).expanduser()

    def label_sets(self, info: Any) -> list[str]:
        return self.labels or ([] if self.noise else [info.label_sets[0]])

    def noises(self) -> list[dict[str, Any]]:
        """Each noise of the entry; a list as `rate` stands for one noise per rate."""
        spread = []
        for entry in self.noise:
            rates = entry.get("rate")
            spread += [{**entry, "rate": rate} for rate in rates] if isinstance(rates, list) and rates else [entry]
        return spread


class Tuning(_Model):
    """What every row of a tuned suite gets: as many tries, over these protocol values and its own `search`."""

    tries: int = Field(ge=2, le=1000)
    seed: int = Field(default=1000, ge=0, lt=2**63)
    protocol: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)


class MethodEntry(BaseModel):
    """A row of the table. What is not named here is a hyperparameter of the method."""

    model_config = ConfigDict(extra="allow", strict=True)

    method: str = ""  # registry name; the row's own name where absent
    per_dataset: dict[str, dict[str, Any]] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)  # track tuned

    def own_protocol(self, dataset: str) -> dict[str, Any]:
        """The row's protocol values, with those of one dataset on top."""
        return _merge(self.protocol, self.per_dataset.get(dataset, {}).get("protocol", {}))


class Suite(_Model):
    """A suite file, its structure checked; names and values are checked by `expand`."""

    name: str
    description: str = ""
    track: Track = "identical"
    protocol: str
    datasets: list[DatasetEntry] = Field(min_length=1)
    methods: dict[str, MethodEntry] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    overrides: dict[str, Any] = Field(default_factory=dict)
    tuning: Tuning | None = None

    @property
    def own_protocols(self) -> bool:
        """Whether rows may have their own protocol values: as published, and once tuning has chosen them."""
        return self.track == "as-published" or (self.track == "tuned" and self.tuning is None)

    @field_validator("name")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):  # a file of the store has it
            raise ValueError("must be of letters, digits, '.', '_' and '-', and begin with a letter or digit")
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_rows(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value) or min(value) < 0 or max(value) >= 2**63:
            raise ValueError("must be different integers from 0 up")
        return value


# What a suite's key may look like, for those who wrote something else.
_EXAMPLES = {
    "datasets": "[{name: digits, noise: {kind: symmetric, rate: 0.4}}]",
    "methods": "{ce: {}, elr: {lam: 3.0}}",
    "seeds": "[0, 1, 2, 3, 4]",
    "overrides": "{epochs: 100}",
    "tuning": "{tries: 12, protocol: {lr: [0.01, 0.02, 0.05, 0.1]}}",
}


@dataclass(frozen=True)
class RunSpec:
    """One run. `identity()` is everything that can change its result and nothing else; the key is its hash."""

    row: str  # the suite's name of the method's row; not part of the key
    method: str
    params: dict[str, Any]
    dataset: str
    labels: str  # the label set; "clean" when noise is drawn
    noise: dict[str, Any] | None  # fully resolved
    fingerprint: str  # of the decoded data and, for human labels, of the label set
    protocol: dict[str, Any]
    seed: int
    # Where files lie whose content is in the identity: of a `file` or `matrix` noise, a folder dataset, the weights.
    noise_path: str = ""
    data_path: str = ""
    weights_path: str = ""

    def identity(self) -> dict[str, Any]:
        """Plain, fully resolved data."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "params": self.params,
            "dataset": self.dataset,
            "labels": self.labels,
            "noise": self.noise,
            "fingerprint": self.fingerprint,
            "protocol": self.protocol,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        return key_of(self.identity())

    @property
    def condition(self) -> tuple[str, str, str]:
        """What a column of a table stands for: dataset, label set, noise."""
        return self.dataset, self.labels, json.dumps(self.noise, sort_keys=True)


def key_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the sha256 of the identity as canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Plan:
    """A suite expanded: its runs, seed by seed, so that every method has one result early."""

    name: str  # of the plan: the suite's, with what the command line changed
    suite: Suite
    specs: list[RunSpec]
    titles: dict[tuple[str, str, str], str]  # condition -> how a table prints it
    told: dict[str, list[str]] = field(default_factory=dict)  # row -> what its method is told
    networks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # for the table
    tries: bool = False  # the tries of a tuned suite

    def as_json(self) -> dict[str, Any]:
        """What `table` needs, without torch and without the data."""
        conditions = list(self.titles)
        return {
            "schema": SCHEMA,
            "suite": self.name,
            "track": self.suite.track,
            "protocol": self.suite.protocol,
            "notes": self.notes,
            "tries": self.tries,
            "rows": [
                {"row": row, "method": entry.method or row, "told": self.told[row], "networks": self.networks[row]}
                for row, entry in self.suite.methods.items()
            ],
            "conditions": [self.titles[c] for c in conditions],
            "seeds": sorted({spec.seed for spec in self.specs}),
            "cells": [
                {"row": s.row, "condition": conditions.index(s.condition), "seed": s.seed, "key": s.key}
                for s in self.specs
            ],
        }


def find_suite(name: str | Path) -> Path:
    """A suite by path or by the bare name of one that comes with nlbench."""
    path = Path(name)
    if path.is_file():
        return path
    known = registry.suite_files()
    if str(name) in known:
        return known[str(name)]
    what = "that is a folder" if path.is_dir() else "there is no such file"
    beside = {p.name: p for p in path.parent.glob("*.y*ml")} if path.parent.is_dir() else {}
    hint = did_you_mean(path.name, beside) or did_you_mean(str(name), known)
    raise SuiteError(f"unknown suite {str(name)!r}: {what}, and nlbench comes with: {', '.join(known)}.{hint}")


def read_suite(source: str | Path | Mapping[str, Any]) -> tuple[Suite, Problems]:
    """A suite from a file, a bare name or a mapping.

    Returns: the suite, and the collector that knows its file and lines. A wrong structure is in the collector, for
        `expand` to raise together with what it finds in the parts that are sound.
    Raises: SuiteError for unreadable YAML or a duplicate key, with line and column.
    """
    if isinstance(source, Mapping):
        where, tree = "suite", dict(source)
    else:
        path = find_suite(source)
        where, tree = str(path), read_yaml(path)
    problems = Problems(where, tree)
    given = plain(tree)
    try:
        return Suite.model_validate(given), problems
    except ValidationError as error:
        for problem in error.errors():
            _structure_problem(problems, problem)
        return _sound_parts(given, error), problems


def _structure_problem(problems: Problems, problem: Any) -> None:
    path = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = DatasetEntry.model_fields if path[0] == "datasets" else Suite.model_fields
        message = f"unknown key. It takes: {', '.join(known)}.{did_you_mean(str(path[-1]), known)}"
    else:
        message = in_words(problem)
        if len(path) == 1 and path[0] in _EXAMPLES:
            message += f"; for example {_EXAMPLES[path[0]]}"
    problems.add([part for part in path if part != "[key]"], message)


def _sound_parts(given: dict[str, Any], error: ValidationError) -> Suite:
    """What is well formed of a suite that is not, with stand-ins for the rest, so that its values are checked too."""
    bad = {problem["loc"][: 3 if problem["loc"][0] in ("datasets", "methods") else 1] for problem in error.errors()}

    def sound(path: tuple[Any, ...], entry: Any) -> dict[str, Any]:
        if path in bad or not isinstance(entry, dict):
            return {}
        return {k: v for k, v in entry.items() if isinstance(k, str) and (*path, k) not in bad}

    top = sound((), given)
    datasets, methods = top.get("datasets", []), top.get("methods", {})
    return Suite.model_construct(
        name=top.get("name", "suite"),
        track=top.get("track", "identical"),
        protocol=top.get("protocol", ""),
        datasets=[
            DatasetEntry.model_validate({"name": "", **sound(("datasets", i), entry)})
            for i, entry in enumerate(datasets)
        ],
        methods={
            row: MethodEntry.model_validate(sound(("methods", row), entry))
            for row, entry in methods.items()
            if isinstance(row, str) and bad.isdisjoint({("methods", row), ("methods", row, "method")})
        },
        seeds=top.get("seeds", [0]),
        overrides=top.get("overrides", {}),
        tuning=None,
    )


def parse_set(settings: Iterable[str]) -> dict[str, Any]:
    """`--set` options ("epochs=2", "schedule.gamma=0.1") as protocol overrides. Raises SuiteError."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, _, text = (part.strip() for part in setting.partition("="))
        *parents, last = key.split(".")
        if not text or not all([*parents, last]):
            raise SuiteError(f"--set {setting}: write it as KEY=VALUE, for example --set epochs=2")
        try:
            value = plain(parse_yaml(text))
        except NotYaml as error:
            raise SuiteError(f"--set {setting}: {text!r} cannot be read as a value: {error}") from None
        node = overrides
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise SuiteError(f"--set {setting}: another --set gives {part!r} a value of its own; keep one of them")
        node[last] = value
    return overrides


_MOST_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """`--seeds`: "0,1,4" or "0-4". Raises SuiteError."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise SuiteError(f"--seeds {text}: write seeds as 0,1 or as 0-4")
        if last - first >= _MOST_SEEDS:
            raise SuiteError(f"--seeds {text}: {part} are {last - first + 1:,} seeds; at most {_MOST_SEEDS:,} can be")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def expand(
    suite: Suite,
    problems: Problems,
    *,
    data_dir: Path,
    cache_dir: Path,
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
    if suite.protocol and suite.protocol not in protocols.PRESETS:
        problems.add(["protocol"], protocols.unknown(suite.protocol))
    base = Path(problems.source).parent
    infos = _infos(suite, base, cache_dir, problems)
    conditions = _conditions(suite, base, infos, problems)
    rows = {row: _Row.check(row, entry, suite, files, infos, problems) for row, entry in suite.methods.items()}
    protocol_of: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    for row, entry in suite.methods.items():
        for dataset, info in infos.items():
            values = _protocol(suite, entry, row, dataset, info, base, settings or {}, problems)
            if values is not None:
                if values[0]["precision"] == "auto":
                    values[0]["precision"] = auto_precision()
                protocol_of[row, dataset] = values
    problems.raise_if_any()
    prints, counted = _fingerprints(conditions, data_dir, cache_dir)
    for dataset, info in counted.items():  # what could not be known before the data was read
        for row, entry in suite.methods.items() if info != infos[dataset] else ():
            _protocol(suite, entry, row, dataset, info, base, settings or {}, problems)
    problems.raise_if_any()
    specs = [
        RunSpec(
            row=row,
            method=checked.method,
            params=checked.params[condition.dataset],
            dataset=condition.dataset,
            labels=condition.labels,
            noise=condition.noise,
            noise_path=condition.noise_path,
            data_path=condition.data_path,
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
        titles={spec.condition: c.title for c in conditions for spec in specs if c.same(spec)},
        told={row: list(checked.told) for row, checked in rows.items() if checked},
        networks={row: checked.networks for row, checked in rows.items() if checked},
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


@dataclass(frozen=True)
class _Condition:
    dataset: str
    labels: str
    noise: dict[str, Any] | None
    noise_path: str
    data_path: str
    title: str

    def same(self, other: _Condition | RunSpec) -> bool:
        return (self.dataset, self.labels, self.noise) == (other.dataset, other.labels, other.noise)


def _infos(suite: Suite, base: Path, cache_dir: Path, problems: Problems) -> dict[str, Any]:
    """What is known of the suite's datasets, for checking rows and protocols; a stand-in where none can be used."""
    known = registry.dataset_files()
    infos: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    for i, entry in enumerate(suite.datasets):
        where: list[str | int] = ["datasets", i]
        if entry.name not in known:
            if entry.name:
                hint = did_you_mean(entry.name, known)
                problems.add([*where, "name"], f"unknown dataset {entry.name!r}. There are: {', '.join(known)}.{hint}")
            continue
        module = registry.dataset(entry.name)
        if hasattr(module, "info") != bool(entry.path):
            what = "needs a path, the folder it lies in" if not entry.path else "takes no path; --data-dir says where"
            problems.add([*where, "path"] if entry.path else where, f"{entry.name} {what}")
        elif entry.path and Path(entry.path).name in ("", ".."):
            problems.add([*where, "path"], "must end with the folder's own name, which tables and records show")
        elif paths.setdefault(entry.id, entry.folder(base)) != entry.folder(base):
            problems.add([*where, "path"], f"two folders are called {Path(entry.path).name}: rename one of them")
        elif entry.path:
            try:
                infos[entry.id] = module.info(entry.folder(base), cache_dir)
            except UserError as error:
                problems.add([*where, "path"], str(error))
        else:
            infos[entry.id] = module.INFO
    return infos or {_STAND_IN: replace(registry.dataset("digits").INFO, name=_STAND_IN, num_train=0)}


_STAND_IN = ""  # name of a dataset, where the suite has none that can be used


def _conditions(suite: Suite, base: Path, infos: Mapping[str, Any], problems: Problems) -> list[_Condition]:
    """Every (dataset, label set or noise) of the suite, in its order."""
    from nlbench.data import noise as noises

    conditions: list[_Condition] = []
    folders: dict[str, Path] = {}
    for i, entry in enumerate(suite.datasets):
        where: list[str | int] = ["datasets", i]
        if entry.id not in infos or folders.setdefault(entry.id, entry.folder(base)) != entry.folder(base):
            continue
        info = infos[entry.id]
        data_path = str(entry.folder(base)) if entry.path else ""
        found: list[_Condition] = []
        for labels in entry.label_sets(info):
            if labels in info.label_sets:
                title = info.title if labels == info.label_sets[0] else f"{info.title} {labels}"
                found.append(_Condition(entry.id, labels, None, "", data_path, title))
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
                resolved = noises.resolve(given, info, base)
            except ValueError as error:
                for line in str(error).splitlines():  # "noise.rate: must be ..."
                    key, _, message = line.partition(": ")
                    problems.add([*where, *key.split(".")], message)
                continue
            path, resolved = str(resolved.get("path", "")), noises.identity(resolved)
            rate = f" {resolved['rate']:g}" if "rate" in resolved else f" {Path(path).name}"
            title = f"{info.title} {resolved['kind']}{rate}"
            found.append(_Condition(entry.id, "clean", resolved, path, data_path, title))
        for i_found, condition in enumerate(found):
            if any(condition.title == other.title and not condition.same(other) for other in conditions):
                more = (condition.noise or {}).get("key") or condition.noise_path
                found[i_found] = condition = replace(condition, title=f"{condition.title} ({more})")
            if any(condition.same(other) for other in conditions):
                problems.add(where, f"{condition.title} stands here twice; keep one")
            conditions.append(condition)
    return conditions


@dataclass(frozen=True)
class _Row:
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
    ) -> _Row | None:
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
            if dataset not in infos and _STAND_IN not in infos:
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
            values[p.name] = _typed(value, p.annotation)
        except ValueError as error:
            problems.add(path, f"{'' if p.name in given else f'the default of {p.name} '}{error}")
            if not p.required:
                values[p.name] = p.default
    return values


def _typed(value: Any, annotation: Any) -> Any:
    """A hyperparameter's value in its annotated type. Raises ValueError saying what it must be."""
    try:
        typed = TypeAdapter(annotation).validate_python(value, strict=True)
        json.dumps(typed, allow_nan=False)  # it becomes part of a run's key
    except PydanticUserError:
        raise ValueError(f"is annotated as {annotation}, which a suite cannot give") from None
    except ValidationError as error:
        raise ValueError(in_words(error.errors()[0])) from None
    except ValueError:
        raise ValueError(f"must be finite, got {shown(value)}") from None
    except TypeError:
        raise ValueError(f"must be numbers, text, lists and mappings, got {shown(value)}") from None
    return typed


_TOLD = ("noise_rate", "T")  # what a method can be told, where it is known


def build_method(cls: type, params: Mapping[str, Any], task: Any) -> Any:
    """The method, told what it declares: on its class before it is built, on the instance afterwards."""
    secrets = dict(task._told)
    _check_told(cls, secrets)
    task._told = {name: secrets[name] for name in cls.told}  # type: ignore[attr-defined]
    method = cls(task, **params)
    _check_told(method, secrets)
    task._told = {name: secrets[name] for name in method.told}
    return method


def _check_told(method: Any, secrets: Mapping[str, Any]) -> None:
    for name in method.told:
        if name in _TOLD and name not in secrets:
            raise ValueError(f"needs to be told {name}, which is unknown: the dataset has no true training labels")
        if name not in secrets:
            raise ValueError(f"told names {name!r}; a method can be told: {', '.join(secrets)}")


def dummy_task(info: Any) -> Any:
    """A task of the dataset's size with made-up labels, on which a method can be built to check its arguments."""
    import torch

    from nlbench.method import Task

    N, C = info.num_train or 1000, info.num_classes
    told = {"noise_rate": 0.2, "T": torch.eye(C, dtype=torch.float64) * 0.8 + 0.2 / C}
    if "clean" not in info.label_sets:
        told = {"noise_rate": told["noise_rate"]} if info.estimated_noise_rate else {}
    return Task(
        num_train=N,
        num_classes=C,
        labels=torch.arange(N) % C,
        epochs=100,
        steps_per_epoch=100,
        batch_size=128,
        _told=told,
    )


def _protocol(
    suite: Suite,
    entry: MethodEntry,
    row: str,
    dataset: str,
    info: Any,
    base: Path,
    settings: Mapping[str, Any],
    problems: Problems,
) -> tuple[dict[str, Any], str] | None:
    """The row's protocol on a dataset, written out, and where the file of its weights lies, if it names one.

    None when the suite's or the command line's values are wrong.
    """

    def report(key: str, message: str, options: Mapping[str, Any]) -> None:
        top = key.partition(".")[0]
        if top in options:
            problems.add_option(f"--set {key}", message)
        elif top in entry.per_dataset.get(dataset, {}).get("protocol", {}):
            problems.add(["methods", row, "per_dataset", dataset, "protocol", *key.split(".")], message)
        elif top in entry.protocol:
            problems.add(["methods", row, "protocol", *key.split(".")], message)
        elif top in suite.overrides:
            problems.add(["overrides", *key.split(".")], message)
        else:
            problems.add(["protocol"], f"{key}: {message}")

    own = _merge(suite.overrides, entry.own_protocol(dataset))
    # The suite's own values first: what is wrong with them is not the command line's to mend.
    for options in ({}, settings) if settings else ({},):
        try:
            name = suite.protocol if suite.protocol in protocols.PRESETS else "digits"  # a stand-in; that is reported
            protocol = protocols.resolve(name, info.name, _merge(own, options))
        except SuiteError as error:
            for line in str(error).splitlines():
                key, _, message = line.partition(": ")
                report(key, message, options)
            return None
    before = len(problems.lines)
    if info.name == _STAND_IN:
        return None  # what depends on the dataset cannot be checked
    if unfit := _shape_problem(protocol, info):
        report("crop", unfit, settings)
    elif unfit := _model_problem(protocol.model, info.num_classes, _in_shape(info, protocol)):
        report("model", unfit, settings)
    try:
        weights, path = _weights(protocol, Path() if "weights" in settings else base)
    except SuiteError as error:
        report("weights", str(error), settings)
        return None
    if path and len(problems.lines) == before:
        unfit = _model_problem(protocol.model, info.num_classes, _in_shape(info, protocol), path, weights)
        if unfit:
            report("weights", unfit, settings)
    for key, message in _split_problems(protocol, info) if info.num_train else ():
        report(key, message, settings)
    values = {**protocol.model_dump(mode="json"), "weights": weights}
    if not protocol.compile:
        del values["compile"]  # it came later: the keys of runs without it stay what they were
    return (values, path) if len(problems.lines) == before else None


def _shape_problem(protocol: protocols.Protocol, info: Any) -> str:
    if not info.shape and not protocol.crop:
        what = f"{info.title} is image files, and protocol {protocol.name} does not say what a network sees of them"
        return f"{what}: for example resize: 256, crop: 224"
    if not info.shape and 0 < protocol.resize < protocol.crop:
        return f"must be at most resize, {protocol.resize}, got {protocol.crop}"
    if info.shape and (protocol.crop or protocol.resize):
        return f"resize and crop are for datasets of image files; {info.title} has shape {tuple(info.shape)}"
    return ""


def _weights(protocol: protocols.Protocol, base: Path) -> tuple[str, str]:
    """What identifies the weights that networks start from, and the file they are in, where one is named."""
    from nlbench import models

    given = protocol.weights
    models.check_weights(protocol.model, given)
    if given in ("", "imagenet"):
        return given, ""
    path = base / Path(given).expanduser()
    if not path.is_file():
        raise SuiteError(f"no such file: {path}; it must be 'imagenet', a file of weights, or left out")
    stat = path.stat()
    return f"sha256:{_digest(path, stat.st_size, stat.st_mtime_ns)}", str(path)


@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Once for all rows: weights are hundreds of megabytes."""
    from nlbench.data.files import digest

    return digest(path, "sha256")


def _split_problems(protocol: protocols.Protocol, info: Any) -> list[tuple[str, str]]:
    """Whether a dataset has as many examples as its protocol holds out and keeps: (key, what is wrong)."""
    held = round(Decimal(str(protocol.val_fraction)) * info.num_train)
    left = info.num_train - held
    if protocol.val_fraction and not 0 < held < info.num_train:
        what = "no validation example" if held == 0 else "no training example"
        return [("val_fraction", f"leaves {what} of {info.num_train}, got {protocol.val_fraction}")]
    if protocol.subset and not info.num_classes <= protocol.subset <= left:
        return [("subset", f"must be 0 (all) or in [{info.num_classes}, {left}] on {info.name}, got {protocol.subset}")]
    if (drawn := protocol.batches_per_epoch * protocol.batch_size) > (protocol.subset or left):
        what = f"{protocol.batches_per_epoch} of {protocol.batch_size} are {drawn} examples"
        return [("batches_per_epoch", f"{what}, more than the {protocol.subset or left} of {info.name}")]
    return []


def _in_shape(info: Any, protocol: protocols.Protocol) -> tuple[int, ...]:
    """(C, H, W) of an example as a network sees it; uint8 images are stored (H, W, C)."""
    if not info.shape:
        return 3, protocol.crop, protocol.crop
    return (info.shape[2], *info.shape[:2]) if info.mean else tuple(info.shape)


@functools.cache
def _model_problem(model: str, num_classes: int, in_shape: tuple[int, ...], weights: str = "", digest: str = "") -> str:
    """Why a model cannot be used on such examples, with the file `weights` of that digest; empty when it can."""
    import torch

    from nlbench import models

    if not weights and _fits_by_shape(model, num_classes, in_shape):
        return ""
    try:  # with numbers: weights have some, and some models of other packages cannot be built from shapes
        with torch.random.fork_rng(devices=[]):
            models.build(model, num_classes, in_shape, weights=weights)
    except SuiteError as error:
        return str(error)
    return ""


def _fits_by_shape(model: str, num_classes: int, in_shape: tuple[int, ...]) -> bool:
    """Whether a model can be built and applied by shapes alone, which takes no memory and no time."""
    import torch

    from nlbench import models

    try:
        models.check(model)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            models.build(model, num_classes, in_shape)
    except (SuiteError, RuntimeError, NotImplementedError):
        return False
    return True


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; of a schedule single values, unless `over` names its kind and so gives it whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and "kind" not in value:
            merged[key] = {**old, **value}
        else:
            merged[key] = value
    return merged


def _fingerprints(
    conditions: Sequence[_Condition], data_dir: Path, cache_dir: Path
) -> tuple[dict[tuple[str, str], str], dict[str, Any]]:
    """(dataset, label set) -> fingerprint, and dataset -> what was counted when it was read.

    Raises DataMissing for all datasets that are not there at once.
    """
    from nlbench.data import noise as noises
    from nlbench.data import sources

    missing = [
        sources.advice(name, data_dir)
        for name in dict.fromkeys(c.dataset for c in conditions if not c.data_path)
        if registry.dataset(name).find(data_dir).missing
    ]
    if missing:
        raise DataMissing("\n".join(missing))
    prints, infos = {}, {}
    for dataset, path in dict.fromkeys((c.dataset, c.data_path) for c in conditions):
        data = sources.open_dataset(dataset, path, data_dir, cache_dir, 0)
        infos[dataset] = data.info
        for labels in dict.fromkeys(c.labels for c in conditions if c.dataset == dataset):
            prints[dataset, labels] = data.fingerprint
            if labels != "clean":
                prints[dataset, labels] += "-" + noises.labels_hash(data.label_sets[labels])
    return prints, infos
