"""Check a suite's rows by building each method with its hyperparameters on every dataset."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nlbench import child, registry
from nlbench.build import build_method, dummy_task, problem_of, typed_value
from nlbench.contract.strong import uses_strong_views
from nlbench.data.base import Info, is_vector
from nlbench.errors import MethodError, Problem, SuiteError, did_you_mean, unknown_key
from nlbench.plan.problems import Problems
from nlbench.plan.spec import REFUSED, STAND_IN, Told
from nlbench.plan.suite_file import MethodEntry, Suite
from nlbench.plan.told import KEYS, told_value

if TYPE_CHECKING:
    from nlbench.method import Method


@dataclass(frozen=True)
class CheckedRow:
    """A row whose method has been built on every dataset of the suite.

    Attributes:
        method: the method's name in the registry.
        params: every hyperparameter, by dataset.
        declared: the privileged information that the method declares, by dataset.
        own: the privileged information that the row itself gives, by dataset.
        networks: the number of networks that it trains.
        strong_views: whether it uses strong views.
    """

    method: str
    params: dict[str, dict[str, object]]
    declared: dict[str, tuple[str, ...]]
    own: dict[str, dict[str, Told]]
    networks: int
    strong_views: bool = False

    @property
    def told(self) -> list[str]:
        """The privileged information that the method declares on any dataset."""
        names: dict[str, None] = {}
        for declared in self.declared.values():
            names |= dict.fromkeys(declared)
        return list(names)


class _Given(NamedTuple):
    """A hyperparameter's value, and the path of keys to it in the suite."""

    value: object
    path: list[str]


def check_row(
    row: str,
    suite: Suite,
    files: Mapping[str, registry.MethodFile],
    infos: Mapping[str, Info],
    problems: Problems,
) -> CheckedRow | None:
    """Check a row of the suite by building its method on every dataset.

    Args:
        files: the methods by name.
        infos: the suite's datasets.
    Returns: None where the method cannot be loaded. With any problem the result is not to be used.
    """
    entry, where = suite.methods[row], ["methods", row]

    # The option --only splits names at commas, and tables use "|".
    if not row.strip() or not row.isprintable() or set(row) & set(",|"):
        message = (
            f"{row!r} cannot be a row's name: it must be text without ',', '|' and characters that "
            "cannot be printed"
        )
        problems.add(where, message)
    _check_track(row, suite, problems)

    loaded = _load(row, entry, files, problems)
    if loaded is None:
        return None
    file, method_class, takes = loaded

    # With a stand-in, no name can be checked: the suite's own datasets are not known.
    if STAND_IN not in infos:
        for dataset in entry.per_dataset:
            if dataset not in infos:
                known, hint = ", ".join(infos), did_you_mean(dataset, infos)
                message = f"this suite has no dataset {dataset!r}. It has: {known}.{hint}"
                problems.add([*where, "per_dataset", dataset], message)

    params: dict[str, dict[str, object]] = {}
    declared: dict[str, tuple[str, ...]] = {}
    own: dict[str, dict[str, Told]] = {}
    networks = 1
    for dataset, info in infos.items():
        given = _given(row, entry, dataset)
        own[dataset] = _take_told(given, takes, method_class, info, problems)
        params[dataset] = _check_params(row, given, takes, problems)

        # A required hyperparameter without a value has been reported, and nothing can be built.
        if params[dataset].keys() == takes.keys():
            check = _BuildCheck(file, method_class, takes, given, row, problems)
            method = check.build(params[dataset], info)
            if method is not None:
                declared[dataset], networks = method.told, method.num_networks
                _check_takes(file.name, method, info, where, problems)
    strong_views = uses_strong_views(method_class)
    return CheckedRow(file.name, params, declared, own, networks, strong_views)


