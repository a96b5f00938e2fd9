"""The structure of a suite file, and reading one. Names and values are checked by `expand`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nlbench import registry
from nlbench.data.imbalance import Imbalance
from nlbench.data.places import HUB, FolderOptions, TableOptions
from nlbench.errors import Problem, SuiteError, did_you_mean, in_words, unknown_key
from nlbench.files import user_path
from nlbench.plan.problems import Problems
from nlbench.plan.protocol import merge_values
from nlbench.plan.yaml_lines import NotYaml, plain, read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from nlbench.data.base import Info

Track = Literal["identical", "tuned", "as-published"]


# The store has a file of the suite's name, and file systems take 255 bytes.
MOST_IN_NAME = 100


# --- The structure -----------------------------------------------------------------------------


class StrictModel(BaseModel):
    """A mapping of a suite file, without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImbalanceEntry(StrictModel):
    """Classes of unequal sizes; see `data.imbalance`."""

    kind: Literal["exp", "step"]
    ratio: Annotated[float, Field(gt=0, lt=1)]


class DatasetEntry(StrictModel):
    """A dataset of the suite, with the labels to train on.

    Attributes:
        path: the folder or file of a dataset that a suite locates, relative to the suite's file or,
            where nothing lies there, to the data directory; of `hf` owner/name on the Hugging Face
            hub.
        labels: label sets of the dataset. Without labels and noise, its first set is used.
        noise: noises to draw on the clean labels.
        noise_rate: what methods are told that need the noise rate, in place of the measured one: a
            number, or "estimate". `plan.told` checks it.
        transition: the file of the matrix that methods are told that need T.
        clean_val: a part of a folder, such as "val", whose labels are true and select an epoch. It
            has a column of its own, and no method gets it.
        test_share: of a folder without a test part, the share of its images to test on.
        label_column, clean_column: the columns of the given and of the true labels in a folder's
            lists or parquet files, where their names do not tell.
        label, clean_label: the same, in short.
        image: the column of the images, or of their files.
        revision, config, test_split: of `hf`; see `FolderOptions`.
        features, categorical: names and patterns of a table's columns; see `TableOptions`.
        split: the column of a table or of texts that says which part a row belongs to; of `hf` the
            part to train on.
        missing: what becomes of a table's empty cells.
        label_sets_in: label set -> the table's column that holds it. It is no key: a mapping under
            `labels` gives it.
        text, vocabulary, length: of texts; see `FolderOptions`.
        imbalance: makes the classes of the training part unequal.
    """

    name: str
    path: str = ""
    labels: list[str] = Field(default_factory=list, min_length=1)
    noise: list[dict[str, object]] = Field(default_factory=list, min_length=1)
    noise_rate: object = ""
    transition: object = ""
    clean_val: str = ""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_column: str = ""
    clean_column: str = ""
    image: str = ""
    label: str = ""
    clean_label: str = ""
    revision: str = ""
    config: str = ""
    test_split: str = ""
    features: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    split: str = ""
    missing: Literal["refuse", "mean", "median", "most-frequent"] = "refuse"
    label_sets_in: dict[str, str] = Field(default_factory=dict, validation_alias="labels")
    text: str = ""
    # Two numbers are for padding and for unknown words.
    vocabulary: int = Field(default=0, ge=3, le=1_000_000)
    length: int = Field(default=0, ge=1, le=100_000)
    imbalance: ImbalanceEntry | None = None

    @field_validator("labels", "noise", "features", "categorical", mode="before")
    @classmethod
    def _single(cls, value: object) -> object:
        """Accept one label set, noise or column without the brackets of a list."""
        return [value] if isinstance(value, str | dict) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _names_of_sets(cls, value: object) -> object:
        """Accept `labels: {worst: worst_label}`, which names the column of each label set."""
        return list(value) if isinstance(value, dict) else value

    @field_validator("label_sets_in", mode="before")
    @classmethod
    def _columns_of_sets(cls, value: object) -> object:
        """Return the columns of label sets; none where `labels` names the sets alone."""
        return value if isinstance(value, dict) else {}

    @property
    def id(self) -> str:
        """The dataset's name, with the folder's after a colon if there is one. Records show it.

        An imbalance is behind it, as in "cifar10@exp-0.01".
        """
        name = self.name
        if self.path:
            name += f":{self.path if self.on_hub else Path(self.path).name}"
        if self.imbalance is None:
            return name
        return name + Imbalance(self.imbalance.kind, self.imbalance.ratio).suffix

    @property
    def on_hub(self) -> bool:
        """Whether the path is owner/name of the Hugging Face hub, and no folder."""
        return self.name == HUB

    def folder(self, base: Path, data_dir: Path) -> Path:
        """Return where a dataset with a path is, for a suite whose file is in `base`.

        A relative path that is not there is looked for in the data directory, too: there a suite
        that comes with nlbench finds what a user has made for it.

        Raises: ValueError for a path that no folder can have.
        """
        if self.on_hub:
            return Path(self.path)
        path, other = user_path(base, self.path), user_path(data_dir, self.path)
        return other if other.exists() and not path.exists() else path

    @property
    def folder_options(self) -> FolderOptions:
        """What the entry says about a folder, beside its path."""
        return FolderOptions(
            test_share=self.test_share,
            clean_val=self.clean_val,
            image_column=self.image,
            revision=self.revision,
            config=self.config,
            test_split=self.test_split,
            label_column=self.label_column or self.label,
            clean_column=self.clean_column or self.clean_label,
            text=self.text,
            vocabulary=self.vocabulary,
            length=self.length,
            table=TableOptions(
                features=tuple(self.features),
                split=self.split,
                categorical=tuple(self.categorical),
                missing=self.missing,
                label_sets=tuple(self.label_sets_in.items()),
            ),
        )

    def key_of(self, option: str) -> str:
        """Return the key that gives this attribute of `folder_options`."""
        columns = {"label_column": "label", "clean_column": "clean_label", "image_column": "image"}
        key = columns.get(option, option)
        return key if getattr(self, key) or key == "image" else option

    def label_sets(self, info: Info) -> list[str]:
        """Return the label sets to train on."""
        if self.labels or self.noise:
            return self.labels
        return [info.label_sets[0]]

    def noises(self) -> list[dict[str, object]]:
        """Return each noise to draw. A list as `rate` makes one noise for each rate."""
        noises = []
        for entry in self.noise:
            rates = entry.get("rate")
            # An empty list is left as it is, so that checking the noise reports it.
            if isinstance(rates, list) and rates:
                noises += [{**entry, "rate": rate} for rate in rates]
            else:
                noises.append(entry)
        return noises


