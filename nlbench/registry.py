"""Methods and suites by name. The folder is the registry, and is listed without importing torch."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from nlbench.errors import SuiteError

if TYPE_CHECKING:
    from nlbench.method import Method


@dataclass(frozen=True)
class MethodFile:
    """The file that a method is in.

    Attributes:
        module: an importable name, or "" for a file outside any package.
        cls: the class in it, if an entry point names one.
    """

    name: str
    path: Path
    module: str
    cls: str = ""


def _folder(name: str) -> list[Path]:
    """Return the folders of the package nlbench.NAME. The build may have mapped it elsewhere."""
    spec = importlib.util.find_spec(f"nlbench.{name}")
    found = list(spec.submodule_search_locations or []) if spec else []
    return [Path(p) for p in found]


def _python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def method_files(extra: Iterable[Path] = ()) -> dict[str, MethodFile]:
    """Return every method by name.

    They are the shipped ones, and those of installed packages, of the folders in NLBENCH_METHODS,
    and of `extra` folders.

    Raises: SuiteError for a folder that is not there and for two files with one name.
    """
    found = [*_shipped_methods(), *_methods_in_folders(extra), *_installed_methods()]
    by_name: dict[str, MethodFile] = {}
    for file in found:
        # The same file may be found twice, for example in a folder that two options name.
        other = by_name.setdefault(file.name, file)
        if other.path.resolve() != file.path.resolve():
            both = f"{other.path} and {file.path}"
            raise SuiteError(f"two methods are named {file.name!r}: {both}; rename one of them")
    return dict(sorted(by_name.items()))


def _shipped_methods() -> Iterator[MethodFile]:
    for folder in _folder("methods"):
        for path in _python_files(folder):
            yield MethodFile(_name(path.stem), path, f"nlbench.methods.{path.stem}")


def _methods_in_folders(extra: Iterable[Path]) -> Iterator[MethodFile]:
    named = os.environ.get("NLBENCH_METHODS", "").split(os.pathsep)
    folders = [*(Path(name) for name in named if name), *extra]
    for folder in {folder.resolve(): folder for folder in folders}.values():
        if not folder.is_dir():
            source = "from --methods-dir or NLBENCH_METHODS"
            raise SuiteError(f"{folder}: not a folder of method files ({source})")
        for path in _python_files(folder):
            if _may_hold_a_method(path):
                yield MethodFile(_name(path.stem), path.resolve(), "")


def _may_hold_a_method(path: Path) -> bool:
    """Return false for a file of functions and values alone: a helper, which is not listed."""
    # The error of a file that cannot be read is shown when its method is loaded.
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return True

    makes_class = False
    for node in ast.walk(tree):
        # A class may also be made by a call that gets Method.
        names = [alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)]
        makes_class = makes_class or isinstance(node, ast.ClassDef) or "Method" in names
    defines = any(isinstance(node, ast.FunctionDef | ast.Assign) for node in tree.body)
    return makes_class or not defines


def without_method(name: str, files: Mapping[str, MethodFile]) -> Path | None:
    """Return the file of this name beside the users' own methods that holds no method, if any."""
    folders = {file.path.parent for file in files.values() if not file.module}
    for folder in sorted(folders):
        path = folder / f"{name.replace('-', '_')}.py"
        if path.is_file():
            return path
    return None


def _installed_methods() -> Iterator[MethodFile]:
    for point in entry_points(group="nlbench.methods"):
        name, path = _name(point.name), _origin(point.module)
        yield MethodFile(name, path, point.module, point.attr or "")


def _origin(module: str) -> Path:
    """Return the file of an installed module, or a likely one where it cannot be found.

    A module that cannot be found is an error when its method is loaded. Listing must work without.
    """
    # find_spec imports the packages around the module, which may raise anything.
    try:
        spec = importlib.util.find_spec(module)
    except Exception:
        spec = None
    if spec is not None and spec.origin:
        return Path(spec.origin)
    return Path(f"{module.replace('.', '/')}.py")


def _name(stem: str) -> str:
    return stem.replace("_", "-")


class NotOneMethod(SuiteError):
    """A method file holds no Method, or several.

    Attributes:
        what: what the file holds.
        fix: the likely fix.
    """

    def __init__(self, what: str, fix: str):
        super().__init__(f"{what}. fix: {fix}")
        self.what, self.fix = what, fix


class NotImportable(SuiteError):
    """A method file cannot be imported. The message holds the whole traceback.

    Attributes:
        in_short: file, line and error, in one line.
    """

    def __init__(self, path: Path, error: BaseException, text: str):
        hint = _hint_for_helper(path, error)
        super().__init__(f"{path}: cannot be imported{hint}\n{text}")
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == str(path)]
        place = f"{path}:{own[-1].lineno}" if own else str(path)
        if isinstance(error, SyntaxError) and error.filename == str(path):
            place = f"{path}:{error.lineno}"
        kind = type(error).__name__
        self.in_short = f"{place}: cannot be imported: {kind}: {error}".rstrip(": ") + hint