def check_row_apart(
    row: str,
    suite: Suite,
    files: Mapping[str, registry.MethodFile],
    infos: Mapping[str, Info],
    problems: Problems,
) -> CheckedRow | None:
    """Check a row as `check_row` does, but load a user's own file in a process of its own.

    What such a file prints, changes or ends there does not reach this process.
    """
    file = files.get(suite.methods[row].method or row)
    if file is None or file.module.startswith("nlbench.methods."):
        return check_row(row, suite, files, infos, problems)

    def check() -> tuple[CheckedRow | None, list[Problem]]:
        own = Problems(problems.source)
        return check_row(row, suite, files, infos, own), own.found

    # Before the fork, so that it is imported once.
    importlib.import_module("torch")
    try:
        checked, found = child.run_apart(check, about=str(file.path))
    except child.ChildEnded as error:
        problems.add(
            ["methods", row],
            f"{file.path}: {error}, when it is loaded and built. fix: a method must leave its "
            "process as it is",
        )
        return None
    problems.extend(found)
    return checked


def _check_takes(
    name: str, method: Method, info: Info, where: list[str], problems: Problems
) -> None:
    """Report why a method cannot train on a dataset of texts or of features."""
    if info.vocabulary and method.mixes_inputs:
        why = f"mixes inputs, as mixup does, and {info.title} holds texts, which cannot be mixed"
    elif uses_strong_views(type(method)) and (info.vocabulary or is_vector(info)):
        held = "texts" if info.vocabulary else "features"
        why = (
            f"learns from strong views of images, and {info.title} holds {held}, of which no views "
            "can be made"
        )
    else:
        return
    problems.add(where, f"{name} {why}; leave the row out")


def _check_track(row: str, suite: Suite, problems: Problems) -> None:
    """Report what a row of this suite's track may not have.

    The track identical compares methods only, so every row trains under the same protocol.
    """
    entry, where = suite.methods[row], ["methods", row]
    if not suite.own_protocols:
        with_protocol = [where] if entry.protocol else []
        for dataset, values in entry.per_dataset.items():
            if "protocol" in values:
                with_protocol.append([*where, "per_dataset", dataset])
        message = (
            "only the track as-published gives a method its own protocol; "
            f"this suite is {suite.track}"
        )
        for path in with_protocol:
            problems.add([*path, "protocol"], message)

    if entry.search and suite.track != "tuned":
        message = f"only the track tuned searches; this suite is {suite.track}"
        problems.add([*where, "search"], message)


def _load(
    row: str, entry: MethodEntry, files: Mapping[str, registry.MethodFile], problems: Problems
) -> tuple[registry.MethodFile, type[Method], dict[str, registry.Hyperparameter]] | None:
    """Import the row's method. Return its file, its class and what its constructor takes."""
    where = ["methods", row]
    name = entry.method or row
    if name not in files:
        path = [*where, "method"] if entry.method else where
        # A file has an underscore where its method's name has a dash, so that both lie close.
        other = None
        if name.replace("_", "-") not in files:
            other = registry.without_method(name, files)
        if other is not None:
            problems.add(
                path,
                f"{other} holds no class, so it is no method. fix: write `class MyLoss(Method):` "
                "with `def loss(self, logits, batch)` in it",
            )
            return None
        problems.add(path, f"unknown method {name!r}.{did_you_mean(name, files)}")
        problems.add_hint(
            f"The methods are: {', '.join(files)}. A method of your own is found with "
            "--methods-dir FOLDER, the folder that its file is in."
        )
        return None

    file = files[name]
    try:
        method_class = registry.load_method(file)
        registry.refuse_wrong_hooks(method_class, file.path)
        return file, method_class, registry.hyperparameters(method_class)
    except SuiteError as error:
        problems.add(where, str(error))
        return None


# --- Hyperparameters ---------------------------------------------------------------------------


def _given(row: str, entry: MethodEntry, dataset: str) -> dict[str, _Given]:
    """Return the hyperparameters that the row gives on a dataset."""
    given = {}
    for key, value in (entry.model_extra or {}).items():
        given[key] = _Given(value, ["methods", row, key])
    for key, value in entry.per_dataset.get(dataset, {}).items():
        if key != "protocol":
            given[key] = _Given(value, ["methods", row, "per_dataset", dataset, key])
    return given