class Tuning(StrictModel):
    """The track `tuned`: the tries of each row, over these protocol values and the row's `search`.

    Attributes:
        tries: per row.
        seed: of the tries' runs and of their draw from the grid.
        protocol: key -> the values to try.
        sampler: "random" draws all tries in advance; "optuna" proposes half of them from the
            accuracies of those before.
    """

    tries: int = Field(ge=2, le=1000)
    seed: int = Field(default=1000, ge=0, lt=2**63)
    protocol: dict[str, Annotated[list[object], Field(min_length=1)]] = Field(default_factory=dict)
    sampler: Literal["random", "optuna"] = "random"


class MethodEntry(BaseModel):
    """A row of the suite. Every key that is not named here is a hyperparameter of the method.

    Attributes:
        method: the method's name in the registry; the row's name where empty.
        per_dataset: dataset -> hyperparameters and `protocol` values that differ on it.
        protocol: values over the suite's own, on the track as-published.
        search: hyperparameter -> the values to try, on the track tuned.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    method: str = ""
    per_dataset: dict[str, dict[str, Any]] = Field(default_factory=dict)
    protocol: dict[str, object] = Field(default_factory=dict)
    search: dict[str, Annotated[list[object], Field(min_length=1)]] = Field(default_factory=dict)

    def own_protocol(self, dataset: str) -> dict[str, object]:
        """Return the row's protocol values, with those for one dataset on top."""
        return merge_values(self.protocol, self.per_dataset.get(dataset, {}).get("protocol", {}))


class Suite(StrictModel):
    """A suite file whose structure has been checked."""

    name: str
    description: str = ""
    track: Track = "identical"
    protocol: str
    datasets: list[DatasetEntry] = Field(min_length=1)
    methods: dict[str, MethodEntry] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    overrides: dict[str, object] = Field(default_factory=dict)
    tuning: Tuning | None = None

    @property
    def own_protocols(self) -> bool:
        """Return whether rows may have protocol values.

        They may in the track as-published, and in the track tuned once values are chosen.
        """
        return self.track == "as-published" or (self.track == "tuned" and self.tuning is None)

    @field_validator("name")
    @classmethod
    def _file_name(cls, value: str) -> str:
        # The store has a file of this name.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                "must be of letters, digits, '.', '_' and '-', and begin with a letter or digit"
            )
        if len(value) > MOST_IN_NAME:
            raise ValueError(f"must have at most {MOST_IN_NAME} characters, for a file's name")
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_rows(cls, value: object) -> object:
        """Accept a row without any value, as in `ce:`."""
        if not isinstance(value, dict):
            return value
        return {row: {} if entry is None else entry for row, entry in value.items()}

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: list[int]) -> list[int]:
        # Random generators take seeds below 2**63.
        if len(set(value)) != len(value) or min(value) < 0 or max(value) >= 2**63:
            raise ValueError("must be different integers from 0 up")
        return value


