"""From a record to a run: where everything lies that the run is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlbench import models, registry
from nlbench.data.places import Places
from nlbench.errors import StoreError, SuiteError, did_you_mean
from nlbench.plan import rebuild
from nlbench.plan.conditions import read_fingerprints
from nlbench.plan.expand import expand
from nlbench.plan.options import DEFAULT_TIMEOUT_MINUTES
from nlbench.plan.spec import RunSpec
from nlbench.plan.suite_file import read_suite
from nlbench.results.integrity import Kind, RunFiles
from nlbench.results.record import RunRecord
from nlbench.results.store import Store

if TYPE_CHECKING:
    from nlbench.plan.options import Jobs


@dataclass(frozen=True)
class Options:
    """How the runs are trained; see `nlbench.reproduce`."""

    device: str = "auto"
    data_dir: str | Path | None = None
    methods_dir: str | Path | None = None
    suite_file: str | Path | None = None
    jobs: Jobs = 1
    timeout: float = DEFAULT_TIMEOUT_MINUTES


@dataclass(frozen=True)
class Source:
    """What runs are made of beside their records."""

    files: rebuild.Files
    methods: Mapping[str, registry.MethodFile]
    places: Places
    # By key: row and title of the condition, as a plan has them.
    names: Mapping[str, tuple[str, str]]
    # The files of methods as plans name them. They are only named in messages: a store that comes
    # from elsewhere must not choose the code that is executed.
    method_files: Mapping[str, str]


def source_of(store: Store, options: Options) -> Source:
    folders = [Path(options.methods_dir)] if options.methods_dir is not None else []
    places = Places.of_user(options.data_dir)
    files = rebuild.Files()
    if options.suite_file is not None:
        suite, problems = read_suite(options.suite_file)
        plan = expand(suite, problems, places=places, methods_dirs=folders)
        files = rebuild.Files.of(plan.specs)

    names: dict[str, tuple[str, str]] = {}
    method_files: dict[str, str] = {}
    for name in store.plan_names():
        try:
            stored = store.plan(name) or {}
        except StoreError as error:
            # Only names are taken from a plan, and those of the record do as well.
            store.warn(str(error))
            continue
        method_files |= stored.get("method_files", {})
        for cell in stored.get("cells", []):
            names[cell["key"]] = cell["row"], stored["conditions"][cell["condition"]]
    return Source(files, registry.method_files(folders), places, names, method_files)


def spec_of(files: RunFiles, record: RunRecord, source: Source) -> RunSpec:
    """Return the run of a record, once everything that it needs was found.

    Raises: UserError, saying what is missing or has changed.
    """
    if record.status == "failed":
        raise StoreError(f"the run has failed ({error_of(record)}), so there are no numbers")
    for damage in files.damage:
        if damage.kind != Kind.INCOMPLETE:
            raise StoreError(f"{damage.path}: {damage.reason}")

    row, title = source.names.get(record.key, ("", ""))
    spec = rebuild.rebuild(record.spec, source.files, row=row, title=title)
    if spec.method not in source.methods:
        raise SuiteError(_no_method(spec.method, source))
    rebuild.refuse_older_views(spec, source.methods[spec.method])
    models.check(spec.protocol.model)
    models.fetch_weights(spec.protocol.model, spec.protocol.weights)

    fingerprints, _ = read_fingerprints([spec.condition], source.places)
    found = fingerprints[spec.condition.dataset, spec.condition.labels]
    if found != spec.fingerprint:
        raise SuiteError(
            f"the data of {spec.condition.dataset} are not those of the record: their fingerprint "
            f"is {found} here, and the record has {spec.fingerprint}"
        )
    return spec


def _no_method(name: str, source: Source) -> str:
    was = source.method_files.get(name, "")
    if was:
        return (
            f"there is no method {name!r} here; the suite's plan says that it was in {was!r}. "
            f"Give --methods-dir FOLDER, if you trust that file"
        )
    hint = did_you_mean(name, source.methods)
    return f"there is no method {name!r} here; give --methods-dir FOLDER.{hint}"


def error_of(record: RunRecord) -> str:
    return record.error_message.partition("\n")[0]


def name_of(record: RunRecord, source: Source) -> str:
    spec = record.spec
    row, title = source.names.get(record.key, (spec.get("method"), spec.get("dataset")))
    return f"{row} · {title} · seed {spec.get('seed')}"
