"""A suite file -> the runs it stands for. Every problem is found before the first run, with file and line."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from nlbench import protocols, registry
from nlbench.errors import DataMissing, SuiteError, did_you_mean

SCHEMA = 1  # of what a run key hashes; a change of meaning without a change of values raises it

Track = Literal["identical", "as-published"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DatasetEntry(_Model):
    """`labels` names label sets the dataset carries, `noise` draws synthetic labels; neither means clean labels."""

    name: str
    labels: str | list[str] = Field(default_factory=list)
    noise: dict[str, Any] | list[dict[str, Any]] = Field(default_factory=list)

    def label_sets(self) -> list[str]:
        given = [self.labels] if isinstance(self.labels, str) else self.labels
        return given or ([] if self.noises() else ["clean"])

    def noises(self) -> list[dict[str, Any]]:
        """Each noise of the entry; a list as `rate` stands for one noise per rate."""
        entries = [self.noise] if isinstance(self.noise, dict) else self.noise
        spread = []
        for entry in entries:
            rates = entry.get("rate")
            spread += [{**entry, "rate": rate} for rate in rates] if isinstance(rates, list) else [entry]
        return spread


class MethodEntry(BaseModel):
    """A row of the table. What is not named here is a hyperparameter of the method."""

    model_config = ConfigDict(extra="allow", strict=True)

    method: str = ""  # registry name; the row's own name where absent
    per_dataset: dict[str, dict[str, Any]] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)


class Suite(_Model):
    """A suite file, its structure checked; names and values are checked by `expand`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    track: Track = "identical"
    protocol: str
    datasets: list[DatasetEntry] = Field(min_length=1)
    methods: dict[str, MethodEntry] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    overrides: dict[str, Any] = Field(default_factory=dict)

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_rows(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value) or min(value) < 0:
            raise ValueError("must be different integers from 0 up")
        return value


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
    noise_path: str = ""  # where the file of a `file` or `matrix` noise lies; its content is in `noise`

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

    def as_json(self) -> dict[str, Any]:
        """What `table` needs, without torch and without the data."""
        conditions = list(self.titles)
        return {
            "schema": SCHEMA,
            "suite": self.name,
            "track": self.suite.track,
            "protocol": self.suite.protocol,
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


class Problems:
    """Collects every problem of a suite, each with file, line and key."""

    def __init__(self, source: str, tree: Any = None):
        self.source, self._tree, self.lines = source, tree, list[str]()

    def add(self, path: Sequence[str | int], message: str) -> None:
        """`message` may have several lines: each becomes a problem of its own below the same key."""
        place = ".".join(str(part) for part in path)
        line = self._line(path)
        head = f"{self.source}:{line}: " if line else f"{self.source}: "
        for text in message.splitlines():
            self.lines.append(f"{head}{place}: {text}" if place else head + text)

    def _line(self, path: Sequence[str | int]) -> int:
        node, line = self._tree, 0
        for part in path:
            try:
                line = node.lc.data[part][0] + 1
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line

    def raise_if_any(self) -> None:
        if self.lines:
            raise SuiteError("\n".join(dict.fromkeys(self.lines)))


def find_suite(name: str | Path) -> Path:
    """A suite by path or by the bare name of one that comes with nlbench."""
    path = Path(name)
    if path.is_file():
        return path
    known = registry.suite_files()
    if str(name) in known:
        return known[str(name)]
    raise SuiteError(
        f"unknown suite {str(name)!r}: there is no such file, and nlbench comes with: {', '.join(known)}."
        f"{did_you_mean(str(name), known)}"
    )


def read_suite(source: str | Path | Mapping[str, Any]) -> tuple[Suite, Problems]:
    """A suite from a file, a bare name or a mapping; its structure is checked.

    Returns: the suite, and the collector that knows its file and lines.
    Raises: SuiteError for unreadable YAML or a duplicate key (with line and column) and for a wrong structure.
    """
    if isinstance(source, Mapping):
        where, tree = "suite", dict(source)
    else:
        path = find_suite(source)
        where, tree = str(path), _read_yaml(path)
    problems = Problems(where, tree)
    try:
        return Suite.model_validate(_plain(tree)), problems
    except ValidationError as error:
        for problem in error.errors():
            _structure_problem(problems, problem)
        problems.raise_if_any()
        raise


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        tree = YAML(typ="rt").load(io.StringIO(text))
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read: {error}") from None
    except DuplicateKeyError as error:
        mark = error.problem_mark
        key = re.search(r'duplicate key "?([^"\s]+)"?', str(error.problem))
        raise SuiteError(
            f"{path}:{mark.line + 1}:{mark.column + 1}: duplicate key {key.group(1) if key else ''!r}; keep one"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SuiteError(f"{path}{spot}: not valid YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise SuiteError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise SuiteError(f"{path}: a suite is a mapping with name, protocol, datasets, methods and seeds")
    return tree


def _plain(node: Any) -> Any:
    """ruamel's containers and scalars as Python's own."""
    if isinstance(node, Mapping):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _structure_problem(problems: Problems, problem: Any) -> None:
    path = [p for p in problem["loc"] if p not in ("str", "list[str]", "dict[str,any]", "list[dict[str,any]]")]
    if problem["type"] == "extra_forbidden":
        known = DatasetEntry.model_fields if path[0] == "datasets" else Suite.model_fields
        hint = did_you_mean(str(path[-1]), known)
        problems.add(path, f"unknown key. It takes: {', '.join(known)}.{hint}")
    elif problem["type"] == "missing":
        problems.add(path, "is required")
    else:
        message = problem["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
        problems.add(path, f"{message}, got {problem['input']!r}")


def parse_set(settings: Iterable[str]) -> dict[str, Any]:
    """`--set` options ("epochs=2", "schedule.gamma=0.1") as protocol overrides. Raises SuiteError."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key or not text:
            raise SuiteError(f"--set {setting}: write it as KEY=VALUE, for example --set epochs=2")
        try:
            value = _plain(YAML(typ="rt").load(text))
        except YAMLError as error:
            raise SuiteError(f"--set {setting}: {text!r} cannot be read as a value: {error}") from None
        node = overrides
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return overrides


def parse_seeds(text: str) -> list[int]:
    """`--seeds`: "0,1,4" or "0-4". Raises SuiteError."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match.group(2) and int(match.group(2)) < int(match.group(1))):
            raise SuiteError(f"--seeds {text}: write seeds as 0,1 or as 0-4")
        first = int(match.group(1))
        seeds += range(first, int(match.group(2) or first) + 1)
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
) -> Plan:
    """Check every name and value, read the data's fingerprints, and list the runs.

    Args:
        settings: protocol overrides from the command line, over the suite's own.
        seeds: further seeds asked for on the command line; the plan holds them beside the suite's.
    Raises: SuiteError with every problem, a line each; DataMissing when a dataset is not there; DataError.
    """
    files = registry.method_files(methods_dirs)
    if suite.protocol not in protocols.PRESETS:
        hint = did_you_mean(suite.protocol, protocols.PRESETS)
        problems.add(
            ["protocol"], f"unknown protocol {suite.protocol!r}. There are: {', '.join(protocols.PRESETS)}.{hint}"
        )
    conditions = _conditions(suite, problems)
    rows = {row: _Row.check(row, entry, suite, files, conditions, problems) for row, entry in suite.methods.items()}
    protocol_of: dict[tuple[str, str], dict[str, Any]] = {}
    for row, entry in suite.methods.items():
        for dataset in {c.dataset: None for c in conditions} if suite.protocol in protocols.PRESETS else ():
            values = _protocol(suite, entry, row, dataset, settings or {}, problems)
            if values is not None:
                protocol_of[row, dataset] = values
    problems.raise_if_any()
    prints = _fingerprints(conditions, data_dir, cache_dir)
    specs = [
        RunSpec(
            row=row,
            method=checked.method,
            params=checked.params[condition.dataset],
            dataset=condition.dataset,
            labels=condition.labels,
            noise=condition.noise,
            noise_path=condition.noise_path,
            fingerprint=prints[condition.dataset, condition.labels],
            protocol=protocol_of[row, condition.dataset],
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
        titles={spec.condition: c.title for c in conditions for spec in specs if c.matches(spec)},
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
    title: str

    def matches(self, spec: RunSpec) -> bool:
        return (self.dataset, self.labels, self.noise) == (spec.dataset, spec.labels, spec.noise)


def _conditions(suite: Suite, problems: Problems) -> list[_Condition]:
    """Every (dataset, label set or noise) of the suite, in its order."""
    from nlbench.data import noise as noises

    known = registry.dataset_files()
    base = Path(problems.source).parent
    conditions: list[_Condition] = []
    for i, entry in enumerate(suite.datasets):
        where: list[str | int] = ["datasets", i]
        if entry.name not in known:
            hint = did_you_mean(entry.name, known)
            problems.add([*where, "name"], f"unknown dataset {entry.name!r}. There are: {', '.join(known)}.{hint}")
            continue
        info = registry.dataset(entry.name).INFO
        for labels in entry.label_sets():
            if labels in info.label_sets:
                title = info.title if labels == "clean" else f"{info.title} {labels}"
                conditions.append(_Condition(entry.name, labels, None, "", title))
            else:
                hint = did_you_mean(labels, info.label_sets)
                problems.add(
                    [*where, "labels"],
                    f"{entry.name} has no label set {labels!r}. It has: {', '.join(info.label_sets)}.{hint}",
                )
        for given in entry.noises():
            try:
                resolved = noises.resolve(given, info, base)
            except ValueError as error:
                for line in str(error).splitlines():  # "noise.rate: must be ..."
                    key, _, message = line.partition(": ")
                    problems.add([*where, *key.split(".")], message)
                continue
            path = str(resolved.pop("path", ""))
            rate = f" {resolved['rate']:g}" if "rate" in resolved else f" {Path(path).name}"
            conditions.append(_Condition(entry.name, "clean", resolved, path, f"{info.title} {resolved['kind']}{rate}"))
    if len({(c.dataset, c.labels, json.dumps(c.noise)) for c in conditions}) < len(conditions):
        problems.add(["datasets"], "the same dataset with the same labels stands here twice")
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
        conditions: Sequence[_Condition],
        problems: Problems,
    ) -> _Row | None:
        where = ["methods", row]
        name = entry.method or row
        if entry.protocol and suite.track != "as-published":
            problems.add(
                [*where, "protocol"],
                f"only the track as-published gives a method its own protocol; this suite is {suite.track}",
            )
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
        datasets = list(dict.fromkeys(c.dataset for c in conditions))
        for dataset in entry.per_dataset:
            if dataset not in datasets:
                problems.add(
                    [*where, "per_dataset", dataset],
                    f"this suite has no dataset {dataset!r}. It has: {', '.join(datasets)}."
                    f"{did_you_mean(dataset, datasets)}",
                )
        params: dict[str, dict[str, Any]] = {}
        told, networks = tuple[str, ...](), 1
        for dataset in datasets:
            own = entry.per_dataset.get(dataset, {})
            given = {**{k: (v, [*where, k]) for k, v in (entry.model_extra or {}).items()},
                     **{k: (v, [*where, "per_dataset", dataset, k]) for k, v in own.items()}}  # fmt: skip
            before = len(problems.lines)
            params[dataset] = _check_params(given, takes, where, problems)
            if len(problems.lines) > before:
                continue
            try:
                method = build_method(method_class, params[dataset], dummy_task(registry.dataset(dataset).INFO))
            except (ValueError, TypeError) as error:
                problems.add(_blame(str(error), given) or where, str(error))
                continue
            told, networks = method.told, method.num_networks
        return cls(name, params, told, networks)


def _blame(message: str, given: Mapping[str, tuple[Any, list[str]]]) -> list[str] | None:
    """The key a constructor's message begins with or names, so that the problem points at its line."""
    for key, (_, path) in given.items():
        if re.search(rf"\b{re.escape(key)}\b", message):
            return path
    return None


def _check_params(
    given: Mapping[str, tuple[Any, list[str]]],
    takes: Mapping[str, registry.Hyperparameter],
    where: list[str],
    problems: Problems,
) -> dict[str, Any]:
    """Given values by type, defaults for the rest; in the order of the constructor."""
    known = ", ".join(p.name if p.required else f"{p.name} ({p.default})" for p in takes.values()) or "nothing"
    values = {}
    for key, (value, path) in given.items():
        if key not in takes:
            problems.add(path, f"unknown key. It takes: {known}.{did_you_mean(key, takes)}")
            continue
        try:
            values[key] = TypeAdapter(takes[key].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"].replace("Input should be", "must be")
            problems.add(path, f"{message}, got {value!r}")
    for p in takes.values():
        if p.name not in given and p.required:
            problems.add(where, f"needs {p.name}, which has no default")
        values.setdefault(p.name, p.default)
    return {name: values[name] for name in takes}


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
        if name not in secrets:
            raise ValueError(f"told names {name!r}; a method can be told: {', '.join(secrets)}")


def dummy_task(info: Any) -> Any:
    """A task of the dataset's size with made-up labels, on which a method can be built to check its arguments."""
    import torch

    from nlbench.method import Task

    C = info.num_classes
    return Task(
        num_train=info.num_train,
        num_classes=C,
        labels=torch.arange(info.num_train) % C,
        epochs=100,
        steps_per_epoch=100,
        batch_size=128,
        _told={"noise_rate": 0.2, "T": torch.eye(C, dtype=torch.float64) * 0.8 + 0.2 / C},
    )


def _protocol(
    suite: Suite, entry: MethodEntry, row: str, dataset: str, settings: Mapping[str, Any], problems: Problems
) -> dict[str, Any] | None:
    own = {**suite.overrides, **entry.protocol}
    try:
        protocols.resolve(suite.protocol, dataset, own)
    except SuiteError as error:
        path = ["methods", row, "protocol"] if entry.protocol else ["overrides"]
        for line in str(error).splitlines():
            key = line.partition(":")[0]
            problems.add([*path, key], line.partition(": ")[2])
        return None
    try:
        protocol = protocols.resolve(suite.protocol, dataset, _merge(own, settings))
    except SuiteError as error:
        for line in str(error).splitlines():
            problems.lines.append(f"--set {line}")
        return None
    from nlbench import models

    try:
        models.check(protocol.model)
    except SuiteError as error:
        problems.add(["protocol"], str(error))
        return None
    return protocol.model_dump(mode="json")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _fingerprints(conditions: Sequence[_Condition], data_dir: Path, cache_dir: Path) -> dict[tuple[str, str], str]:
    """(dataset, label set) -> fingerprint. Raises DataMissing for all datasets that are not there at once."""
    from nlbench.data import noise as noises
    from nlbench.data import sources

    missing = [
        sources.advice(name, data_dir)
        for name in dict.fromkeys(c.dataset for c in conditions)
        if registry.dataset(name).find(data_dir).missing
    ]
    if missing:
        raise DataMissing("\n".join(missing))
    prints = {}
    for dataset, labels in dict.fromkeys((c.dataset, c.labels) for c in conditions):
        data = registry.dataset(dataset).load(data_dir, cache_dir, 0)
        prints[dataset, labels] = data.fingerprint
        if labels != "clean":
            prints[dataset, labels] += "-" + noises.labels_hash(data.label_sets[labels])
    return prints
