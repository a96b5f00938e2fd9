"""Names: the folder is the registry. Methods and suites are listed without importing torch."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from nlbench.errors import SuiteError

if TYPE_CHECKING:
    from nlbench.method import Method

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class MethodFile:
    """Where a method lives.

    Attributes:
        module: an importable name, or empty for a lone file.
        cls: the class in it, where an entry point names one.
    """

    name: str
    path: Path
    module: str
    cls: str = ""


def _folder(name: str) -> list[Path]:
    """Folders of a package that the build may have mapped elsewhere, as `nlbench.methods` in an editable install."""
    spec = importlib.util.find_spec(f"nlbench.{name}")
    found = list(spec.submodule_search_locations or []) if spec else []
    return [Path(p) for p in found]


def _python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def method_files(extra: Iterable[Path] = ()) -> dict[str, MethodFile]:
    """Every method by name: shipped, in NLBENCH_METHODS, in `extra` folders, and of installed packages.

    Raises SuiteError for a folder that is not there and for two files with one name.
    """
    found: list[MethodFile] = []
    for folder in _folder("methods"):
        found += [MethodFile(_name(p.stem), p, f"nlbench.methods.{p.stem}") for p in _python_files(folder)]
    asked = [Path(p) for p in os.environ.get("NLBENCH_METHODS", "").split(os.pathsep) if p]
    for folder in {p.resolve(): p for p in [*asked, *extra]}.values():
        if not folder.is_dir():
            raise SuiteError(f"{folder}: not a folder of method files (from --methods-dir or NLBENCH_METHODS)")
        found += [MethodFile(_name(p.stem), p.resolve(), "") for p in _python_files(folder)]
    for point in entry_points(group="nlbench.methods"):
        found.append(MethodFile(_name(point.name), _origin(point.module), point.module, point.attr or ""))
    by_name: dict[str, MethodFile] = {}
    for file in found:
        other = by_name.setdefault(file.name, file)
        if other.path.resolve() != file.path.resolve():
            raise SuiteError(f"two methods are named {file.name!r}: {other.path} and {file.path}; rename one of them")
    return dict(sorted(by_name.items()))


def _origin(module: str) -> Path:
    """The file of an installed module. One that cannot be found says so when its method is asked for, not here."""
    try:
        spec = importlib.util.find_spec(module)  # imports the packages around it
    except Exception:
        spec = None
    return Path(spec.origin) if spec and spec.origin else Path(f"{module.replace('.', '/')}.py")


def _name(stem: str) -> str:
    return stem.replace("_", "-")


class NotOneMethod(SuiteError):
    """A method file holds no Method, or several."""


def load_method(file: MethodFile) -> type[Method]:
    """Import a method's file and return the one Method subclass in it.

    Raises: SuiteError with the whole traceback if the import fails; NotOneMethod.
    """
    from nlbench.method import Method

    module = _import(file)
    # A list, as the class may have several names and the message keeps the order of the file.
    classes: list[type[Method]] = []
    for name, value in vars(module).items():
        if not (inspect.isclass(value) and issubclass(value, Method)):
            continue
        imported = value.__module__ != module.__name__
        if imported or name.startswith("_") or file.cls not in ("", name) or value in classes:
            continue
        classes.append(value)

    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise NotOneMethod(
            f"{file.path}: expected exactly one Method subclass, found {len(classes)}: {names}"
        )
    return classes[0]


def _import(file: MethodFile) -> ModuleType:
    name = file.module or f"nlbench_methods_{file.path.stem}_{abs(hash(str(file.path))):x}"
    if name in sys.modules:
        return sys.modules[name]

    try:
        return importlib.import_module(name) if file.module else execute(file.path, name)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        text = traceback.format_exc().rstrip()
        raise SuiteError(f"{file.path}: cannot be imported\n{text}") from error


def execute(path: Path, name: str) -> ModuleType:
    """Execute a Python file as a new module, and return it. sys.modules holds it under `name`.

    Raises: whatever the file raises. The module then stays in sys.modules.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")

    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Hyperparameter:
    """One keyword argument of a method after `task`."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def hyperparameters(cls: type[Method]) -> dict[str, Hyperparameter]:
    """What a suite may set on a method, from its constructor's signature."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[2:]
    try:
        hints = get_type_hints(cls.__init__)
    except Exception as error:  # whatever evaluating an annotation raises
        raise SuiteError(
            f"{inspect.getfile(cls)}: {cls.__name__}.__init__: an annotation cannot be read: {error}"
        ) from None
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name not in hints:
            raise SuiteError(
                f"{inspect.getfile(cls)}: {cls.__name__}.__init__: argument {p.name!r} must be a named argument "
                f"with a type annotation, because suites set it"
            )
    return {p.name: Hyperparameter(p.name, hints[p.name], p.default) for p in parameters}


def first_line(path: Path, function: str = "") -> str:
    """First docstring line of a Python file, or of one function in it; read without importing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a null byte
        return f"(cannot be read: {error})"
    node: Any = tree
    if function:
        node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    return (ast.get_docstring(node) or "").partition("\n")[0]


def suite_files() -> dict[str, Path]:
    """The suites that come with nlbench, by bare name."""
    folders = _folder("suites")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}