def _hint_for_helper(path: Path, error: BaseException) -> str:
    """Return how to import a file of the same folder, if that is what has failed."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    stem = error.name.rpartition(".")[2].partition(".")[0]
    beside = [
        name for name in (stem, f"_{stem.lstrip('_')}") if (path.parent / f"{name}.py").is_file()
    ]
    if not beside:
        return ""
    return (
        f". fix: {beside[0]}.py lies beside it: write `from .{beside[0]} import ...`, with the dot"
    )


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
            f"{file.path}: expected exactly one Method subclass, found {len(classes)}: {names}",
            _fix_for_classes(module, classes),
        )
    return classes[0]


def tells_parts(file: MethodFile) -> bool:
    """Return whether a method has the hook `gradient_parts`. Raises what `load_method` raises."""
    from nlbench.method import Method

    return load_method(file).gradient_parts is not Method.gradient_parts


def _fix_for_classes(module: ModuleType, classes: list[type[Method]]) -> str:
    """Return what to do in a file that holds no Method, or several."""
    from nlbench.method import Method

    if classes:
        return "keep one of them, and let the names of the others, which are helpers, begin with _"

    write = "write `class MyLoss(Method):` with `def loss(self, logits, batch)` in it"
    for name, value in vars(module).items():
        if not inspect.isclass(value):
            continue
        if value.__module__ == module.__name__ and issubclass(value, Method):
            return f"the name of {name} begins with _, as those of helpers do: rename it"
        if value.__module__ == module.__name__ and name != "Method":
            bases = ", ".join(base.__name__ for base in value.__bases__)
            return f"{name} derives from {bases} and not from Method: `class {name}(Method):`"
    for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, Method) and value is not Method:
            return f"{name} comes from {value.__module__}: derive a class from it in this file"
    return f"{write}; a file of helpers alone has a name that begins with _"


def refuse_wrong_hooks(cls: type[Method], path: Path) -> None:
    """Refuse a class with a hook that is never called, or that cannot be called.

    Args:
        path: the file that the message names.
    Raises: SuiteError with all problems.
    """
    from nlbench.contract import hooks

    problems = [f"{path}: {problem}" for problem in hooks.class_problems(cls)]
    if problems:
        raise SuiteError("\n".join(problems))


def module_name(file: MethodFile) -> str:
    """Return the name under which a method's file is imported.

    A folder of method files is a package, so that its files can import each other with
    `from ._helper import x`. Helpers of the same name in two folders do not meet.
    """
    if file.module:
        return file.module
    folder = file.path.parent
    package = f"nlbench_methods_{abs(hash(str(folder))):x}"
    if package not in sys.modules:
        made = ModuleType(package)
        made.__path__ = [str(folder)]
        sys.modules[package] = made
    return f"{package}.{file.path.stem}"


def _import(file: MethodFile) -> ModuleType:
    name = module_name(file)
    if name in sys.modules:
        return sys.modules[name]

    try:
        return importlib.import_module(name) if file.module else execute(file.path, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.modules.pop(name, None)
        text = traceback.format_exc().rstrip()
        raise NotImportable(file.path, error, text) from error


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
    default: object

    @property
    def required(self) -> bool:
        """Return whether it has no default."""
        return self.default is inspect.Parameter.empty


def hyperparameters(cls: type[Method]) -> dict[str, Hyperparameter]:
    """Return what a suite may set on a method, from its constructor's signature.

    Raises: SuiteError for an argument without a name or a type.
    """
    constructor = cls.__init__
    where = f"{inspect.getfile(cls)}: {cls.__name__}.__init__"
    # Evaluating an annotation may raise anything.
    try:
        hints = get_type_hints(constructor)
    except Exception as error:
        raise SuiteError(f"{where}: an annotation cannot be read: {error}") from None

    found = {}
    parameters = list(inspect.signature(constructor).parameters.values())
    _refuse_no_task(parameters, hints, where)
    # The first two are self and task.
    for p in parameters[2:]:
        starred = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if starred or p.kind == p.POSITIONAL_ONLY or p.name not in hints:
            raise SuiteError(
                f"{where}: argument {p.name!r} must be a named argument with a type annotation, "
                "because suites set it"
            )
        found[p.name] = Hyperparameter(p.name, hints[p.name], p.default)
    return found


def _refuse_no_task(parameters: list[inspect.Parameter], hints: dict[str, Any], where: str) -> None:
    """Refuse a constructor whose first argument after `self` is not the task."""
    right = "write def __init__(self, task: Task, ...) and super().__init__(task)"
    if len(parameters) < 2 and not any(p.kind == p.VAR_POSITIONAL for p in parameters):
        raise SuiteError(f"{where}: lacks the argument `task`. fix: {right}")

    first = parameters[1] if len(parameters) > 1 else parameters[0]
    is_value = hints.get(first.name) in (bool, int, float, str)
    if first.name != "task" and (is_value or first.default is not first.empty):
        raise SuiteError(
            f"{where}: its first argument is {first.name!r}, and nlbench passes the task there. "
            f"fix: {right}"
        )


def beside_methods(name: str) -> Path:
    """Return the path of a file about the shipped methods, which lies in their folder.

    Raises: FileNotFoundError for an installation without it.
    """
    for folder in _folder("methods"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"this installation of nlbench lacks methods/{name}")


def first_line(path: Path, function: str = "") -> str:
    """Return the first docstring line of a Python file, or of one function in it.

    The file is not imported.
    """
    # ValueError: the file is not UTF-8, or has a null byte.
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        return f"(cannot be read: {error})"

    node: ast.Module | ast.FunctionDef = tree
    if function:
        functions = (n for n in tree.body if isinstance(n, ast.FunctionDef))
        node = next(n for n in functions if n.name == function)
    return (ast.get_docstring(node) or "").partition("\n")[0]


def suite_files() -> dict[str, Path]:
    """Return the shipped suites by name."""
    found = {}
    for folder in _folder("suites"):
        for path in sorted(folder.glob("*.yaml")):
            found[path.stem] = path
    return found