# --- Reading -----------------------------------------------------------------------------------


# Added to the message when a key's value has the wrong structure.
_EXAMPLES = {
    "datasets": "[{name: digits, noise: {kind: symmetric, rate: 0.4}}]",
    "methods": "{ce: {}, elr: {lam: 3.0}}",
    "seeds": "[0, 1, 2, 3, 4]",
    "overrides": "{epochs: 100}",
    "tuning": "{tries: 12, protocol: {lr: [0.01, 0.02, 0.05, 0.1]}}",
}


def find_suite(name: str | Path) -> Path:
    """Return the path of a suite, given by its path or by the name of a shipped suite.

    Raises: SuiteError.
    """
    # A file comes first, so that a suite of the user's may have the name of a shipped one.
    path = Path(name)
    known = registry.suite_files()
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise SuiteError(f"suite {str(name)[:80]!r}: cannot be read ({error.strerror})") from None
    if str(name) in known:
        return known[str(name)]

    what = "that is a folder" if path.is_dir() else "there is no such file"
    neighbours = [file.name for file in path.parent.glob("*.y*ml")]
    hint = did_you_mean(path.name, neighbours) or did_you_mean(str(name), known)
    offer = f"nlbench comes with: {', '.join(known)}.{hint}"
    raise SuiteError(f"unknown suite {str(name)!r}: {what}, and {offer}")


def read_suite(source: str | Path | Mapping[str, object]) -> tuple[Suite, Problems]:
    """Read a suite from a file, the name of a shipped suite, or a mapping.

    Returns: the suite, and the collector that knows its file and lines. Problems of the structure
        are in the collector. `expand` raises them together with those in the parts that are sound.
    Raises: SuiteError for unreadable YAML or a duplicate key, with line and column.
    """
    tree: Mapping[Any, object]
    if isinstance(source, Mapping):
        where, tree = "suite", source
    else:
        path = find_suite(source)
        where, tree = str(path), read_yaml(path)

    problems = Problems(where, tree)
    try:
        given = plain(tree)
    except NotYaml as error:
        raise SuiteError(f"{where}: {error}") from None
    try:
        return Suite.model_validate(given), problems
    except ValidationError as error:
        for detail in error.errors():
            problems.extend([_structure_problem(detail)])
        return _sound_parts(given, error), problems


def _structure_problem(detail: ErrorDetails) -> Problem:
    """Return what pydantic found as a problem of the suite, in our words."""
    path = detail["loc"]
    if detail["type"] == "extra_forbidden":
        model: type[BaseModel] = DatasetEntry if path[0] == "datasets" else Suite
        if "imbalance" in path[:-1]:
            model = ImbalanceEntry
        # Two fields may be read from one key.
        keys = [str(of.validation_alias or name) for name, of in model.model_fields.items()]
        message = unknown_key(path[-1], list(dict.fromkeys(keys)))
    else:
        message = in_words(detail)
        if len(path) == 1 and path[0] in _EXAMPLES:
            message += f"; for example {_EXAMPLES[str(path[0])]}"
    return Problem(tuple(part for part in path if part != "[key]"), message)


def _sound_parts(given: dict[str, Any], error: ValidationError) -> Suite:
    """Return a suite of the well-formed parts, so that their values are checked too.

    The other parts are replaced by stand-ins.
    """
    bad = set()
    for detail in error.errors():
        path = detail["loc"]
        # One wrong key does not spoil its whole dataset or row.
        depth = 3 if path[0] in ("datasets", "methods") else 1
        bad.add(path[:depth])

    def sound(path: tuple[int | str, ...], entry: object) -> dict[str, Any]:
        if path in bad or not isinstance(entry, dict):
            return {}
        return {k: v for k, v in entry.items() if isinstance(k, str) and (*path, k) not in bad}

    top = sound((), given)
    datasets = []
    for i, entry in enumerate(top.get("datasets", [])):
        values = {"name": "", **sound(("datasets", i), entry)}
        datasets.append(DatasetEntry.model_validate(values))

    rows = {}
    for row, entry in top.get("methods", {}).items():
        is_sound = bad.isdisjoint({("methods", row), ("methods", row, "method")})
        if isinstance(row, str) and is_sound:
            rows[row] = MethodEntry.model_validate(sound(("methods", row), entry))

    # model_construct does not validate: the stand-ins need not be allowed values.
    return Suite.model_construct(
        name=top.get("name", "suite"),
        track=top.get("track", "identical"),
        protocol=top.get("protocol", ""),
        datasets=datasets,
        methods=rows,
        seeds=top.get("seeds", [0]),
        overrides=top.get("overrides", {}),
        tuning=None,
    )
