"""Which file may import which, read from the sources. Imports point from `cli` down to `ops`."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "nlbench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])


def module_of(path):
    """Return the name under which a file is imported."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "methods":
        parts.insert(0, "nlbench")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path, *, at_import_time=False):
    """Return the modules that a file imports, also inside functions unless `at_import_time`.

    Imports under `if TYPE_CHECKING` do not count.
    """
    functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        # For a type checker alone, so it makes no dependency.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if at_import_time and isinstance(node, functions):
            continue

        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                # After `from nlbench import` comes a module, elsewhere it may be a name in one.
                full = f"{node.module}.{alias.name}"
                is_module = full in MODULES or full == "nlbench._core"
                found.add(full if is_module else node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            # A name that is put together only then, as a dataset's is, cannot be read here.
            found |= {name.value for name in node.args if isinstance(name, ast.Constant)}
        waiting += ast.iter_child_nodes(node)
    return found


def top(module):
    """Return the first part of a module's name."""
    return module.split(".")[0]


# The modules of the package that each of them imports.
GRAPH = {}
for name, path in MODULES.items():
    GRAPH[name] = {module for module in imported(path) if top(module) == "nlbench"}


def group(module):
    """Return the wing or leaf that a module belongs to, which is the second part of its name."""
    return [*module.split("."), ""][1]


# Without this, a mistake in reading the sources would let all other tests pass.
def test_the_graph_is_read():
    assert "nlbench.training.train" in GRAPH["nlbench.executors.local"]
    assert "nlbench.ops" in GRAPH["nlbench.methods.elr"]
    assert len(GRAPH) > 40


# The wings and leaves that each may import, from the top of the package down.
MAY = {
    # nlbench/__init__.py imports them inside a function, when a name is asked for.
    "": {"api", "reproduction", "errors"},
    "cli": {"api", "reproduction", "executors", "conformance", "bench", "results", "plan", "data"}
    | {"figures", "report", "suspects", "registry", "build", "models", "ops", "errors", "hardware"}
    | {"child", "watching", "trust", "embedding"},
    "api": {"executors", "results", "plan", "data", "registry", "models", "errors", "hardware"}
    | {"watching"},
    "reproduction": {"executors", "results", "plan", "data", "registry", "models", "errors"},
    "watching": {"training", "results", "plan", "errors", "files"},
    "executors": {"training", "results", "plan", "data", "code_hash", "registry"}
    | {"models", "errors", "files", "hardware", "process_state", "child"},
    "conformance": {"training", "results", "plan", "data", "registry", "build", "method"}
    | {"contract", "child", "errors"},
    "report": {"figures", "results", "registry", "trust", "errors", "files"},
    "figures": {"results", "errors", "files"},
    "bench": {"results", "ops", "errors", "hardware"},
    "suspects": {"results", "plan", "data", "errors", "files"},
    "training": {"results", "plan", "data", "code_hash", "registry", "build", "models"}
    | {"method", "contract", "ops", "errors", "files", "hardware", "streams", "process_state"},
    "embedding": {"data", "models", "errors", "files", "streams"},
    "results": {"plan", "code_hash", "registry", "errors", "files"},
    "plan": {"data", "registry", "build", "contract", "models", "errors", "files", "streams"}
    | {"child"},
    "data": {"errors", "files", "hardware", "streams"},
    "code_hash": {"models", "_core"},
    "registry": {"method", "contract", "errors"},
    "trust": {"registry"},
    "build": {"method", "contract", "errors"},
    "models": {"errors", "files"},
    "methods": {"method", "ops"},
    "method": {"contract"},
    "contract": {"errors"},
    "ops": {"_core"},
    "errors": set(),
    "files": set(),
    "hardware": set(),
    "process_state": set(),
    "child": set(),
    "streams": set(),
}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_down(module):
    own = group(module)
    assert own in MAY, f"nlbench/{own} is new: say in this test what it may import"

    for used in GRAPH[module]:
        assert group(used) in MAY[own] | {own}, f"{module} must not import {used}"


def test_nothing_imports_the_command_line():
    for module, used in GRAPH.items():
        if group(module) != "cli":
            assert "cli" not in map(group, used), f"{module} imports the command line"


def test_every_allowed_import_is_used():
    used = {own: set() for own in MAY}
    for module, others in GRAPH.items():
        used[group(module)] |= set(map(group, others))

    for own, allowed in MAY.items():
        assert allowed <= used[own], f"nlbench/{own} does not import {sorted(allowed - used[own])}"


def steps_of_the_picture():
    """Return the distance of each group of docs/layout.svg from the top, in pixels."""
    picture = (ROOT / "docs" / "layout.svg").read_text(encoding="utf-8")
    box_or_name = re.compile(r'<rect x="\d+" y="(\d+)"|font-weight="bold"[^>]*>([^<]+)<')

    depths, depth = {}, 0
    for top_of_box, names in box_or_name.findall(picture):
        # A box comes before the names that it holds.
        depth = int(top_of_box or depth)
        depths |= dict.fromkeys(re.findall(r"\w+", names), depth)
    return depths


def test_the_allowed_imports_point_down_in_the_picture():
    """Check MAY itself, which could be changed to allow a circle.

    Two groups at the same depth do not import each other.
    """
    depths = steps_of_the_picture()
    lowest = max(depths.values())
    # The picture shows nlbench's own sources. Methods lie beside them, and `registry` loads them.
    depths |= {"": 0, "methods": depths["registry"], "_core": lowest + 1}

    assert set(depths) == {*MAY, "_core"}
    for own, allowed in MAY.items():
        for other in allowed:
            assert depths[own] < depths[other], f"{own} is not above {other} in layout.svg"


METHOD_FILES = sorted((ROOT / "methods").glob("*.py"))


@pytest.mark.parametrize("path", METHOD_FILES, ids=lambda p: p.stem)
def test_a_method_file_imports_little(path):
    known = {"torch", "numpy", "sklearn", *sys.stdlib_module_names}
    for module in imported(path):
        if top(module) == "nlbench":
            # A method that is built around another one, as `sam` is, imports that one's file.
            assert group(module) in ("method", "methods", "ops"), f"{path.name} imports {module}"
        else:
            assert top(module) in known, f"{path.name} imports {module}"


@pytest.mark.parametrize(
    "module",
    [
        "cli.app",
        "registry",
        "trust",
        "plan.protocol",
        "plan.problems",
        "plan.expand",
        "api",
        "reproduction.interface",
        "results.merge",
        "results.store",
        "results.table",
        "results.agreement",
        "suspects.dataset",
        "suspects.page",
        "suspects.quality",
        "suspects.relabel",
        "report.page",
    ],
)
def test_lists_and_tables_do_without_torch(module):
    """Follow all imports that are executed when the module is imported."""
    waiting, seen = [f"nlbench.{module}"], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)

        used = imported(MODULES[name], at_import_time=True)
        assert not {"torch", "torchvision", "timm"} & set(map(top, used)), name
        waiting += [other for other in used if other in MODULES and other not in seen]
