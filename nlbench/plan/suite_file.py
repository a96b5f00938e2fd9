"""Suite file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nlbench import registry
from nlbench.errors import SuiteError, did_you_mean, in_words
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import merge_values
from nlbench.plan.yaml_lines import plain, read_yaml

Track = Literal["identical", "tuned", "as-published"]


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DatasetEntry(StrictModel):
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


class Tuning(StrictModel):
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
        return merge_values(self.protocol, self.per_dataset.get(dataset, {}).get("protocol", {}))


class Suite(StrictModel):
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