def _take_told(
    given: dict[str, _Given],
    takes: Mapping[str, registry.Hyperparameter],
    method_class: type[Method],
    info: Info,
    problems: Problems,
) -> dict[str, Told]:
    """Return the privileged information that a row gives, and take it out of `given`.

    A method that declares `noise_rate` may be given one, and a switch such as `T: true` the file of
    a matrix, which switches it on.
    """
    own = {}
    for name in KEYS:
        if name not in given:
            continue
        value, path = given[name]
        switch = takes.get(name)
        if switch is None and name in method_class.told:
            del given[name]
        elif switch is not None and switch.annotation is bool and not isinstance(value, bool):
            given[name] = _Given(True, path)
        else:
            continue

        try:
            own[name] = told_value(name, value, info, Path(problems.source).parent)
        except ValueError as error:
            message = str(error)
            if switch is not None and message.startswith("must be "):
                message = f"must be true, false, or {message.removeprefix('must be ')}"
            problems.add(path, message)
            own[name] = REFUSED
    return own


def _check_params(
    row: str,
    given: Mapping[str, _Given],
    takes: Mapping[str, registry.Hyperparameter],
    problems: Problems,
) -> dict[str, object]:
    """Return every hyperparameter in its type, given or default, in the constructor's order."""
    where = ["methods", row]
    known = {name: name if p.required else f"{name} ({p.default})" for name, p in takes.items()}
    for key, unknown in given.items():
        if key not in takes:
            problems.add(unknown.path, unknown_key(key, known))

    values = {}
    for name, parameter in takes.items():
        if parameter.required and name not in given:
            problems.add(where, f"needs {name}, which has no default")
            continue

        # Defaults are converted too: `lam: float = 3` and a suite's `lam: 3.0` are one run.
        used = given.get(name, _Given(parameter.default, where))
        try:
            values[name] = typed_value(used.value, parameter.annotation)
        except ValueError as error:
            message = str(error) if name in given else f"the default of {name} {error}"
            problems.add(used.path, message)
            # With the default in its place the method can be built, which may find further values
            # that are wrong.
            if not parameter.required:
                values[name] = parameter.default
    return values


@dataclass(frozen=True)
class _BuildCheck:
    """Builds a row's method on a made-up task, and reports every value that it refuses."""

    file: registry.MethodFile
    method_class: type[Method]
    takes: Mapping[str, registry.Hyperparameter]
    given: Mapping[str, _Given]
    row: str
    problems: Problems

    def build(self, params: Mapping[str, object], info: Info) -> Method | None:
        """Return the method, or None after a problem that no default can stand in for."""
        values = dict(params)
        while True:
            try:
                return build_method(self.method_class, values, dummy_task(info))
            except ValueError as error:
                wrong = self._report(error)
            except Exception as error:
                self._report_mistake(error)
                return None

            # Replace the refused value by its default and try again, so that all wrong values are
            # reported at once.
            if wrong is None or self.takes[wrong].required:
                return None
            if values[wrong] == self.takes[wrong].default:
                return None
            values[wrong] = self.takes[wrong].default

    def _report(self, error: ValueError) -> str | None:
        """Report what the constructor refused. Return the hyperparameter that it names, if any."""
        # An unknown key has been reported already, even if the message has its name.
        problem = problem_of(error, [name for name in self.given if name in self.takes])
        if not problem.path:
            self.problems.add(["methods", self.row], problem.message)
            return None

        name = str(problem.path[0])
        self.problems.add(self.given[name].path, problem.message)
        return name

    def _report_mistake(self, error: Exception) -> None:
        """Report a mistake in the method's file, which may be a user's own."""
        if isinstance(error, MethodError):
            self.problems.add(["methods", self.row], f"{self.file.path}: {error}")
            return
        spot = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{self.file.path}: cannot be built: {type(error).__name__}: {error}"
        self.problems.add(["methods", self.row], f"{what} ({spot.filename}:{spot.lineno})")
