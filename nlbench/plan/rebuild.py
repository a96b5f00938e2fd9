"""From what a record says of a run back to the run that can be trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlbench import registry
from nlbench.contract.strong import uses_strong_views
from nlbench.data import catalogue
from nlbench.data.places import FolderOptions
from nlbench.errors import SuiteError, in_words, unknown_name
from nlbench.plan.protocol import Protocol
from nlbench.plan.spec import SCHEMA, STRONG_VIEWS, Condition, RunSpec, Told, key_of

_FILE = "sha256:"


@dataclass(frozen=True)
class Files:
    """Where those files lie that a record names by their hash alone.

    Attributes:
        folders: dataset -> its folder, and what a suite says about it.
        paths: "sha256:..." of label files, matrices and weights -> the path.
    """

    folders: Mapping[str, tuple[str, FolderOptions]] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, specs: Iterable[RunSpec]) -> Files:
        """Return the files that these runs of a suite use."""
        folders, paths = {}, {}
        for spec in specs:
            condition = spec.condition
            if condition.data_path or condition.folder_options != FolderOptions():
                folders[condition.dataset] = condition.data_path, condition.folder_options
            if condition.noise is not None and "sha256" in condition.noise:
                paths[_FILE + str(condition.noise["sha256"])] = condition.noise_path
            if spec.weights_path:
                paths[spec.protocol.weights] = spec.weights_path
            for told in [*condition.told.values(), *spec.told.values()]:
                if told.path:
                    paths[str(told.identity)] = told.path
        return cls(folders, paths)


class _Identity(BaseModel):
    """What `RunSpec.identity` returns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int, Field(alias="schema")]
    method: str
    params: dict[str, Any]
    dataset: str
    labels: str
    noise: dict[str, Any] | None
    fingerprint: str
    protocol: Protocol
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    told: dict[str, float | str] = {}
    strong_views: int = 0
    decoding: int = 0
    commit: str = ""


def rebuild(
    identity: Mapping[str, Any], files: Files | None = None, *, row: str = "", title: str = ""
) -> RunSpec:
    """Return the run of a record.

    Args:
        identity: the record's `spec`.
        files: where files lie that the record names by their hash.
        row: what the run is called in messages; the method's name where empty.
        title: likewise for its dataset with the labels.
    Raises: SuiteError where this version of nlbench has no such run, and for files that are needed
        and not in `files`.
    """
    files = files or Files()
    given = _checked(identity)
    dataset, noise, protocol = given.dataset, given.noise, given.protocol
    missing: list[str] = []

    folder, options = files.folders.get(dataset, ("", FolderOptions()))
    # The suite's branch may have moved since.
    options = replace(options, revision=given.commit)
    if catalogue.dataset(dataset).INFO.located_by == "suite" and not folder:
        missing.append(f"the folder of the dataset {dataset!r}")

    def path_of(digest: object, what: str) -> str:
        path = files.paths.get(str(digest), "")
        if not path:
            missing.append(f"the {what} with {str(digest)[:23]}")
        return path

    noise_path = ""
    if noise is not None and "sha256" in noise:
        noise_path = path_of(_FILE + str(noise["sha256"]), f"file of the {noise['kind']} noise")
    weights_path = ""
    if protocol.weights.startswith(_FILE):
        weights_path = path_of(protocol.weights, "file of weights")
    told = {}
    for name, value in given.told.items():
        is_file = str(value).startswith(_FILE)
        told[name] = Told(value, path_of(value, f"file of {name}") if is_file else "")

    if missing:
        raise SuiteError(
            f"a record holds no paths, and these are needed: {', '.join(missing)}. Name the suite "
            "that says where they lie with --from SUITE.yaml"
        )
    spec = RunSpec(
        row=row or given.method,
        method=given.method,
        params=given.params,
        condition=Condition(
            dataset, given.labels, noise, title or dataset, noise_path, folder, options
        ),
        fingerprint=given.fingerprint,
        protocol=protocol,
        seed=given.seed,
        weights_path=weights_path,
        told=told,
        strong_views=given.strong_views,
        decoding=given.decoding,
    )
    if spec.key != key_of(identity):
        raise SuiteError("this version of nlbench gives its spec another key")
    return spec


def refuse_older_views(spec: RunSpec, file: registry.MethodFile) -> None:
    """Raise SuiteError for a run whose strong views are of version 1, which no key holds."""
    # Float features and texts, which have no mean, have no strong views.
    if spec.strong_views or not catalogue.dataset(spec.condition.dataset).INFO.mean:
        return
    if uses_strong_views(registry.load_method(file)):
        raise SuiteError(
            f"{spec.method} uses strong views, and those of this record are of version 1; this "
            f"nlbench makes version {STRONG_VIEWS}. fix: train it anew with nlbench run"
        )


def _checked(identity: Mapping[str, Any]) -> _Identity:
    """Return the parts of an identity with their types. Raises SuiteError."""
    from nlbench.data.noise.kinds import KINDS

    version = identity.get("schema")
    if version != SCHEMA:
        raise SuiteError(
            f"its key is of version {version}, and this nlbench trains runs of version {SCHEMA}"
        )
    try:
        given = _Identity.model_validate(dict(identity))
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, ("spec", *detail["loc"])))
        raise SuiteError(f"{place}: {in_words(detail)}") from None
    if given.noise is not None and given.noise.get("kind") not in KINDS:
        raise SuiteError(unknown_name("kind of noise", given.noise.get("kind"), KINDS))
    return given
